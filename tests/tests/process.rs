//! What only a process shows: its start, its end, its log, and what outlives it.

#![expect(clippy::unwrap_used, reason = "all of this is test code: a panic is how it reports")]

use std::sync::Arc;
use std::time::Duration;

use enigma_conformance::client::{session, tag};
use enigma_conformance::tenant::{hash, key_of};
use enigma_conformance::upstream::{PATIENCE, words};
use enigma_conformance::{Api, ServerConfig, Tenant, Upstream, raw};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

fn directory() -> Arc<TempDir> {
    Arc::new(tempfile::tempdir().unwrap())
}

fn config(upstream: &Upstream) -> ServerConfig {
    ServerConfig::new().upstream(&upstream.base_url())
}

/// Waits until nobody is let in any more.
async fn refuses_connections(base_url: &str) {
    let end = Instant::now() + PATIENCE;
    while tokio::net::TcpStream::connect(raw::authority(base_url)).await.is_ok() {
        assert!(Instant::now() < end, "it still accepts connections");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn an_answer_under_way_may_finish_at_the_end() {
    let (upstream, tag) = (Upstream::start(), tag());
    let mut server = config(&upstream).tenant(&Tenant::new("acme")).set("server.shutdown_grace_seconds", 20).start();
    let api = server.tenant("acme");
    let mut reply = api.chat_stream(&session(), &format!("[[tokens 1]][[gate {tag}]][[tokens 2]]")).await;
    assert_eq!(reply.text().await, words(1));
    server.terminate();
    refuses_connections(&server.base_url).await;
    upstream.open(&tag);
    let finished = reply.finish().await;
    assert_eq!(finished.text, words(2));
    assert!(finished.error.is_none(), "{finished:?}");
    assert_eq!(finished.done["finishReason"], "stop");
    assert!(server.ended(Duration::from_secs(10)).success());
}

#[tokio::test]
async fn an_answer_that_does_not_finish_is_ended_told_and_kept() {
    let (upstream, directory) = (Upstream::start(), directory());
    let tenant = Tenant::new("acme");
    let start = |grace: u64| {
        config(&upstream).tenant(&tenant).set("server.shutdown_grace_seconds", grace).stored_in(&directory).start()
    };
    let mut server = start(1);
    let (streamed, whole, waiting) = (session(), session(), session());
    let api = server.tenant("acme");
    let mut reply = api.chat_stream(&streamed, "[[tokens 2]][[hang]]").await;
    assert_eq!([reply.text().await, reply.text().await].concat(), words(2));
    let (whole_answer, waiting_answer, (finished, status)) = tokio::join!(
        api.chat(&whole, "in one piece [[tokens 3]][[hang]]"),
        api.chat(&waiting, "not begun [[hang before first]]"),
        async {
            upstream.call("in one piece").await;
            upstream.call("not begun").await;
            server.terminate();
            let finished = reply.finish().await;
            (finished, server.ended(Duration::from_secs(15)))
        }
    );
    assert!(status.success(), "{status}");
    assert_eq!(finished.error.as_ref().unwrap()["code"], "unavailable", "{finished:?}");
    assert_eq!(finished.done["finishReason"], "error");
    whole_answer.error(503, "unavailable");
    waiting_answer.error(503, "unavailable");
    upstream.cancelled("[[tokens 2]][[hang]]").await;

    let server = start(1);
    let api = server.tenant("acme");
    for (session, answer) in [(&streamed, words(2)), (&whole, words(3))] {
        let history = api.history(session).await.ok();
        assert_eq!(history["messages"][1]["content"], answer, "{history}");
        assert_eq!(history["messages"][1]["truncated"], true);
    }
    api.assert_unknown(&waiting).await;
}

#[tokio::test]
async fn what_was_acknowledged_outlives_the_process() {
    let (upstream, directory) = (Upstream::start(), directory());
    let tenant = Tenant::new("acme").with("tokenBudget", json!({ "daily": 1000 }));
    let start = || config(&upstream).tenant(&tenant).stored_in(&directory).start();
    let mut server = start();
    let (session, tag) = (session(), tag());
    let keyed = |api: Api| api.with("idempotency-key", "k");
    let first = keyed(server.tenant("acme")).chat(&session, &format!("{tag}[[usage 300 600]]")).await;
    first.ok();
    let before = server.tenant("acme").history(&session).await.ok();
    server.terminate();
    assert!(server.ended(Duration::from_secs(10)).success());

    let server = start();
    let api = server.tenant("acme");
    assert_eq!(api.history(&session).await.ok(), before);
    assert_eq!(api.get("/sessions").await.ok()["sessions"][0]["sessionId"], session);
    let again = keyed(api.clone()).chat(&session, &format!("{tag}[[usage 300 600]]")).await;
    assert_eq!(again.ok(), first.ok());
    assert_eq!(upstream.calls(&tag).len(), 1);
    // 900 of 1000 are spent, whoever has been restarted.
    let refused = api.complete("probe", &json!({ "max_tokens": 99 })).await;
    refused.openai_error(429, "budget_exceeded", "insufficient_quota");
    api.complete("probe", &json!({ "max_tokens": 98 })).await.object();
    api.delete(&format!("/chat/{session}")).await.ok();
    server.kill();
    start().tenant("acme").assert_unknown(&session).await;
}

/// What somebody wrote in place of a hash.
const SECRET: &str = "sk-live-this-is-a-key-and-no-hash";

#[track_caller]
fn assert_refused(what: &str, config: ServerConfig, parts: &[&str]) {
    let (status, said) = config.refused();
    assert!(status.code().is_some_and(|code| code != 0), "{what}: {status}");
    for part in parts {
        assert!(said.contains(part), "{what}: no {part:?} in {said:?}");
    }
    assert!(!said.contains(SECRET), "{what}: {said:?}");
    assert!(!said.contains("panicked"), "{what}: {said:?}");
}

#[test]
fn two_tenants_cannot_claim_the_same() {
    let upstream = Upstream::start();
    let start = || config(&upstream);
    let with_host = |id: &str, hosts: Value| Tenant::new(id).with("allowedHosts", hosts);
    let one = with_host("one", json!(["Shared.test"]));
    let two = with_host("two", json!(["x.test", "shared.TEST"]));
    assert_refused(
        "one host",
        start().tenant(&one).tenant(&two),
        &["tenants/two/tenant.config.json", "allowedHosts", "shared.test"],
    );
    let same_key = Tenant::new("two").with("apiKeys", json!([hash(&key_of("one"))]));
    assert_refused(
        "one key",
        start().tenant(&Tenant::new("one")).tenant(&same_key),
        &["tenants/two/tenant.config.json", "apiKeys"],
    );
    let same_id = Tenant::new("one").json.to_string();
    assert_refused(
        "one id",
        start().tenant(&Tenant::new("one")).tenant_file("two", &same_id),
        &["tenants/two/tenant.config.json", "tenantId"],
    );
}

#[test]
fn a_tenant_with_a_fault_is_refused_by_file_field_and_reason() {
    let upstream = Upstream::start();
    let faults = [
        ("bad id", json!({ "tenantId": "Acme Inc." }), ["tenantId", "must be"]),
        ("unknown field", json!({ "colour": "red" }), ["colour", "unknown field"]),
        (
            "one within",
            json!({ "rateLimit": { "perMinute": 1, "perHour": 1 } }),
            ["rateLimit.perHour", "unknown field"],
        ),
        ("wrong type", json!({ "sessionRetentionDays": "many" }), ["sessionRetentionDays", "invalid type"]),
        ("out of range", json!({ "rateLimit": { "perMinute": 0 } }), ["rateLimit.perMinute", "must be"]),
        ("a key for its hash", json!({ "apiKeys": [SECRET] }), ["apiKeys[0]", "sha256:"]),
        (
            "all origins with cookies",
            json!({ "cors": { "allowedOrigins": ["*"], "allowCredentials": true } }),
            ["cors.allowedOrigins[0]", "allowCredentials"],
        ),
        ("tokens of nobody", json!({ "auth": { "mode": "jwt" } }), ["auth.issuer", "mode jwt"]),
        ("no model", json!({ "aiModels": {} }), ["aiModels", "chat"]),
    ];
    for (what, change, parts) in faults {
        let mut tenant = Tenant::new("acme");
        for (field, value) in change.as_object().unwrap() {
            tenant.json[field] = value.clone();
        }
        let config = config(&upstream).tenant_file("acme", &tenant.json.to_string());
        assert_refused(what, config, &[&["tenants/acme/tenant.config.json"], &parts[..]].concat());
    }
    let no_json = config(&upstream).tenant_file("acme", "{ \"tenantId\": ");
    assert_refused("no JSON", no_json, &["tenants/acme/tenant.config.json", "EOF"]);
    let open = config(&upstream).tenant(&Tenant::new("acme").open()).set("environment", "prod");
    let parts = ["tenants/acme/tenant.config.json", "auth.mode", "allowOpenInProduction"];
    assert_refused("open in production", open, &parts);
}

#[test]
fn a_wrong_setting_is_refused_by_file_field_and_reason() {
    let upstream = Upstream::start();
    let start = || config(&upstream).tenant(&Tenant::new("acme"));
    let unknown = start().set("server.colour", "red");
    assert_refused("unknown", unknown, &["enigma.toml", "server.colour", "unknown field"]);
    let address = start().set("server.listen", "everywhere");
    assert_refused("address", address, &["enigma.toml", "server.listen", "must be"]);
    let no_models = ServerConfig::new().tenant(&Tenant::new("acme"));
    assert_refused("no models", no_models, &["enigma.toml", "providers", "there is no model"]);
    let no_key =
        start().provider("id = \"cloud\"\nbase_url = \"http://127.0.0.1:9/v1\"\napi_key_env = \"NO_SUCH_KEY\"");
    assert_refused("no key", no_key, &["enigma.toml", "providers[1].api_key_env", "NO_SUCH_KEY"]);
    let key =
        start().provider(&format!("id = \"cloud\"\nbase_url = \"http://127.0.0.1:9/v1\"\napi_key_env = \"{SECRET}\""));
    assert_refused("a key for its name", key, &["enigma.toml", "providers[1].api_key_env", "must be"]);
}

#[tokio::test]
async fn several_faults_are_told_at_once() {
    let upstream = Upstream::start();
    let broken = |id: &str| Tenant::new(id).with("colour", json!("red")).json.to_string();
    let (_, said) = config(&upstream).tenant_file("one", &broken("one")).tenant_file("two", &broken("two")).refused();
    assert!(said.contains("one/tenant.config.json") && said.contains("two/tenant.config.json"), "{said}");
}

#[tokio::test]
async fn an_open_tenant_in_production_must_be_meant() {
    let upstream = Upstream::start();
    let auth = json!({ "mode": "open", "allowOpenInProduction": true });
    let tenant = Tenant::new("acme").open().with("auth", auth);
    let server = config(&upstream).tenant(&tenant).set("environment", "production").start();
    let health = Api::new(&server.base_url).with("x-tenant-id", "acme").get("/health").await.ok();
    assert_eq!(health["environment"], "production");
}

#[tokio::test]
async fn the_deployments_models_come_before_the_tenants() {
    let upstream = Upstream::start();
    let server = config(&upstream)
        .tenant(&Tenant::new("acme"))
        .set("chat.model_id", "deployed")
        .set("chat.fallback_model_id", "deployed-spare")
        .start();
    let api = server.tenant("acme");
    assert_eq!(api.chat(&session(), "hello").await.header("x-model-id"), Some("deployed"));
    let models = &api.get("/health").await.ok()["models"];
    assert_eq!((&models["chat"], &models["fallback"]), (&json!("deployed"), &json!("deployed-spare")));
    upstream.script("deployed", &["[[status 404]]"]);
    assert_eq!(api.chat(&session(), "hello").await.header("x-model-id"), Some("deployed-spare"));
    let body = json!({ "sessionId": session(), "message": "hello", "stream": false, "modelId": "asked-for" });
    assert_eq!(api.post("/chat", &body).await.header("x-model-id"), Some("asked-for"));
}

#[tokio::test]
async fn a_model_that_nobody_serves_is_the_requests_fault() {
    let upstream = Upstream::start();
    let provider =
        format!("id = \"only\"\nbase_url = {}\nmodels = {{ \"scripted\" = \"there\" }}", json!(upstream.base_url()));
    let server = ServerConfig::new().provider(&provider).tenant(&Tenant::new("acme")).start();
    let api = server.tenant("acme");
    api.chat(&session(), "mapped").await.ok();
    assert_eq!(upstream.call("mapped").await.model, "there");
    let (before, session) = (api.remaining().await, session());
    let body = json!({ "sessionId": session, "message": "hello", "stream": false, "modelId": "elsewhere" });
    let details = api.post("/chat", &body).await.error(400, "invalid_request");
    assert_eq!(details["issues"][0]["path"], json!(["modelId"]));
    let error = api.complete("hello", &json!({ "model": "elsewhere" })).await;
    let error = error.openai_error(400, "invalid_request", "invalid_request_error");
    assert_eq!(error["param"], "model");
    api.get("/v1/models/elsewhere").await.openai_error(404, "not_found", "invalid_request_error");
    assert_eq!(api.remaining().await, before);
    api.assert_unknown(&session).await;
}

#[tokio::test]
async fn a_provider_that_is_not_there_is_an_error_like_any_other() {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server =
        ServerConfig::new().upstream(&format!("http://127.0.0.1:{port}/v1")).tenant(&Tenant::new("acme")).start();
    let api = server.tenant("acme");
    let answer = api.chat(&session(), "hello").await;
    answer.error(502, "ai_error");
    assert!(!answer.text.contains(&port.to_string()), "{answer:?}");
    api.get("/readyz").await.ok();
}

#[tokio::test]
async fn only_a_trusted_proxy_is_believed() {
    let upstream = Upstream::start();
    let tenant =
        Tenant::new("acme").open().with("rateLimit", json!({ "perMinute": 2, "tenant": { "perMinute": 100 } }));
    let server = config(&upstream).tenant(&tenant).set("server.trusted_proxies", json!(["127.0.0.0/8"])).start();
    let api = Api::new(&server.base_url).with("x-tenant-id", "acme");
    let from = async |hops: &str| api.with("x-forwarded-for", hops).chat(&session(), "hello").await.status;
    assert_eq!([from("203.0.113.1").await, from("203.0.113.1").await, from("203.0.113.1").await], [200, 200, 429]);
    assert_eq!(from("203.0.113.2").await, 200);
    // Only the last hop was written by the proxy.
    assert_eq!(from("203.0.113.9, 203.0.113.1").await, 429);
    assert_eq!(from("203.0.113.1, 127.0.0.9").await, 429);
    // Who shows no credentials is their address, and sees what they wrote themselves.
    let sessions = async |address: &str| {
        let list = api.with("x-forwarded-for", address).get("/sessions?userId=203.0.113.2").await.ok();
        list["sessions"].as_array().unwrap().iter().map(|entry| entry["userId"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(sessions("203.0.113.1").await, ["203.0.113.1", "203.0.113.1"]);
    assert_eq!(sessions("203.0.113.2").await, ["203.0.113.2"]);
    assert_eq!(sessions("203.0.113.3").await, Vec::<Value>::new());
}

#[tokio::test]
async fn the_log_names_traces_and_tells_no_secrets() {
    const PROVIDER_KEY: &str = "provider-secret-0451";
    for level in ["info", "debug", "trace"] {
        let (upstream, directory) = (Upstream::start(), directory());
        let (said, answered, user) = (tag(), tag(), tag());
        let tenant = Tenant::new("acme").model("log-model").with("allowedHosts", json!(["log.test"]));
        let provider = format!(
            "id = \"scripted\"\nbase_url = {}\ndefault = true\napi_key_env = \"TEST_PROVIDER_KEY\"",
            json!(upstream.base_url())
        );
        let mut server = ServerConfig::new()
            .provider(&provider)
            .variable("TEST_PROVIDER_KEY", PROVIDER_KEY)
            .tenant(&tenant)
            .set("log.level", level)
            .stored_in(&directory)
            .start();
        let api = server.tenant("acme").with("idempotency-key", &format!("idempotency-{said}"));
        let session = session();
        let trace = |name: &str| api.with("x-trace-id", &format!("trace-{name}"));
        trace("good").chat(&session, &format!("{said} [[say {answered}]]")).await.ok();
        trace("echo")
            .without("idempotency-key")
            .chat_stream(&session, &format!("{said} [[echo]]"))
            .await
            .finish()
            .await;
        for (n, marker) in
            ["[[status 500]]", "[[say {answered}]][[cut]]", "[[garbage]]", "[[error event]]"].into_iter().enumerate()
        {
            let marker = marker.replace("{answered}", &answered);
            let api = trace(&format!("bad-{n}")).without("idempotency-key");
            let answer = api.chat(&session, &format!("{said} {marker}")).await;
            assert!(answer.status >= 500, "{answer:?}");
        }
        trace("invalid")
            .post("/chat", &json!({ "sessionId": said, "message": 3, "userId": user }))
            .await
            .error(400, "invalid_request");
        trace("broken")
            .send(http::Method::POST, "/chat", Some(("application/json", format!("{{{said}").into())))
            .await
            .error(400, "invalid_json");
        trace("wrong").with("x-api-key", "wrong-secret-key").get("/health").await.error(401, "unauthorized");
        trace("wrong").with("authorization", "Bearer wrong-secret-key").get("/health").await;
        trace("query").get(&format!("/sessions?userId={user}&limit=0")).await.error(400, "invalid_request");
        assert_eq!(upstream.call(&said).await.headers["authorization"], format!("Bearer {PROVIDER_KEY}"));
        server.terminate();
        assert!(server.ended(Duration::from_secs(10)).success());
        server.stderr.wait_for(Duration::from_secs(5), |_| None::<()>);

        let log = server.stderr.text();
        for line in log.lines() {
            let entry: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            assert!(entry["level"].is_string() && entry["timestamp"].is_string(), "{line}");
        }
        for name in ["good", "echo", "bad-0", "invalid", "broken", "wrong", "query"] {
            assert!(log.contains(&format!("trace-{name}")), "{level}: no trace-{name} in {log}");
        }
        let key = key_of("acme");
        for (what, secret) in [
            ("message", said.as_str()),
            ("answer", &answered),
            ("key", &key),
            ("key's hash", hash(&key).trim_start_matches("sha256:")),
            ("wrong key", "wrong-secret-key"),
            ("provider's key", PROVIDER_KEY),
            ("idempotency key", "idempotency-"),
        ] {
            let line = log.lines().find(|line| line.contains(secret));
            assert!(line.is_none(), "{level}: the {what} is in the log: {line:?}");
        }
        assert!(!server.stdout.text().contains(&said));
    }
}

#[tokio::test]
async fn connections_that_say_nothing_are_closed() {
    let upstream = Upstream::start();
    let server = config(&upstream)
        .tenant(&Tenant::new("acme"))
        .set("server.header_read_timeout_seconds", 1)
        .set("server.body_read_timeout_seconds", 1)
        .start();
    let key = key_of("acme");
    let body = raw::head(
        &server.base_url,
        "POST",
        "/chat",
        &[("x-api-key", &key), ("content-type", "application/json"), ("content-length", "100")],
    );
    for sent in ["GET /health HTTP/1.1\r\nhost: local", &*body] {
        let mut connection = raw::connect(&server.base_url).await;
        connection.write_all(sent.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, connection.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "the connection stays open: {sent:?}");
        let answer = String::from_utf8_lossy(&answer);
        assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    server.tenant("acme").get("/health").await.ok();
}
