//! Tenants of mode `jwt`. For hosts that have a verifier: the Worker refuses such tenants.

use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::Host;
use crate::client::{Api, session};
use crate::issuer::{Issuer, encode, seconds};
use crate::tenant::{Tenant, hash, key_of};

/// The issuer of all these tenants but one.
pub fn issuer() -> &'static Issuer {
    static ISSUER: OnceLock<Issuer> = OnceLock::new();
    ISSUER.get_or_init(Issuer::start)
}

/// The tenants of these cases.
pub fn tenants() -> Vec<Tenant> {
    let auth = |more: Value| {
        let mut auth = json!({
            "mode": "jwt", "issuer": issuer().name(), "audience": "enigma", "jwks": { "url": issuer().keys() },
        });
        for (name, value) in more.as_object().unwrap() {
            auth[name] = value.clone();
        }
        auth
    };
    let with = |id: &str, more: Value| Tenant::new(id).with("auth", auth(more));
    vec![
        with("jwt-door", json!({})),
        with("jwt-sessions", json!({})),
        with("jwt-limit", json!({})).with("rateLimit", json!({ "perMinute": 3 })),
        with("jwt-scopes", json!({ "scopesClaim": "scope" })),
        with("jwt-other", json!({ "audience": "another" })),
        with("jwt-flood", json!({})),
        // Nobody listens there.
        with("jwt-dead", json!({ "jwks": { "url": "http://127.0.0.1:1/keys" } })),
        Tenant::new("jwt-keys").with("apiKeys", json!([hash(&key_of("jwt-keys"))])),
        Tenant::new("jwt-anonymous").with("auth", json!({ "mode": "open" })),
    ]
}

fn with_token(host: &Host, tenant: &str, token: &str) -> Api {
    host.anonymous().with("x-tenant-id", tenant).with("authorization", &format!("Bearer {token}"))
}

fn as_user(host: &Host, tenant: &str, user: &str) -> Api {
    with_token(host, tenant, &issuer().token("EdDSA", &issuer().claims(user)))
}

/// Signed in any of the ways, and sent in either header.
pub async fn a_token_opens_its_tenants_door(host: &Host) {
    for algorithm in ["RS256", "ES256", "EdDSA"] {
        let token = issuer().token(algorithm, &issuer().claims("alice"));
        with_token(host, "jwt-door", &token).chat(&session(), "hello").await.ok();
        let key = host.anonymous().with("x-tenant-id", "jwt-door").with("x-api-key", &token);
        key.get("/health").await.ok();
    }
    with_token(host, "jwt-door", &issuer().token("RS256", &issuer().claims("alice"))).get("/v1/models").await.object();
}

/// And what was wrong with it is not told. Who shows nothing is told that something is to be shown.
pub async fn a_token_that_is_no_good_is_refused(host: &Host) {
    let claims = |name: &str, value: Value| {
        let mut claims = issuer().claims("mallory");
        claims[name] = value;
        issuer().token("ES256", &claims)
    };
    let good = issuer().token("ES256", &issuer().claims("alice"));
    let parts: Vec<&str> = good.split('.').collect();
    let forged = encode(issuer().claims("mallory").to_string());
    let unsigned = encode(json!({ "alg": "none" }).to_string());
    let header = |more: Value| issuer().token_with("ES256", &more, &issuer().claims("mallory"));
    let mut answers = Vec::new();
    for token in [
        claims("exp", json!(seconds() - 120)),
        claims("nbf", json!(seconds() + 120)),
        claims("aud", json!("another")),
        claims("iss", json!("https://elsewhere.example/")),
        claims("sub", json!(null)),
        claims("padding", json!("x".repeat(9000))),
        format!("{}.{forged}.{}", parts[0], parts[2]),
        format!("{unsigned}.{forged}."),
        header(json!({ "alg": "HS256", "kid": "ES256" })),
        header(json!({ "alg": "RS256", "kid": "RS256" })),
        header(json!({ "alg": "ES256", "kid": "EdDSA" })),
        header(json!({ "alg": "ES256", "kid": "ES256", "crit": ["b64"] })),
        "a.b.c".to_owned(),
        key_of("jwt-door"),
        "wrong".to_owned(),
    ] {
        let answer = with_token(host, "jwt-door", &token).get("/sessions").await;
        assert!(answer.error(401, "unauthorized").is_null(), "{token}");
        let challenge = answer.header("www-authenticate").unwrap().to_owned();
        assert_eq!(challenge, "Bearer realm=\"crispy-enigma\", error=\"invalid_token\"", "{token}");
        let mut body = answer.json();
        body["traceId"] = Value::Null;
        answers.push(body);
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "all of them are told the same");

    let nothing = host.anonymous().with("x-tenant-id", "jwt-door").get("/sessions").await;
    nothing.error(401, "unauthorized");
    assert_eq!(nothing.header("www-authenticate"), Some("Bearer realm=\"crispy-enigma\""));
    let models = with_token(host, "jwt-door", "a.b.c").get("/v1/models").await;
    models.openai_error(401, "unauthorized", "authentication_error");
}

/// Neither does a token name its tenant, nor is it any good at another's door.
pub async fn a_token_is_good_for_its_own_tenant_only(host: &Host) {
    let token = issuer().token("EdDSA", &issuer().claims("alice"));
    with_token(host, "jwt-other", &token).get("/sessions").await.error(401, "unauthorized");
    with_token(host, "jwt-keys", &token).get("/sessions").await.error(401, "unauthorized");
    let nameless = host.anonymous().with("authorization", &format!("Bearer {token}"));
    nameless.get("/sessions").await.error(401, "unauthorized");
    // A good key of another tenant is told so here as everywhere.
    with_token(host, "jwt-door", &key_of("jwt-keys")).get("/sessions").await.error(403, "tenant_mismatch");
}

/// Whoever knows a session's id, and whatever name they give.
pub async fn users_are_apart(host: &Host) {
    let (alice, bob) = (as_user(host, "jwt-sessions", "alice"), as_user(host, "jwt-sessions", "bob"));
    let session = session();
    alice.chat(&session, "mine").await.ok();
    for intruder in [bob.clone(), bob.with("x-user-id", "alice")] {
        intruder.history(&session).await.error(404, "not_found");
        intruder.delete(&format!("/chat/{session}")).await.error(404, "not_found");
        intruder.delete(&format!("/sessions/{session}")).await.error(404, "not_found");
        intruder.chat(&session, "let me in").await.error(404, "not_found");
        let chat = json!({ "sessionId": session, "message": "let me in", "stream": true, "userId": "alice" });
        intruder.post("/chat", &chat).await.error(404, "not_found");
        let completion = intruder.with("x-session-id", &session).complete("let me in", &json!({})).await;
        completion.openai_error(404, "not_found", "invalid_request_error");
        assert_eq!(intruder.get("/sessions?userId=alice").await.ok()["sessions"], json!([]));
    }
    assert!(alice.said(&session).await.iter().all(|(_, text)| text != "let me in"));
    // Every token of hers is hers.
    let later = with_token(host, "jwt-sessions", &issuer().token("RS256", &issuer().claims("alice")));
    later.chat(&session, "and again").await.ok();
    assert_eq!(later.said(&session).await.len(), 4);
    assert_eq!(later.get("/sessions").await.ok()["sessions"][0]["userId"], "alice");
    alice.delete(&format!("/chat/{session}")).await.ok();
    bob.chat(&session, "now it is new").await.ok();
    alice.history(&session).await.error(404, "not_found");
}

/// The holder of a key speaks for all users; without a key, an address is a user.
pub async fn a_key_speaks_for_all_users_and_nobody_for_others(host: &Host) {
    let api = host.tenant("jwt-keys");
    let (alice, bob) = (api.with("x-user-id", "alice"), api.with("x-user-id", "bob"));
    let session = session();
    alice.chat(&session, "hello").await.ok();
    bob.chat(&session, "hello").await.ok();
    assert_eq!(api.said(&session).await.len(), 4);
    bob.delete(&format!("/chat/{session}")).await.ok();

    let named = host.anonymous().with("x-tenant-id", "jwt-anonymous").with("x-user-id", "alice");
    let own = crate::client::session();
    named.chat(&own, "hello").await.ok();
    assert_eq!(named.with("x-user-id", "bob").said(&own).await.len(), 2, "the address is the same");
    // The tenant's key made this one, for somebody else.
    let others = crate::client::session();
    host.tenant("jwt-anonymous").with("x-user-id", "alice").chat(&others, "hello").await.ok();
    named.history(&others).await.error(404, "not_found");
    named.chat(&others, "hello").await.error(404, "not_found");
}

/// Whatever name a request gives.
pub async fn a_limit_counts_by_the_subject(host: &Host) {
    let (alice, bob) = (as_user(host, "jwt-limit", "alice"), as_user(host, "jwt-limit", "bob"));
    for name in ["one", "two", "three"] {
        alice.with("x-user-id", name).chat(&session(), "hello").await.ok();
    }
    let again = with_token(host, "jwt-limit", &issuer().token("ES256", &issuer().claims("alice")));
    again.with("x-user-id", "four").chat(&session(), "hello").await.error(429, "rate_limited");
    let body = json!({ "sessionId": session(), "message": "hello", "stream": false, "userId": "five" });
    again.post("/chat", &body).await.error(429, "rate_limited");
    bob.with("x-user-id", "alice").chat(&session(), "hello").await.ok();
}

/// Those that the claim lists, and where there is no claim none.
pub async fn scopes_are_those_of_the_claim(host: &Host) {
    let scoped = |scope: Option<Value>| {
        let mut claims = issuer().claims("alice");
        if let Some(scope) = scope {
            claims["scope"] = scope;
        }
        with_token(host, "jwt-scopes", &issuer().token("EdDSA", &claims))
    };
    scoped(Some(json!("openid chat"))).chat(&session(), "hello").await.ok();
    scoped(Some(json!(["chat"]))).chat(&session(), "hello").await.ok();
    for scope in [None, Some(json!("")), Some(json!("search chats")), Some(json!([]))] {
        let details = scoped(scope).chat(&session(), "hello").await.error(403, "scope_required");
        assert_eq!(details, json!({ "scope": "chat" }));
    }
    scoped(Some(json!(7))).chat(&session(), "hello").await.error(401, "unauthorized");
}

/// Tokens that name keys that do not exist do not make the host ask for them again and again.
pub async fn unknown_keys_are_not_asked_for_again_and_again(host: &Host) {
    as_user(host, "jwt-flood", "alice").get("/sessions").await.ok();
    let asked = issuer().asked();
    for n in 0..40 {
        let header = json!({ "alg": "EdDSA", "kid": format!("unknown-{n}") });
        let token = issuer().token_with("EdDSA", &header, &issuer().claims("mallory"));
        with_token(host, "jwt-flood", &token).get("/sessions").await.error(401, "unauthorized");
    }
    // Each tenant of each server has its keys fetched once, and the others may have come meanwhile.
    let since = issuer().asked() - asked;
    assert!(since <= 2 * tenants().len(), "{since} times");
    as_user(host, "jwt-flood", "alice").get("/sessions").await.ok();
}

/// Who cannot be checked does not get in, and is told that it is not their fault.
pub async fn without_keys_nobody_gets_in(host: &Host) {
    as_user(host, "jwt-dead", "alice").get("/sessions").await.error(503, "unavailable");
    as_user(host, "jwt-dead", "alice").get("/v1/models").await.openai_error(503, "unavailable", "server_error");
    host.anonymous().with("x-tenant-id", "jwt-dead").get("/sessions").await.error(401, "unauthorized");
    with_token(host, "jwt-dead", "a.b.c").get("/sessions").await.error(401, "unauthorized");
}
