//! [`Telemetry`]. The port only takes records, so its runner also says how the records of a tenant are read back:
//!
//! ```ignore
//! telemetry::$case(&adapter, |tenant| async { adapter.records(&tenant) }.boxed()).await
//! ```

use std::time::Duration;

use enigma_core::ports::Telemetry;
use enigma_core::usage::{Ending, UsageRecord};
use enigma_core::{ModelId, ProviderId, TenantId, TraceId};
use futures_util::future::{BoxFuture, join_all};

use crate::fixture::{acme, acme_eu, after, request, session, user};

/// Lists the cases of this port.
#[macro_export]
macro_rules! telemetry_cases {
    ($run:ident) => {
        $run!(a_record_is_kept_as_it_was_given);
        $run!(every_request_is_kept);
        $run!(a_second_record_of_a_request_changes_nothing);
        $run!(concurrent_records_of_one_request_are_one);
        $run!(tenants_are_isolated);
    };
}

/// A way to read all records of a tenant, in any order.
pub trait ReadRecords<'a>: Fn(TenantId) -> BoxFuture<'a, Vec<UsageRecord>> + Send + Sync {}

impl<'a, F: Fn(TenantId) -> BoxFuture<'a, Vec<UsageRecord>> + Send + Sync> ReadRecords<'a> for F {}

fn record(number: u128, ending: Ending) -> UsageRecord {
    UsageRecord {
        request: request(number),
        trace: TraceId::new("trace-1").expect("a valid trace"),
        route: "/v1/chat/completions".to_owned(),
        user: user("Zoë 'the' user; --"),
        session: Some(session(7)),
        model: ModelId::new("@cf/meta/llama").expect("a valid model"),
        provider: Some(ProviderId::new("local").expect("a valid provider")),
        at: after(1234),
        latency: Duration::from_millis(2345),
        first_token: Some(Duration::from_millis(345)),
        tokens_in: 100,
        tokens_out: u32::MAX,
        characters: Some(5000),
        estimated: true,
        charged: (1 << 50) + 1,
        overrun: 3,
        ending,
    }
}

async fn give(telemetry: &dyn Telemetry, tenant: &TenantId, record: &UsageRecord) {
    telemetry.record_usage(tenant, record).await.expect("the record is taken");
}

/// Every field comes back, with and without what is optional.
pub async fn a_record_is_kept_as_it_was_given<'a>(telemetry: &dyn Telemetry, read: impl ReadRecords<'a>) {
    let full = record(1, Ending::Finished);
    let bare = UsageRecord {
        session: None,
        provider: None,
        first_token: None,
        characters: None,
        estimated: false,
        at: after(5000),
        ..record(2, Ending::Failed)
    };
    give(telemetry, &acme(), &full).await;
    give(telemetry, &acme(), &bare).await;
    let mut records = read(acme()).await;
    records.sort_by_key(|record| record.at);
    assert_eq!(records, [full, bare]);
}

/// Requests of every ending are there.
pub async fn every_request_is_kept<'a>(telemetry: &dyn Telemetry, read: impl ReadRecords<'a>) {
    let endings = [Ending::Finished, Ending::Failed, Ending::TimedOut, Ending::ClientGone, Ending::ShutDown];
    for (number, ending) in (0..).zip(endings.into_iter().cycle().take(50)) {
        give(telemetry, &acme(), &record(number, ending)).await;
    }
    let records = read(acme()).await;
    assert_eq!(records.len(), 50);
    for ending in endings {
        assert_eq!(records.iter().filter(|record| record.ending == ending).count(), 10, "{ending:?}");
    }
}

/// The first record of a request stays, whatever comes after it.
pub async fn a_second_record_of_a_request_changes_nothing<'a>(telemetry: &dyn Telemetry, read: impl ReadRecords<'a>) {
    let first = record(1, Ending::Finished);
    give(telemetry, &acme(), &first).await;
    give(telemetry, &acme(), &first).await;
    give(telemetry, &acme(), &UsageRecord { charged: 9, ..record(1, Ending::Failed) }).await;
    assert_eq!(read(acme()).await, [first]);
}

/// Records of one request that come at once are kept once.
pub async fn concurrent_records_of_one_request_are_one<'a>(telemetry: &dyn Telemetry, read: impl ReadRecords<'a>) {
    let (acme, one) = (acme(), record(1, Ending::Finished));
    join_all((0..32).map(|_| give(telemetry, &acme, &one))).await;
    assert_eq!(read(acme).await, [one]);
}

/// A tenant's records are its own, even where two tenants' requests have one id.
pub async fn tenants_are_isolated<'a>(telemetry: &dyn Telemetry, read: impl ReadRecords<'a>) {
    let (ours, theirs) = (record(1, Ending::Finished), record(1, Ending::Failed));
    give(telemetry, &acme(), &ours).await;
    assert_eq!(read(acme_eu()).await, []);
    give(telemetry, &acme_eu(), &theirs).await;
    assert_eq!(read(acme()).await, [ours]);
    assert_eq!(read(acme_eu()).await, [theirs]);
}
