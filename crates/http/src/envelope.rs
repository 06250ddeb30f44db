//! The JSON around every answer.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::{Value, json};

use crate::error::{ApiError, ErrorCode};
use crate::mcp::refusal;
use crate::request_info::{Face, RequestInfo};

/// Room for the headers of a response, those of the edge included: a map that grows is built anew each time.
pub(crate) const HEADERS: usize = 32;

/// `{ "ok": true, "data": …, "traceId": … }`
#[derive(Serialize)]
pub(crate) struct Envelope<'a, T> {
    ok: bool,
    data: T,
    #[serde(rename = "traceId")]
    trace: &'a str,
}

/// A whole answer of the platform's own routes.
pub(crate) fn success<T: Serialize>(info: &RequestInfo, data: T) -> Response {
    json_response(StatusCode::OK, &Envelope { ok: true, data, trace: info.trace.as_str() })
}

/// Any JSON.
pub(crate) fn json_response<T: Serialize>(status: StatusCode, body: &T) -> Response {
    json_response_with(status, HeaderMap::with_capacity(HEADERS), body)
}

/// The same with headers of its own, which the response takes over as they are.
pub(crate) fn json_response_with<T: Serialize>(status: StatusCode, mut headers: HeaderMap, body: &T) -> Response {
    let bytes = serde_json::to_vec(body).expect("wire types have text keys only, so they are JSON");
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// An error in the shape that the route's clients expect.
pub(crate) fn error_response(info: &RequestInfo, error: &ApiError) -> Response {
    let mut response = json_response(error.code.status(), &error_body(info, error));
    if error.code == ErrorCode::Unauthorized {
        let challenge = if error.bad_credentials {
            "Bearer realm=\"crispy-enigma\", error=\"invalid_token\""
        } else {
            "Bearer realm=\"crispy-enigma\""
        };
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    response
}

pub(crate) fn error_body(info: &RequestInfo, error: &ApiError) -> Value {
    match info.face {
        Face::Native => {
            let mut body = json!({ "code": error.code.as_str(), "message": error.message });
            if let Some(details) = &error.details {
                body["details"] = Value::clone(details);
            }
            json!({ "ok": false, "error": body, "traceId": info.trace.as_str() })
        }
        Face::Mcp => refusal(info.rpc.get(), error, info.trace.as_str()),
        Face::OpenAi => json!({ "error": {
            "message": error.message,
            "type": error.code.openai_type(),
            "param": error.param,
            "code": error.code.as_str(),
        } }),
    }
}
