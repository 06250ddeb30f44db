//! The Model Context Protocol: both kinds of versions, tools, resources, and what an attacker sends.

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use super::documents::ingest;
use crate::Host;
use crate::client::{Answer, Api, tag};
use crate::tenant::{Tenant, hash};

const MODERN: &str = "2026-07-28";
const ORIGIN: &str = "https://app.example";

fn model_of(tenant: &str) -> String {
    format!("{tenant}-model")
}

fn speaking(id: &str) -> Tenant {
    let flags = json!({ "tools_enabled": true, "query_rewriting": false, "follow_ups": false });
    Tenant::new(id).searches().with("featureFlags", flags)
}

/// The tenants of these cases.
pub fn tenants() -> Vec<Tenant> {
    let names =
        ["mcp-begins", "mcp-calls", "mcp-reads", "mcp-modern", "mcp-attacked", "mcp-one", "mcp-two", "mcp-large"];
    let mut tenants: Vec<_> = names.map(speaking).into();
    tenants.push(speaking("mcp-origin").with("cors", json!({ "allowedOrigins": [ORIGIN] })));
    tenants.push(speaking("mcp-few").with("rateLimit", json!({ "perMinute": 3 })));
    tenants.push(speaking("mcp-poor").with("tokenBudget", json!({ "daily": 100 })));
    tenants.push(
        speaking("mcp-some").with("featureFlags", json!({ "tools_enabled": true, "tool_summarize": false })).with(
            "apiKeys",
            json!([
                { "hash": hash("mcp-some-tools"), "scopes": ["tools"] },
                { "hash": hash("mcp-some-search"), "scopes": ["search"] },
                { "hash": hash("mcp-some-both"), "scopes": ["tools", "search"] },
                { "hash": hash("mcp-some-chat"), "scopes": ["chat"] },
            ]),
        ),
    );
    tenants.push(Tenant::new("mcp-off").searches());
    tenants
}

fn client(api: &Api) -> Api {
    api.with("accept", "application/json, text/event-stream")
}

fn request(method: &str, params: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": "r-1", "method": method, "params": params })
}

async fn ask(api: &Api, method: &str, params: Value) -> Answer {
    client(api).post("/mcp", &request(method, &params)).await
}

/// The result of a request that has one.
async fn result(api: &Api, method: &str, params: Value) -> Value {
    let answer = ask(api, method, params).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let body = answer.json();
    assert_eq!((&body["jsonrpc"], &body["id"]), (&json!("2.0"), &json!("r-1")), "{body}");
    assert!(body.get("error").is_none(), "{body}");
    body["result"].clone()
}

/// The error of an answer, whose status is this one.
fn error(answer: &Answer, status: u16, code: i32) -> Value {
    let body = answer.json();
    assert_eq!((answer.status, &body["error"]["code"]), (status, &json!(code)), "{answer:?}");
    assert!(body.get("result").is_none() && body["jsonrpc"] == "2.0", "{body}");
    assert!(!body["error"]["message"].as_str().unwrap().is_empty());
    body["error"].clone()
}

/// A request of the newest version, with the headers that belong to it.
async fn modern(api: &Api, method: &str, name: Option<&str>, params: Value) -> Answer {
    let mut params = params;
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let api = client(api).with("mcp-protocol-version", MODERN).with("mcp-method", method);
    let api = name.map_or_else(|| api.clone(), |name| api.with("mcp-name", name));
    api.post("/mcp", &request(method, &params)).await
}

async fn call(api: &Api, tool: &str, arguments: Value) -> Answer {
    ask(api, "tools/call", json!({ "name": tool, "arguments": arguments })).await
}

fn names(result: &Value, list: &str, name: &str) -> Vec<String> {
    result[list].as_array().unwrap().iter().map(|it| it[name].as_str().unwrap().to_owned()).collect()
}

/// Whatever version a client wants, it learns which one is spoken; and no other method belongs to the route.
pub async fn a_client_shakes_hands(host: &Host) {
    let api = host.tenant("mcp-begins");
    for (asked, agreed) in [("2025-11-25", "2025-11-25"), ("2025-03-26", "2025-03-26"), ("2099-01-01", "2025-11-25")] {
        let hello =
            json!({ "protocolVersion": asked, "capabilities": {}, "clientInfo": { "name": "c", "version": "1" } });
        let answer = ask(&api, "initialize", hello).await;
        answer.secured();
        answer.number("x-ratelimit-remaining");
        assert_eq!(answer.header("mcp-session-id"), None, "nothing is kept");
        let result = answer.json()["result"].clone();
        assert_eq!(result["protocolVersion"], agreed);
        assert_eq!(result["capabilities"], json!({ "tools": {}, "resources": {} }));
        assert_eq!(result["serverInfo"]["name"], "crispy-enigma");
    }
    let told = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    let accepted = client(&api).post("/mcp", &told).await;
    assert_eq!((accepted.status, accepted.text.as_str()), (202, ""));
    assert_eq!(result(&api.with("mcp-protocol-version", "2025-06-18"), "ping", json!({})).await, json!({}));
    for method in [Method::GET, Method::DELETE] {
        let refused = client(&api).send(method, "/mcp", None).await;
        assert_eq!((refused.status, refused.header("allow")), (405, Some("POST")));
    }
    error(&ask(&api.with("mcp-protocol-version", "1999-01-01"), "ping", json!({})).await, 400, -32022);
    let unaccepted = api.with("accept", "application/json").post("/mcp", &request("ping", &json!({}))).await;
    assert_eq!(error(&unaccepted, 406, -32600)["data"]["code"], "not_acceptable");
    let text = client(&api).send(Method::POST, "/mcp", Some(("text/plain", Bytes::from_static(b"{}")))).await;
    assert_eq!(error(&text, 415, -32600)["data"]["code"], "unsupported_media_type");
    let nobody = ask(&host.anonymous().with("x-tenant-id", "mcp-begins"), "ping", json!({})).await;
    assert!(nobody.header("www-authenticate").is_some());
    assert_eq!(error(&nobody, 401, -32010)["data"]["code"], "unauthorized");
}

/// Without a handshake: each request says all of it, in its body and in its headers.
pub async fn the_newest_version_has_no_handshake(host: &Host) {
    let api = host.tenant("mcp-modern");
    let found = modern(&api, "server/discover", None, json!({})).await;
    assert_eq!(found.status, 200, "{found:?}");
    let found = found.json()["result"].clone();
    assert!(found["supportedVersions"].as_array().unwrap().contains(&json!(MODERN)), "{found}");
    assert_eq!((&found["resultType"], &found["cacheScope"]), (&json!("complete"), &json!("private")));
    assert_eq!(found["_meta"]["io.modelcontextprotocol/serverInfo"]["name"], "crispy-enigma");
    let listed = modern(&api, "tools/list", None, json!({})).await.json()["result"].clone();
    assert!(listed["ttlMs"].is_u64() && names(&listed, "tools", "name").contains(&"search".to_owned()), "{listed}");

    ingest(&api, "Über uns", "We are here.", &json!({})).await.ok();
    let uri = "document:///%C3%9Cber%20uns";
    let read = modern(&api, "resources/read", Some(uri), json!({ "uri": uri })).await.json()["result"].clone();
    assert_eq!(read["contents"], json!([{ "uri": uri, "mimeType": "text/plain", "text": "We are here." }]));
    assert_eq!(read["ttlMs"], 0);

    error(&modern(&api, "ping", None, json!({})).await, 404, -32601);
    error(
        &modern(&api, "resources/read", Some("document:///no"), json!({ "uri": "document:///no" })).await,
        400,
        -32602,
    );
    error(&modern(&api, "tools/call", Some("no_such"), json!({ "name": "no_such" })).await, 400, -32602);
    error(&modern(&api, "tools/call", Some("search"), json!({ "name": "ingest_docs" })).await, 400, -32020);
    error(
        &modern(&api.with("mcp-method", "tools/list"), "tools/list", None, json!({ "cursor": "x" })).await,
        400,
        -32602,
    );
    // What an intermediary reads in the headers must be what the body says.
    let params = json!({ "_meta": {
        "io.modelcontextprotocol/protocolVersion": MODERN, "io.modelcontextprotocol/clientCapabilities": {},
    } });
    let other = client(&api).with("mcp-protocol-version", MODERN).with("mcp-method", "tools/list");
    error(&other.post("/mcp", &request("resources/list", &params)).await, 400, -32020);
    error(&ask(&api, "tools/list", params).await, 400, -32020);
    error(&ask(&api.with("mcp-protocol-version", MODERN), "tools/list", json!({})).await, 400, -32602);
}

/// As `GET /schema/tools` lists them and `POST /tools/execute` runs them, and search.
pub async fn tools_are_listed_and_called(host: &Host) {
    let (api, word) = (host.tenant("mcp-calls"), tag().replace('-', ""));
    let listed = result(&api, "tools/list", json!({})).await;
    let described = api.get("/schema/tools").await.ok();
    let mut expected = names(&described, "tools", "name");
    expected.push("search".to_owned());
    assert_eq!(names(&listed, "tools", "name"), expected);
    for tool in listed["tools"].as_array().unwrap() {
        assert_eq!((&tool["inputSchema"]["type"], &tool["outputSchema"]["type"]), (&json!("object"), &json!("object")));
    }

    host.upstream.script(&model_of("mcp-calls"), &[r#"[[say {"category": "tech", "confidence": 0.5}]][[usage 70 9]]"#]);
    let answer = call(&api, "classify_intent", json!({ "text": "It broke", "categories": ["tech", "billing"] })).await;
    answer.number("x-ratelimit-remaining");
    let done = answer.json()["result"].clone();
    let expected = json!({ "category": "tech", "confidence": 0.5 });
    assert_eq!((&done["structuredContent"], &done["isError"]), (&expected, &json!(false)));
    let told: Value = serde_json::from_str(done["content"][0]["text"].as_str().unwrap()).unwrap();
    assert_eq!(told, expected);

    // What the tool cannot do is told in a result, so that a model can do better; what was no call, in an error.
    let wrong = call(&api, "classify_intent", json!({ "text": 3 })).await;
    assert_eq!((wrong.status, &wrong.json()["result"]["isError"]), (200, &json!(true)), "{wrong:?}");
    let text = wrong.json()["result"]["content"][0]["text"].as_str().unwrap().to_owned();
    assert!(text.starts_with("VALIDATION_FAILED") && text.contains("/text"), "{text}");
    host.upstream.script(&model_of("mcp-calls"), &["[[say I would rather not.]]"]);
    let failed = call(&api, "classify_intent", json!({ "text": word, "categories": ["a", "b"] })).await;
    assert_eq!((failed.status, &failed.json()["result"]["isError"]), (200, &json!(true)), "{failed:?}");
    assert!(failed.text.contains("EXECUTION_ERROR") && failed.text.contains("unusable_answer"), "{failed:?}");
    error(&call(&api, "no_such_tool", json!({})).await, 200, -32602);
    for name in ["", "../etc", "sum marize", "search\u{0}", "Süche", &"x".repeat(5000), "tools/call"] {
        error(&call(&api, name, json!({})).await, 200, -32602);
    }
    error(&ask(&api, "tools/call", json!({})).await, 200, -32602);
    error(&ask(&api, "tools/call", json!({ "name": "search", "arguments": [] })).await, 200, -32602);

    host.upstream.script(&model_of("mcp-calls"), &["[[say Three minutes [source:tea#0].]]"]);
    ingest(&api, "tea", &format!("The {word} kettle boils in three minutes."), &json!({ "title": "Tea" })).await.ok();
    let question = format!("How fast is the {word} kettle?");
    let found =
        call(&api, "search", json!({ "query": question, "topK": 3 })).await.json()["result"]["structuredContent"]
            .clone();
    assert_eq!(found["answer"], "Three minutes [source:tea#0].");
    assert_eq!((&found["sources"][0]["id"], &found["sources"][0]["title"]), (&json!("tea#0"), &json!("Tea")));
    assert!(found["confidence"].as_f64().is_some_and(|it| (0.0..=1.0).contains(&it)), "{found}");
    let bad = call(&api, "search", json!({ "query": " ", "topK": 99, "filter": { "x": { "$no": 1 } } })).await;
    assert_eq!(bad.json()["result"]["isError"], true, "{bad:?}");
    let bad = call(&api, "search", json!({ "query": word, "filter": { "x": { "$no": 1 } } })).await;
    assert!(bad.text.contains("/filter/x/$no"), "{bad:?}");
}

/// Listed by pages, read whole.
pub async fn documents_are_resources(host: &Host) {
    let api = host.tenant("mcp-reads");
    let sentences = (0..250).fold(String::new(), |text, n| text + &format!("Sentence {n} says something about tea. "));
    let small = json!({ "chunking": { "maxChunkSize": 50, "overlap": 20 }, "title": "Long" });
    ingest(&api, "a long/one?.md", &sentences, &small).await.ok();
    for n in 0..101 {
        ingest(&api, &format!("n{n:03}"), &format!("This is {n}."), &json!({})).await.ok();
    }
    let first = result(&api, "resources/list", json!({})).await;
    let long = &first["resources"][0];
    assert_eq!((&long["uri"], &long["name"]), (&json!("document:///a%20long%2Fone%3F.md"), &json!("a long/one?.md")));
    assert_eq!((&long["title"], &long["mimeType"]), (&json!("Long"), &json!("text/plain")));
    let next = first["nextCursor"].as_str().unwrap();
    let second = result(&api, "resources/list", json!({ "cursor": next })).await;
    assert_eq!((first["resources"].as_array().unwrap().len(), names(&second, "resources", "name").len()), (100, 2));
    assert!(second.get("nextCursor").is_none());

    let read = result(&api, "resources/read", json!({ "uri": long["uri"] })).await;
    assert_eq!(read["contents"][0]["text"].as_str().unwrap().trim(), sentences.trim(), "no overlap is there twice");
    let templates = result(&api, "resources/templates/list", json!({})).await;
    assert_eq!(templates["resourceTemplates"][0]["uriTemplate"], "document:///{docId}");

    let missing = error(&ask(&api, "resources/read", json!({ "uri": "document:///none" })).await, 200, -32002);
    assert_eq!(missing["data"]["uri"], "document:///none");
    for uri in ["file:///etc/passwd", "document:///../../x", "document:///%00", "document://other/n001", "", "n001"] {
        error(&ask(&api, "resources/read", json!({ "uri": uri })).await, 200, -32002);
    }
    error(&ask(&api, "resources/read", json!({ "uri": 3 })).await, 200, -32602);
    error(&ask(&api, "resources/list", json!({ "cursor": 3 })).await, 200, -32602);
    api.delete("/documents/n000").await.ok();
    error(&ask(&api, "resources/read", json!({ "uri": "document:///n000" })).await, 200, -32002);
}

/// Whatever address or cursor names it.
pub async fn resources_of_another_tenant_are_not_there(host: &Host) {
    let (one, two) = (host.tenant("mcp-one"), host.tenant("mcp-two"));
    ingest(&one, "ours", "Of the first tenant.", &json!({})).await.ok();
    ingest(&one, "shared", "Of the first tenant.", &json!({})).await.ok();
    ingest(&two, "shared", "Of the second tenant.", &json!({})).await.ok();
    assert_eq!(names(&result(&two, "resources/list", json!({})).await, "resources", "name"), ["shared"]);
    let after = json!({ "cursor": "a" });
    assert_eq!(names(&result(&two, "resources/list", after).await, "resources", "name"), ["shared"]);
    let read = result(&two, "resources/read", json!({ "uri": "document:///shared" })).await;
    assert_eq!(read["contents"][0]["text"], "Of the second tenant.");
    for uri in ["document:///ours", "document:///mcp-one:ours", "document:///mcp-one/ours", "document://mcp-one/ours"] {
        let answer = ask(&two, "resources/read", json!({ "uri": uri })).await;
        error(&answer, 200, -32002);
        assert!(!answer.text.contains("first"), "{answer:?}");
    }
    let stranger = host.anonymous().with("x-tenant-id", "mcp-one").with("x-api-key", &crate::tenant::key_of("mcp-two"));
    let answer = ask(&stranger, "resources/list", json!({})).await;
    assert_eq!(error(&answer, 403, -32010)["data"]["code"], "tenant_mismatch");
}

/// Of what may not be used nothing is listed, and nothing runs.
pub async fn scopes_and_flags_hold_here_too(host: &Host) {
    let by = |key: &str| host.tenant("mcp-some").with("x-api-key", key);
    let (tools, search, both) = (by("mcp-some-tools"), by("mcp-some-search"), by("mcp-some-both"));
    let capabilities = async |api: &Api| {
        let hello = json!({ "protocolVersion": "2025-11-25", "capabilities": {} });
        result(api, "initialize", hello).await["capabilities"].clone()
    };
    assert_eq!(capabilities(&tools).await, json!({ "tools": {} }));
    assert_eq!(capabilities(&search).await, json!({ "resources": {} }));
    let listed = async |api: &Api| names(&result(api, "tools/list", json!({})).await, "tools", "name");
    assert_eq!(listed(&tools).await, ["classify_intent", "extract_entities", "tag_chunk_docs"]);
    assert_eq!(listed(&both).await, ["classify_intent", "extract_entities", "tag_chunk_docs", "search"]);
    let refused = async |api: &Api, method: &str, params: Value, code: &str| {
        let error = error(&ask(api, method, params).await, 403, -32010);
        assert_eq!(error["data"]["code"], code);
        error["data"]["details"].clone()
    };
    refused(&search, "tools/list", json!({}), "scope_required").await;
    refused(&search, "tools/call", json!({ "name": "search", "arguments": { "query": "x" } }), "scope_required").await;
    refused(&tools, "resources/list", json!({}), "scope_required").await;
    refused(&tools, "resources/read", json!({ "uri": "document:///x" }), "scope_required").await;
    refused(&by("mcp-some-chat"), "initialize", json!({ "protocolVersion": "2025-11-25" }), "scope_required").await;
    let lacks = async |api: &Api, tool: &str, host: &str| {
        let details =
            refused(api, "tools/call", json!({ "name": tool, "arguments": { "query": "x" } }), "PERMISSION_DENIED")
                .await;
        assert_eq!(details["permission"], host, "{tool}");
    };
    lacks(&tools, "search", "scope:search").await;
    lacks(&tools, "ingest_docs", "scope:ingest").await;
    lacks(&both, "summarize", "flag:tool_summarize").await;
    let off = host.tenant("mcp-off");
    assert_eq!(result(&off, "tools/list", json!({})).await["tools"], json!([]));
    lacks(&off, "search", "flag:tools_enabled").await;
}

/// Each request takes its slot, whatever it asks; and what tools spend, the budget pays.
pub async fn limits_and_budgets_hold_here_too(host: &Host) {
    let api = host.tenant("mcp-few");
    result(&api, "ping", json!({})).await;
    result(&api, "tools/list", json!({})).await;
    // What asks for nothing takes none.
    let told = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    assert_eq!(client(&api).post("/mcp", &told).await.number("x-ratelimit-remaining"), 1);
    let last = call(&api, "classify_intent", json!({})).await;
    assert_eq!((last.status, last.number("x-ratelimit-remaining")), (200, 0));
    for method in ["ping", "initialize", "tools/list", "resources/list", "no/such"] {
        let refused = ask(&api, method, json!({ "protocolVersion": "2025-11-25" })).await;
        assert_eq!(error(&refused, 429, -32010)["data"]["code"], "rate_limited");
        assert_eq!(refused.json()["id"], "r-1");
        assert!(refused.number("retry-after") > 0);
    }
    for tool in ["classify_intent", "search", "no_such"] {
        let refused = call(&api, tool, json!({ "query": "x" })).await;
        assert_eq!(error(&refused, 429, -32010)["data"]["code"], "rate_limited", "{tool}");
    }
    let poor = call(&host.tenant("mcp-poor"), "summarize", json!({ "text": "A text." })).await;
    assert_eq!(error(&poor, 429, -32010)["data"]["code"], "budget_exceeded");
}

/// Nothing that is sent breaks anything, and each refusal has its code.
pub async fn what_is_no_message_is_refused(host: &Host) {
    let api = client(&host.tenant("mcp-attacked"));
    let send = async |body: String| api.send(Method::POST, "/mcp", Some(("application/json", Bytes::from(body)))).await;
    let deep = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{{"x":{}{}}}}}"#,
        "[".repeat(30_000),
        "]".repeat(30_000)
    );
    for bad in ["", "{", "\u{feff}{}", &deep, "{\"jsonrpc\":\"2.0\",\"id\":1e999999,\"method\":\"ping\"}"] {
        let answer = send(bad.to_owned()).await;
        assert_eq!(error(&answer, 400, -32700)["code"], -32700);
        assert_eq!(answer.json()["id"], Value::Null);
    }
    let long = "9".repeat(400);
    for id in ["null", "1.5", "true", "{}", "[]", "18446744073709551616", &format!("\"{long}\"")] {
        let answer = send(format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#)).await;
        error(&answer, 400, -32600);
        assert_eq!(answer.json()["id"], Value::Null, "{id}");
    }
    for bad in [
        r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#,
        r#"["2.0",1,"ping",null]"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}"#,
        r#"{"jsonrpc":"2.0","id":1,"id":1,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
        r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}"#,
    ] {
        error(&send(bad.to_owned()).await, 400, -32600);
    }
    for method in
        ["", "tools", "tools/", "constructor", "rpc.discover", "Ping", "sampling/createMessage", "logging/setLevel"]
    {
        error(&ask(&api, method, json!({})).await, 200, -32601);
    }
    for id in [json!(0), json!(-1), json!(u64::MAX), json!(""), json!("\u{0}\u{202e}🦀\"")] {
        let body = json!({ "jsonrpc": "2.0", "id": id, "method": "ping" });
        assert_eq!(api.post("/mcp", &body).await.json(), json!({ "jsonrpc": "2.0", "id": id, "result": {} }));
    }
}

/// No page of another site speaks for its visitor.
pub async fn a_page_asks_only_where_its_origin_may(host: &Host) {
    let api = host.tenant("mcp-origin");
    let answer = ask(&api.with("origin", ORIGIN), "ping", json!({})).await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some(ORIGIN)));
    for origin in ["https://evil.example", "null", "http://app.example", "https://app.example.evil.example"] {
        let refused = ask(&api.with("origin", origin), "ping", json!({})).await;
        assert_eq!(error(&refused, 403, -32010)["data"]["code"], "origin_not_allowed", "{origin}");
    }
    let without = host.tenant("mcp-begins").with("origin", ORIGIN);
    error(&ask(&without, "ping", json!({})).await, 403, -32010);
}

/// Only where a tool takes documents may a body be as large as one.
pub async fn a_large_body_is_for_documents_only(host: &Host) {
    let (api, text) = (host.tenant("mcp-large"), "Tea is good. ".repeat(8_000));
    let documents = json!({ "documents": [{ "docId": "large", "text": text }], "chunking": { "maxChunkSize": 8000 } });
    let taken = call(&api, "ingest_docs", documents.clone()).await;
    assert_eq!((taken.status, &taken.json()["result"]["isError"]), (200, &json!(false)), "{taken:?}");
    let read = result(&api, "resources/read", json!({ "uri": "document:///large" })).await;
    assert_eq!(read["contents"][0]["text"].as_str().unwrap().trim(), text.trim());
    for (method, params) in [
        ("tools/call", json!({ "name": "summarize", "arguments": { "text": text } })),
        ("tools/list", json!({ "name": "ingest_docs", "arguments": documents })),
    ] {
        let refused = ask(&api, method, params).await;
        assert_eq!(error(&refused, 413, -32600)["data"]["code"], "payload_too_large");
        assert_eq!(refused.json()["id"], "r-1");
    }
}
