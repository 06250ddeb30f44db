//! Adapters of enigma-core's ports that keep everything in this process's memory.
//!
//! They are what a server uses for state that may be lost with it (limits, leases, queues), and what tests use for everything:
//! each of them passes the suite of its port in `enigma-contract`. Each is split by tenant into parts with a lock of their own,
//! and no lock is held while anything waits. [`testing`] has doubles of what is not kept but happens: time, chance, background
//! work and a model.
//!
//! What it is not: durable. A process that ends forgets it all, and two processes do not see each other's.

mod audit_log;
mod cache;
mod corpus;
mod idempotency_store;
mod rate_limiter;
mod session_index;
mod session_store;
mod sharded;
mod stream_slots;
mod telemetry;
mod tenant_directory;
pub mod testing;
mod token_ledger;
mod turn_queue;

pub use audit_log::MemoryAuditLog;
pub use cache::{CacheCapacity, MemoryCache};
pub use corpus::MemoryCorpus;
pub use idempotency_store::{IdempotencyCapacity, MemoryIdempotencyStore};
pub use rate_limiter::MemoryRateLimiter;
pub use session_index::MemorySessionIndex;
pub use session_store::MemorySessionStore;
pub use stream_slots::MemoryStreamSlots;
pub use telemetry::MemoryTelemetry;
pub use tenant_directory::MemoryTenantDirectory;
pub use token_ledger::MemoryTokenLedger;
pub use turn_queue::MemoryTurnQueue;
