//! The description of the API says what the code does: it is held against the routes, the error codes, the fields that the
//! parsers read, and what the router answers.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod document;
mod reference;
mod requests;
mod responses;
mod schema;
mod support;
