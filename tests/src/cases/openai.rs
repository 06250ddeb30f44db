//! The OpenAI-compatible face.

use serde_json::{Value, json};

use crate::Host;
use crate::client::{session, tag};
use crate::host::settings;
use crate::sse::Event;
use crate::tenant::Tenant;
use crate::upstream::words;

/// The tenants of these cases.
pub fn tenants() -> Vec<Tenant> {
    let mut tenants: Vec<Tenant> = [
        "openai-whole",
        "openai-stream",
        "openai-usage",
        "openai-tools",
        "openai-options",
        "openai-session",
        "openai-mixed",
    ]
    .map(Tenant::new)
    .into();
    tenants.push(Tenant::new("openai-models").model("openai/own-model"));
    tenants.push(Tenant::new("openai-listed").only_models(&["scripted", "vendor/listed"]));
    tenants.push(Tenant::new("openai-limit").with("rateLimit", json!({ "perMinute": 2 })));
    tenants.push(Tenant::new("openai-broken").model("openai-broken"));
    tenants
}

/// Every field of a completion.
pub async fn a_completion_in_one_piece(host: &Host) {
    let api = host.tenant("openai-whole");
    let answer = api.complete("hi [[tokens 5]][[usage 11 4]]", &json!({ "max_tokens": 77 })).await;
    let mut body = answer.object();
    assert!(body["id"].take().as_str().unwrap().starts_with("chatcmpl-"));
    assert!(body["created"].take().as_u64().unwrap() > 1_600_000_000);
    let message = json!({ "role": "assistant", "content": words(5), "refusal": null });
    assert_eq!(
        body,
        json!({
            "id": null, "object": "chat.completion", "created": null, "model": "scripted",
            "choices": [{ "index": 0, "message": message, "logprobs": null, "finish_reason": "stop" }],
            "usage": { "prompt_tokens": 11, "completion_tokens": 4, "total_tokens": 15 },
        })
    );
    assert_eq!(answer.header("x-tenant-id"), Some("openai-whole"));
    assert_eq!(answer.header("x-model-id"), Some("scripted"));
    assert_eq!((answer.number("x-tokens-in"), answer.number("x-tokens-out")), (11, 4));
    answer.number("x-ratelimit-remaining");
    answer.secured();
    assert_eq!(host.upstream.call("hi [[tokens 5]][[usage 11 4]]").await.body["max_tokens"], 77);
    // All kinds of content, and all roles.
    let tag = tag();
    let messages = json!([
        { "role": "developer", "content": "be brief" },
        { "role": "system", "content": [{ "type": "text", "text": "be " }, { "type": "text", "text": "kind" }] },
        { "role": "user", "content": "one" },
        { "role": "assistant", "content": "two" },
        { "role": "user", "content": [{ "type": "text", "text": tag }], "name": "ada" },
    ]);
    api.complete("", &json!({ "messages": messages, "max_completion_tokens": 9 })).await.object();
    let call = host.upstream.call(&tag).await;
    let seen: Vec<_> = call.body["messages"].as_array().unwrap().iter().map(|m| (&m["role"], &m["content"])).collect();
    let text = |role: &str, content: &str| (json!(role), json!(content));
    let expected = [
        text("system", "be brief"),
        text("system", "be kind"),
        text("user", "one"),
        text("assistant", "two"),
        text("user", &tag),
    ];
    assert_eq!(seen, expected.iter().map(|(role, content)| (role, content)).collect::<Vec<_>>());
    assert_eq!(call.body["max_tokens"], 9);
    let message = format!("{tag}[[length]]");
    let length = api.complete(&message, &json!({ "max_tokens": settings::MAX_TOKENS * 2 })).await.object();
    assert_eq!(length["choices"][0]["finish_reason"], "length");
    assert_eq!(host.upstream.call(&message).await.body["max_tokens"], settings::MAX_TOKENS);
}

/// Chunks, and the end of the stream.
fn chunks(events: &[Event]) -> Vec<Value> {
    let (last, chunks) = events.split_last().unwrap();
    assert_eq!(last.data.as_deref(), Some("[DONE]"));
    assert!(events.iter().all(|event| event.name.is_none() && event.id.is_none()), "{events:?}");
    chunks.iter().filter(|event| event.comment.is_none()).map(Event::json).collect()
}

/// The role first, the reason last, and `[DONE]`.
pub async fn a_streamed_completion(host: &Host) {
    let api = host.tenant("openai-stream");
    let reply = api.complete_stream("[[tokens 4]]", &json!({})).await;
    assert_eq!(reply.headers["content-type"], "text/event-stream; charset=utf-8");
    assert_eq!(reply.headers["cache-control"], "no-cache, no-transform");
    assert_eq!(reply.headers["x-model-id"], "scripted");
    assert!(reply.headers.contains_key("x-ratelimit-remaining"));
    let chunks = chunks(&reply.rest().await);
    assert_eq!(chunks.len(), 5, "{chunks:?}");
    for (n, chunk) in chunks.iter().enumerate() {
        let delta = match n {
            0 => json!({ "role": "assistant", "content": "w0 " }),
            4 => json!({}),
            _ => json!({ "content": format!("w{n} ") }),
        };
        let finish = if n == 4 { json!("stop") } else { Value::Null };
        assert_eq!(
            *chunk,
            json!({
                "id": chunks[0]["id"], "object": "chat.completion.chunk", "created": chunks[0]["created"], "model": "scripted",
                "choices": [{ "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish }],
            })
        );
    }
}

/// `stream_options.include_usage`
pub async fn usage_comes_when_it_is_asked_for(host: &Host) {
    let api = host.tenant("openai-usage");
    let more = json!({ "stream_options": { "include_usage": true } });
    let chunks = chunks(&api.complete_stream("[[tokens 2]][[usage 7 9]]", &more).await.rest().await);
    let (last, before) = chunks.split_last().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"], json!({ "prompt_tokens": 7, "completion_tokens": 9, "total_tokens": 16 }));
    for chunk in before {
        assert_eq!(chunk.get("usage"), Some(&Value::Null), "{chunk}");
    }
    assert_eq!(before.len(), 3);
}

/// Definitions, choices, calls and results.
pub async fn tools_pass_through_both_ways(host: &Host) {
    let (api, tag) = (host.tenant("openai-tools"), tag());
    let tools = json!([{
        "type": "function",
        "function": {
            "name": "get_weather", "description": "The weather", "strict": true,
            "parameters": { "type": "object", "properties": { "city": { "type": "string" } } },
        },
    }]);
    let message = format!("{tag}[[tool]]");
    let choice = json!({ "type": "function", "function": { "name": "get_weather" } });
    let more = json!({ "tools": tools, "tool_choice": choice });
    let answer = api.complete(&message, &more).await.object();
    let call = json!({
        "id": "call_1", "type": "function",
        "function": { "name": "get_weather", "arguments": "{\"city\":\"Paris\"}" },
    });
    let choice_answered = &answer["choices"][0];
    assert_eq!(choice_answered["finish_reason"], "tool_calls");
    assert_eq!(choice_answered["message"]["tool_calls"], json!([call]));
    assert_eq!(choice_answered["message"]["content"], Value::Null);
    let seen = host.upstream.call(&tag).await;
    assert_eq!((&seen.body["tools"], &seen.body["tool_choice"]), (&tools, &choice));

    let chunks = chunks(&api.complete_stream(&message, &more).await.rest().await);
    let pieces: Vec<_> =
        chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["tool_calls"].as_array()).collect();
    assert_eq!(pieces[0][0]["id"], "call_1");
    assert_eq!(pieces[0][0]["type"], "function");
    assert_eq!(pieces[0][0]["function"]["name"], "get_weather");
    let arguments: String = pieces.iter().map(|piece| piece[0]["function"]["arguments"].as_str().unwrap()).collect();
    assert_eq!(arguments, "{\"city\":\"Paris\"}");
    assert!(pieces.iter().all(|piece| piece[0]["index"] == 0));
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "tool_calls");

    // The result goes back with the call that asked for it.
    let tag = crate::client::tag();
    let conversation = json!([
        { "role": "user", "content": tag },
        { "role": "assistant", "content": null, "tool_calls": [call] },
        { "role": "tool", "tool_call_id": "call_1", "content": "sunny" },
    ]);
    api.complete("", &json!({ "messages": conversation, "tools": tools })).await.object();
    let seen = host.upstream.call(&tag).await;
    let mut messages = seen.body["messages"].clone();
    // An empty text where Workers AI is asked, whose schemas refuse `null`.
    let said_with_the_call = &mut messages[1]["content"];
    if *said_with_the_call == "" {
        *said_with_the_call = Value::Null;
    }
    assert_eq!(messages, conversation);
}

/// What the client asks of the model reaches the model.
pub async fn sampling_and_formats_pass_through(host: &Host) {
    let (api, tag) = (host.tenant("openai-options"), tag());
    let schema = json!({ "type": "json_schema", "json_schema": { "name": "x", "schema": { "type": "object" } } });
    let more = json!({
        "temperature": 0.5, "top_p": 0.25, "frequency_penalty": -1.5, "presence_penalty": 1.5, "seed": 42,
        "stop": ["END", "FIN"], "response_format": schema, "n": 1,
    });
    api.complete(&tag, &more).await.object();
    let seen = host.upstream.call(&tag).await;
    for name in ["temperature", "top_p", "frequency_penalty", "presence_penalty", "seed", "stop", "response_format"] {
        assert_eq!(seen.body[name], more[name], "{name}");
    }
    let tag = crate::client::tag();
    let more = json!({ "stop": "END", "response_format": { "type": "json_object" }, "tool_choice": "auto" });
    api.complete(&tag, &more).await.object();
    let seen = host.upstream.call(&tag).await;
    assert_eq!(seen.body["stop"], json!(["END"]));
    assert_eq!(seen.body["response_format"], json!({ "type": "json_object" }));
}

/// `x-session-id`; without it nothing is kept.
pub async fn a_session_is_kept_when_it_is_named(host: &Host) {
    let (api, session, tag) = (host.tenant("openai-session"), session(), tag());
    api.complete("kept nowhere", &json!({})).await.object();
    assert_eq!(api.get("/sessions").await.ok()["sessions"], json!([]));
    let keeping = api.with("x-session-id", &session);
    keeping.complete("one [[say two]]", &json!({ "user": "ada" })).await.object();
    keeping.complete_stream(&format!("{tag} [[say four]]"), &json!({ "user": "ada" })).await.rest().await;
    let three = format!("{tag} [[say four]]");
    assert_eq!(host.upstream.call(&tag).await.contents(), ["one [[say two]]", "two", &*three]);
    let said: Vec<_> = api.said(&session).await.into_iter().map(|(_, content)| content).collect();
    assert_eq!(said, ["one [[say two]]", "two", &*three, "four"]);
    assert_eq!(api.get("/sessions?userId=ada").await.ok()["sessions"][0]["sessionId"], session);
    // A client that repeats the whole conversation is not shown twice what is known, nor is it kept twice.
    let tag = crate::client::tag();
    let messages = json!([
        { "role": "system", "content": "be brief" },
        { "role": "user", "content": "one [[say two]]" },
        { "role": "assistant", "content": "two" },
        { "role": "user", "content": three },
        { "role": "assistant", "content": "four" },
        { "role": "user", "content": format!("{tag} [[say six]]") },
    ]);
    keeping.complete("", &json!({ "messages": messages })).await.object();
    let five = format!("{tag} [[say six]]");
    assert_eq!(
        host.upstream.call(&tag).await.contents(),
        ["be brief", "one [[say two]]", "two", &*three, "four", &*five]
    );
    let said: Vec<_> = api.said(&session).await.into_iter().map(|(_, content)| content).collect();
    assert_eq!(said, ["one [[say two]]", "two", &*three, "four", &*five, "six"]);
    // The native route goes on with the same session.
    api.chat(&session, "seven").await.ok();
    assert_eq!(api.said(&session).await.len(), 8);
}

/// A session is plain text.
pub async fn a_session_keeps_no_tools(host: &Host) {
    let (api, session) = (host.tenant("openai-mixed"), session());
    let before = api.remaining().await;
    let tools = json!({ "tools": [{ "type": "function", "function": { "name": "f" } }] });
    let answer = api.with("x-session-id", &session).complete("hello", &tools).await;
    let error = answer.openai_error(400, "invalid_request", "invalid_request_error");
    assert_eq!(error["param"], "x-session-id");
    assert_eq!(api.remaining().await, before);
    api.assert_unknown(&session).await;
}

/// Names with slashes, and the allow-list.
pub async fn models_are_listed_and_described(host: &Host) {
    let api = host.tenant("openai-models");
    let list = api.get("/v1/models").await.object();
    assert_eq!(list["object"], "list");
    let ids: Vec<_> = list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    let mut expected = settings::MODELS.to_vec();
    expected.push("openai/own-model");
    expected.sort_unstable();
    assert_eq!(ids, expected);
    for model in list["data"].as_array().unwrap() {
        assert_eq!(*model, json!({ "id": model["id"], "object": "model", "created": 0, "owned_by": "crispy-enigma" }));
        let id = model["id"].as_str().unwrap();
        assert_eq!(api.get(&format!("/v1/models/{id}")).await.object(), *model);
        let escaped = id.replace('/', "%2F").replace('@', "%40");
        assert_eq!(api.get(&format!("/v1/models/{escaped}")).await.object(), *model);
    }
    let api = host.tenant("openai-listed");
    let list = api.get("/v1/models").await.object();
    let ids: Vec<_> = list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["scripted", "vendor/listed"]);
    let missing = api.get("/v1/models/scripted-large").await;
    missing.openai_error(404, "not_found", "invalid_request_error");
}

/// No way in skips them.
pub async fn limits_hold_here_too(host: &Host) {
    let api = host.tenant("openai-limit");
    let first = api.complete("hello", &json!({})).await;
    assert_eq!((first.number("x-ratelimit-limit"), first.number("x-ratelimit-remaining")), (2, 1));
    api.chat(&session(), "hello").await.ok();
    let refused = api.complete("hello", &json!({ "stream": true })).await;
    refused.openai_error(429, "rate_limited", "rate_limit_error");
    assert_eq!(refused.number("x-ratelimit-remaining"), 0);
    // The list of models is no chat.
    api.get("/v1/models").await.object();
}

/// The error in OpenAI's shape, and the end as every client expects it.
pub async fn a_broken_stream_ends_with_an_error_and_done(host: &Host) {
    let api = host.tenant("openai-broken");
    let more = json!({ "model": "openai-broken", "stream_options": { "include_usage": true } });
    let chunks = chunks(&api.complete_stream("[[cut after 2]]", &more).await.rest().await);
    let error = chunks.iter().find_map(|chunk| chunk.get("error")).expect("no error");
    assert_eq!((&error["code"], &error["type"]), (&json!("ai_error"), &json!("server_error")));
    let finished = chunks.iter().any(|chunk| chunk["choices"][0]["finish_reason"].is_string());
    assert!(!finished, "an answer that broke off has no reason to end: {chunks:?}");
    let answer = api.complete("[[cut after 2]]", &json!({ "model": "openai-broken" })).await;
    answer.openai_error(502, "ai_error", "server_error");
}
