//! What the router answers is what the document says.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use enigma_core::model::{Delta, ModelError};
use enigma_http::OverloadLimits;
use enigma_memory::testing::{Script, Step};
use futures_util::{FutureExt, stream};
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use serde_json::{Value, json};

use crate::document::operations;
use crate::schema::problems;
use crate::support::{Answered, Check, Host, document};

const SESSION: &str = "6f9619ff-8b86-4011-b42d-00cf4fc964ff";

/// The operation that a request is one of.
fn operation<'a>(document: &'a Value, method: &str, path: &str) -> &'a Value {
    let path: Vec<_> = path.split('?').next().unwrap_or_default().split('/').collect();
    let matches = |template: &str| {
        let template: Vec<_> = template.split('/').collect();
        template.len() == path.len() && template.iter().zip(&path).all(|(a, b)| a == b || a.starts_with('{'))
    };
    let mut all = operations(document).into_iter();
    all.find(|(known, template, _)| known == method && matches(template)).map(|(_, _, operation)| operation).unwrap()
}

#[track_caller]
fn assert_described(document: &Value, method: &str, path: &str, answer: &Answered) {
    let what = format!("{method} {path}: {} {}", answer.status, answer.text);
    let response = &operation(document, method, path)["responses"][answer.status.as_str()];
    assert!(response.is_object(), "the status is not described: {what}");
    let described = response["headers"].as_object().unwrap();
    for name in ["x-trace-id", "x-request-id"] {
        assert!(answer.headers.contains_key(name), "{name} is missing: {what}");
    }
    let is_ours = |name: &str| {
        let general = ["x-content-type-options", "x-frame-options", "x-accel-buffering"];
        let named = [RETRY_AFTER.as_str(), WWW_AUTHENTICATE.as_str(), "ratelimit", "ratelimit-policy"];
        !general.contains(&name) && (name.starts_with("x-") || name.starts_with("idempotency") || named.contains(&name))
    };
    for name in answer.headers.keys().map(http::HeaderName::as_str).filter(|name| is_ours(name)) {
        assert!(described.contains_key(name), "header {name} is not described: {what}");
    }
    let media_type = answer.headers[CONTENT_TYPE].to_str().unwrap().split(';').next().unwrap();
    let media = &response["content"][media_type];
    assert!(media.is_object(), "{media_type} is not described: {what}");
    if media_type == "text/event-stream" {
        return assert_events_described(document, &media["x-sse-events"], answer);
    }
    if media_type.starts_with("audio/") {
        assert_eq!(media["schema"]["contentMediaType"], media_type);
        return;
    }
    let found = problems(document, &media["schema"], &answer.json());
    assert!(found.is_empty(), "{found:#?}: {what}");
    if let Some(codes) = response["x-error-codes"].as_array() {
        let error = answer.json()["error"].take();
        let code = if path == "/mcp" { &error["data"]["code"] } else { &error["code"] };
        assert!(codes.contains(code), "the code is not described: {what}");
    }
}

#[track_caller]
fn assert_events_described(document: &Value, events: &Value, answer: &Answered) {
    assert!(answer.text.ends_with("\n\n"));
    for event in answer.text.trim_end().split("\n\n") {
        let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let data = field("data").unwrap();
        if data == "[DONE]" {
            continue;
        }
        let data: Value = serde_json::from_str(data).unwrap();
        let kind = if data.get("error").is_some() { "error" } else { field("event").unwrap_or("message") };
        let found = problems(document, &events[kind], &data);
        assert!(found.is_empty(), "{found:#?}: {event}");
    }
}

fn chat(stream: bool) -> String {
    json!({ "sessionId": SESSION, "message": "Hi", "stream": stream }).to_string()
}

fn completion(stream: bool) -> String {
    let options = json!({ "include_usage": true });
    json!({ "model": "m", "messages": [{ "role": "user", "content": "Hi" }], "stream": stream, "stream_options": options })
        .to_string()
}

fn document_of(id: &str, sentences: usize) -> String {
    let text = "The kettle takes three minutes to boil its water. ".repeat(sentences);
    let chunking = json!({ "maxChunkSize": 50, "overlap": 0 });
    json!({ "docId": id, "title": "Tea", "metadata": { "lang": "en" }, "text": text, "chunking": chunking }).to_string()
}

fn question() -> String {
    json!({ "query": "How long does the kettle take?" }).to_string()
}

fn embeddings(model: &str) -> String {
    json!({ "model": model, "input": ["one", "two"] }).to_string()
}

fn spoken(format: &str, streaming: bool) -> String {
    json!({ "text": "Hello", "format": format, "streaming": streaming }).to_string()
}

fn speech(model: &str) -> String {
    json!({ "model": model, "input": "Hello", "voice": "low" }).to_string()
}

fn ping() -> String {
    json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" }).to_string()
}

/// What clients of the Model Context Protocol accept.
const BOTH: (&str, &str) = ("accept", "application/json, text/event-stream");

fn tool(name: &str, params: &Value) -> String {
    json!({ "tool_name": name, "params": params }).to_string()
}

const EVENTS: (&str, &str) = ("accept", "text/event-stream");

fn kinds(answer: &Answered) -> Vec<&str> {
    answer.text.lines().filter_map(|line| line.strip_prefix("event: ")).collect()
}

#[tokio::test]
async fn streams_of_documents_and_of_answers_from_them_are_described() {
    let (document, host) = (document(), Host::new());
    let answer = host.send("POST", "/ingest", &[EVENTS], &document_of("tea", 7)).await;
    assert_described(&document, "POST", "/ingest", &answer);
    assert_eq!(kinds(&answer), ["progress", "progress", "progress", "done"], "{}", answer.text);
    for (script, expected) in
        [(None, vec!["sources", "done"]), (Some(breaking_off()), vec!["sources", "error", "done"])]
    {
        match script {
            Some(script) => host.script(script),
            None => host.will_answer(),
        }
        let query = json!({ "query": format!("kettle {expected:?}"), "filter": { "lang": "en" } }).to_string();
        let answer = host.send("POST", "/search", &[EVENTS], &query).await;
        assert_described(&document, "POST", "/search", &answer);
        assert_eq!(kinds(&answer), expected, "{}", answer.text);
        assert!(answer.text.contains("\"content\":\"Hel\""), "{}", answer.text);
    }
}

#[tokio::test]
async fn an_answer_that_is_kept_is_told_again_and_marked() {
    let host = Host::new();
    host.send("POST", "/ingest", &[], &document_of("tea", 1)).await;
    host.will_answer();
    let first = host.send("POST", "/search", &[], &question()).await;
    let second = host.send("POST", "/search", &[], &question()).await;
    assert_eq!(first.headers["x-cache"], "miss");
    assert_eq!(second.headers["x-cache"], "hit");
    let (first, second) = (first.json(), second.json());
    assert_eq!(first["data"]["sources"], second["data"]["sources"]);
    assert_eq!(first["data"]["sources"][0]["id"], "tea#0");
    assert_eq!(second["usage"]["totalTokens"], 0);
}

fn breaking_off() -> Script {
    let error = ModelError::Interrupted { message: "cut".to_owned() };
    Script::new([Step::Say(Delta::Content("Hel".to_owned())), Step::Fail(error)])
}

#[tokio::test]
async fn good_answers_are_described() {
    let (document, host) = (document(), Host::new());
    let session = format!("/sessions/{SESSION}");
    let chat_of = format!("/chat/{SESSION}");
    let requests = [
        ("POST", "/chat", chat(true)),
        ("POST", "/chat", chat(false)),
        ("GET", &format!("{chat_of}/history?limit=2"), String::new()),
        ("GET", &format!("{session}/history"), String::new()),
        ("POST", "/v1/chat/completions", completion(true)),
        ("POST", "/v1/chat/completions", completion(false)),
        ("GET", "/sessions?limit=1", String::new()),
        ("DELETE", &chat_of, String::new()),
        ("POST", "/chat", chat(true)),
        ("DELETE", &session, String::new()),
        ("POST", "/ingest", document_of("tea", 3)),
        ("GET", "/documents?limit=1", String::new()),
        ("POST", "/search", question()),
        ("DELETE", "/documents/tea", String::new()),
        ("POST", "/v1/embeddings", embeddings("e")),
        ("POST", "/tts", spoken("mp3", false)),
        ("POST", "/tts", spoken("wav", true)),
        ("POST", "/tts", spoken("opus", false)),
        ("GET", "/tts/voices", String::new()),
        ("POST", "/v1/audio/speech", speech("t")),
        ("POST", "/mcp", ping()),
        ("GET", "/health", String::new()),
        ("GET", "/healthz", String::new()),
        ("GET", "/readyz", String::new()),
        ("GET", "/openapi.json", String::new()),
        ("GET", "/v1/models", String::new()),
        ("GET", "/v1/models/m", String::new()),
        ("GET", "/schema/tools", String::new()),
        ("POST", "/tools/execute", tool("ingest_docs", &json!({ "documents": [{ "docId": "d", "text": "Tea." }] }))),
    ];
    let mut seen = Vec::new();
    for (method, path, body) in &requests {
        if *method == "POST" {
            host.will_answer();
        }
        let headers: &[_] = if *path == "/mcp" { &[BOTH] } else { &[] };
        let answer = host.send(method, path, headers, body).await;
        assert_eq!(answer.status.as_u16(), 200, "{method} {path}: {}", answer.text);
        assert_described(&document, method, path, &answer);
        let id = &operation(&document, method, path)["operationId"];
        if !seen.contains(id) {
            seen.push(id.clone());
        }
    }
    assert_eq!(seen.len(), operations(&document).len(), "some operation was not asked");
}

#[tokio::test]
async fn tools_that_are_refused_or_fail_are_described() {
    let (document, host) = (document(), Host::new());
    let text = json!({ "text": "x" });
    // What it says is no JSON, the second time either.
    host.will_answer();
    host.will_answer();
    for (name, params, key, expected) in [
        ("owl", &text, "acme-key", "TOOL_NOT_FOUND"),
        ("summarize", &json!({ "text": 3, "more": 1 }), "acme-key", "VALIDATION_FAILED"),
        ("summarize", &text, "acme-key", "EXECUTION_ERROR"),
        ("summarize", &text, "tight-key", "PERMISSION_DENIED"),
    ] {
        let answer = host.send("POST", "/tools/execute", &[("x-api-key", key)], &tool(name, params)).await;
        assert_eq!(answer.json()["error"]["code"], expected, "{}", answer.text);
        assert_described(&document, "POST", "/tools/execute", &answer);
    }
    let mut body: Value = serde_json::from_str(&chat(true)).unwrap();
    body["tool_name"] = "owl".into();
    let answer = host.send("POST", "/chat", &[], &body.to_string()).await;
    assert_eq!(answer.json()["error"]["details"], json!({ "code": "TOOL_NOT_FOUND" }));
    assert_described(&document, "POST", "/chat", &answer);
}

#[tokio::test]
async fn an_answer_that_breaks_off_and_one_that_is_told_again_are_described() {
    let (document, host) = (document(), Host::new());
    for (path, body) in [("/chat", chat(true)), ("/v1/chat/completions", completion(true))] {
        let key = [("idempotency-key", "once")];
        host.script(breaking_off());
        for _ in 0..2 {
            let answer = host.send("POST", path, &key, &body).await;
            assert!(answer.text.contains("ai_error"), "{}", answer.text);
            assert_described(&document, "POST", path, &answer);
        }
        let other = host.send("POST", path, &key, &body.replace("Hi", "Ho")).await;
        assert_eq!(other.status.as_u16(), 422);
        assert_described(&document, "POST", path, &other);
    }
}

/// Status, method, path, headers and body.
type Refusal<'a> = (u16, &'a str, &'a str, Vec<(&'a str, &'a str)>, String);

#[tokio::test]
async fn refusals_are_described() {
    let (document, host) = (document(), Host::new());
    let nobody = ("x-api-key", "");
    let tight = ("x-api-key", "tight-key");
    let unknown_session = format!("/sessions/{}/history", SESSION.replace('6', "7"));
    let wrong_question = json!({ "query": "", "topK": 21, "filter": { "a": {} }, "mode": "x" }).to_string();
    let mut refusals: Vec<Refusal<'_>> = Vec::new();
    for (path, body) in [("/chat", chat(true)), ("/v1/chat/completions", completion(true))] {
        let other_model = body.replacen('{', "{\"modelId\":\"other\",", 1).replace("\"m\"", "\"other\"");
        refusals.extend([
            (400, "POST", path, vec![nobody], body.clone()),
            (400, "POST", path, vec![], "{".to_owned()),
            (400, "POST", path, vec![("x-user-id", "\t"), ("idempotency-key", "\u{e4}")], "{}".to_owned()),
            (401, "POST", path, vec![("x-api-key", "wrong")], body.clone()),
            (403, "POST", path, vec![tight, ("x-tenant-id", "acme")], body.clone()),
            (403, "POST", path, vec![("x-api-key", "acme-search-key")], body.clone()),
            (403, "POST", path, vec![tight], other_model),
            (404, "POST", path, vec![("x-tenant-id", "nobody")], body.clone()),
            (413, "POST", path, vec![], " ".repeat(70_000)),
            (415, "POST", path, vec![("content-type", "text/plain")], body.clone()),
            // The first one passes the window and then lacks a budget; the second one does not pass.
            (429, "POST", path, vec![tight], body.clone()),
            (429, "POST", path, vec![tight], body),
        ]);
    }
    refusals.extend([
        (400, "GET", "/sessions?limit=0&cursor=x&userId=", vec![], String::new()),
        (400, "GET", "/sessions/x/history", vec![], String::new()),
        (400, "POST", "/ingest", vec![], json!({ "docId": "a#b", "text": " ", "metadata": 7 }).to_string()),
        (403, "POST", "/ingest", vec![("x-api-key", "acme-search-key")], document_of("tea", 1)),
        (403, "POST", "/ingest", vec![tight], document_of("tea", 1)),
        (413, "POST", "/ingest", vec![], " ".repeat(2_100_000)),
        (400, "POST", "/search", vec![], wrong_question),
        (415, "POST", "/search", vec![("content-type", "text/plain")], question()),
        (400, "GET", "/documents?cursor=%5B", vec![], String::new()),
        (404, "DELETE", "/documents/unknown", vec![], String::new()),
        (403, "DELETE", "/documents/unknown", vec![("x-api-key", "acme-search-key")], String::new()),
        (400, "POST", "/v1/embeddings", vec![], json!({ "model": "e", "input": [1, 2] }).to_string()),
        (400, "POST", "/v1/embeddings", vec![], embeddings("unknown")),
        (400, "POST", "/tts", vec![], json!({ "text": " ", "voice": 7, "format": "flac", "speed": 9 }).to_string()),
        (400, "POST", "/tts", vec![], json!({ "text": "Hello", "voice": "nobody's" }).to_string()),
        (403, "POST", "/tts", vec![("x-api-key", "acme-search-key")], spoken("mp3", false)),
        (403, "POST", "/tts", vec![tight], spoken("mp3", false)),
        (415, "POST", "/tts", vec![("content-type", "text/plain")], spoken("mp3", false)),
        (403, "GET", "/tts/voices", vec![tight], String::new()),
        (400, "POST", "/v1/audio/speech", vec![], speech("unknown")),
        (403, "POST", "/v1/audio/speech", vec![tight], speech("t")),
        (400, "POST", "/mcp", vec![BOTH, nobody], ping()),
        (400, "POST", "/mcp", vec![BOTH, ("x-user-id", "\t")], ping()),
        (401, "POST", "/mcp", vec![BOTH, ("x-api-key", "wrong")], ping()),
        (403, "POST", "/mcp", vec![BOTH, ("origin", "https://evil.example")], ping()),
        (403, "POST", "/mcp", vec![BOTH, ("x-api-key", "acme-search-key")], ping().replace("ping", "tools/list")),
        (404, "POST", "/mcp", vec![BOTH, ("x-tenant-id", "nobody")], ping()),
        (406, "POST", "/mcp", vec![("accept", "application/json")], ping()),
        (413, "POST", "/mcp", vec![BOTH], " ".repeat(2_100_000)),
        (415, "POST", "/mcp", vec![BOTH, ("content-type", "text/plain")], ping()),
        (404, "GET", &unknown_session, vec![], String::new()),
        (400, "DELETE", "/chat/x", vec![], String::new()),
        (404, "DELETE", "/chat/00000000-0000-4000-8000-000000000000", vec![], String::new()),
        (404, "GET", "/v1/models/%20", vec![], String::new()),
        (401, "GET", "/health", vec![("x-api-key", "wrong")], String::new()),
    ]);
    for (status, method, path, headers, body) in refusals {
        let answer = host.send(method, path, &headers, &body).await;
        assert_eq!(answer.status.as_u16(), status, "{method} {path}: {}", answer.text);
        assert_described(&document, method, path, &answer);
    }
    for path in ["/chat", "/v1/chat/completions"] {
        host.script(Script::refusing(ModelError::Rejected { status: 404, message: String::new() }));
        let body = if path == "/chat" { chat(true) } else { completion(true) };
        let answer = host.send("POST", path, &[], &body).await;
        assert_eq!(answer.status.as_u16(), 502, "{}", answer.text);
        assert_described(&document, "POST", path, &answer);
    }
}

#[tokio::test]
async fn faults_of_the_host_are_told_in_shape_and_without_their_cause() {
    let (host, document) = (Host::new(), document());
    for (check, status, code) in [(Check::Panics, 500, "internal_error"), (Check::NotReady, 503, "unavailable")] {
        host.set_check(check);
        let answer = host.send("GET", "/readyz", &[], "").await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["error"]["code"]),
            (status, &code.into()),
            "{}",
            answer.text
        );
        assert!(!answer.text.contains("SECRET") && answer.headers.contains_key("x-trace-id"));
        // A fault of ours can happen anywhere, and is described once, with the codes.
        if status != 500 {
            assert_described(&document, "GET", "/readyz", &answer);
        }
        let other = host.send("GET", "/healthz", &[], "").await;
        assert_eq!(other.status.as_u16(), 200, "one request's panic is nobody else's");
    }
    host.set_check(Check::Ready);
    assert_eq!(host.send("GET", "/readyz", &[], "").await.status.as_u16(), 200);
}

#[tokio::test]
async fn a_host_at_capacity_says_so_on_every_route_of_a_tenant_and_its_places_come_back() {
    let limits = OverloadLimits { max_requests: 1, max_streams: 1, tenant_share_percent: 50 };
    let (host, document) = (Host::bounded(limits), document());
    let history = format!("/chat/{SESSION}/history");
    let routes = [
        ("POST", "/chat", chat(false)),
        ("POST", "/v1/chat/completions", completion(false)),
        ("GET", &*history, String::new()),
        ("GET", "/sessions", String::new()),
        ("GET", "/health", String::new()),
        ("GET", "/v1/models", String::new()),
        ("POST", "/ingest", document_of("tea", 1)),
        ("POST", "/search", question()),
        ("GET", "/documents", String::new()),
        ("POST", "/v1/embeddings", embeddings("e")),
        ("POST", "/tts", spoken("mp3", true)),
        ("GET", "/tts/voices", String::new()),
        ("POST", "/v1/audio/speech", speech("t")),
    ];
    let silent = || Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
    // A body that does not come has the only place of both kinds.
    let mut held = Box::pin(host.send_body("POST", "/chat", &[], silent()));
    assert!(held.as_mut().now_or_never().is_none());
    for (method, path, _) in &routes {
        // Whoever is refused is not asked for a body: this one never comes.
        let answer = host.send_body(method, path, &[], silent()).await;
        assert_eq!(answer.status.as_u16(), 503, "{}", answer.text);
        assert_eq!(answer.headers[RETRY_AFTER], "1");
        assert_described(&document, method, path, &answer);
        let stranger = host.send(method, path, &[("x-api-key", "nobody's")], "").await;
        assert_eq!(stranger.status.as_u16(), 401, "who may not come in is not told that it is full");
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!(host.send("GET", path, &[], "").await.status.as_u16(), 200);
    }
    // The client leaves; the next request panics; every place is free again after both.
    drop(held);
    let panics = stream::once(async { panic!("one of the tests' own") as Result<Bytes, Infallible> });
    let answer = host.send_body("POST", "/chat", &[], Body::from_stream(panics)).await;
    assert_eq!(answer.status.as_u16(), 500, "{}", answer.text);
    for (method, path, body) in &routes {
        host.will_answer();
        let mut answer = host.send(method, path, &[], body).await;
        while answer.status.as_u16() == 503 {
            // The chat before has answered, and closes its books.
            tokio::task::yield_now().await;
            answer = host.send(method, path, &[], body).await;
        }
        assert!(matches!(answer.status.as_u16(), 200 | 404), "{}", answer.text);
    }
}
