//! The chat use case against the memory adapters: every ending, and the books after it.

mod admission;
mod drops;
mod endings;
mod harness;
mod idempotency;
mod models;
mod sessions;
