//! [`AuditLog`].

use std::time::Duration;

use enigma_core::ports::AuditLog;
use enigma_core::tools::{AuditOutcome, AuditQuery, AuditRecord, ParamsHash};
use enigma_core::{AuditId, TenantId, Timestamp, ToolName, TraceId};
use futures_util::future::join_all;
use uuid::Uuid;

use crate::fixture::{DAY, NOON, acme, acme_eu, after, request, user};

/// Lists the cases of this port.
#[macro_export]
macro_rules! audit_log_cases {
    ($run:ident) => {
        $run!(a_record_is_listed_as_it_was_given);
        $run!(the_newest_come_first);
        $run!(a_record_is_kept_once);
        $run!(a_query_chooses_by_tool_and_time);
        $run!(pages_hold_every_record_once);
        $run!(what_has_expired_is_not_listed_and_goes);
        $run!(concurrent_records_are_all_kept);
        $run!(tenants_are_isolated);
    };
}

fn id(number: u128) -> AuditId {
    AuditId::new(Uuid::from_u128(number))
}

fn tool(name: &str) -> ToolName {
    ToolName::new(name).expect("cases use valid names of tools")
}

fn record(number: u128, name: &str, at: Timestamp) -> AuditRecord {
    AuditRecord {
        id: id(number),
        at,
        request: request(7),
        trace: TraceId::new("trace-1").expect("it is one"),
        route: "/tools/execute".to_owned(),
        user: user("alice"),
        tool: tool(name),
        params: ParamsHash::from_bytes([u8::try_from(number % 251).unwrap_or_default(); 32]),
        outcome: AuditOutcome::Succeeded,
        duration: Duration::from_millis(250),
        tokens: 42,
        expires_at: at.saturating_add(7 * DAY),
    }
}

async fn append(log: &dyn AuditLog, tenant: &TenantId, record: &AuditRecord) {
    log.append(tenant, record).await.expect("the log answers");
}

/// Everything from the first page to the last, `limit` at a time.
async fn list(
    log: &dyn AuditLog,
    tenant: &TenantId,
    query: &AuditQuery,
    limit: u32,
    now: Timestamp,
) -> Vec<AuditRecord> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = log.list(tenant, query, after, limit, now).await.expect("the log answers");
        assert!(page.records.len() <= limit as usize);
        assert!(after.is_none() || !page.records.is_empty(), "a page that was promised holds something");
        all.extend(page.records);
        assert!(all.len() < 1000, "the pages come to an end");
        match page.next {
            Some(next) => after = Some(next),
            None => return all,
        }
    }
}

async fn listed(log: &dyn AuditLog, tenant: &TenantId) -> Vec<AuditId> {
    list(log, tenant, &AuditQuery::default(), 100, NOON).await.into_iter().map(|record| record.id).collect()
}

/// Every field comes back, whatever the outcome.
pub async fn a_record_is_listed_as_it_was_given(log: &dyn AuditLog) {
    let mut given: Vec<AuditRecord> = Vec::new();
    for (number, outcome) in (0u32..).zip(AuditOutcome::ALL) {
        let record = AuditRecord {
            outcome,
            user: user("Zoë 'the' user; --"),
            duration: Duration::from_millis(u64::from(number) * 1_000_003),
            tokens: 1 << (6 * number),
            ..record(u128::MAX - u128::from(number), "summarize", after(u64::from(number)))
        };
        append(log, &acme(), &record).await;
        given.insert(0, record);
    }
    assert_eq!(list(log, &acme(), &AuditQuery::default(), 10, NOON).await, given);
}

/// In whatever order they were appended; those of one time by their ids.
pub async fn the_newest_come_first(log: &dyn AuditLog) {
    for (number, at) in [(1, 20), (2, 40), (4, 10), (3, 10), (5, 30)] {
        append(log, &acme(), &record(number, "summarize", after(at))).await;
    }
    assert_eq!(listed(log, &acme()).await, [2, 5, 1, 3, 4].map(id));
}

/// As when an answer was lost and it is appended again.
pub async fn a_record_is_kept_once(log: &dyn AuditLog) {
    for _ in 0..3 {
        append(log, &acme(), &record(1, "summarize", NOON)).await;
    }
    assert_eq!(listed(log, &acme()).await, [id(1)]);
}

/// The first moment is included, the last one is not.
pub async fn a_query_chooses_by_tool_and_time(log: &dyn AuditLog) {
    for number in 0..6u64 {
        let name = if number % 2 == 0 { "summarize" } else { "Summarize" };
        append(log, &acme(), &record(number.into(), name, after(number * 10))).await;
    }
    let of = async |name: Option<&str>, since: Option<u64>, until: Option<u64>| {
        let query = AuditQuery { tool: name.map(tool), since: since.map(after), until: until.map(after) };
        let mut found = Vec::new();
        for limit in [1, 2, 10] {
            let records = list(log, &acme(), &query, limit, NOON).await;
            found.push(records.into_iter().map(|record| record.id).collect::<Vec<_>>());
        }
        assert!(found.iter().all(|ids| *ids == found[0]), "the size of a page changes nothing");
        found.swap_remove(0)
    };
    assert_eq!(of(Some("summarize"), None, None).await, [4, 2, 0].map(id));
    assert_eq!(of(Some("Summarize"), Some(20), None).await, [5, 3].map(id));
    assert_eq!(of(None, Some(20), Some(40)).await, [3, 2].map(id));
    assert_eq!(of(None, None, Some(10)).await, [id(0)]);
    assert_eq!(of(Some("translate"), None, None).await, []);
    assert_eq!(of(None, Some(51), None).await, []);
}

/// Whatever the size of a page, and where many were written at the same time.
pub async fn pages_hold_every_record_once(log: &dyn AuditLog) {
    for number in 0..30u32 {
        append(log, &acme(), &record(number.into(), "summarize", after(u64::from(number / 7)))).await;
    }
    for limit in [1, 2, 7, 29, 30, 31] {
        let records = list(log, &acme(), &AuditQuery::default(), limit, NOON).await;
        assert!(records.is_sorted_by(|one, next| one.at >= next.at));
        let mut ids: Vec<_> = records.into_iter().map(|record| record.id).collect();
        ids.sort();
        assert_eq!(ids, (0..30).map(id).collect::<Vec<_>>(), "{limit} a page");
    }
}

/// From the moment of its end on.
pub async fn what_has_expired_is_not_listed_and_goes(log: &dyn AuditLog) {
    for number in 0..4u64 {
        append(log, &acme(), &record(number.into(), "summarize", after(number))).await;
    }
    let end = after(1).saturating_add(7 * DAY);
    let left = list(log, &acme(), &AuditQuery::default(), 10, end).await;
    assert_eq!(left.into_iter().map(|record| record.id).collect::<Vec<_>>(), [3, 2].map(id));
    // An adapter may have removed some of them by itself already.
    assert!(log.sweep(&acme(), end).await.expect("the log answers") <= 2);
    assert_eq!(log.sweep(&acme(), end).await.expect("the log answers"), 0);
    assert_eq!(listed(log, &acme()).await, [3, 2].map(id), "what was swept is gone, by any clock");
}

/// None is lost to another.
pub async fn concurrent_records_are_all_kept(log: &dyn AuditLog) {
    let acme = acme();
    let records: Vec<_> = (0..32u64).map(|number| record(number.into(), "summarize", after(number))).collect();
    join_all(records.iter().map(|record| append(log, &acme, record))).await;
    assert_eq!(listed(log, &acme).await, (0..32).rev().map(id).collect::<Vec<_>>());
}

/// Even where two tenants' records have one id and one time; and a sweep of one removes nothing of another's.
pub async fn tenants_are_isolated(log: &dyn AuditLog) {
    append(log, &acme(), &record(1, "summarize", NOON)).await;
    assert_eq!(listed(log, &acme_eu()).await, []);
    append(log, &acme_eu(), &record(1, "translate", NOON)).await;
    append(log, &acme_eu(), &record(2, "summarize", NOON)).await;
    assert_eq!(list(log, &acme(), &AuditQuery::default(), 10, NOON).await, [record(1, "summarize", NOON)]);
    let query = AuditQuery { tool: Some(tool("translate")), ..AuditQuery::default() };
    assert_eq!(list(log, &acme(), &query, 10, NOON).await, []);
    assert_eq!(log.sweep(&acme(), NOON.saturating_add(8 * DAY)).await.expect("the log answers"), 1);
    assert_eq!(listed(log, &acme()).await, []);
    assert_eq!(listed(log, &acme_eu()).await, [1, 2].map(id));
}
