//! Black-box cases for every host of crispy-enigma.
//!
//! [`mod@cases`] holds what every host must do; a case is given a [`Host`] and knows nothing else of it. [`server`] starts the
//! native host, [`upstream`] stands in for the models behind it, and [`client`] asks it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "all of this is test code: a panic is how it reports")]

pub mod cases;
pub mod client;
pub mod host;
pub mod python;
pub mod raw;
pub mod server;
pub mod sse;
pub mod tenant;
pub mod upstream;

pub use client::{Answer, Api};
pub use host::Host;
pub use server::{Server, ServerConfig};
pub use tenant::Tenant;
pub use upstream::Upstream;
