//! The headers of a request.

use enigma_core::model::CallMetadata;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;

use super::{EndpointOptions, InvalidEndpoint};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACE_ID: HeaderName = HeaderName::from_static("x-trace-id");
const GATEWAY_METADATA: HeaderName = HeaderName::from_static("cf-aig-metadata");
const GATEWAY_ID: HeaderName = HeaderName::from_static("cf-aig-gateway-id");

/// What this crate writes for each call, and what says how a message is framed and so is the transport's.
const RESERVED: [&str; 13] = [
    "accept",
    "accept-encoding",
    "cf-aig-metadata",
    "connection",
    "content-length",
    "content-type",
    "host",
    "te",
    "traceparent",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-trace-id",
];

/// The headers that are the same in every request.
pub(super) fn fixed(options: &EndpointOptions) -> Result<HeaderMap, InvalidEndpoint> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream, application/json"));
    if let Some(key) = &options.api_key {
        headers.insert(AUTHORIZATION, key.header_value("Bearer ").map_err(|_| InvalidEndpoint::ApiKey)?);
    }
    for (name, value) in &options.headers {
        let Ok(parsed) = HeaderName::try_from(name.trim()) else {
            return Err(InvalidEndpoint::HeaderName(name.clone()));
        };
        let is_taken = parsed == AUTHORIZATION && options.api_key.is_some();
        if is_taken || RESERVED.contains(&parsed.as_str()) {
            return Err(InvalidEndpoint::ReservedHeader(parsed.as_str().to_owned()));
        }
        let value = value.header_value("").map_err(|_| InvalidEndpoint::HeaderValue(parsed.as_str().to_owned()))?;
        headers.append(parsed, value);
    }
    Ok(headers)
}

/// Four entries; AI Gateway keeps five and drops more in silence.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GatewayMetadata<'a> {
    tenant_id: &'a str,
    trace_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<String>,
    route: &'a str,
}

/// Adds what tells the provider about this one call.
pub(super) fn add_metadata(headers: &mut HeaderMap, metadata: &CallMetadata, trace_id: bool, ai_gateway: bool) {
    // A call is worth more than its records: what is no header value is left out.
    let mut add = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    };
    if let Some(traceparent) = &metadata.traceparent {
        add(TRACEPARENT, traceparent);
    }
    if trace_id {
        add(TRACE_ID, metadata.trace.as_str());
    }
    if ai_gateway {
        let entries = GatewayMetadata {
            tenant_id: metadata.tenant.as_str(),
            trace_id: metadata.trace.as_str(),
            session_id: metadata.session.map(|session| session.to_string()),
            route: metadata.route,
        };
        if let Ok(json) = serde_json::to_string(&entries) {
            add(GATEWAY_METADATA, &json);
        }
        if let Some(gateway) = &metadata.gateway {
            add(GATEWAY_ID, gateway);
        }
    }
}
