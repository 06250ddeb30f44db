//! The search use case against the memory adapters: every ending, and the books after it.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on stops")]

#[expect(dead_code, reason = "ingestions use the rest")]
mod doubles;
mod drops;
mod endings;
mod finding;
mod flights;
#[expect(dead_code, reason = "ingestions use the rest")]
mod harness;
mod kept;
mod refusals;
mod side_questions;
