//! Every adapter keeps the promises of its port.

use std::sync::Arc;

use async_trait::async_trait;
use enigma_contract::fixture::NOON;
use enigma_contract::request_books::ReadBooks;
use enigma_core::books::ComposedBooks;
use enigma_core::ports::{LedgerBalance, TokenLedger};
use enigma_core::tenant::TenantIndex;
use enigma_core::turns::QueuedTurns;
use enigma_core::usage::UsageRecord;
use enigma_core::{TenantId, Timestamp};
use enigma_memory::testing::{HashEmbedder, ManualClock, ScriptedEmbedder};
use enigma_memory::{
    MemoryAuditLog, MemoryCache, MemoryCorpus, MemoryIdempotencyStore, MemoryRateLimiter, MemorySessionIndex,
    MemorySessionStore, MemoryStreamSlots, MemoryTelemetry, MemoryTenantDirectory, MemoryTokenLedger, MemoryTurnQueue,
};
use futures_util::FutureExt;

/// The runner of a port's cases, each with a new adapter.
macro_rules! suite {
    ($port:ident, $cases:ident, $adapter:expr) => {
        mod $port {
            use super::*;

            macro_rules! run {
                ($case:ident) => {
                    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                    async fn $case() {
                        enigma_contract::$port::$case(&$adapter).await;
                    }
                };
            }

            enigma_contract::$cases!(run);
        }
    };
}

/// The same for embedders, whose cases want a model too.
macro_rules! embedders {
    ($name:ident, $embedder:expr) => {
        mod $name {
            use super::*;

            macro_rules! run {
                ($case:ident) => {
                    #[tokio::test]
                    async fn $case() {
                        enigma_contract::embedder::$case(&$embedder, "words").await;
                    }
                };
            }

            enigma_contract::embedder_cases!(run);
        }
    };
}

embedders!(hash_embedder, HashEmbedder::default());
embedders!(scripted_embedder, ScriptedEmbedder::new(Arc::new(ManualClock::new(NOON))));
suite!(rate_limiter, rate_limiter_cases, MemoryRateLimiter::default());
suite!(stream_slots, stream_slots_cases, MemoryStreamSlots::default());
suite!(token_ledger, token_ledger_cases, MemoryTokenLedger::default());
suite!(session_store, session_store_cases, MemorySessionStore::default());
suite!(audit_log, audit_log_cases, MemoryAuditLog::default());
suite!(session_index, session_index_cases, MemorySessionIndex::default());
suite!(turn_queue, turn_queue_cases, MemoryTurnQueue::default());
suite!(session_turns, session_turns_cases, {
    let (queue, store) = (Arc::new(MemoryTurnQueue::default()), Arc::new(MemorySessionStore::default()));
    QueuedTurns::new(queue, store, Arc::new(MemorySessionIndex::default()))
});
suite!(idempotency_store, idempotency_store_cases, MemoryIdempotencyStore::default());
suite!(corpus, corpus_cases, MemoryCorpus::default());
suite!(cache, cache_cases, MemoryCache::default());
suite!(tenant_directory, tenant_directory_cases, {
    let tenants = enigma_contract::tenant_directory::tenants();
    MemoryTenantDirectory::new(TenantIndex::new(tenants).unwrap())
});

mod request_books {
    use super::*;

    struct Read {
        ledger: Arc<MemoryTokenLedger>,
        telemetry: Arc<MemoryTelemetry>,
    }

    #[async_trait]
    impl ReadBooks for Read {
        async fn balance(&self, tenant: &TenantId, now: Timestamp) -> LedgerBalance {
            self.ledger.balance(tenant, now).await.expect("memory answers")
        }

        async fn records(&self, tenant: &TenantId) -> Vec<UsageRecord> {
            self.telemetry.records(tenant).expect("memory answers")
        }
    }

    macro_rules! run {
        ($case:ident) => {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let (ledger, telemetry) =
                    (Arc::new(MemoryTokenLedger::default()), Arc::new(MemoryTelemetry::default()));
                let (limiter, slots) = (Arc::new(MemoryRateLimiter::default()), Arc::new(MemoryStreamSlots::default()));
                let books = ComposedBooks::new(limiter, slots, ledger.clone(), telemetry.clone());
                enigma_contract::request_books::$case(&books, &Read { ledger, telemetry }).await;
            }
        };
    }

    enigma_contract::request_books_cases!(run);
}

mod telemetry {
    use super::*;

    macro_rules! run {
        ($case:ident) => {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let telemetry = &MemoryTelemetry::default();
                let read = |tenant| async move { telemetry.records(&tenant).unwrap() }.boxed();
                enigma_contract::telemetry::$case(telemetry, read).await;
            }
        };
    }

    enigma_contract::telemetry_cases!(run);
}
