//! What is refused, and that a refusal leaves no trace.

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::time::Duration;

use crate::Host;
use crate::client::{Answer, Api, session, tag};
use crate::host::settings;
use crate::raw;
use crate::tenant::{Tenant, key_of};
use crate::upstream::PATIENCE;

/// The tenants of these cases.
pub fn tenants() -> Vec<Tenant> {
    let mut tenants: Vec<Tenant> =
        ["bad-all", "bad-each", "bad-unknown", "bad-json", "bad-type", "bad-long", "bad-completion", "bad-query"]
            .map(Tenant::new)
            .into();
    tenants.push(
        Tenant::new("bad-model")
            .with("featureFlags", json!({ "modelAllowList": true }))
            .with("allowedModels", json!(["scripted", "scripted-large"])),
    );
    tenants.extend(["bad-tool", "bad-ends", "bad-twice", "bad-path", "bad-question"].map(Tenant::new));
    tenants.push(Tenant::new("bad-shape").model("bad-shape"));
    tenants
}

/// Runs `ask`, and asserts that it took no slot, called no model and made no session.
async fn traceless(host: &Host, api: &Api, session: &str, tag: &str, ask: impl AsyncFnOnce() -> Answer) -> Answer {
    let before = api.remaining().await;
    let answer = ask().await;
    assert_eq!(answer.number("x-ratelimit-remaining"), before, "the refusal tells the windows: {answer:?}");
    assert!(answer.headers.contains_key("ratelimit") && answer.headers.contains_key("ratelimit-policy"));
    assert_eq!(api.remaining().await, before, "a slot was taken: {answer:?}");
    assert!(host.upstream.calls(tag).is_empty(), "a model was called");
    api.assert_unknown(session).await;
    answer
}

fn issues(details: &Value) -> Vec<(String, String)> {
    let issues = details["issues"].as_array().unwrap_or_else(|| panic!("no issues in {details}"));
    let path = |issue: &Value| issue["path"].as_array().unwrap().iter().map(Value::to_string).collect::<Vec<_>>();
    let path = |issue: &Value| path(issue).join(".").replace('"', "");
    issues.iter().map(|issue| (path(issue), issue["message"].as_str().unwrap().to_owned())).collect()
}

fn places(details: &Value) -> Vec<String> {
    let mut places: Vec<_> = issues(details).into_iter().map(|(place, _)| place).collect();
    places.sort_unstable();
    places.dedup();
    places
}

/// All issues at once, each with its place.
pub async fn every_fault_of_a_chat_is_named_at_once(host: &Host) {
    let (api, session, tag) = (host.tenant("bad-all"), session(), tag());
    let body = json!({
        "sessionId": "not-a-uuid", "message": "", "stream": "yes", "modelId": "", "userId": "\n",
        "tool_name": 3, "tool_params": [],
    });
    let answer = traceless(host, &api, &session, &tag, async || {
        api.with("idempotency-key", &"k".repeat(256)).post("/chat", &body).await
    });
    let details = answer.await.error(400, "invalid_request");
    let expected =
        ["Idempotency-Key", "message", "modelId", "sessionId", "stream", "tool_name", "tool_params", "userId"];
    assert_eq!(places(&details), expected);
    let found = issues(&details);
    assert!(found.contains(&("sessionId".to_owned(), "must be a UUID".to_owned())), "{found:?}");
    let details = api.post("/chat", &json!({})).await.error(400, "invalid_request");
    assert_eq!(
        issues(&details),
        [("sessionId", "is required"), ("message", "is required")].map(|(a, b)| (a.into(), b.into()))
    );
    for body in [json!([]), json!(3), json!("text"), json!(null)] {
        let details = api.post("/chat", &body).await.error(400, "invalid_request");
        assert_eq!(issues(&details), [(String::new(), "must be an object".to_owned())]);
    }
}

/// One wrong field at a time, on the edge of what is right.
pub async fn each_field_has_its_range(host: &Host) {
    let api = host.tenant("bad-each");
    let long = "ü".repeat(settings::MAX_MESSAGE_LENGTH + 1);
    for (place, fields) in [
        ("sessionId", json!({ "sessionId": 7 })),
        ("sessionId", json!({ "sessionId": null })),
        ("sessionId", json!({ "sessionId": "" })),
        ("sessionId", json!({ "sessionId": "00000000-0000-0000-0000-00000000000g" })),
        ("message", json!({ "message": null })),
        ("message", json!({ "message": ["text"] })),
        ("message", json!({ "message": long })),
        ("stream", json!({ "stream": 1 })),
        ("modelId", json!({ "modelId": "a b" })),
        ("modelId", json!({ "modelId": "m".repeat(201) })),
        ("userId", json!({ "userId": "" })),
        ("userId", json!({ "userId": "u".repeat(257) })),
        ("userId", json!({ "userId": { "name": "x" } })),
    ] {
        let (session, tag) = (session(), tag());
        let mut body = json!({ "sessionId": session, "message": tag, "stream": false });
        for (name, value) in fields.as_object().unwrap() {
            body[name] = value.clone();
        }
        let answer = traceless(host, &api, &session, &tag, async || api.post("/chat", &body).await).await;
        assert_eq!(places(&answer.error(400, "invalid_request")), [place], "{fields}");
    }
    let details = api.with("x-user-id", &"u".repeat(257)).chat(&session(), "hello").await.error(400, "invalid_request");
    assert_eq!(places(&details), ["x-user-id"]);
    // What is just inside is accepted: characters count, not bytes.
    let longest = "ü".repeat(settings::MAX_MESSAGE_LENGTH);
    let body = json!({
        "sessionId": session(), "message": longest, "stream": false, "modelId": "m".repeat(200), "userId": "u".repeat(256),
    });
    api.post("/chat", &body).await.ok();
    let nil = "00000000-0000-0000-0000-000000000000";
    api.chat(nil, "hello").await.ok();
    assert_eq!(api.said(&nil.to_uppercase()).await.len(), 2);
}

/// A newer client may say more than an older host knows.
pub async fn unknown_fields_are_ignored(host: &Host) {
    let api = host.tenant("bad-unknown");
    let body = json!({
        "sessionId": session(), "message": "hello", "stream": false, "colour": "red", "__proto__": {}, "modelId": null,
        "userId": null, "tool_name": null, "tool_params": null,
    });
    api.post("/chat", &body).await.ok();
    api.complete("hello", &json!({ "colour": "red", "logit_bias": {}, "service_tier": "auto" })).await.object();
}

/// 400, on both faces.
pub async fn what_is_not_json_is_refused(host: &Host) {
    let (api, session) = (host.tenant("bad-json"), session());
    let deep = "[".repeat(10_000);
    for body in ["", "{", "hello", "{'sessionId': 1}", "{\"a\":1}{\"b\":2}", "\u{feff}{}", "{\"a\": NaN}", &*deep] {
        let answer = traceless(host, &api, &session, "no such tag", async || {
            api.send(Method::POST, "/chat", Some(("application/json", Bytes::copy_from_slice(body.as_bytes())))).await
        });
        assert!(answer.await.error(400, "invalid_json").is_null(), "{body}");
    }
    let bytes = Bytes::from_static(b"{\"message\": \"\xff\"}");
    api.send(Method::POST, "/chat", Some(("application/json", bytes.clone()))).await.error(400, "invalid_json");
    let answer = api.send(Method::POST, "/v1/chat/completions", Some(("application/json", bytes))).await;
    answer.openai_error(400, "invalid_json", "invalid_request_error");
}

/// 415, and what counts as JSON.
pub async fn other_media_types_are_refused(host: &Host) {
    let (api, tag) = (host.tenant("bad-type"), tag());
    let session = session();
    let body = Bytes::from(json!({ "sessionId": session, "message": tag, "stream": false }).to_string());
    for kind in
        ["", "text/plain", "application/x-www-form-urlencoded", "text/json", "multipart/form-data; boundary=x", "json"]
    {
        let answer = traceless(host, &api, &session, &tag, async || {
            api.send(Method::POST, "/chat", Some((kind, body.clone()))).await
        });
        assert!(answer.await.error(415, "unsupported_media_type").is_null(), "{kind}");
    }
    let answer = api.send(Method::POST, "/v1/chat/completions", Some(("text/plain", body.clone()))).await;
    answer.openai_error(415, "unsupported_media_type", "invalid_request_error");
    for kind in ["application/json; charset=utf-8", "Application/JSON", "application/vnd.chat+json"] {
        api.send(Method::POST, "/chat", Some((kind, body.clone()))).await.ok();
    }
}

fn padded(session: &str, tag: &str, bytes: usize) -> String {
    let frame = json!({ "sessionId": session, "message": tag, "stream": false, "padding": "" }).to_string();
    let padding = "x".repeat(bytes - frame.len());
    frame.replace("\"padding\":\"\"", &format!("\"padding\":\"{padding}\""))
}

/// 413: the bytes count, announced or not.
pub async fn a_long_body_is_refused_whatever_it_announces(host: &Host) {
    let (api, tag) = (host.tenant("bad-long"), tag());
    let session = session();
    let limit = settings::MAX_REQUEST_BODY_SIZE;
    let fits = padded(&session, "fits", limit);
    assert_eq!(fits.len(), limit);
    let long = Bytes::from(padded(&session, &tag, limit + 1));
    let answer = traceless(host, &api, &session, &tag, async || {
        api.send(Method::POST, "/chat", Some(("application/json", long.clone()))).await
    });
    assert!(answer.await.error(413, "payload_too_large").is_null());
    let answer = api.send(Method::POST, "/v1/chat/completions", Some(("application/json", long.clone()))).await;
    answer.openai_error(413, "payload_too_large", "invalid_request_error");

    let chunk = |bytes: &[u8]| [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
    let key = key_of("bad-long");
    let head = |more: (&str, &str)| {
        let fixed = ("content-type", "application/json");
        raw::head(&host.base_url, "POST", "/chat", &[("x-api-key", &key), fixed, more])
    };
    // Chunked: no length is announced.
    let mut request = head(("transfer-encoding", "chunked")).into_bytes();
    for part in long.chunks(1000) {
        request.extend(chunk(part));
    }
    request.extend(chunk(b""));
    let (status, text) = raw::exchange(&host.base_url, &request).await;
    assert_eq!(status, 413, "{text}");
    assert!(text.contains("payload_too_large"), "{text}");
    // A length that is announced is believed before a byte of it has come.
    let (status, text) = raw::exchange(&host.base_url, head(("content-length", "99999999999")).as_bytes()).await;
    assert_eq!(status, 413, "{text}");
    // One that is too small cuts the body, which is then no JSON; what follows it is no request.
    let mut request = head(("content-length", "20")).into_bytes();
    request.extend_from_slice(&long);
    let (status, text) = raw::exchange(&host.base_url, &request).await;
    assert_eq!(status, 400, "{text}");
    assert!(text.contains("invalid_json"), "{text}");

    assert!(host.upstream.calls(&tag).is_empty());
    api.assert_unknown(&session).await;
    api.send(Method::POST, "/chat", Some(("application/json", fits.into()))).await.ok();
}

/// A client must be able to read the refusal, and to send its next request: either the host takes the rest of a refused body in,
/// or it says that the connection ends. A connection that is closed without a word fails whatever is sent on it next.
pub async fn a_refusal_ends_the_connection_by_its_word_only(host: &Host) {
    let key = key_of("bad-ends");
    let json = "application/json";
    let length = settings::MAX_REQUEST_BODY_SIZE + 1;
    let long = padded(&session(), &tag(), length);
    let short = padded(&session(), &tag(), 1000);
    for (expected, path, key, kind, body) in [
        (413, "/chat", &*key, json, &long),
        (413, "/v1/chat/completions", &*key, json, &long),
        (401, "/chat", "wrong", json, &short),
        (415, "/chat", &*key, "text/plain", &short),
        (404, "/nothing", &*key, json, &short),
        (405, "/health", &*key, json, &short),
    ] {
        let length = body.len().to_string();
        let headers =
            [("x-api-key", key), ("x-tenant-id", "bad-ends"), ("content-type", kind), ("content-length", &length)];
        let mut connection = raw::connect(&host.base_url).await;
        connection.write_all(raw::head(&host.base_url, "POST", path, &headers).as_bytes()).await.unwrap();
        // The answer may come before the body, or after it.
        let mut answer = raw::answer(&mut connection, Duration::from_millis(500)).await;
        let ends = answer.to_ascii_lowercase().contains("\r\nconnection: close\r\n");
        let sent = connection.write_all(body.as_bytes()).await;
        if answer.is_empty() {
            answer = raw::answer(&mut connection, PATIENCE).await;
        }
        assert_eq!(raw::status(&answer), expected, "{path}: {answer}");
        if ends {
            continue;
        }
        let next = raw::head(&host.base_url, "GET", "/healthz", &[]);
        let sent = match sent {
            Ok(()) => connection.write_all(next.as_bytes()).await,
            Err(error) => Err(error),
        };
        let answer = raw::answer(&mut connection, PATIENCE).await;
        assert!(sent.is_ok() && !answer.is_empty(), "{expected} on {path}: the connection was closed without a word");
        assert_eq!(raw::status(&answer), 200, "{answer}");
    }
}

/// A proxy in front could believe the other one of two copies. A host that is handed both as one value knows nobody by that.
pub async fn who_asks_is_said_once_only(host: &Host) {
    let key = key_of("bad-twice");
    let other = key_of("bad-path");
    for (name, first, second) in [
        ("x-tenant-id", "bad-twice", "bad-path"),
        ("x-api-key", &*key, &*other),
        ("x-user-id", "alice", "bob"),
        ("host", "a.example", "b.example"),
    ] {
        let usual = [("x-tenant-id", "bad-twice"), ("x-api-key", &*key)];
        let mut headers: Vec<_> = usual.into_iter().filter(|(usual, _)| *usual != name).collect();
        headers.extend([(name, first), (name, second)]);
        let request = raw::head(&host.base_url, "GET", "/health", &headers);
        let (status, answer) = raw::exchange(&host.base_url, request.as_bytes()).await;
        if host.platform.sees_repeated_headers {
            assert_eq!(status, 400, "{name}: {answer}");
            assert!(answer.contains("\"invalid_request\"") && answer.contains(name), "{name}: {answer}");
        } else if let "x-tenant-id" | "x-api-key" = name {
            assert!((400..500).contains(&status), "{name}: {answer}");
        }
    }
}

/// A percent-encoding of what is no UTF-8.
pub async fn a_path_that_is_no_text_is_refused_in_shape(host: &Host) {
    let api = host.tenant("bad-path");
    for path in ["/chat/%FF/history", "/sessions/%FF/history"] {
        assert_eq!(places(&api.get(path).await.error(400, "invalid_request")), ["sessionId"]);
    }
    assert_eq!(places(&api.delete("/chat/%FF").await.error(400, "invalid_request")), ["sessionId"]);
    api.get("/v1/models/%FF").await.openai_error(404, "not_found", "invalid_request_error");
}

/// With a session, the newest message is what the user asks.
pub async fn a_session_needs_a_question(host: &Host) {
    let (api, session, tag) = (host.tenant("bad-question"), session(), tag());
    let messages = json!([{ "role": "user", "content": tag }, { "role": "assistant", "content": "Let me begin:" }]);
    let keeping = api.with("x-session-id", &session);
    let body = json!({ "model": "scripted", "messages": messages });
    let answer =
        traceless(host, &api, &session, &tag, async || keeping.post("/v1/chat/completions", &body).await).await;
    let error = answer.openai_error(400, "invalid_request", "invalid_request_error");
    assert_eq!(error["param"], "messages");
}

/// `messages[1].content[0].type`, and so on.
pub async fn every_fault_of_a_completion_is_named(host: &Host) {
    let (api, tag) = (host.tenant("bad-completion"), tag());
    let before = api.remaining().await;
    let cases = [
        ("model", json!({ "model": null })),
        ("model", json!({ "model": "a b" })),
        ("messages", json!({ "messages": null })),
        ("messages", json!({ "messages": [] })),
        ("messages", json!({ "messages": "hello" })),
        ("messages[0]", json!({ "messages": ["hello"] })),
        ("messages[0].role", json!({ "messages": [{ "content": "x" }] })),
        ("messages[0].role", json!({ "messages": [{ "role": "robot", "content": "x" }] })),
        ("messages[0].content", json!({ "messages": [{ "role": "user" }] })),
        ("messages[0].content", json!({ "messages": [{ "role": "user", "content": 3 }] })),
        (
            "messages[0].content[0].type",
            json!({ "messages": [{ "role": "user", "content": [{ "type": "image_url" }] }] }),
        ),
        ("messages[0].tool_call_id", json!({ "messages": [{ "role": "tool", "content": "x" }] })),
        ("n", json!({ "n": 2 })),
        ("max_tokens", json!({ "max_tokens": 0 })),
        ("max_completion_tokens", json!({ "max_completion_tokens": -1 })),
        ("temperature", json!({ "temperature": 2.1 })),
        ("top_p", json!({ "top_p": 1.5 })),
        ("frequency_penalty", json!({ "frequency_penalty": -3 })),
        ("presence_penalty", json!({ "presence_penalty": "high" })),
        ("seed", json!({ "seed": 1.5 })),
        ("stop", json!({ "stop": ["a", "b", "c", "d", "e"] })),
        ("stop", json!({ "stop": "" })),
        ("stream", json!({ "stream": "true" })),
        ("stream_options.include_usage", json!({ "stream_options": { "include_usage": 1 } })),
        ("tools", json!({ "tools": {} })),
        ("tools[0].type", json!({ "tools": [{ "type": "search", "function": { "name": "x" } }] })),
        ("tools[0].function.name", json!({ "tools": [{ "type": "function", "function": { "name": "" } }] })),
        ("tool_choice", json!({ "tool_choice": "perhaps" })),
        ("response_format.type", json!({ "response_format": { "type": "xml" } })),
        ("response_format.json_schema", json!({ "response_format": { "type": "json_schema" } })),
        ("user", json!({ "user": "" })),
    ];
    for (param, fields) in cases {
        let error = api.complete(&tag, &fields).await.openai_error(400, "invalid_request", "invalid_request_error");
        assert_eq!(error["param"], param, "{fields}: {error}");
    }
    let error = api.with("x-session-id", "mine").complete(&tag, &json!({})).await;
    let error = error.openai_error(400, "invalid_request", "invalid_request_error");
    assert_eq!(error["param"], "x-session-id");
    assert!(host.upstream.calls(&tag).is_empty(), "a model was called");
    assert_eq!(api.remaining().await, before, "a slot was taken");
}

/// Every kind of refusal, in the shape that an SDK reads.
pub async fn openai_clients_read_faults_in_their_shape(host: &Host) {
    let api = host.tenant("bad-shape");
    let kind = "invalid_request_error";
    api.complete("x", &json!({ "messages": [] })).await.openai_error(400, "invalid_request", kind);
    api.without("x-api-key").complete("x", &json!({})).await.openai_error(401, "unauthorized", "authentication_error");
    let nameless = api.without("x-api-key").without("x-tenant-id");
    nameless.complete("x", &json!({})).await.openai_error(400, "tenant_required", kind);
    api.get("/v1/models/a%20b").await.openai_error(404, "not_found", kind);
    let failed = api.complete("[[status 500]]", &json!({ "model": "bad-shape" })).await;
    failed.openai_error(502, "ai_error", "server_error");
}

/// `limit`, `before`, `cursor`, `userId` and the session in the path.
pub async fn queries_of_sessions_are_checked(host: &Host) {
    let api = host.tenant("bad-query");
    let session = session();
    for limit in ["0", "201", "-1", "1.5", "many", ""] {
        for path in [format!("/chat/{session}/history?limit={limit}"), format!("/sessions?limit={limit}")] {
            assert_eq!(places(&api.get(&path).await.error(400, "invalid_request")), ["limit"], "{path}");
        }
    }
    for (path, place) in [
        (format!("/chat/{session}/history?before=x"), "before"),
        ("/sessions?cursor=x".to_owned(), "cursor"),
        ("/sessions?cursor=1_x".to_owned(), "cursor"),
        ("/sessions?userId=".to_owned(), "userId"),
        ("/chat/nobody/history".to_owned(), "sessionId"),
        ("/sessions/nobody/history".to_owned(), "sessionId"),
        (format!("/chat/{session}%00/history"), "sessionId"),
    ] {
        assert_eq!(places(&api.get(&path).await.error(400, "invalid_request")), [place], "{path}");
    }
    assert_eq!(places(&api.delete("/chat/nobody").await.error(400, "invalid_request")), ["sessionId"]);
    let both = api.get("/chat/nobody/history?limit=0&before=x").await.error(400, "invalid_request");
    assert_eq!(places(&both), ["before", "limit", "sessionId"]);
    api.get(&format!("/chat/{session}/history?limit=1&limit=2")).await.error(400, "invalid_request");
    api.delete(&format!("/chat/{session}")).await.error(404, "not_found");
}

/// By the request or by precedence.
pub async fn a_model_that_is_not_allowed_is_refused(host: &Host) {
    let (api, tag) = (host.tenant("bad-model"), tag());
    let session = session();
    let body = json!({ "sessionId": session, "message": tag, "stream": false, "modelId": "other" });
    let answer = traceless(host, &api, &session, &tag, async || api.post("/chat", &body).await).await;
    answer.error(403, "model_not_allowed");
    let answer = api.complete(&tag, &json!({ "model": "other" })).await;
    answer.openai_error(403, "model_not_allowed", "permission_error");
    let body = json!({ "sessionId": session, "message": tag, "stream": false, "modelId": "scripted-large" });
    assert_eq!(api.post("/chat", &body).await.header("x-model-id"), Some("scripted-large"));
}

/// A tenant has no tools unless its file says so.
pub async fn a_tool_that_is_not_enabled_ends_a_chat(host: &Host) {
    let (api, tag, session) = (host.tenant("bad-tool"), tag(), session());
    let body = json!({ "sessionId": session, "message": tag, "tool_name": "summarize", "tool_params": {} });
    // It has a slot of the limiter: its refusal is put on record, and nobody may fill the records.
    let refused = api.post("/chat", &body).await.error(400, "tool_error");
    assert_eq!(refused["code"], "PERMISSION_DENIED");
    api.assert_unknown(&session).await;
    assert!(host.upstream.calls(&tag).is_empty());
}
