//! The chat use case against the memory adapters: every ending, and the books after it.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on stops")]

mod admission;
mod calls;
mod drops;
mod endings;
mod harness;
mod idempotency;
mod models;
mod rounds;
mod sessions;
mod watched;
