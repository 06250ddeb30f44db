//! The core of crispy-enigma, a multi-tenant AI chat platform: its types, its decisions, its ports and its use cases.
//!
//! What it is: everything that makes the platform behave as it does. Decisions are plain functions and small state machines
//! ([`limit::SlidingWindow`], [`ledger::Ledger`], [`model::select_models`], [`session::prune`] …), without I/O and without a
//! clock; [`ports`] are the traits behind which the world lies; use cases ([`chat::ChatService`]) tie both together.
//!
//! What it is not: a server, an HTTP API, a database or a model. It has no runtime and runs on any, wasm32 included. Adapters
//! are crates of their own.
#![doc = include_str!("../docs/embedding.md")]

pub mod admission;
pub mod books;
mod caught;
pub mod chat;
mod client;
pub mod embeddings;
mod id;
pub mod idempotency;
pub mod ingest;
pub mod ledger;
pub mod limit;
pub mod model;
mod port_error;
pub mod ports;
pub mod retrieval;
pub mod search;
pub mod session;
pub mod speech;
pub mod tenant;
mod time;
pub mod token;
pub mod tools;
pub mod turns;
pub mod usage;

pub use client::Events;
pub use id::{
    AuditId, InvalidId, KeyId, MessageId, ModelId, ProviderId, RequestId, SessionId, TenantId, ToolName, TraceId,
    UserId, VersionId,
};
pub use port_error::PortError;
pub use time::Timestamp;
