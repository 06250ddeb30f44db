//! Panics in the Worker, in workerd: each ends its own request, and nothing else. And objects that are asked by hand: those of one
//! tenant cannot be reached with another's id, not even by their name.

use std::sync::OnceLock;
use std::time::Duration;

use enigma_conformance::client::{Reply, session, tag};
use enigma_conformance::upstream::words;
use enigma_conformance::{Answer, Api, Tenant, Upstream, Worker, WorkerConfig};
use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};

/// Some time, in milliseconds; so long ago that nothing is over by it.
const NOW: u64 = 1;

const PANIC: &str = "as the test wants it";

/// The Worker for tests: the real one, and paths on which it fails.
fn host() -> &'static (Worker, Upstream) {
    static HOST: OnceLock<(Worker, Upstream)> = OnceLock::new();
    HOST.get_or_init(|| {
        let upstream = Upstream::start();
        let config = WorkerConfig::new()
            .package("tests/worker")
            .upstream(&upstream.base_url())
            .variable("ENIGMA_MODELS_IDLE_TIMEOUT_SECONDS", 60);
        let budget = |id: &str| Tenant::new(id).with("tokenBudget", json!({ "daily": 10_000 }));
        let tenants = ["handler", "object", "acme", "globex"].map(budget);
        (tenants.iter().fold(config, WorkerConfig::tenant).start(), upstream)
    })
}

fn anybody() -> Api {
    Api::new(&host().0.base_url)
}

/// Hands `body` to an object.
async fn tell(binding: &str, name: &str, body: &Value) -> Answer {
    let path = format!("/object/{binding}?name={name}");
    anybody().send(Method::POST, &path, Some(("application/json", body.to_string().into()))).await
}

/// The books of a tenant: what was charged and what is held.
async fn balance(tenant: &str) -> Value {
    let answer =
        tell("TENANT_LEDGER", tenant, &json!({ "tenant": tenant, "ask": { "balance": { "now": NOW } } })).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// An answer that waits in its middle.
async fn open_stream(tenant: &str, id: &str, gate: &str) -> Reply {
    let api = host().0.tenant(tenant);
    let mut reply = api.chat_stream(id, &format!("[[tokens 1]][[gate {gate}]][[tokens 3]][[usage 7 9]]")).await;
    assert_eq!(reply.text().await, words(1));
    reply
}

/// Lets it go on, and asserts that it came to its end as if nothing had been.
async fn assert_goes_on(tenant: &str, id: &str, gate: &str, reply: Reply) {
    host().1.open(gate);
    let finished = reply.finish().await;
    assert_eq!((&*finished.text, finished.error), (&*words(3), None));
    assert_eq!((&finished.done["finishReason"], &finished.done["usage"]["totalTokens"]), (&json!("stop"), &json!(16)));
    let said = host().0.tenant(tenant).said(id).await;
    assert_eq!(said[1], ("assistant".to_owned(), words(1) + &words(3)));
}

/// What was said of a panic: where, and not what.
fn assert_logged() {
    let panicked =
        host().0.stderr.wait_for(Duration::from_secs(5), |log| log.contains("a task has panicked").then_some(()));
    assert!(panicked.is_some(), "the panic is not logged");
    assert!(!host().0.stderr.text().contains(PANIC), "what a panic says may be what a user said");
}

#[tokio::test]
async fn a_panic_in_a_handler_is_a_clean_error() {
    let (id, gate) = (session(), tag());
    let reply = open_stream("handler", &id, &gate).await;
    let api = anybody().with("x-trace-id", "panicked");
    for _ in 0..5 {
        let answer = api.get("/faults/handler").await;
        assert!(answer.error(500, "internal_error").is_null());
        assert_eq!(answer.header("x-trace-id"), Some("panicked"));
        assert!(!answer.text.contains(PANIC), "{answer:?}");
    }
    let parent = anybody().with("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let answers = join_all((0..20).map(|_| parent.get("/faults/handler"))).await;
    for answer in answers {
        answer.error(500, "internal_error");
        assert_eq!(answer.header("x-trace-id"), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
    }
    assert_logged();
    host().0.tenant("handler").chat(&session(), "hello").await.ok();
    assert_goes_on("handler", &id, &gate, reply).await;
}

#[tokio::test]
async fn a_panic_in_an_object_harms_none_of_its_callers_but_one() {
    let (id, gate) = (session(), tag());
    let (api, message) = (host().0.tenant("object"), "before [[usage 100 200]]");
    api.chat(&session(), message).await.ok();
    let reply = open_stream("object", &id, &gate).await;
    for _ in 0..3 {
        let answer = anybody().get("/faults/object?tenant=object").await;
        assert_eq!((answer.status, &*answer.text), (500, "the object panicked"));
    }
    assert_logged();
    // It works on, and has its books: one was charged, one is held.
    api.chat(&session(), "after [[usage 10 20]]").await.ok();
    let held =
        tell("TENANT_LEDGER", "object", &json!({ "tenant": "object", "ask": { "records": { "limit": 10 } } })).await;
    assert_eq!(held.json().as_array().map(Vec::len), Some(2), "{held:?}");
    assert_goes_on("object", &id, &gate, reply).await;
    // 346 tokens are spent, to the token, and none is held.
    let spend = |tokens: u64, message: &str| {
        let more = json!({ "max_tokens": tokens - message.len().div_ceil(4) as u64 });
        let (api, message) = (api.clone(), message.to_owned());
        async move { api.complete(&message, &more).await }
    };
    let refused = spend(10_000 - 346 + 1, "[[usage 1 1]]").await;
    refused.openai_error(429, "budget_exceeded", "insufficient_quota");
    spend(10_000 - 346, "[[usage 1 1]]").await.object();
}

/// What a session's object can be asked.
fn session_verbs() -> Vec<Value> {
    let retention = json!({ "days": 1, "max_messages": 2 });
    let (request, lease) = (session(), json!({ "secs": 60, "nanos": 0 }));
    let message = |role: &str| json!({ "id": session(), "role": role, "content": "forged", "at": NOW, "tokens": 1, "truncated": false });
    let turn = json!({ "user": "eve", "messages": [message("user"), message("assistant")] });
    let limited = json!({ "limit": 10, "retention": retention, "now": NOW });
    vec![
        json!({ "recent": limited }),
        json!({ "page": { "before": null, "limit": 10, "retention": retention, "now": NOW } }),
        json!({ "append": { "turn": turn, "retention": retention, "now": NOW, "request": null } }),
        json!({ "enter": { "request": request, "lease": lease } }),
        json!({ "begin": { "request": request, "lease": lease, "limit": 10, "retention": retention, "now": NOW } }),
        json!({ "leave": { "request": request } }),
        json!({ "prune": { "retention": retention, "now": NOW } }),
        json!("delete"),
    ]
}

/// What the object of a window can be asked.
fn line_questions(subject: &str) -> [Value; 2] {
    let window = json!({ "limit": 100_000, "length": { "secs": 60, "nanos": 0 } });
    let checks = json!([{ "subject": subject, "policy": { "sustained": window, "burst": window } }]);
    [json!({ "peek": NOW }), json!({ "slot": { "acquire": NOW } })]
        .map(|question| json!({ "question": question, "checks": checks, "stream": null }))
}

/// What a tenant's object can be asked.
fn ledger_asks() -> Vec<Value> {
    let (request, budget) = (session(), json!({ "daily": 10_000, "monthly": null }));
    let lifetime = json!({ "secs": 60, "nanos": 0 });
    let stream = json!({ "request": request, "max_streams": 64, "expires_at": NOW + 60_000 });
    let mut asks = vec![
        json!({ "enter_stream": { "stream": stream, "now": NOW } }),
        json!({ "leave_stream": { "request": request } }),
        json!({ "reserve": { "request": request, "tokens": 1, "budget": budget, "lifetime": lifetime, "now": NOW } }),
        json!({ "settle": { "request": request, "used": 1, "budget": budget, "now": NOW } }),
        json!({ "release": { "request": request } }),
        json!({ "balance": { "now": NOW } }),
        json!({ "close": { "request": request, "spending": "released", "record": null, "now": NOW } }),
        json!({ "records": { "limit": 10 } }),
    ];
    asks.extend(line_questions("tenant").map(|line| json!({ "line": line })));
    asks
}

#[tokio::test]
async fn objects_answer_their_own_tenant_only() {
    let (api, id) = (host().0.tenant("acme"), session());
    let chat = async || {
        let body = json!({ "sessionId": id, "message": "a secret [[usage 7 9]]", "stream": false, "userId": "ada" });
        let answer = api.post("/chat", &body).await;
        answer.ok();
        answer.number("x-ratelimit-remaining")
    };
    let remaining = chat().await;
    let (history, list) = (api.history(&id).await.ok(), api.get("/sessions").await.ok());
    let books = balance("acme").await;
    assert_eq!(books["day"]["settled"], 16, "{books}");

    let (of_session, of_window) = (format!("acme:{id}"), "acme:ratelimit:user:ada".to_owned());
    let verbs = session_verbs().into_iter().map(|verb| json!({ "session": id, "verb": verb }));
    let asks: Vec<(&str, &str, Value)> = verbs
        .map(|ask| ("CHAT_SESSION", &*of_session, ask))
        .chain(line_questions("user:ada").map(|ask| ("RATE_LIMITER_DO", &*of_window, ask)))
        .chain(ledger_asks().into_iter().map(|ask| ("TENANT_LEDGER", "acme", ask)))
        .collect();
    for (binding, name, ask) in &asks {
        // It was understood, or it would be 400.
        let answer = tell(binding, name, &json!({ "tenant": "globex", "ask": ask })).await;
        assert_eq!((answer.status, &*answer.text), (403, "the object belongs to another tenant"), "{binding} {ask}");
    }
    // As wrong is its own tenant that means another session, and what is no question at all.
    let ask = json!({ "session": session(), "verb": "delete" });
    let answer = tell("CHAT_SESSION", &of_session, &json!({ "tenant": "acme", "ask": ask })).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    for text in [json!(null), json!({}), json!({ "tenant": "acme" }), json!({ "tenant": "acme", "ask": { "all": {} } })]
    {
        let answer = tell("TENANT_LEDGER", "acme", &text).await;
        assert_eq!(answer.status, 400, "{answer:?}");
    }

    // Nothing has changed.
    assert_eq!((api.history(&id).await.ok(), api.get("/sessions").await.ok()), (history, list));
    assert_eq!(balance("acme").await, books);
    assert_eq!(chat().await, remaining - 1, "a slot was taken");
    println!("{} questions for another tenant's objects were refused", asks.len());
}
