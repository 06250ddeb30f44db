//! The adapters from outside: the ports' contract, and what only this crate promises.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod at_hand;
mod concurrency;
mod contract;
mod corpus;
mod durability;
mod hostile;
mod opening;
mod removal;
mod support;
