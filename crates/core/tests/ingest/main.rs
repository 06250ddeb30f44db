//! The use case of ingestion against the memory adapters: every ending, the books after it, and what is found then.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on stops")]

#[path = "../search/doubles.rs"]
#[expect(dead_code, reason = "searches use the rest")]
mod doubles;
mod drops;
mod endings;
#[path = "../search/harness.rs"]
#[expect(dead_code, reason = "searches use the rest")]
mod harness;
mod idempotency;
mod random;
mod refusals;
mod versions;
