//! The HTTP face of crispy-enigma: one axum router for the native server and the Worker, wire types, event streams and errors.
//!
//! What it is not: a server. It opens no socket, has no timer and no runtime of its own, and compiles for wasm32. The host puts
//! two things into the extensions of every request: an `Arc<dyn Background>` for work that outlives the response, and the
//! [`ClientAddress`](enigma_core::tenant::ClientAddress) that it vouches for.
//!
//! ```no_run
//! # async fn serve(app: enigma_http::App) {
//! let router: axum::Router = enigma_http::router(app);
//! # let _ = router;
//! # }
//! ```

mod access;
mod app;
mod audio;
mod body;
mod collect;
mod cors;
mod edge;
mod envelope;
mod error;
mod event_stream;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod mcp;
mod openai;
mod overload;
mod rate_headers;
mod request_info;
mod router;
mod routes;
mod validation;

pub use app::{App, AppPorts, HttpSettings, Readiness};
pub use edge::refuse;
pub use error::ErrorCode;
pub use overload::OverloadLimits;
pub use router::{ROUTES, router};
