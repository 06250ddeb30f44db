//! Which web pages may call.

use http::Method;
use serde_json::json;

use crate::Host;
use crate::client::{Answer, Api, session};
use crate::tenant::{Tenant, key_of};

/// The tenants of these cases.
pub fn tenants() -> Vec<Tenant> {
    vec![
        Tenant::new("cors-app").with("allowedHosts", json!(["api.cors.test"])).with(
            "cors",
            json!({ "allowedOrigins": ["https://app.cors.test"], "allowCredentials": true, "maxAgeSec": 120 }),
        ),
        Tenant::new("cors-none").with("allowedHosts", json!(["none.cors.test"])),
        Tenant::new("cors-all")
            .with("allowedHosts", json!(["all.cors.test"]))
            .with("cors", json!({ "allowedOrigins": ["*"] })),
    ]
}

const APP: &str = "https://app.cors.test";

async fn preflight(api: &Api, origin: &str, path: &str) -> Answer {
    let api = api
        .with("origin", origin)
        .with("access-control-request-method", "POST")
        .with("access-control-request-headers", "content-type,x-api-key,x-stainless-lang");
    let answer = api.send(Method::OPTIONS, path, None).await;
    assert_eq!(answer.status, 204, "{answer:?}");
    assert_eq!(answer.text, "");
    assert!(answer.header("vary").unwrap().to_ascii_lowercase().contains("origin"), "{answer:?}");
    answer.secured();
    answer
}

fn assert_allows(answer: &Answer, names: &[&str]) {
    let allowed = answer.header("access-control-allow-headers").unwrap().to_ascii_lowercase();
    for name in names {
        assert!(allowed.split(',').any(|header| header.trim() == *name), "{name}: {allowed}");
    }
}

/// It carries no key, and needs none.
pub async fn a_preflight_is_answered_by_the_tenant_of_the_host(host: &Host) {
    let app = host.anonymous().with("host", "api.cors.test");
    for path in ["/chat", "/v1/chat/completions", "/sessions"] {
        let answer = preflight(&app, APP, path).await;
        assert_eq!(answer.header("access-control-allow-origin"), Some(APP));
        assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
        assert_eq!(answer.header("access-control-max-age"), Some("120"));
        assert_allows(&answer, &["content-type", "x-api-key", "x-stainless-lang"]);
        let methods = answer.header("access-control-allow-methods").unwrap();
        for method in ["GET", "POST", "DELETE"] {
            assert!(methods.contains(method), "{methods}");
        }
    }
    let bare = app.with("origin", APP).with("access-control-request-method", "POST");
    let bare = bare.send(Method::OPTIONS, "/chat", None).await;
    let known = ["authorization", "content-type", "x-api-key", "x-tenant-id", "idempotency-key", "x-session-id"];
    assert_allows(&bare, &known);
    let all = host.anonymous().with("host", "all.cors.test");
    let answer = preflight(&all, "https://anyone.test", "/chat").await;
    assert!(matches!(answer.header("access-control-allow-origin"), Some("*" | "https://anyone.test")));
    assert_eq!(answer.header("access-control-allow-credentials"), None);
    for (name, origin) in [
        ("api.cors.test", "https://evil.test"),
        ("api.cors.test", "http://app.cors.test"),
        ("api.cors.test", "https://app.cors.test.evil.test"),
        ("api.cors.test", "null"),
        ("none.cors.test", APP),
    ] {
        let answer = preflight(&host.anonymous().with("host", name), origin, "/chat").await;
        assert_eq!(answer.header("access-control-allow-origin"), None, "{name} {origin}");
        assert_eq!(answer.header("access-control-allow-credentials"), None, "{name} {origin}");
    }
}

/// Whether any tenant would let the page in.
pub async fn a_preflight_without_a_host_asks_all_tenants(host: &Host) {
    let answer = preflight(&host.anonymous(), APP, "/chat").await;
    assert_eq!(answer.header("access-control-allow-origin"), Some(APP));
    // The answer to one page must not serve another's.
    assert_eq!(answer.header("access-control-allow-credentials"), None);
}

/// Errors as well: a page must be able to tell its user why.
pub async fn an_allowed_page_may_read_the_answer_and_errors(host: &Host) {
    let api = host.anonymous().with("x-api-key", &key_of("cors-app")).with("origin", APP);
    let stream = api.chat_stream(&session(), "hello").await;
    assert_eq!(stream.headers["access-control-allow-origin"], APP);
    stream.finish().await;
    for answer in [
        api.get("/health").await,
        api.post("/chat", &json!({})).await,
        api.with("x-tenant-id", "cors-app").with("x-api-key", "wrong").get("/health").await,
        api.get("/v1/models").await,
    ] {
        assert_eq!(answer.header("access-control-allow-origin"), Some(APP), "{answer:?}");
        assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
        assert!(answer.header("vary").unwrap().to_ascii_lowercase().contains("origin"));
        let exposed = answer.header("access-control-expose-headers").unwrap();
        for name in ["x-trace-id", "x-ratelimit-remaining", "retry-after", "x-model-id"] {
            assert!(exposed.contains(name), "{exposed}");
        }
    }
}

/// The request is answered, as its key is good; the page just may not see it.
pub async fn other_pages_may_not(host: &Host) {
    let api = host.anonymous().with("x-api-key", &key_of("cors-app"));
    for origin in ["https://evil.test", "null", "https://app.cors.test:444", "HTTPS://APP.CORS.TEST"] {
        let answer = api.with("origin", origin).get("/health").await;
        answer.ok();
        assert_eq!(answer.header("access-control-allow-origin"), None, "{origin}");
        assert!(answer.header("vary").unwrap().to_ascii_lowercase().contains("origin"));
    }
    let none = host.tenant("cors-none").with("origin", APP).get("/health").await;
    none.ok();
    assert_eq!(none.header("access-control-allow-origin"), None);
    // Without an origin there is nothing to say, except that the answer depends on it.
    let plain = api.get("/health").await;
    assert_eq!(plain.header("access-control-allow-origin"), None);
}
