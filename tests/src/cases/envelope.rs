//! What is around every answer.

use http::Method;
use serde_json::json;

use crate::Host;
use crate::client::{session, tag};
use crate::host::settings;
use crate::raw;
use crate::tenant::{Tenant, key_of};

const ID: &str = "envelope";

/// The tenants of these cases.
pub fn tenants() -> Vec<Tenant> {
    let mut tenant = Tenant::new(ID);
    tenant.json["aiModels"]["embeddings"] = "embedder".into();
    vec![tenant]
}

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// `x-trace-id` ▸ `traceparent` ▸ a new one.
pub async fn a_trace_is_taken_over_or_made(host: &Host) {
    let api = host.tenant(ID);
    let given = api.with("x-trace-id", "Trace.1_a-Z").with("traceparent", TRACEPARENT).get("/health").await;
    given.ok();
    assert_eq!(given.header("x-trace-id"), Some("Trace.1_a-Z"));
    let longest = "t".repeat(128);
    assert_eq!(api.with("x-trace-id", &longest).get("/health").await.header("x-trace-id"), Some(&*longest));
    let parent = api.with("traceparent", TRACEPARENT).get("/health").await;
    assert_eq!(parent.header("x-trace-id"), Some(TRACE));
    let (first, second) = (api.get("/health").await, api.get("/health").await);
    assert_ne!(first.header("x-trace-id"), second.header("x-trace-id"));
    assert_ne!(first.header("x-request-id"), second.header("x-request-id"));
    // Errors carry it too, and a repeated trace is still another request.
    let (first, second) =
        (api.with("x-trace-id", "t").get("/nothing").await, api.with("x-trace-id", "t").get("/nothing").await);
    first.error(404, "not_found");
    assert_eq!((first.header("x-trace-id"), second.header("x-trace-id")), (Some("t"), Some("t")));
    assert_ne!(first.header("x-request-id"), second.header("x-request-id"));
}

/// Whatever cannot be a trace id never comes back, in no header and no body.
pub async fn a_trace_that_is_no_trace_is_not_repeated(host: &Host) {
    let api = host.tenant(ID);
    let long = "t".repeat(129);
    for bad in [
        &b"a b"[..],
        b"",
        b"<script>",
        b"a\tset-cookie: x=1",
        b"a%0d%0aset-cookie:x",
        b"caf\xc3\xa9",
        b"\xff",
        long.as_bytes(),
    ] {
        let answer = api.with_bytes("x-trace-id", bad).get("/health").await;
        answer.ok();
        let trace = answer.header("x-trace-id").unwrap();
        assert_ne!(trace.as_bytes(), bad);
        assert!(
            (1..=128).contains(&trace.len()) && trace.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)),
            "{trace}"
        );
        assert!(!answer.headers.contains_key("set-cookie"));
        let parent = api.with_bytes("x-trace-id", bad).with("traceparent", TRACEPARENT).get("/health").await;
        assert_eq!(parent.header("x-trace-id"), Some(TRACE));
    }
    // A line break cannot be sent in a header's value by any client that is one, so here it is by hand.
    for line in ["x-trace-id: a\rset-cookie: x=1", "x-trace-id: a\n set-cookie: x=1", "x-trace-id: a\0b"] {
        let key = key_of(ID);
        let request = format!(
            "GET /health HTTP/1.1\r\nhost: localhost\r\nx-api-key: {key}\r\n{line}\r\nconnection: close\r\n\r\n"
        );
        let (status, text) = raw::exchange(&host.base_url, request.as_bytes()).await;
        assert!(status == 400 || status == 200, "{line:?}: {text}");
        assert!(!text.to_ascii_lowercase().contains("set-cookie"), "{text}");
    }
}

/// The trace context goes on to whoever makes the answer.
pub async fn the_trace_reaches_the_model(host: &Host) {
    let tag = tag();
    let api = host.tenant(ID).with("traceparent", TRACEPARENT);
    api.chat(&session(), &tag).await.ok();
    let call = host.upstream.call(&tag).await;
    assert_eq!(call.headers["traceparent"], TRACEPARENT);
    let tag = crate::client::tag();
    let bad = api.with("traceparent", "00-zz-zz-01");
    bad.chat(&session(), &tag).await.ok();
    assert!(!host.upstream.call(&tag).await.headers.contains_key("traceparent"));
}

/// Successes, errors and streams, on every route.
pub async fn every_response_is_secured(host: &Host) {
    let api = host.tenant(ID);
    for path in
        ["/health", "/healthz", "/readyz", "/openapi.json", "/v1/models", "/sessions", "/nothing", "/v1/nothing"]
    {
        api.get(path).await.secured();
    }
    host.anonymous().get("/health").await.secured();
    api.send(Method::OPTIONS, "/chat", None).await.secured();
    let stream = api.chat_stream(&session(), "hello").await;
    crate::client::assert_secured(&stream.headers);
    stream.finish().await;
}

/// `GET /health`
pub async fn health_tells_the_tenant_its_models(host: &Host) {
    let data = host.tenant(ID).get("/health").await.ok();
    assert_eq!(
        data,
        json!({
            "status": "ok", "tenant": ID, "environment": settings::ENVIRONMENT,
            "models": { "chat": "scripted", "fallback": null, "embeddings": "embedder" },
        })
    );
    host.anonymous().get("/health").await.error(400, "tenant_required");
}

/// `GET /healthz` and `GET /readyz`
pub async fn liveness_and_readiness_need_no_tenant(host: &Host) {
    assert_eq!(host.anonymous().get("/healthz").await.ok(), json!({ "status": "ok" }));
    assert_eq!(host.anonymous().get("/readyz").await.ok(), json!({ "status": "ready" }));
}

/// `GET /openapi.json`
pub async fn the_description_names_every_route(host: &Host) {
    let answer = host.anonymous().get("/openapi.json").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let document = answer.json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{}", document["openapi"]);
    for (path, method) in [
        ("/chat", "post"),
        ("/chat/{sessionId}", "delete"),
        ("/chat/{sessionId}/history", "get"),
        ("/sessions", "get"),
        ("/sessions/{sessionId}", "delete"),
        ("/sessions/{sessionId}/history", "get"),
        ("/health", "get"),
        ("/healthz", "get"),
        ("/readyz", "get"),
        ("/v1/chat/completions", "post"),
        ("/v1/models", "get"),
    ] {
        assert!(document["paths"][path][method].is_object(), "{method} {path} is not described");
    }
}

/// Whether or not the caller is known, and in the shape of the face that was asked.
pub async fn unknown_routes_are_not_found(host: &Host) {
    for api in [host.tenant(ID), host.anonymous()] {
        for path in ["/", "/chats", "/chat/", "/chat/x/y/z", "/v1x", "/%2e%2e/etc/passwd", "/sessions/"] {
            assert!(api.get(path).await.error(404, "not_found").is_null(), "{path}");
        }
        for path in ["/v1", "/v1/", "/v1/completions", "/v1/chat"] {
            api.get(path).await.openai_error(404, "not_found", "invalid_request_error");
        }
    }
}

/// 405, with `Allow`.
pub async fn other_methods_are_told_which_are_allowed(host: &Host) {
    let api = host.tenant(ID);
    let session = session();
    for (method, path, allowed) in [
        (Method::GET, "/chat".to_owned(), "POST"),
        (Method::PUT, "/chat".to_owned(), "POST"),
        (Method::POST, format!("/chat/{session}"), "DELETE"),
        (Method::POST, format!("/chat/{session}/history"), "GET"),
        (Method::POST, "/sessions".to_owned(), "GET"),
        (Method::PATCH, format!("/sessions/{session}"), "DELETE"),
        (Method::DELETE, "/health".to_owned(), "GET"),
    ] {
        let answer = api.send(method.clone(), &path, None).await;
        answer.error(405, "method_not_allowed");
        let allow = answer.header("allow").unwrap_or_else(|| panic!("{method} {path} without Allow"));
        assert!(allow.split(',').any(|name| name.trim() == allowed), "{method} {path}: {allow}");
        assert!(!allow.split(',').any(|name| name.trim() == method.as_str()), "{method} {path}: {allow}");
    }
    for (path, allowed) in [("/v1/chat/completions", "POST"), ("/v1/models", "GET"), ("/v1/models/a/b", "GET")] {
        let answer = api.send(Method::DELETE, path, None).await;
        answer.openai_error(405, "method_not_allowed", "invalid_request_error");
        assert!(answer.header("allow").unwrap().contains(allowed), "{path}");
    }
}
