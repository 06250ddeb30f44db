//! Which web pages may call, by the tenant's policy (WHATWG Fetch, *CORS protocol*).

use enigma_core::PortError;
use enigma_core::tenant::{Cors, TenantClaim, normalise_host};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, header};

use crate::access::host;
use crate::app::App;

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, DELETE");
const REQUEST_HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, idempotency-key, traceparent, x-api-key, x-session-id, x-tenant-id, x-trace-id, x-user-id",
);
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "idempotency-replayed, ratelimit, ratelimit-policy, retry-after, x-ai-latency-ms, x-model-id, x-ratelimit-limit, \
     x-ratelimit-remaining, x-ratelimit-reset, x-request-id, x-tenant-id, x-tokens-in, x-tokens-out, x-tokens-total, x-trace-id",
);

/// The origin of a preflight: a browser's question whether it may send the real request.
pub(crate) fn preflight_origin(parts: &Parts) -> Option<&HeaderValue> {
    let asks = parts.method == Method::OPTIONS && parts.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    parts.headers.get(header::ORIGIN).filter(|_| asks)
}

/// Answers a preflight. It carries no credentials, so the tenant is known only where its host tells; elsewhere the question is
/// whether any tenant would let the page in, and the real request is held against that tenant's own policy.
pub(crate) async fn answer_preflight(app: &App, parts: &Parts, origin: &HeaderValue) -> Result<HeaderMap, PortError> {
    let mut headers = HeaderMap::new();
    headers.insert(header::VARY, HeaderValue::from_static("origin, access-control-request-headers"));
    let Ok(text) = origin.to_str() else { return Ok(headers) };
    let directory = &app.ports().directory;
    let tenant = match host(parts).and_then(normalise_host) {
        Some(host) => directory.find(&TenantClaim::Host(host)).await?,
        None => None,
    };
    let allowed = match &tenant {
        Some(tenant) => tenant.cors().allows(text),
        None => directory.allows_origin(text).await?,
    };
    if allowed {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        // SDKs add headers of their own. The origin is what the tenant decides about, so what the page asks for is granted.
        let asked = parts.headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked.unwrap_or(REQUEST_HEADERS));
        if let Some(tenant) = &tenant {
            credentials(&mut headers, tenant.cors());
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, tenant.cors().max_age.as_secs().into());
        }
    }
    Ok(headers)
}

/// Lets a page of `origin` read the response, if the tenant allows it.
pub(crate) fn write(headers: &mut HeaderMap, cors: &Cors, origin: &HeaderValue) {
    if cors.allowed_origins.is_empty() {
        return;
    }
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    if origin.to_str().is_ok_and(|origin| cors.allows(origin)) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        credentials(headers, cors);
    }
}

fn credentials(headers: &mut HeaderMap, cors: &Cors) {
    if cors.allow_credentials {
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
}
