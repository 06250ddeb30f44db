//! Black-box cases for every host of crispy-enigma.
//!
//! [`mod@cases`] holds what every host must do; a case is given a [`Host`] and knows nothing else of it. [`server`] starts the
//! native host and [`worker`] the Worker, [`upstream`] stands in for the models behind it, and [`client`] asks it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "all of this is test code: a panic is how it reports")]

pub mod books;
pub mod cases;
pub mod child;
pub mod client;
pub mod host;
pub mod issuer;
pub mod mcp_sdk;
pub mod neighbour;
pub mod python;
pub mod raw;
pub mod server;
pub mod sse;
#[cfg(target_os = "linux")]
pub mod system;
pub mod tenant;
pub mod upstream;
pub mod wire;
pub mod worker;

pub use books::Books;
pub use client::{Answer, Api};
pub use host::{Host, Platform};
pub use server::{Server, ServerConfig};
pub use tenant::Tenant;
pub use upstream::Upstream;
pub use wire::{Move, Wire};
pub use worker::{Worker, WorkerConfig};
