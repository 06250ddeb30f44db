//! The promises of the ports.

mod session_store {
    macro_rules! run {
        ($case:ident) => {
            #[tokio::test]
            async fn $case() {
                let fixture = crate::support::Fixture::new();
                let store = enigma_sqlite::SqliteSessionStore::new(fixture.database.clone());
                enigma_contract::session_store::$case(&store).await;
            }
        };
    }
    enigma_contract::session_store_cases!(run);
}

mod session_index {
    macro_rules! run {
        ($case:ident) => {
            #[tokio::test]
            async fn $case() {
                let fixture = crate::support::Fixture::new();
                let index = enigma_sqlite::SqliteSessionIndex::new(fixture.database.clone());
                enigma_contract::session_index::$case(&index).await;
            }
        };
    }
    enigma_contract::session_index_cases!(run);
}

mod audit_log {
    macro_rules! run {
        ($case:ident) => {
            #[tokio::test]
            async fn $case() {
                let fixture = crate::support::Fixture::new();
                let log = enigma_sqlite::SqliteAuditLog::new(fixture.database.clone());
                enigma_contract::audit_log::$case(&log).await;
            }
        };
    }
    enigma_contract::audit_log_cases!(run);
}

mod token_ledger {
    macro_rules! run {
        ($case:ident) => {
            #[tokio::test]
            async fn $case() {
                let fixture = crate::support::Fixture::new();
                let ledger = enigma_sqlite::SqliteTokenLedger::new(fixture.database.clone());
                enigma_contract::token_ledger::$case(&ledger).await;
            }
        };
    }
    enigma_contract::token_ledger_cases!(run);
}

mod idempotency_store {
    macro_rules! run {
        ($case:ident) => {
            #[tokio::test]
            async fn $case() {
                let fixture = crate::support::Fixture::new();
                let store = enigma_sqlite::SqliteIdempotencyStore::new(fixture.database.clone());
                enigma_contract::idempotency_store::$case(&store).await;
            }
        };
    }
    enigma_contract::idempotency_store_cases!(run);
}

mod corpus {
    macro_rules! run {
        ($case:ident) => {
            #[tokio::test]
            async fn $case() {
                let fixture = crate::support::Fixture::new();
                let corpus = enigma_sqlite::SqliteCorpus::new(fixture.database.clone());
                enigma_contract::corpus::$case(&corpus).await;
            }
        };
    }
    enigma_contract::corpus_cases!(run);
}

mod cache {
    macro_rules! run {
        ($case:ident) => {
            #[tokio::test]
            async fn $case() {
                let fixture = crate::support::Fixture::new();
                let cache = enigma_sqlite::SqliteCache::new(fixture.database.clone());
                enigma_contract::cache::$case(&cache).await;
            }
        };
    }
    enigma_contract::cache_cases!(run);
}

mod telemetry {
    use std::pin::Pin;

    use enigma_core::usage::UsageRecord;
    use enigma_core::{TenantId, Timestamp};
    use enigma_sqlite::SqliteTelemetry;

    type Records = Pin<Box<dyn Future<Output = Vec<UsageRecord>> + Send>>;

    fn read(telemetry: &SqliteTelemetry, tenant: TenantId) -> Records {
        let telemetry = telemetry.clone();
        let (first, last) = (Timestamp::from_millis(0), Timestamp::from_millis(u64::MAX));
        Box::pin(async move { telemetry.usage(&tenant, first, last, u32::MAX).await.unwrap() })
    }

    macro_rules! run {
        ($case:ident) => {
            #[tokio::test]
            async fn $case() {
                let fixture = crate::support::Fixture::new();
                let telemetry = SqliteTelemetry::new(fixture.database.clone());
                enigma_contract::telemetry::$case(&telemetry, |tenant| read(&telemetry, tenant)).await;
            }
        };
    }
    enigma_contract::telemetry_cases!(run);
}

mod request_books {
    use std::sync::Arc;

    use async_trait::async_trait;
    use enigma_contract::request_books::ReadBooks;
    use enigma_core::books::ComposedBooks;
    use enigma_core::ports::{LedgerBalance, TokenLedger};
    use enigma_core::usage::UsageRecord;
    use enigma_core::{TenantId, Timestamp};
    use enigma_memory::{MemoryRateLimiter, MemoryStreamSlots};
    use enigma_sqlite::{SqliteRequestBooks, SqliteTelemetry, SqliteTokenLedger};

    struct Read {
        ledger: SqliteTokenLedger,
        telemetry: SqliteTelemetry,
    }

    #[async_trait]
    impl ReadBooks for Read {
        async fn balance(&self, tenant: &TenantId, now: Timestamp) -> LedgerBalance {
            self.ledger.balance(tenant, now).await.unwrap()
        }

        async fn records(&self, tenant: &TenantId) -> Vec<UsageRecord> {
            let (first, last) = (Timestamp::from_millis(0), Timestamp::from_millis(u64::MAX));
            self.telemetry.usage(tenant, first, last, u32::MAX).await.unwrap()
        }
    }

    macro_rules! run {
        ($case:ident) => {
            #[tokio::test]
            async fn $case() {
                let fixture = crate::support::Fixture::new();
                let ledger = SqliteTokenLedger::new(fixture.database.clone());
                let telemetry = SqliteTelemetry::new(fixture.database.clone());
                let books = ComposedBooks::new(
                    Arc::new(MemoryRateLimiter::default()),
                    Arc::new(MemoryStreamSlots::default()),
                    Arc::new(ledger.clone()),
                    Arc::new(telemetry.clone()),
                );
                enigma_contract::request_books::$case(&books, &Read { ledger, telemetry }).await;

                let fixture = crate::support::Fixture::new();
                let books = SqliteRequestBooks::new(
                    Arc::new(MemoryRateLimiter::default()),
                    Arc::new(MemoryStreamSlots::default()),
                    fixture.database.clone(),
                );
                let ledger = SqliteTokenLedger::new(fixture.database.clone());
                let telemetry = SqliteTelemetry::new(fixture.database.clone());
                enigma_contract::request_books::$case(&books, &Read { ledger, telemetry }).await;
            }
        };
    }
    enigma_contract::request_books_cases!(run);
}

mod session_turns {
    use std::sync::Arc;

    use enigma_core::turns::QueuedTurns;
    use enigma_memory::MemoryTurnQueue;
    use enigma_sqlite::{SqliteSessionIndex, SqliteSessionStore, SqliteSessionTurns};

    macro_rules! run {
        ($case:ident) => {
            #[tokio::test]
            async fn $case() {
                let fixture = crate::support::Fixture::new();
                let store = Arc::new(SqliteSessionStore::new(fixture.database.clone()));
                let index = Arc::new(SqliteSessionIndex::new(fixture.database.clone()));
                let turns = QueuedTurns::new(Arc::new(MemoryTurnQueue::default()), store, index);
                enigma_contract::session_turns::$case(&turns).await;

                let fixture = crate::support::Fixture::new();
                let turns = SqliteSessionTurns::new(Arc::new(MemoryTurnQueue::default()), fixture.database.clone());
                enigma_contract::session_turns::$case(&turns).await;
            }
        };
    }
    enigma_contract::session_turns_cases!(run);
}
