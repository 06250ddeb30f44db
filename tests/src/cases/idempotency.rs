//! Requests that may be repeated.

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use super::budgets::{assert_refused, spend};
use crate::Host;
use crate::client::{completion, session, tag};
use crate::sse::Event;
use crate::tenant::Tenant;
use crate::upstream::{Call, PATIENCE, words};

/// The tenants of these cases.
pub fn tenants() -> Vec<Tenant> {
    let mut tenants: Vec<Tenant> =
        ["idem-openai", "idem-mismatch", "idem-wait", "idem-users", "idem-other", "idem-printable"]
            .map(Tenant::new)
            .into();
    tenants.push(Tenant::new("idem-repeat").with("tokenBudget", json!({ "daily": 1000 })));
    tenants.push(Tenant::new("idem-away"));
    tenants.push(Tenant::new("idem-tight").with("tokenBudget", json!({ "daily": 200 })));
    tenants.push(Tenant::new("idem-stream").model("idem-stream"));
    tenants.push(Tenant::new("idem-failure").only_models(&["idem-failing", "idem-gone", "idem-good"]));
    tenants
}

/// The same answer, and nothing is spent, appended or asked.
pub async fn a_repeat_gets_the_first_answer(host: &Host) {
    let (session, tag) = (session(), tag());
    let api = host.tenant("idem-repeat").with("idempotency-key", &tag);
    let message = format!("{tag} [[tokens 4]][[usage 7 9]]");
    let first = api.chat(&session, &message).await;
    assert_eq!(first.header("idempotency-replayed"), None);
    let left = api.remaining().await;
    for _ in 0..3 {
        let again = api.chat(&session, &message).await;
        assert_eq!(again.ok(), first.ok());
        assert_eq!(again.json()["usage"], first.json()["usage"]);
        assert_eq!(again.header("idempotency-replayed"), Some("true"));
        for name in ["x-model-id", "x-tokens-in", "x-tokens-out", "x-tokens-total", "x-ai-latency-ms", "x-tenant-id"] {
            assert_eq!(again.header(name), first.header(name), "{name}");
        }
        assert_ne!(again.header("x-request-id"), first.header("x-request-id"));
        assert_eq!(again.number("x-ratelimit-remaining"), left);
    }
    assert_eq!(host.upstream.calls(&tag).len(), 1);
    assert_eq!(api.said(&session).await.len(), 2);
    assert_eq!(api.remaining().await, left, "a repeat took a slot");
    // 16 tokens are spent, once.
    let plain = host.tenant("idem-repeat");
    assert_refused(&plain, 985, "daily").await;
    spend(&plain, 984, (1, 1)).await;
}

/// A streamed answer can be had again, streamed.
pub async fn a_streamed_repeat_gets_the_first_answer(host: &Host) {
    let (session, tag) = (session(), tag());
    let api = host.tenant("idem-stream").with("idempotency-key", "the same");
    let message = format!("{tag} [[tokens 6]]");
    let first = api.chat_stream(&session, &message).await.finish().await;
    let again = api.chat_stream(&session, &message).await;
    assert_eq!(again.headers["idempotency-replayed"], "true");
    let again = again.finish().await;
    assert_eq!((&again.text, &again.done), (&first.text, &first.done));
    assert_eq!(again.first_id, Some(1));
    assert_eq!(host.upstream.calls(&tag).len(), 1);
    assert_eq!(api.said(&session).await.len(), 2);
    // A truncated answer is an answer, too: its tokens were paid for.
    let (session, tag) = (crate::client::session(), crate::client::tag());
    let api = api.with("idempotency-key", "cut");
    let message = format!("{tag} [[cut after 2]]");
    let first = api.chat_stream(&session, &message).await.finish().await;
    let again = api.chat_stream(&session, &message).await.finish().await;
    assert_eq!((&again.text, &again.error.unwrap()["code"], &again.done), (&words(2), &json!("ai_error"), &first.done));
    assert_eq!(host.upstream.calls(&tag).len(), 1);
    assert_eq!(api.said(&session).await.len(), 2);
}

/// What was made before the client went away was paid for; a repeat gets it, and is told that it is not all.
pub async fn a_repeat_after_going_away_gets_what_there_was(host: &Host) {
    let tag = tag();
    let api = host.tenant("idem-away").with("idempotency-key", "k");
    let message = format!("{tag}[[tokens 2]][[hang]]");
    let streamed = json!({ "sessionId": session(), "message": message });
    let mut reply = api.open("/chat", &streamed).await;
    assert_eq!([reply.text().await, reply.text().await].concat(), words(2));
    drop(reply);
    let mut reply = api.complete_stream(&message, &json!({})).await;
    assert_eq!([reply.text().await, reply.text().await].concat(), words(2));
    drop(reply);
    let repeat = async |path: &str, body: &Value| {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            let body = Some(("application/json", Bytes::from(body.to_string())));
            let reply = api.begin(Method::POST, path, body).await.unwrap();
            if reply.status != 409 {
                assert_eq!(reply.headers["idempotency-replayed"], "true");
                return reply;
            }
            assert!(tokio::time::Instant::now() < end, "the first was never given up");
        }
    };
    let again = repeat("/chat", &streamed).await.finish().await;
    assert_eq!((again.text, again.error), (words(2), None));
    assert_eq!(again.done["finishReason"], "truncated");
    let mut completion = completion(&message, &json!({}));
    completion["stream"] = true.into();
    let events = repeat("/v1/chat/completions", &completion).await.rest().await;
    assert_eq!(events.iter().filter_map(Event::text).collect::<Vec<_>>().concat(), words(2));
    assert_eq!(events.last().unwrap().data.as_deref(), Some("[DONE]"));
    let reasons: Vec<_> = events
        .iter()
        .filter_map(|event| {
            let data = event.data.as_deref().filter(|data| *data != "[DONE]")?;
            let chunk: Value = serde_json::from_str(data).unwrap();
            chunk["choices"][0]["finish_reason"].as_str().map(str::to_owned)
        })
        .collect();
    assert_eq!(reasons, ["length"]);
    assert_eq!(host.upstream.calls(&tag).len(), 2);
}

/// `/v1` repeats as well, ids and all.
pub async fn a_repeat_on_the_other_face(host: &Host) {
    let (tag, session) = (tag(), session());
    let api = host.tenant("idem-openai").with("idempotency-key", "k").with("x-session-id", &session);
    let first = api.complete(&tag, &json!({})).await.object();
    let again = api.complete(&tag, &json!({})).await;
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.object(), first);
    let tools = json!({ "tools": [{ "type": "function", "function": { "name": "get_weather" } }] });
    let (api, message) = (api.without("x-session-id").with("idempotency-key", "t"), format!("{tag} [[tool]]"));
    let first = api.complete(&message, &tools).await.object();
    assert_eq!(first["choices"][0]["finish_reason"], "tool_calls");
    assert_eq!(api.complete(&message, &tools).await.object(), first);
    assert_eq!(host.upstream.calls(&tag).len(), 2);
    // The same key on another route is another key.
    api.with("idempotency-key", "k").chat(&session, &tag).await.ok();
    assert_eq!(host.upstream.calls(&tag).len(), 3);
}

/// 422: the key was used for something else.
pub async fn another_body_is_a_mismatch(host: &Host) {
    let (session, tag) = (session(), tag());
    let api = host.tenant("idem-mismatch").with("idempotency-key", "k");
    api.chat(&session, "first").await.ok();
    api.chat(&session, &tag).await.error(422, "idempotency_mismatch");
    let body = json!({ "sessionId": session, "message": "first" });
    api.post("/chat", &body).await.error(422, "idempotency_mismatch");
    api.complete("first", &json!({})).await.object();
    let answer = api.complete(&tag, &json!({})).await;
    answer.openai_error(422, "idempotency_mismatch", "invalid_request_error");
    // The session is part of what was asked, wherever it stands.
    let answer = api.with("x-session-id", &session).complete("first", &json!({})).await;
    answer.openai_error(422, "idempotency_mismatch", "invalid_request_error");
    assert!(host.upstream.calls(&tag).is_empty());
    assert_eq!(api.said(&session).await.len(), 2);
}

/// 409 while the first runs; afterwards its answer.
pub async fn a_repeat_during_the_first_must_wait(host: &Host) {
    let (session, tag) = (session(), tag());
    let api = host.tenant("idem-wait").with("idempotency-key", "k");
    let message = format!("{tag}[[tokens 1]][[gate {tag}]][[tokens 1]]");
    let mut first = api.chat_stream(&session, &message).await;
    first.text().await;
    let body = json!({ "sessionId": session, "message": message });
    let waiting = api.post("/chat", &body).await;
    waiting.error(409, "idempotency_in_progress");
    assert!(waiting.number("retry-after") >= 1);
    api.chat(&session, "something else").await.error(422, "idempotency_mismatch");
    host.upstream.open(&tag);
    let first = first.finish().await;
    let again = api.chat_stream(&session, &message).await.finish().await;
    assert_eq!(again.done, first.done);
    assert_eq!(host.upstream.calls(&tag).len(), 1);
}

/// What failed before its answer began may be tried again, with the same key.
pub async fn a_failure_frees_the_key(host: &Host) {
    let (api, tag) = (host.tenant("idem-failure"), tag());
    let body =
        |session: &str, model: &str| json!({ "sessionId": session, "message": tag, "stream": false, "modelId": model });
    // A model that fails.
    host.upstream.script("idem-failing", &["[[status 400]]", "[[tokens 2]]"]);
    let (failing, first) = (api.with("idempotency-key", "failing"), session());
    failing.post("/chat", &body(&first, "idem-failing")).await.error(502, "ai_error");
    failing.post("/chat", &body(&first, "idem-failing")).await.ok();
    let again = failing.post("/chat", &body(&first, "idem-failing")).await;
    again.ok();
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(host.upstream.calls(&tag).len(), 2);

    // A refusal, even of another body.
    let refused = api.with("idempotency-key", "refused");
    refused.post("/chat", &json!({ "sessionId": first })).await.error(400, "invalid_request");
    refused.post("/chat", &body(&session(), "idem-unknown")).await.error(403, "model_not_allowed");
    refused.post("/chat", &body(&session(), "idem-good")).await.ok();

    // A budget that was too small for what was asked.
    let tight = host.tenant("idem-tight").with("idempotency-key", "tight");
    let held = crate::client::tag();
    let mut other = host.tenant("idem-tight").chat_stream(&session(), &format!("[[tokens 1]][[gate {held}]]")).await;
    other.text().await;
    let session = session();
    tight.chat(&session, "hello").await.error(429, "budget_exceeded");
    host.upstream.open(&held);
    other.finish().await;
    tight.chat(&session, "hello").await.ok();

    // A client that went away before the answer began.
    host.upstream.script("idem-gone", &["[[hang before first]]", "[[tokens 2]]"]);
    let (gone, last) = (api.with("idempotency-key", "gone"), crate::client::session());
    let asked = Bytes::from(body(&last, "idem-gone").to_string());
    let is_ours = |call: &Call| call.model == "idem-gone";
    tokio::select! {
        answer = gone.begin(Method::POST, "/chat", Some(("application/json", asked))) => panic!("{:?}", answer.is_ok()),
        _ = host.upstream.call_where(&tag, "came", is_ours) => {}
    }
    let ended = |call: &Call| is_ours(call) && call.ended().is_some();
    host.upstream.call_where(&tag, "was dropped", ended).await;
    // The bookkeeping may take a moment.
    let end = tokio::time::Instant::now() + PATIENCE;
    let answer = loop {
        let answer = gone.post("/chat", &body(&last, "idem-gone")).await;
        if answer.status != 409 {
            break answer;
        }
        assert!(tokio::time::Instant::now() < end, "the key was never freed");
    };
    answer.ok();
    // A host that has not noticed has called the model again, and has the answer.
    let replayed = if host.platform.notices_gone_early { None } else { Some("true") };
    assert_eq!(answer.header("idempotency-replayed"), replayed);
    assert_eq!(api.said(&last).await.len(), 2);
}

/// A key belongs to who used it.
pub async fn users_and_tenants_do_not_share_keys(host: &Host) {
    let session = session();
    let chat = async |tenant: &str, user: &str, message: &str| {
        let body = json!({ "sessionId": session, "message": message, "stream": false, "userId": user });
        host.tenant(tenant).with("idempotency-key", "k").post("/chat", &body).await
    };
    assert_eq!(chat("idem-users", "ada", "[[say ada]]").await.ok()["message"], "ada");
    assert_eq!(chat("idem-users", "grace", "[[say grace]]").await.ok()["message"], "grace");
    assert_eq!(chat("idem-other", "ada", "[[say other]]").await.ok()["message"], "other");
    assert_eq!(chat("idem-users", "ada", "[[say ada]]").await.ok()["message"], "ada");
    chat("idem-other", "ada", "[[say ada]]").await.error(422, "idempotency_mismatch");
}

/// 1 to 255 printable ASCII characters.
pub async fn a_key_must_be_printable(host: &Host) {
    let (api, tag) = (host.tenant("idem-printable"), tag());
    for bad in [&b""[..], "ü".as_bytes(), b"\xff", "k".repeat(256).as_bytes(), b"a\tb"] {
        let answer = api.with_bytes("idempotency-key", bad).chat(&session(), &tag).await;
        let details = answer.error(400, "invalid_request");
        assert_eq!(details["issues"][0]["path"], json!(["Idempotency-Key"]), "{details}");
        let body = completion(&tag, &json!({}));
        let answer = api.with_bytes("idempotency-key", bad).post("/v1/chat/completions", &body).await;
        answer.openai_error(400, "invalid_request", "invalid_request_error");
    }
    assert!(host.upstream.calls(&tag).is_empty());
    for good in ["k", "a b", &"k".repeat(255), "{\"~!\\"] {
        api.with("idempotency-key", good).chat(&session(), &tag).await.ok();
    }
}
