//! Chats in which the model calls the platform's tools.

use serde_json::{Value, json};

use crate::Host;
use crate::client::session;
use crate::tenant::Tenant;

/// The tenants of these cases.
pub fn tenants() -> Vec<Tenant> {
    let calling = |id: &str| {
        let flags = json!({ "tools_enabled": true, "tool_calling": true, "tool_classify_intent": false });
        Tenant::new(id).model(&format!("{id}-model")).with("featureFlags", flags)
    };
    let mut tenants: Vec<_> = ["calls-chat", "calls-openai", "calls-ever", "calls-beside"].map(calling).into();
    tenants.push(Tenant::new("calls-off").model("calls-off-model"));
    tenants
}

const TEXT: &str = "Tea is a drink. It is made of leaves. It is drunk hot.";

/// Scripts a model that has a text summarised, the model that summarises it, and the answer.
fn script(host: &Host, model: &str, answer: &str) {
    let call = format!("[[call summarize {}]]", json!({ "text": TEXT }));
    let summary = format!("[[say {}]]", json!({ "summary": "Tea is drunk hot." }));
    host.upstream.script(model, &[&call, &summary, &format!("[[say {answer}]]")]);
}

/// The results that a call's prompt holds.
fn results(body: &Value) -> Vec<Value> {
    let messages = body["messages"].as_array().unwrap().iter();
    let results = messages.filter(|message| message["role"] == "tool");
    results.map(|message| serde_json::from_str(message["content"].as_str().unwrap()).unwrap()).collect()
}

/// A tool's beginning and its end are told between the pieces of a chat; what is kept is the answer.
pub async fn a_model_calls_a_tool_in_a_chat(host: &Host) {
    let (api, id) = (host.tenant("calls-chat"), session());
    script(host, "calls-chat-model", "In short: hot.");
    let events = api.chat_stream(&id, "Please shorten a text about tea").await.rest().await;
    let named = |name: &str| events.iter().filter(|event| event.name.as_deref() == Some(name)).collect::<Vec<_>>();
    let tools: Vec<Value> = named("tool").iter().map(|event| event.json()).collect();
    assert_eq!(tools.len(), 2, "{tools:?}");
    assert_eq!((&tools[0]["tool"], &tools[0]["state"]), (&json!("summarize"), &json!("started")));
    assert_eq!((&tools[1]["id"], &tools[1]["state"]), (&tools[0]["id"], &json!("succeeded")));
    assert!(tools[1]["durationMs"].is_u64());
    assert_eq!(named("done")[0].json()["finishReason"], "stop");
    let calls = host.upstream.calls("shorten a text about tea");
    let [first, .., last] = &calls[..] else { panic!("{calls:?}") };
    let offered: Vec<_> = first.body["tools"].as_array().unwrap().iter().map(|it| &it["function"]["name"]).collect();
    assert!(offered.contains(&&json!("summarize")) && !offered.contains(&&json!("classify_intent")), "{offered:?}");
    assert!(results(&last.body)[0]["result"]["summary"].as_str().unwrap().contains("Tea"), "{:?}", last.body);
    let said = api.said(&id).await;
    assert_eq!(said.last().unwrap().1, "In short: hot.");
    assert_eq!(said.len(), 2);
}

/// Through OpenAI's route they run when they are asked for, and the client sees the answer alone.
pub async fn the_openai_route_runs_tools_when_asked(host: &Host) {
    let api = host.tenant("calls-openai");
    script(host, "calls-openai-model", "In short: hot.");
    let more = json!({ "model": "calls-openai-model", "server_tools": true });
    let answer = api.complete("Shorten it", &more).await.object();
    let choice = &answer["choices"][0];
    assert_eq!((&choice["message"]["content"], &choice["finish_reason"]), (&json!("In short: hot."), &json!("stop")));
    assert!(choice["message"].get("tool_calls").is_none(), "{choice}");
    let beside = json!({
        "model": "calls-openai-model", "server_tools": true,
        "tools": [{ "type": "function", "function": { "name": "mine" } }],
    });
    api.complete("x", &beside).await.openai_error(400, "invalid_request", "invalid_request_error");
    let off =
        host.tenant("calls-off").complete("x", &json!({ "model": "calls-off-model", "server_tools": true })).await;
    off.openai_error(403, "feature_disabled", "permission_error");
    // Without the wish nothing is on offer, and a client's own tools are its own.
    host.upstream.script("calls-beside-model", &["[[tool]]"]);
    let own = json!({ "model": "calls-beside-model", "tools": [{ "type": "function", "function": { "name": "get_weather" } }] });
    let answer = host.tenant("calls-beside").complete("weather of calls-beside", &own).await.object();
    assert_eq!(answer["choices"][0]["message"]["tool_calls"][0]["function"]["name"], "get_weather");
    assert_eq!(answer["choices"][0]["finish_reason"], "tool_calls");
}

/// A model that calls without end is told to answer, and the client gets an end.
pub async fn calls_without_end_come_to_one(host: &Host) {
    let api = host.tenant("calls-ever");
    host.upstream.script("calls-ever-model", &["[[call no_such_tool {}]]"]);
    let events = api.chat_stream(&session(), "Call for ever").await.rest().await;
    assert_eq!(events.last().unwrap().name.as_deref(), Some("done"));
    let calls = host.upstream.calls("Call for ever");
    assert_eq!(calls.len(), 5, "four rounds, and the last word");
    assert_eq!(calls[4].body["tool_choice"], "none");
    assert_eq!(results(&calls[4].body).len(), 4);
}
