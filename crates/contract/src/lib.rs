//! The promises of enigma-core's ports, as test cases that every adapter runs.
//!
//! There is one module per port. Each has one async function per promise, which takes the adapter and panics when the promise is
//! broken, and one exported macro which lists these functions. The adapter brings the runner:
//!
//! ```
//! # struct MyRateLimiter;
//! # impl MyRateLimiter { fn new() -> Self { Self } }
//! # #[async_trait::async_trait]
//! # impl enigma_core::ports::RateLimiter for MyRateLimiter {
//! #     async fn acquire(
//! #         &self, _: &enigma_core::TenantId, _: &[enigma_core::limit::LimitCheck<'_>], _: enigma_core::Timestamp,
//! #     ) -> Result<enigma_core::limit::Decision, enigma_core::PortError> { unreachable!() }
//! #     async fn peek(
//! #         &self, _: &enigma_core::TenantId, _: &[enigma_core::limit::LimitCheck<'_>], _: enigma_core::Timestamp,
//! #     ) -> Result<enigma_core::limit::RateStatus, enigma_core::PortError> { unreachable!() }
//! # }
//! macro_rules! run {
//!     ($case:ident) => {
//!         // In a test: #[tokio::test]
//!         async fn $case() {
//!             enigma_contract::rate_limiter::$case(&MyRateLimiter::new()).await;
//!         }
//!     };
//! }
//! enigma_contract::rate_limiter_cases!(run);
//! ```
//!
//! Each case wants an adapter that holds nothing yet. Time is a value, chance has a fixed seed, nothing sleeps and nothing needs
//! a runtime or threads, so that the cases run wherever an adapter runs. Where a port is a shell around a decision of the core,
//! random calls are compared with that decision.
//!
//! What it is not: tests of what only one adapter promises, such as what survives a restart, or what real threads do to it.
//! Those lie beside the adapter.
#![expect(clippy::missing_panics_doc, reason = "a case panics when the promise that it is named after is broken")]

pub mod audit_log;
pub mod cache;
pub mod corpus;
pub mod embedder;
pub mod fixture;
pub mod idempotency_store;
pub mod rate_limiter;
pub mod request_books;
pub mod session_index;
pub mod session_store;
pub mod session_turns;
pub mod strategies;
pub mod stream_slots;
pub mod synthesizer;
pub mod telemetry;
pub mod tenant_directory;
pub mod token_ledger;
pub mod turn_queue;
