//! The use case of tools, over adapters in memory.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod endings;
mod harness;
mod own;
