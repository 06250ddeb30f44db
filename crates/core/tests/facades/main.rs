//! The facade ports as the core composes them, where a part of them fails. Their promises are in the suites of
//! enigma-contract.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod books;
mod failing;
mod logged;
mod messages;
mod turns;
