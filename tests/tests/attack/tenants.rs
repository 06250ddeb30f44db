//! A tenant that wants what is another's.

use enigma_conformance::Answer;
use enigma_conformance::client::{session, tag};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{ATTACKER, Stage, VICTIM};

/// Status, headers and body.
type Masked = (u16, Vec<(String, String)>, String);

/// An answer without what is different in each.
fn masked(answer: &Answer, session: &str) -> Masked {
    let own = ["x-trace-id", "x-request-id", "date", "x-ratelimit-reset", "x-ratelimit-remaining", "ratelimit"];
    let mut headers: Vec<_> = answer
        .headers
        .iter()
        .filter(|(name, _)| !own.contains(&name.as_str()))
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    headers.sort();
    let trace = answer.header("x-trace-id").unwrap_or_default();
    (answer.status, headers, answer.text.replace(trace, "TRACE").replace(session, "SESSION"))
}

/// With the victim's session, key of the request, user, trace and body, word for word.
#[tokio::test]
async fn a_request_repeated_by_another_tenant_is_another_request() {
    let (stage, session, tag) = (Stage::new(), session(), tag());
    let body =
        json!({ "sessionId": session, "message": format!("{tag} [[say {tag}]]"), "stream": false, "userId": "ada" });
    let ask = |api: enigma_conformance::Api| api.with("idempotency-key", "the same").with("x-trace-id", "the-same");
    let first = ask(stage.victim()).post("/chat", &body).await;
    first.ok();
    let second = ask(stage.attacker()).post("/chat", &body).await;
    second.ok();
    assert_eq!(second.header("idempotency-replayed"), None, "{second:?}");
    assert_eq!(second.header("x-tenant-id"), Some(ATTACKER));
    assert_eq!(stage.upstream.calls(&tag).len(), 2, "the attacker got the victim's answer");
    // Another body under the same key is no mismatch of theirs either.
    let other = json!({ "sessionId": session, "message": "another", "stream": false, "userId": "grace" });
    ask(stage.attacker()).post("/chat", &other).await.ok();
    // And on the other face.
    let keep = |api: enigma_conformance::Api| ask(api).with("x-session-id", &session);
    keep(stage.victim()).complete(&tag, &json!({ "user": "ada" })).await.object();
    let again = keep(stage.attacker()).complete(&tag, &json!({ "user": "ada" })).await;
    again.object();
    assert_eq!(again.header("idempotency-replayed"), None);
    let replayed = keep(stage.victim()).complete(&tag, &json!({ "user": "ada" })).await;
    assert_eq!(replayed.header("idempotency-replayed"), Some("true"), "the victim's own is still there");
    stage.end().await;
}

/// While the victim's request is under way, the attacker is neither told so nor made to wait.
#[tokio::test]
async fn what_another_tenant_does_right_now_is_not_seen() {
    let (stage, session, tag) = (Stage::new(), session(), tag());
    let victim = stage.victim().with("idempotency-key", "busy");
    let mut reply = victim.chat_stream(&session, &format!("[[tokens 1]][[gate {tag}]]")).await;
    reply.text().await;
    let attacker = stage.attacker().with("idempotency-key", "busy");
    attacker.chat(&session, "hello").await.ok();
    victim.chat(&session, "hello").await.error(422, "idempotency_mismatch");
    stage.upstream.open(&tag);
    reply.finish().await;
    stage.end().await;
}

/// Of another tenant's sessions one cannot even learn whether they exist.
#[tokio::test]
async fn another_tenants_session_looks_like_none() {
    let stage = Stage::new();
    let (theirs, nobodys) = (session(), session());
    stage
        .victim()
        .post("/chat", &json!({ "sessionId": theirs, "message": "secret", "stream": false, "userId": "ada" }))
        .await
        .ok();
    let api = stage.attacker();
    for path in ["/chat/{}/history", "/sessions/{}/history", "/chat/{}/history?limit=1&before=1"] {
        let (one, other) = (api.get(&path.replace("{}", &theirs)).await, api.get(&path.replace("{}", &nobodys)).await);
        assert_eq!(masked(&one, &theirs), masked(&other, &nobodys), "{path}");
        assert!(one.status >= 400, "{one:?}");
    }
    for path in ["/chat/{}", "/sessions/{}"] {
        let (one, other) =
            (api.delete(&path.replace("{}", &theirs)).await, api.delete(&path.replace("{}", &nobodys)).await);
        assert_eq!(masked(&one, &theirs), masked(&other, &nobodys), "{path}");
        one.error(404, "not_found");
    }
    for path in ["/sessions", "/sessions?userId=ada", "/sessions?limit=200"] {
        assert_eq!(api.get(path).await.ok()["sessions"], json!([]), "{path}");
    }
    // The name of a page of theirs leads into one's own.
    for _ in 0..3 {
        stage.victim().chat(&session(), "more").await.ok();
    }
    let page = stage.victim().get("/sessions?limit=1").await.ok();
    let cursor = page["nextCursor"].as_str().unwrap_or_else(|| panic!("no further page: {page}"));
    assert_eq!(api.get(&format!("/sessions?cursor={cursor}")).await.ok()["sessions"], json!([]));
    assert_eq!(stage.victim().said(&theirs).await.len(), 2, "the victim's session is as it was");
    stage.end().await;
}

/// A conversation does not go into another tenant's prompt.
#[tokio::test]
async fn a_prompt_holds_nothing_of_another_tenant() {
    let (stage, session, tag, secret) = (Stage::new(), session(), tag(), tag());
    stage.victim().chat(&session, &format!("{secret} [[say {secret}]]")).await.ok();
    stage.attacker().chat(&session, &format!("{tag} [[echo]]")).await.ok();
    let call = stage.upstream.call(&tag).await;
    assert!(!call.body.to_string().contains(&secret), "{}", call.body);
    assert_eq!(call.contents().len(), 1);
    stage.end().await;
}

/// Fields that a client has no say in.
#[tokio::test]
async fn fields_that_are_not_the_clients_change_nothing() {
    let (stage, session, tag) = (Stage::new(), session(), tag());
    let body = json!({
        "sessionId": session, "message": tag, "stream": false, "role": "system", "tenantId": VICTIM, "tenant": VICTIM,
        "scopes": ["admin"], "tokensIn": 0, "usage": { "totalTokens": 0 }, "rateLimit": { "perMinute": 1_000_000 },
        "isAdmin": true, "truncated": true, "timestamp": 1, "id": Uuid::nil().to_string(), "__proto__": { "admin": true },
    });
    let answer = stage.attacker().post("/chat", &body).await;
    answer.ok();
    assert_eq!(answer.header("x-tenant-id"), Some(ATTACKER));
    assert!(answer.number("x-tokens-in") > 0);
    let history = stage.attacker().history(&session).await.ok();
    let message = &history["messages"][0];
    assert_eq!(message["role"], "user");
    assert_ne!((&message["id"], &message["timestamp"]), (&json!(Uuid::nil().to_string()), &json!(1)));
    // And an answer has the documented fields, and no others.
    let mut fields: Vec<_> = message.as_object().unwrap().keys().map(String::as_str).collect();
    fields.sort_unstable();
    assert!(
        fields.iter().all(|field| ["content", "id", "role", "timestamp", "tokenCount", "truncated"].contains(field)),
        "{fields:?}"
    );
    let sessions = stage.attacker().get("/sessions").await.ok();
    assert!(!sessions.to_string().contains(&tag), "a list of sessions holds no text: {sessions}");
    stage.victim().assert_unknown(&session).await;
    stage.end().await;
}

/// Guessing keys leads nowhere, and every guess looks the same.
#[tokio::test]
async fn wrong_keys_are_all_refused_alike() {
    let stage = Stage::new();
    let right = enigma_conformance::tenant::key_of(VICTIM);
    let hash = enigma_conformance::tenant::hash(&right);
    let api = stage.server.tenant(VICTIM).with("x-tenant-id", VICTIM);
    let long = "x".repeat(20_000);
    let mut seen: Vec<Masked> = Vec::new();
    let (short, longer, upper) = (&right[..right.len() - 1], format!("{right}x"), right.to_uppercase());
    for wrong in
        ["", "x", short, &longer, &upper, &hash, hash.trim_start_matches("sha256:"), "*", "null", "' or 1=1 --", &long]
    {
        for api in
            [api.with("x-api-key", wrong), api.without("x-api-key").with("authorization", &format!("Bearer {wrong}"))]
        {
            let answer = api.get("/health").await;
            answer.error(401, "unauthorized");
            seen.push(masked(&answer, "-"));
        }
    }
    seen.dedup();
    assert_eq!(seen.len(), 1, "{seen:?}");
    let bytes = api.with_bytes("x-api-key", b"\xff\xfe").get("/health").await;
    bytes.error(401, "unauthorized");
    let data: Value = stage.victim().get("/health").await.ok();
    assert_eq!(data["tenant"], VICTIM);
    stage.end().await;
}
