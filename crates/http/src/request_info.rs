//! What every request carries: its trace, its own id, and the shape in which its client reads errors.

use std::sync::Arc;
use std::sync::OnceLock;

use axum::extract::FromRequestParts;
use enigma_core::ports::IdSource;
use enigma_core::tenant::Tenant;
use enigma_core::{RequestId, TraceId};
use http::HeaderMap;
use http::request::Parts;

use crate::error::{ApiError, ErrorCode};
use crate::mcp::Id;
use crate::overload::Seat;

/// Whose clients a route is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Face {
    /// The platform's own.
    Native,
    /// OpenAI's SDKs and what imitates them.
    OpenAi,
    /// Clients of the Model Context Protocol.
    Mcp,
}

impl Face {
    pub(crate) fn of_path(path: &str) -> Self {
        match path {
            "/mcp" => Self::Mcp,
            _ if path == "/v1" || path.starts_with("/v1/") => Self::OpenAi,
            _ => Self::Native,
        }
    }
}

/// What every request carries. Made once, at the edge.
#[derive(Debug, Clone)]
pub(crate) struct RequestInfo {
    pub(crate) trace: TraceId,
    pub(crate) request: RequestId,
    pub(crate) traceparent: Option<String>,
    pub(crate) face: Face,
    /// Filled when the tenant is known, for CORS and the log.
    pub(crate) tenant: Arc<OnceLock<Arc<Tenant>>>,
    /// Filled when the id of a JSON-RPC request is known, for errors.
    pub(crate) rpc: Arc<OnceLock<Id>>,
    /// The place of the request, on a host that bounds what it does at once.
    pub(crate) seat: Seat,
}

impl RequestInfo {
    pub(crate) fn new(headers: &HeaderMap, path: &str, ids: &dyn IdSource) -> Self {
        let request = RequestId::new(ids.uuid());
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let traceparent = text("traceparent").filter(|value| trace_of(value).is_some()).map(str::to_owned);
        let trace = text("x-trace-id")
            .and_then(|value| TraceId::new(value).ok())
            .or_else(|| traceparent.as_deref().and_then(trace_of).and_then(|id| TraceId::new(id).ok()))
            .unwrap_or_else(|| TraceId::new(&request.to_string()).expect("a UUID is a valid trace id"));
        Self {
            trace,
            request,
            traceparent,
            face: Face::of_path(path),
            tenant: Arc::default(),
            rpc: Arc::default(),
            seat: Seat::default(),
        }
    }
}

/// The trace id of a `traceparent` (W3C Trace Context, section 3.2); `None` when it is not a valid one.
fn trace_of(traceparent: &str) -> Option<&str> {
    let mut parts = traceparent.split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hexadecimal = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let zeros = |text: &str| text.bytes().all(|b| b == b'0');
    let known = hexadecimal(version, 2) && version != "ff" && (version != "00" || parts.next().is_none());
    let valid = known
        && hexadecimal(trace, 32)
        && hexadecimal(parent, 16)
        && hexadecimal(flags, 2)
        && !zeros(trace)
        && !zeros(parent);
    valid.then_some(trace)
}

impl<S: Sync> FromRequestParts<S> for RequestInfo {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        // Only a router without its edge lacks it.
        parts.extensions.get::<Self>().cloned().ok_or(ErrorCode::Internal.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_valid_traceparent_gives_a_trace() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(trace_of(good), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
        for bad in [
            "",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
        ] {
            assert_eq!(trace_of(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_face_follows_the_path() {
        assert_eq!(Face::of_path("/v1/chat/completions"), Face::OpenAi);
        assert_eq!(Face::of_path("/v1"), Face::OpenAi);
        assert_eq!(Face::of_path("/v10"), Face::Native);
        assert_eq!(Face::of_path("/chat"), Face::Native);
        assert_eq!(Face::of_path("/mcp"), Face::Mcp);
        assert_eq!(Face::of_path("/mcp2"), Face::Native);
    }
}
