//! The use case of ingestion against the memory adapters: every ending, the books after it, and what is found then.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on stops")]

#[path = "../search/doubles.rs"]
mod doubles;
mod drops;
mod endings;
#[path = "../search/harness.rs"]
mod harness;
mod idempotency;
mod refusals;
mod versions;
