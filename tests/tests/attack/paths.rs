//! Tricks with paths, hosts and addresses.

use std::time::Duration;

use enigma_conformance::client::session;
use enigma_conformance::raw;
use enigma_conformance::tenant::key_of;
use http::Method;
use serde_json::json;

use crate::{ATTACKER, Stage, VICTIM};

const SILENCE: Duration = Duration::from_millis(500);

/// What another program might take for a way to somewhere else.
#[tokio::test]
async fn no_path_leads_anywhere_else() {
    let stage = Stage::new();
    let (key, session) = (key_of(ATTACKER), session());
    stage.victim().chat(&session, "my secret").await.ok();
    stage.attacker().chat(&session, "mine").await.ok();
    for path in [
        "/..%2fhealth",
        "/%2e%2e/health",
        "/../health",
        "/./health",
        "//health",
        "/health/",
        "/health/.",
        "/health%00",
        "/health%2f",
        "/health%20",
        "/HEALTH",
        "/health;x=1",
        "/health\\",
        "/%68ealth",
        "/%2568ealth",
        "/chat/..%2fhealth",
        "/v1/../sessions",
        "/v1/..%2fsessions",
        "/v1//models",
        "/sessions/..",
        "/sessions/%2e%2e/history",
        "/sessions/%00/history",
        "/sessions/*/history",
        &format!("/sessions/../chat/{session}/history"),
        &format!("/sessions/{session}%2fhistory"),
        &format!("/sessions/{session}%00/history"),
        &format!("/sessions/{session}%0a/history"),
        &format!("/sessions/{VICTIM}:{session}/history"),
        &format!("/sessions/{VICTIM}%3a{session}/history"),
        &format!("/sessions/..%2f{VICTIM}%2f{session}/history"),
        &format!("/{VICTIM}/sessions/{session}/history"),
        "/etc/passwd",
        "/..%2f..%2f..%2fetc%2fpasswd",
        "/enigma.toml",
        "/tenants/victim/tenant.config.json",
        "/metrics",
        "/debug/pprof",
        "/.env",
        "/.git/config",
        "/admin",
        "*",
        "/\u{ff0e}\u{ff0e}/health",
        "/?/health",
        "/%",
        "/%zz",
        "/sessions/%c0%ae%c0%ae/history",
    ] {
        let request = raw::head(&stage.server.base_url, "GET", path, &[("x-api-key", &key), ("connection", "close")]);
        let (read, _) = raw::converse(&stage.server.base_url, request.as_bytes(), SILENCE).await;
        assert!(matches!(raw::statuses(&read)[..], [400..=499]), "{path}: {read}");
        assert!(!read.contains("my secret") && !read.contains("root:"), "{path}: {read}");
    }
    // What follows the path is no path, and names nobody.
    for query in ["?tenant=victim", "?x-tenant-id=victim&tenantId=victim", "?api_key=x", "?../../health"] {
        let health = stage.attacker().get(&format!("/health{query}")).await.ok();
        assert_eq!(health["tenant"], ATTACKER, "{query}");
    }
    stage.end().await;
}

/// Who shows the attacker's key is the attacker, or nobody.
#[tokio::test]
async fn no_host_makes_an_attacker_somebody_else() {
    let stage = Stage::new();
    let key = key_of(ATTACKER);
    let ask = async |target: &str, host: &str, more: &str| {
        let request = format!("GET {target} HTTP/1.1\r\n{host}x-api-key: {key}\r\nconnection: close\r\n{more}\r\n");
        raw::exchange(&stage.server.base_url, request.as_bytes()).await
    };
    let victims = [
        "victim.test",
        "VICTIM.test",
        "victim.test.",
        "victim.test:80",
        "attacker.test@victim.test",
        "a:b@victim.test:1",
    ];
    for host in victims {
        let (status, read) = ask("/health", &format!("host: {host}\r\n"), "").await;
        assert!(status == 403 && read.contains("tenant_mismatch"), "{host}: {read}");
    }
    for target in ["http://victim.test/health", "http://attacker.test@victim.test/health", "HTTP://VICTIM.TEST/health"]
    {
        let (status, read) = ask(target, "host: attacker.test\r\n", "").await;
        assert!(status == 403 && read.contains("tenant_mismatch"), "{target}: {read}");
    }
    // Neither the one nor the other: the key decides, or the request is refused.
    for host in [
        "",
        "host: \r\n",
        "host: victim.test/\r\n",
        "host: victim.test, attacker.test\r\n",
        "host: victim.test attacker.test\r\n",
        "host: victim.test%00.attacker.test\r\n",
        "host: victim.test#@attacker.test\r\n",
        "host: [victim.test]\r\n",
        "host: xvictim.test\r\n",
        "host: victim.test:80:80\r\n",
        "host: ../victim.test\r\n",
    ] {
        let (status, read) = ask("/health", host, "").await;
        assert!(!read.contains("\"tenant\":\"victim\""), "{host:?}: {read}");
        assert!((200..500).contains(&status), "{host:?}: {read}");
    }
    // Headers by which other programs pass the host or the path on mean nothing here.
    for more in [
        "x-forwarded-host: victim.test\r\n",
        "forwarded: host=victim.test\r\n",
        "x-host: victim.test\r\n",
        "x-original-url: /sessions\r\n",
        "x-rewrite-url: /sessions\r\n",
        "x-http-method-override: DELETE\r\n",
        "x-tenant: victim\r\n",
        "tenant-id: victim\r\n",
        "cookie: tenant=victim\r\n",
    ] {
        let (status, read) = ask("/health", "host: attacker.test\r\n", more).await;
        assert!(status == 200 && read.contains("\"tenant\":\"attacker\""), "{more}: {read}");
    }
    for tenant in ["victim ", "VICTIM", "victim,attacker", "victim%00", "../victim", "victim:x", "*", "\u{ff56}ictim"] {
        let answer = stage.attacker().with_bytes("x-tenant-id", tenant.as_bytes()).get("/health").await;
        let mismatch = answer.status == 403 && tenant.trim() == VICTIM;
        assert!(mismatch || answer.status == 404, "{tenant:?}: {answer:?}");
    }
    stage.end().await;
}

/// Nothing that a request says is fetched.
#[tokio::test]
async fn no_address_in_a_request_is_called() {
    let stage = Stage::new();
    let canary = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = canary.local_addr().unwrap();
    let url = format!("http://{address}/latest/meta-data/");
    let api = ["origin", "referer", "x-forwarded-host", "x-forwarded-for", "x-callback-url", "x-original-url"]
        .into_iter()
        .fold(stage.attacker(), |api, name| api.with(name, &url));
    let image = json!([{ "role": "user", "content": [{ "type": "image_url", "image_url": { "url": url } }] }]);
    let tools = json!([{ "type": "function", "function": { "name": "f", "parameters": { "$ref": url } } }]);
    for more in [
        json!({ "messages": image }),
        json!({ "model": url }),
        json!({ "base_url": url, "api_base": url, "endpoint": url, "webhook": url }),
        json!({ "tools": tools }),
        json!({ "response_format": { "type": "json_schema", "json_schema": { "$schema": url, "$ref": url } } }),
    ] {
        let answer = api.complete(&url, &more).await;
        assert!(matches!(answer.status, 200 | 400), "{answer:?}");
    }
    let body =
        json!({ "sessionId": session(), "message": url, "stream": false, "modelId": url, "userId": url, "url": url });
    api.post("/chat", &body).await;
    api.send(Method::GET, &format!("/v1/models/{url}"), None).await;
    let request =
        raw::head(&stage.server.base_url, "GET", &url, &[("x-api-key", &key_of(ATTACKER)), ("connection", "close")]);
    raw::exchange(&stage.server.base_url, request.as_bytes()).await;
    let called = tokio::time::timeout(Duration::from_secs(1), canary.accept()).await;
    assert!(called.is_err(), "an address in a request was called: {called:?}");
    stage.end().await;
}
