//! Who is asking.

use serde_json::{Value, json};

use crate::Host;
use crate::client::session;
use crate::tenant::{Tenant, hash, key_of};

/// The tenants of these cases.
pub fn tenants() -> Vec<Tenant> {
    let keys = |tenant: &str| {
        json!([
            hash(&key_of(tenant)),
            { "hash": hash("resolution-expired-key"), "id": "old", "expiresAt": "2020-01-01T00:00:00Z" },
            { "hash": hash("resolution-search-key"), "id": "searcher", "scopes": ["search"] },
            { "hash": hash("resolution-chat-key"), "id": "chatter", "scopes": ["chat"], "expiresAt": "2999-01-01T00:00:00Z" },
        ])
    };
    vec![
        Tenant::new("res-one").with("allowedHosts", json!(["one.test"])),
        Tenant::new("res-two").with("allowedHosts", json!(["Two.Test", "2.test"])),
        Tenant::new("res-keys").with("apiKeys", keys("res-keys")),
        Tenant::new("res-open").open(),
    ]
}

fn tenant_of(health: &Value) -> &str {
    health["tenant"].as_str().unwrap()
}

/// Any of the three is enough.
pub async fn a_header_a_host_or_a_key_names_the_tenant(host: &Host) {
    let one = host.anonymous().with("x-api-key", &key_of("res-one"));
    assert_eq!(tenant_of(&one.get("/health").await.ok()), "res-one");
    let bearer = host.anonymous().with("authorization", &format!("Bearer {}", key_of("res-one")));
    assert_eq!(tenant_of(&bearer.get("/health").await.ok()), "res-one");
    let lower = host.anonymous().with("authorization", &format!("bearer {}", key_of("res-one")));
    assert_eq!(tenant_of(&lower.get("/health").await.ok()), "res-one");
    assert_eq!(tenant_of(&one.with("x-tenant-id", "res-one").get("/health").await.ok()), "res-one");

    let two = host.anonymous().with("x-api-key", &key_of("res-two"));
    for name in ["two.test", "TWO.test", "two.test:8080", "2.test", "two.test."] {
        assert_eq!(tenant_of(&two.with("host", name).get("/health").await.ok()), "res-two", "{name}");
    }
}

/// First match wins.
pub async fn the_header_wins_over_the_host_and_the_host_over_the_key(host: &Host) {
    let two = host.anonymous().with("x-api-key", &key_of("res-two"));
    let both = two.with("host", "one.test").with("x-tenant-id", "res-two");
    assert_eq!(tenant_of(&both.get("/health").await.ok()), "res-two");
    two.with("host", "one.test").get("/health").await.error(403, "tenant_mismatch");
    // A host that stands for nobody is no name.
    assert_eq!(tenant_of(&two.with("host", "nobody.test").get("/health").await.ok()), "res-two");
}

/// Without any of them nobody is meant.
pub async fn nothing_names_a_tenant(host: &Host) {
    for path in ["/health", "/sessions"] {
        host.anonymous().get(path).await.error(400, "tenant_required");
    }
    let chat = json!({ "sessionId": session(), "message": "hello" });
    host.anonymous().post("/chat", &chat).await.error(400, "tenant_required");
    host.anonymous().get("/v1/models").await.openai_error(400, "tenant_required", "invalid_request_error");
}

/// A name that is written out and wrong never falls through to the next one.
pub async fn an_unknown_tenant_is_told_and_never_guessed(host: &Host) {
    let one = host.tenant("res-one").with("host", "one.test");
    for name in ["nobody", "RES-ONE", "res-one ", "", "a:b", "../res-one", &"x".repeat(64)] {
        let asked = one.with_bytes("x-tenant-id", name.as_bytes()).get("/health").await;
        if name.trim() == "res-one" {
            // White space around a header's value is no part of it (RFC 9110, section 5.5).
            assert_eq!(tenant_of(&asked.ok()), "res-one");
        } else {
            asked.error(404, "tenant_unknown");
        }
    }
    one.with_bytes("x-tenant-id", b"res-\xffone").get("/health").await.error(404, "tenant_unknown");
    let models = one.with("x-tenant-id", "nobody").get("/v1/models").await;
    models.openai_error(404, "tenant_unknown", "invalid_request_error");
}

/// A wrong key is told from a missing tenant, and nothing else is said.
pub async fn wrong_credentials_are_refused(host: &Host) {
    let named = host.anonymous().with("x-tenant-id", "res-one");
    named.get("/health").await.error(401, "unauthorized");
    for wrong in ["wrong", "", &key_of("res-one")[1..], &format!("{}x", key_of("res-one"))] {
        named.with("x-api-key", wrong).get("/health").await.error(401, "unauthorized");
    }
    for wrong in ["Bearer wrong", "Bearer", "Basic dXNlcjpwYXNz", &key_of("res-one"), ""] {
        named.with("authorization", wrong).get("/health").await.error(401, "unauthorized");
    }
    named.with_bytes("x-api-key", b"\xff\xfe").get("/health").await.error(401, "unauthorized");
    host.anonymous().with("x-api-key", "wrong").get("/health").await.error(401, "unauthorized");
    // The header that is named first in the contract counts.
    let both = named.with("x-api-key", "wrong").with("authorization", &format!("Bearer {}", key_of("res-one")));
    both.get("/health").await.error(401, "unauthorized");

    let session = session();
    let chat = json!({ "sessionId": session, "message": "hello", "stream": false });
    named.with("x-api-key", "wrong").post("/chat", &chat).await.error(401, "unauthorized");
    host.tenant("res-one").assert_unknown(&session).await;
    let models = named.get("/v1/models").await;
    models.openai_error(401, "unauthorized", "authentication_error");
}

/// A good key at the wrong door.
pub async fn a_key_of_another_tenant_opens_nothing(host: &Host) {
    let session = session();
    host.tenant("res-two").chat(&session, "mine").await.ok();
    let intruder = host.anonymous().with("x-api-key", &key_of("res-one"));
    for door in [intruder.with("x-tenant-id", "res-two"), intruder.with("host", "two.test")] {
        assert!(door.history(&session).await.error(403, "tenant_mismatch").is_null());
        door.delete(&format!("/chat/{session}")).await.error(403, "tenant_mismatch");
        door.get("/sessions").await.error(403, "tenant_mismatch");
        let models = door.get("/v1/models").await;
        models.openai_error(403, "tenant_mismatch", "permission_error");
    }
    assert_eq!(host.tenant("res-two").said(&session).await.len(), 2);
}

/// Its time is over, whatever it was good for.
pub async fn an_expired_key_is_dead(host: &Host) {
    let old = host.anonymous().with("x-api-key", "resolution-expired-key");
    old.get("/health").await.error(401, "unauthorized");
    old.with("x-tenant-id", "res-keys").get("/health").await.error(401, "unauthorized");
    // At another door it is as wrong as any other: that it was good once is nobody's business.
    old.with("x-tenant-id", "res-one").get("/health").await.error(401, "unauthorized");
    host.anonymous().with("x-api-key", "resolution-chat-key").get("/health").await.ok();
}

/// The scope is named, so that the holder knows what to ask for.
pub async fn a_key_without_the_scope_is_refused(host: &Host) {
    let searcher = host.anonymous().with("x-api-key", "resolution-search-key");
    let session = session();
    let chat = json!({ "sessionId": session, "message": "hello", "stream": false });
    let wanted = json!({ "scope": "chat" });
    assert_eq!(searcher.post("/chat", &chat).await.error(403, "scope_required"), wanted);
    assert_eq!(searcher.get("/sessions").await.error(403, "scope_required"), wanted);
    assert_eq!(searcher.history(&session).await.error(403, "scope_required"), wanted);
    assert_eq!(searcher.delete(&format!("/sessions/{session}")).await.error(403, "scope_required"), wanted);
    let completion = searcher.complete("hello", &json!({})).await;
    completion.openai_error(403, "scope_required", "permission_error");
    searcher.get("/v1/models").await.openai_error(403, "scope_required", "permission_error");
    host.tenant("res-keys").assert_unknown(&session).await;
    let chatter = host.anonymous().with("x-api-key", "resolution-chat-key");
    chatter.chat(&session, "hello").await.ok();
}

/// It still has to be named, and a key of somebody else is still wrong.
pub async fn an_open_tenant_asks_for_nothing(host: &Host) {
    let open = host.anonymous().with("x-tenant-id", "res-open");
    let session = session();
    open.chat(&session, "hello").await.ok();
    assert_eq!(open.said(&session).await.len(), 2);
    // SDKs always send a key.
    open.with("authorization", "Bearer sk-anything").get("/health").await.ok();
    open.with("x-api-key", &key_of("res-one")).get("/health").await.error(403, "tenant_mismatch");
}
