//! What both hosts are asked of tools, of speech, and over the Model Context Protocol.

use enigma_conformance::Tenant;
use serde_json::{Value, json};

use super::script::{Ask, Step, asks, get, post, session, still};

const TOOLS: &str = "same-tools";
const SPEECH: &str = "same-speech";

/// Models of tools, and what they answer.
pub(super) const TOOL_MODELS: [(&str, &[&str]); 4] = [
    ("same-tools-model", &["[[say {\"summary\": \"Tea is drunk hot.\"}]]"]),
    ("same-tools-odd-model", &["[[say I would rather not.]]"]),
    ("same-tools-late-model", &["[[tokens 200 every 200ms]]"]),
    (
        "same-calls-model",
        &[
            "[[call summarize {\"text\": \"Tea is hot. It is drunk.\"}]]",
            "[[say {\"summary\": \"Hot.\"}]]",
            "[[say So hot.]]",
        ],
    ),
];

pub(super) fn tenants() -> Vec<Tenant> {
    let tools = |id: &str| {
        Tenant::new(id).model(&format!("{id}-model")).with("rateLimit", still(100_000)).with(
            "featureFlags",
            json!({ "tools_enabled": true, "tool_classify_intent": false, "query_rewriting": false, "follow_ups": false }),
        )
    };
    let calls = json!({ "tools_enabled": true, "tool_calling": true });
    vec![
        tools(TOOLS),
        tools("same-tools-odd"),
        tools("same-tools-late"),
        tools("same-calls").with("featureFlags", calls),
        Tenant::new("same-tools-off").with("rateLimit", still(100_000)),
        Tenant::new(SPEECH).speaks().with("rateLimit", still(100_000)),
    ]
}

fn run(tenant: &str, tool: &str, params: &Value) -> Ask {
    post("/tools/execute", &json!({ "tool_name": tool, "params": params })).by(tenant)
}

fn mcp(method: &str, params: &Value) -> Ask {
    let body = json!({ "jsonrpc": "2.0", "id": "same-1", "method": method, "params": params });
    post("/mcp", &body).by(TOOLS).with("accept", "application/json, text/event-stream")
}

pub(super) fn script() -> Vec<Step> {
    let text = json!({ "text": "Tea is a drink. It is drunk hot." });
    let chat = |tenant: &str, n: u32, more: &Value| {
        let mut body = json!({ "sessionId": session(n), "message": "What of it?", "stream": false });
        for (name, value) in more.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        post("/chat", &body).by(tenant)
    };
    let tools = [
        get("/schema/tools").by(TOOLS),
        get("/schema/tools").by("same-tools-off"),
        run(TOOLS, "summarize", &text),
        run(TOOLS, "summarize", &text).with("idempotency-key", "same-tools-1"),
        run(TOOLS, "summarize", &text).with("idempotency-key", "same-tools-1"),
        run(TOOLS, "summarize", &json!({ "text": 7, "style": "poem", "more": true })),
        run(TOOLS, "no_such_tool", &json!({})),
        run(TOOLS, "classify_intent", &text),
        run("same-tools-off", "summarize", &text),
        run("same-tools-odd", "extract_entities", &text),
        run("same-tools-late", "summarize", &text),
        post("/tools/execute", &json!({ "tool_name": "a b", "params": [], "user_id": "" })).by(TOOLS),
        chat(TOOLS, 90, &json!({ "tool_name": "summarize", "tool_params": text })),
        chat(TOOLS, 91, &json!({ "tool_name": "summarize", "tool_params": {} })),
        chat("same-calls", 92, &json!({ "stream": true })),
        post(
            "/v1/chat/completions",
            &json!({
                "model": "m", "server_tools": true, "messages": [{ "role": "user", "content": "x" }],
            }),
        )
        .by(TOOLS),
    ];
    let speak = |body: &Value| post("/tts", body).by(SPEECH);
    // Which voices there are is the engine's matter, and each host has another one here.
    let speech = [
        speak(&json!({ "text": "Hello there", "format": "wav" })),
        speak(&json!({ "text": "Hello there", "format": "mp3", "streaming": true })),
        speak(&json!({ "text": "", "format": "flac", "speed": 9, "voice": 1 })),
        speak(&json!({ "text": "[[status 500]]", "format": "wav" })),
        post("/v1/audio/speech", &json!({ "model": "unknown model", "input": "Hello", "voice": "low" })).by(SPEECH),
        post("/tts", &json!({ "text": "Hello" })).by(TOOLS),
        get("/tts/voices").by(TOOLS),
    ];
    let mcp = [
        mcp(
            "initialize",
            &json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "same", "version": "1" } }),
        ),
        mcp(
            "initialize",
            &json!({ "protocolVersion": "1999-01-01", "capabilities": {}, "clientInfo": { "name": "same", "version": "1" } }),
        ),
        mcp("ping", &json!({})),
        mcp("tools/list", &json!({})),
        mcp("tools/call", &json!({ "name": "summarize", "arguments": text })),
        mcp("tools/call", &json!({ "name": "summarize", "arguments": {} })),
        mcp("tools/call", &json!({ "name": "no_such_tool", "arguments": {} })),
        mcp("resources/list", &json!({})),
        mcp("resources/read", &json!({ "uri": "document:///nothing" })),
        mcp("no/such/method", &json!({})),
        mcp("ping", &json!({})).with("origin", "https://evil.example"),
        mcp("ping", &json!({})).with("accept", "text/html"),
        post("/mcp", &json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }))
            .by(TOOLS)
            .with("accept", "application/json, text/event-stream"),
        post("/mcp", &json!([])).by(TOOLS).with("accept", "application/json, text/event-stream"),
        get("/mcp").by(TOOLS),
    ];
    asks(tools.into_iter().chain(speech).chain(mcp))
}
