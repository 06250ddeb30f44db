//! What has to be done from time to time: what retention ends is removed, reservations that were lost are charged, and the
//! database gives back its room. Nothing is removed by a date that cannot be trusted.

use std::sync::Arc;
use std::time::Duration;

use enigma_core::ports::{Clock, IdSource};
use enigma_core::retrieval::GIVEN_UP_AFTER;
use enigma_core::session::DateGuard;
use enigma_core::tenant::Tenant;
use enigma_core::{PortError, Timestamp};
use enigma_memory::MemoryTenantDirectory;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::storage::Stores;

/// How often, on average.
const EVERY: Duration = Duration::from_secs(3600);
/// The first time comes after the rush of a start.
const FIRST: Duration = Duration::from_secs(60);

/// The work, and what it needs.
pub(crate) struct Maintenance {
    pub(crate) stores: Stores,
    pub(crate) tenants: Arc<MemoryTenantDirectory>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn IdSource>,
}

/// What it remembers from one time to the next.
struct State {
    rebuilt_at: Timestamp,
    date: DateGuard,
}

impl Maintenance {
    /// Does it again and again, until `ending`. What is under way then is left where it is; the next start goes on with it.
    pub(crate) async fn run(self, ending: CancellationToken) {
        let again_and_again = async {
            let mut state = self.begin();
            let (mut pause, mut last) = (FIRST, Instant::now());
            loop {
                self.clock.sleep(self.jittered(pause)).await;
                let now = Instant::now();
                self.once(&mut state, now - last).await;
                (pause, last) = (EVERY, now);
            }
        };
        ending.run_until_cancelled(again_and_again).await;
    }

    /// From nine to eleven tenths, so that servers that were started together do not work together for ever.
    fn jittered(&self, pause: Duration) -> Duration {
        pause.mul_f64(0.9 + 0.2 * self.ids.unit())
    }

    fn begin(&self) -> State {
        let now = self.clock.now();
        let written = self.stores.durable.as_ref().and_then(|durable| durable.written);
        State { rebuilt_at: now, date: DateGuard::new(written, now) }
    }

    /// Does it once, `elapsed` after the last time.
    async fn once(&self, state: &mut State, elapsed: Duration) {
        let State { rebuilt_at, date } = state;
        let may_remove = date.trusts(self.clock.now(), elapsed);
        if !may_remove {
            tracing::warn!(now = %self.clock.now(), "the clock has jumped ahead: nothing is removed until it is put right, or has stood for a day");
        }
        let mut removed = 0;
        for tenant in self.tenants.snapshot().tenants() {
            match self.tend(tenant, may_remove, self.clock.now()).await {
                Ok(rows) => removed += rows,
                Err(error) => tracing::error!(tenant = %tenant.id(), %error, "maintenance of a tenant failed"),
            }
        }
        if let Some(durable) = &self.stores.durable {
            let now = self.clock.now();
            let is_due = durable.rebuild_every.is_some_and(|every| now.since(*rebuilt_at) >= every);
            let done = if is_due { durable.maintenance.rebuild().await } else { durable.maintenance.compact().await };
            match done {
                Ok(()) if is_due => *rebuilt_at = now,
                Ok(()) => {}
                Err(error) => tracing::error!(%error, is_due, "the database could not be compacted"),
            }
        }
        tracing::info!(removed, "maintenance done");
    }

    async fn tend(&self, tenant: &Tenant, may_remove: bool, now: Timestamp) -> Result<u64, PortError> {
        // The books charge what has expired when they are looked at.
        self.stores.ledger.balance(tenant.id(), now).await?;
        if !may_remove {
            return Ok(0);
        }
        if let Some(durable) = &self.stores.durable {
            return Ok(durable.maintenance.sweep(tenant.id(), tenant.retention(), now).await?.total());
        }
        let messages = self.stores.sessions.sweep(tenant.id(), tenant.retention(), now).await?;
        // What was given up takes room that the tenant's documents need.
        let chunks = self.stores.corpus.sweep(tenant.id(), now.saturating_sub(GIVEN_UP_AFTER)).await?;
        Ok(messages + chunks + self.stores.audit.sweep(tenant.id(), now).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::{OsIds, SystemClock};
    use crate::config;
    use enigma_core::ports::TokenLedger;
    use enigma_core::retrieval::{Chunk, Document, DocumentId, EmbeddedChunk, EmbeddingSpace, Metadata, Staging};
    use enigma_core::tenant::{TenantIndex, TokenBudget};
    use enigma_core::{ModelId, RequestId, TenantId, VersionId};
    use enigma_memory::testing::ManualClock;

    const VERSION: VersionId = VersionId::new(uuid::Uuid::nil());

    fn maintenance(clock: &Arc<ManualClock>) -> Maintenance {
        let tenant = Tenant::from_json(r#"{ "tenantId": "acme", "aiModels": { "chat": "m" } }"#).unwrap();
        Maintenance {
            stores: crate::storage::open(&config::Storage::Memory).unwrap(),
            tenants: Arc::new(MemoryTenantDirectory::new(TenantIndex::new([tenant]).unwrap())),
            clock: Arc::clone(clock) as Arc<dyn Clock>,
            ids: Arc::new(OsIds),
        }
    }

    async fn settled(ledger: &dyn TokenLedger, now: Timestamp) -> u64 {
        ledger.balance(&TenantId::new("acme").unwrap(), now).await.unwrap().day.settled
    }

    #[tokio::test]
    async fn a_lost_reservation_is_charged() {
        let start = Timestamp::from_millis(1_000_000);
        let clock = Arc::new(ManualClock::new(start));
        let maintenance = maintenance(&clock);
        let ledger = Arc::clone(&maintenance.stores.ledger);
        let (tenant, request) = (TenantId::new("acme").unwrap(), RequestId::new(uuid::Uuid::nil()));
        let lifetime = Duration::from_secs(10);
        ledger.reserve(&tenant, request, 7, &TokenBudget::default(), lifetime, start).await.unwrap().unwrap();
        let mut state = maintenance.begin();
        clock.advance(Duration::from_secs(11));
        maintenance.once(&mut state, Duration::from_secs(11)).await;
        assert_eq!(settled(&*ledger, start).await, 7);
    }

    #[tokio::test]
    async fn the_database_is_written_anew_when_that_is_due() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("enigma.db");
        let storage = config::Storage::File {
            path: path.clone(),
            synchronous: enigma_sqlite::Synchronous::Off,
            rebuild_every: Some(Duration::from_secs(3600)),
        };
        let start = Timestamp::from_millis(1_000_000_000_000);
        let clock = Arc::new(ManualClock::new(start));
        let stores = crate::storage::open(&storage).unwrap();
        let maintenance = Maintenance { stores: stores.clone(), ..maintenance(&clock) };
        let mut state = maintenance.begin();
        maintenance.once(&mut state, Duration::ZERO).await;
        assert_eq!(state.rebuilt_at, start, "it is not due yet");
        clock.advance(Duration::from_secs(3600));
        maintenance.once(&mut state, Duration::from_secs(3600)).await;
        assert_eq!(state.rebuilt_at, clock.now());
        let tenant = TenantId::new("acme").unwrap();
        assert!(stores.ledger.balance(&tenant, clock.now()).await.is_ok(), "the database goes on");
    }

    #[tokio::test]
    async fn a_clock_that_jumps_ahead_removes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("enigma.db");
        let synchronous = enigma_sqlite::Synchronous::Off;
        let storage = config::Storage::File { path, synchronous, rebuild_every: None };
        let now = SystemClock.now();
        let clock = Arc::new(ManualClock::new(now));
        let tenant = TenantId::new("acme").unwrap();
        let session = enigma_core::SessionId::new(uuid::Uuid::nil());
        let retention = enigma_core::session::Retention { days: 30, max_messages: 10 };
        let message = enigma_core::session::StoredMessage {
            id: enigma_core::MessageId::new(uuid::Uuid::nil()),
            role: enigma_core::model::Role::User,
            content: "remember me".to_owned(),
            at: now,
            tokens: None,
            truncated: false,
        };
        let hour = Duration::from_secs(3600);
        let far = hour * 24 * 365;
        let is_there = async |stores: &Stores| {
            stores.sessions.page(&tenant, &session, None, 10, &retention, now).await.unwrap().is_some()
        };
        {
            let stores = crate::storage::open(&storage).unwrap();
            let user = enigma_core::UserId::new("alice").unwrap();
            let turn = enigma_core::session::Turn { user, messages: vec![message] };
            stores.sessions.append_turn(&tenant, &session, &turn, &retention, now).await.unwrap();
            let maintenance = Maintenance { stores: stores.clone(), ..maintenance(&clock) };
            let mut state = maintenance.begin();
            clock.advance(far);
            maintenance.once(&mut state, hour).await;
            assert!(is_there(&stores).await, "a step ahead has removed it");
            stores.durable.as_ref().unwrap().database.close().await;
        }
        // A machine that starts with a wrong date.
        let stores = crate::storage::open(&storage).unwrap();
        let maintenance = Maintenance { stores: stores.clone(), ..maintenance(&clock) };
        let mut state = maintenance.begin();
        maintenance.once(&mut state, Duration::from_secs(60)).await;
        assert!(is_there(&stores).await, "a start in the future has removed it");
        // It is no mistake: the year has really passed.
        clock.advance(hour * 25);
        maintenance.once(&mut state, hour * 25).await;
        assert!(!is_there(&stores).await, "what has had its time is removed in the end");
    }

    /// A version of two chunks, of which one is staged before its process dies, and an answer to a search.
    async fn leave_something(stores: &Stores, tenant: &TenantId, now: Timestamp) {
        let document = DocumentId::new("doc").unwrap();
        let space = EmbeddingSpace { model: ModelId::new("m").unwrap(), dimensions: 2 };
        let staging = Staging { document: &document, version: VERSION, space: &space };
        let chunk = Chunk { ordinal: 0, start: 0, text: "words".to_owned() };
        let chunks = [EmbeddedChunk { chunk, vector: vec![1.0, 0.0] }];
        stores.corpus.stage(tenant, staging, &chunks, now).await.unwrap();
        stores.cache.put(tenant, "question", "answer", now.saturating_add(Duration::from_secs(60)), now).await.unwrap();
    }

    /// Whether the version could still be published, in whose stead a published one would be found.
    async fn is_staged(stores: &Stores, tenant: &TenantId, now: Timestamp) -> bool {
        let id = DocumentId::new("doc").unwrap();
        let document = Document { id, source: None, title: None, url: None, metadata: Metadata::default() };
        let space = EmbeddingSpace { model: ModelId::new("m").unwrap(), dimensions: 2 };
        stores.corpus.publish(tenant, VERSION, &document, &space, 1, now).await.unwrap().is_ok()
    }

    #[tokio::test]
    async fn what_an_ingestion_left_half_done_and_answers_that_have_expired_are_removed() {
        let tenant = TenantId::new("acme").unwrap();
        let hour = Duration::from_secs(3600);
        for is_durable in [false, true] {
            for (waits, stays) in [(hour, true), (hour + Duration::from_millis(1), false)] {
                let directory = tempfile::tempdir().unwrap();
                let synchronous = enigma_sqlite::Synchronous::Off;
                let path = directory.path().join("enigma.db");
                let file = config::Storage::File { path, synchronous, rebuild_every: None };
                let storage = if is_durable { file } else { config::Storage::Memory };
                let clock = Arc::new(ManualClock::new(SystemClock.now()));
                let stores = crate::storage::open(&storage).unwrap();
                leave_something(&stores, &tenant, clock.now()).await;
                let maintenance = Maintenance { stores: stores.clone(), ..maintenance(&clock) };
                let mut state = maintenance.begin();
                clock.advance(waits);
                maintenance.once(&mut state, waits).await;
                if let Some(durable) = &stores.durable {
                    let retention = enigma_core::session::Retention { days: 30, max_messages: 10 };
                    let left = durable.maintenance.sweep(&tenant, &retention, clock.now()).await.unwrap();
                    assert_eq!(left.total(), 0, "it has removed what has had its time");
                }
                assert_eq!(is_staged(&stores, &tenant, clock.now()).await, stays, "{storage:?} {waits:?}");
            }
        }
    }

    #[tokio::test]
    async fn it_ends_when_it_is_told_to() {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(0)));
        let ending = CancellationToken::new();
        ending.cancel();
        maintenance(&clock).run(ending).await;
    }

    #[test]
    fn pauses_differ_by_a_tenth_at_most() {
        let maintenance = maintenance(&Arc::new(ManualClock::new(Timestamp::from_millis(0))));
        for _ in 0..100 {
            let pause = maintenance.jittered(Duration::from_secs(100)).as_secs_f64();
            assert!((90.0..=110.0).contains(&pause), "{pause}");
        }
    }
}
