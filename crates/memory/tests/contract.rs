//! Every adapter keeps the promises of its port.

use enigma_core::tenant::TenantIndex;
use enigma_memory::{
    MemoryIdempotencyStore, MemoryRateLimiter, MemorySessionIndex, MemorySessionStore, MemoryStreamSlots,
    MemoryTelemetry, MemoryTenantDirectory, MemoryTokenLedger, MemoryTurnQueue,
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

suite!(rate_limiter, rate_limiter_cases, MemoryRateLimiter::default());
suite!(stream_slots, stream_slots_cases, MemoryStreamSlots::default());
suite!(token_ledger, token_ledger_cases, MemoryTokenLedger::default());
suite!(session_store, session_store_cases, MemorySessionStore::default());
suite!(session_index, session_index_cases, MemorySessionIndex::default());
suite!(turn_queue, turn_queue_cases, MemoryTurnQueue::default());
suite!(idempotency_store, idempotency_store_cases, MemoryIdempotencyStore::default());
suite!(tenant_directory, tenant_directory_cases, {
    let tenants = enigma_contract::tenant_directory::tenants();
    MemoryTenantDirectory::new(TenantIndex::new(tenants).unwrap())
});

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
