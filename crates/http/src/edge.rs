//! What happens around every route: trace, errors, security headers, CORS, and the one log line.

use std::panic::AssertUnwindSafe;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use enigma_core::ports::IdSource;
use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use tracing::{Instrument, field};

use crate::app::App;
use crate::envelope::error_response;
use crate::error::{ApiError, ErrorCode, Retry};
use crate::request_info::RequestInfo;
use crate::{cors, rate_headers};

const TRACE: HeaderName = HeaderName::from_static("x-trace-id");
const REQUEST: HeaderName = HeaderName::from_static("x-request-id");

/// The outermost layer.
pub(crate) async fn edge(State(app): State<App>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let started = app.ports().clock.now();
    let info = RequestInfo::new(&parts.headers, parts.uri.path(), &*app.ports().ids);
    let route = parts.extensions.get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let span = tracing::info_span!(
        "request",
        trace_id = %info.trace,
        request_id = %info.request,
        method = method_name(&parts.method),
        route = route.as_deref().unwrap_or("none"),
        tenant = field::Empty,
    );
    let origin = parts.headers.get(header::ORIGIN).cloned();
    parts.extensions.insert(info.clone());
    let mut response = async {
        let preflight = cors::preflight_origin(&parts).cloned();
        let answer = async {
            match preflight {
                Some(origin) => match cors::answer_preflight(&app, &parts, &origin).await {
                    Ok(headers) => (StatusCode::NO_CONTENT, headers).into_response(),
                    Err(error) => ApiError::from(error).into_response(),
                },
                None => next.run(Request::from_parts(parts, body)).await,
            }
        };
        // A panic ends its own request and nothing else.
        AssertUnwindSafe(answer)
            .catch_unwind()
            .await
            .unwrap_or_else(|_| ApiError::new(ErrorCode::Internal).into_response())
    }
    .instrument(span.clone())
    .await;

    let _entered = span.enter();
    if let Some(tenant) = info.tenant.get() {
        span.record("tenant", field::display(tenant.id()));
    }
    let now = app.ports().clock.now();
    let error = response.extensions_mut().remove::<ApiError>();
    if let Some(error) = &error {
        let allow = response.headers().get(header::ALLOW).cloned();
        response = error_response(&info, error);
        if let Some(rate) = &error.rate {
            rate_headers::write(response.headers_mut(), rate, now);
        }
        let seconds = error.retry.map(|retry| match retry {
            Retry::Soon => 1,
            Retry::At(at) => rate_headers::seconds_until(at, now).max(1),
        });
        if let Some(seconds) = seconds {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if let Some(allow) = allow {
            response.headers_mut().insert(header::ALLOW, allow);
        }
    }
    let headers = response.headers_mut();
    identify(headers, &info);
    secure(headers);
    if let (Some(origin), Some(tenant)) = (&origin, info.tenant.get()) {
        cors::write(headers, tenant.cors(), origin);
    }
    log(response.status(), now.since(started), error.as_ref());
    info.seat.follow(response)
}

/// What a host answers `request` that it cannot hand to the router: the error `code`, in the shape and with the headers of every
/// other error.
pub fn refuse<B>(request: &http::Request<B>, code: ErrorCode, ids: &dyn IdSource) -> Response {
    let info = RequestInfo::new(request.headers(), request.uri().path(), ids);
    let error = ApiError::new(code);
    let mut response = error_response(&info, &error);
    let headers = response.headers_mut();
    if error.retry.is_some() {
        headers.insert(header::RETRY_AFTER, 1.into());
    }
    identify(headers, &info);
    secure(headers);
    response
}

fn identify(headers: &mut HeaderMap, info: &RequestInfo) {
    headers.insert(TRACE, HeaderValue::from_str(info.trace.as_str()).expect("a trace id is visible ASCII"));
    headers.insert(REQUEST, HeaderValue::from_str(&info.request.to_string()).expect("a UUID is visible ASCII"));
}

/// Nothing that this service returns is a page: it is never framed, sniffed, cached or run.
fn secure(headers: &mut HeaderMap) {
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (header::STRICT_TRANSPORT_SECURITY, "max-age=31536000; includeSubDomains"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

/// A method for the log. One that nobody knows is the client's own text, and as long as they like.
fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

fn log(status: StatusCode, latency: std::time::Duration, error: Option<&ApiError>) {
    let (status, latency_ms) = (status.as_u16(), u64::try_from(latency.as_millis()).unwrap_or(u64::MAX));
    match error {
        Some(error) if error.told => {}
        Some(error) if status >= 500 => {
            let cause = error.cause.as_deref().map(|cause| cause as &(dyn std::error::Error + 'static));
            tracing::error!(status, latency_ms, code = error.code.as_str(), cause = chain(cause), "request failed");
        }
        Some(error) => tracing::warn!(status, latency_ms, code = error.code.as_str(), "request refused"),
        None => tracing::info!(status, latency_ms, "request answered"),
    }
}

fn chain(mut cause: Option<&(dyn std::error::Error + 'static)>) -> Option<String> {
    let mut text = cause?.to_string();
    while let Some(source) = cause.and_then(std::error::Error::source) {
        text.push_str(": ");
        text.push_str(&source.to_string());
        cause = Some(source);
    }
    Some(text)
}
