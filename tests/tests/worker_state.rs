//! What the Worker keeps and counts, in workerd: limits and budgets under many requests at once, sessions across a restart, tokens
//! as they come, what AI Gateway is told, tenants that change, and what a chat costs.

#![expect(clippy::unwrap_used, reason = "all of this is test code: a panic is how it reports")]

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use enigma_conformance::client::{completion, session, tag};
use enigma_conformance::host::settings;
use enigma_conformance::tenant::key_of;
use enigma_conformance::upstream::words;
use enigma_conformance::worker::{DEFAULT_GATEWAY, TENANTS_REFRESH};
use enigma_conformance::{Answer, Api, Tenant, Upstream, Worker, WorkerConfig};
use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};
use tokio::sync::RwLock;
use tokio::time::{Instant, sleep};

/// Of 200 requests at once.
const LIMIT: usize = 50;
/// What a request of the crowd sets aside for its answer, in tokens.
const CAP: u64 = 100;
/// Requests of the crowd that the budget covers.
const COVERED: u64 = 40;
/// What it covers besides: less than a request.
const REST: u64 = 30;

/// Who measures time, or asks so much at once that a busy machine would be late, is alone; the others share.
static QUIET: RwLock<()> = RwLock::const_new(());

/// What a prompt counts for.
fn prompt_tokens(message: &str) -> u64 {
    message.chars().count().div_ceil(4) as u64
}

fn gated(gate: &str) -> String {
    format!("[[tokens 1]][[gate {gate}]][[usage 7 9]]")
}

fn budget() -> u64 {
    COVERED * (prompt_tokens(&gated(&tag())) + CAP) + REST
}

/// The Worker that most of these share.
fn host() -> &'static (Worker, Upstream) {
    static HOST: OnceLock<(Worker, Upstream)> = OnceLock::new();
    HOST.get_or_init(|| {
        let upstream = Upstream::start();
        let worker = WorkerConfig::new()
            .upstream(&upstream.base_url())
            // A model may wait at a gate until all requests have come.
            .variable("ENIGMA_MODELS_FIRST_TOKEN_TIMEOUT_SECONDS", 60)
            .variable("ENIGMA_MODELS_IDLE_TIMEOUT_SECONDS", 60)
            .tenant(&Tenant::new("crowd").with("rateLimit", json!({ "perMinute": LIMIT })))
            .tenant(
                &Tenant::new("spenders")
                    .with("tokenBudget", json!({ "daily": budget() }))
                    .with("concurrency", json!({ "maxStreams": 1000 })),
            )
            .tenant(&Tenant::new("paused"))
            .tenant(&Tenant::new("own-gateway").with("aiGatewayId", json!("own-gateway-7")))
            .tenant(&Tenant::new("no-gateway"))
            .tenant(&Tenant::new("addressed").with("rateLimit", json!({ "perMinute": 2 })).open())
            .start();
        (worker, upstream)
    })
}

/// Clients enough for many connections.
fn clients(worker: &Worker, tenant: &str) -> Vec<Api> {
    (0..10).map(|_| worker.tenant(tenant)).collect()
}

/// Asks for an answer so long that the reservation is exactly `tokens`, and is charged as `usage` says.
async fn reserve(api: &Api, tokens: u64, usage: (u64, u64)) -> Answer {
    let message = format!("[[usage {} {}]]", usage.0, usage.1);
    api.complete(&message, &json!({ "max_tokens": tokens - prompt_tokens(&message) })).await
}

async fn assert_exhausted(api: &Api, tokens: u64) {
    reserve(api, tokens, (0, 0)).await.openai_error(429, "budget_exceeded", "insufficient_quota");
}

#[tokio::test]
async fn two_hundred_at_once_get_exactly_the_limit() {
    let _alone = QUIET.write().await;
    let ((worker, upstream), tag) = (host(), tag());
    let apis = clients(worker, "crowd");
    let sessions: Vec<_> = (0..200).map(|_| session()).collect();
    let asked = sessions.iter().zip(apis.iter().cycle()).map(|(session, api)| {
        let body = json!({ "sessionId": session, "message": tag, "stream": false, "userId": "ada" });
        async move { api.post("/chat", &body).await }
    });
    // The isolate has begun.
    apis[0].get("/health").await.ok();
    let begun = Instant::now();
    let answers = join_all(asked).await;
    println!("200 requests were decided in {:?}", begun.elapsed());
    let (granted, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    for answer in &refused {
        answer.error(429, "rate_limited");
    }
    assert_eq!(granted.len(), LIMIT);
    let slots: BTreeSet<u64> = granted.iter().map(|answer| answer.number("x-ratelimit-remaining")).collect();
    assert_eq!(slots.len(), LIMIT, "a slot was given out twice");
    assert_eq!(upstream.calls(&tag).len(), LIMIT);
    for (session, answer) in sessions.iter().zip(&answers).step_by(9) {
        assert_eq!(apis[0].history(session).await.status, if answer.status == 200 { 200 } else { 404 });
    }
}

#[tokio::test]
async fn five_hundred_at_once_never_pass_the_budget() {
    let _alone = QUIET.write().await;
    let ((worker, upstream), gate) = (host(), tag());
    let (apis, message) = (clients(worker, "spenders"), gated(&gate));
    let asked = (0..500).zip(apis.iter().cycle()).map(|(n, api)| {
        let user = format!("user-{}", n % 25);
        // Both faces spend from one budget. A session is an object more, and a machine that makes hundreds of them at once has
        // no time for anything else.
        let (path, body) = if n % 10 == 0 {
            ("/chat", json!({ "sessionId": session(), "message": message, "userId": user }))
        } else {
            let more = json!({ "stream": true, "user": user, "max_tokens": CAP });
            ("/v1/chat/completions", completion(&message, &more))
        };
        async move { api.begin(Method::POST, path, Some(("application/json", Bytes::from(body.to_string())))).await }
    });
    apis[0].get("/health").await.ok();
    let begun = Instant::now();
    let replies = join_all(asked).await;
    println!("500 requests were decided in {:?}", begun.elapsed());
    // Everybody has been told, and whoever got in holds what it reserved: its model waits at the gate.
    let (mut held, mut refused) = (Vec::new(), 0);
    for reply in replies {
        let reply = reply.unwrap();
        if reply.status == 200 {
            held.push(reply);
            continue;
        }
        let answer = reply.whole().await;
        assert_eq!(answer.status, 429, "{answer:?}");
        assert!(answer.text.contains("budget_exceeded"), "{answer:?}");
        refused += 1;
    }
    assert_eq!(settings::DEFAULT_MAX_TOKENS, CAP, "both faces reserve the same");
    assert_eq!(
        (held.len() as u64, refused),
        (COVERED, 500 - COVERED),
        "what was granted is not what the budget covers"
    );
    assert_eq!(upstream.calls(&gate).len() as u64, COVERED);
    let api = &apis[0];
    assert_exhausted(api, REST + 1).await;
    reserve(api, REST, (1, 1)).await.object();

    upstream.open(&gate);
    for reply in held {
        let events = reply.rest().await;
        assert!(events.iter().all(|event| event.name.as_deref() != Some("error")), "{events:?}");
    }
    // Settled before the end of each answer: 16 tokens for each, and 2 for the rest.
    let left = budget() - COVERED * 16 - 2;
    assert_exhausted(api, left + 1).await;
    reserve(api, left, (left, 0)).await.object();
    // And now there is nothing any more: the least is a prompt of one token and an answer of one.
    let answer = api.complete("x", &json!({ "max_tokens": 1 })).await;
    answer.openai_error(429, "budget_exceeded", "insufficient_quota");
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_restart() {
    let _shared = QUIET.read().await;
    let (upstream, directory) = (Upstream::start(), Arc::new(tempfile::tempdir().unwrap()));
    let tenant = Tenant::new("acme").with("tokenBudget", json!({ "daily": 10_000 }));
    let start = || WorkerConfig::new().upstream(&upstream.base_url()).tenant(&tenant).stored_in(&directory).start();
    let (kept, other, gate) = (session(), session(), tag());
    let (reserved, mut spent) = (prompt_tokens(&gated(&gate)) + CAP, 0);

    let worker = start();
    let api = worker.tenant("acme");
    let keyed = api.with("idempotency-key", "once");
    let first = keyed.chat(&kept, "first [[usage 100 200]]").await;
    first.ok();
    api.chat_stream(&kept, "second [[tokens 5]][[usage 300 400]]").await.finish().await;
    api.post("/chat", &json!({ "sessionId": other, "message": "[[usage 1 2]]", "stream": false, "userId": "ada" }))
        .await
        .ok();
    spent += 100 + 200 + 300 + 400 + 3;
    let (history, list) = (api.history(&kept).await.ok(), api.get("/sessions").await.ok());
    assert_eq!(history["messages"].as_array().unwrap().len(), 4);
    assert_eq!(list["sessions"].as_array().unwrap().len(), 2);
    // One is under way when the end comes.
    let mut running = api.chat_stream(&session(), &gated(&gate)).await;
    running.text().await;
    worker.kill();
    drop(running);

    let worker = start();
    let api = worker.tenant("acme");
    assert_eq!(api.history(&kept).await.ok(), history);
    assert_eq!(api.get("/sessions").await.ok(), list);
    // The session goes on where it was.
    let more = tag();
    api.chat(&kept, &format!("{more} [[usage 5 5]]")).await.ok();
    spent += 10;
    let shown = upstream.call(&more).await;
    assert_eq!(
        shown.contents()[..4],
        ["first [[usage 100 200]]", &*words(3), "second [[tokens 5]][[usage 300 400]]", &*words(5)]
    );
    // What was answered is not asked again.
    let again = worker.tenant("acme").with("idempotency-key", "once").chat(&kept, "first [[usage 100 200]]").await;
    assert_eq!((again.ok(), again.header("idempotency-replayed")), (first.ok(), Some("true")));
    // Spent is spent, and what the one that died had reserved stays held until it expires.
    let left = 10_000 - spent - reserved;
    assert_exhausted(&api, left + 1).await;
    reserve(&api, left, (1, 1)).await.object();
    worker.kill();
}

#[tokio::test]
async fn tokens_arrive_one_by_one() {
    const TOKENS: usize = 8;
    let _alone = QUIET.write().await;
    let (worker, upstream) = host();
    let api = worker.tenant("paused");
    for openai in [false, true] {
        let message = format!("{} [[tokens {TOKENS} every 200ms]]", tag());
        let mut reply = if openai {
            api.complete_stream(&message, &json!({})).await
        } else {
            api.chat_stream(&session(), &message).await
        };
        let mut came = Vec::new();
        while let Some(event) = reply.next().await {
            if event.text().is_some_and(|text| !text.is_empty()) {
                came.push(event.at);
            }
        }
        assert_eq!(came.len(), TOKENS);
        let gaps: Vec<u128> = came.windows(2).map(|pair| (pair[1] - pair[0]).as_millis()).collect();
        println!("gaps of tokens at the client, in milliseconds: {gaps:?}");
        // Together with its successor comes no token. One that a busy machine has kept for a moment is nearer to it.
        assert!(gaps.iter().all(|gap| (40..=600).contains(gap)), "gaps in milliseconds: {gaps:?}");
        assert!(gaps.iter().filter(|gap| **gap < 120).count() <= 1, "gaps in milliseconds: {gaps:?}");
        let ended = upstream.call(&message).await.ended_at().expect("the model has ended");
        let last_sent = Duration::from_millis(200 * (TOKENS as u64 - 1));
        assert!(ended - came[0] > last_sent / 2, "the first token came when the last was sent");
    }
}

/// The options that the binding was called with.
fn options(call: &enigma_conformance::upstream::Call) -> Value {
    serde_json::from_str(call.headers["x-standin-options"].to_str().unwrap()).unwrap()
}

#[tokio::test]
async fn every_call_tells_its_gateway_whose_it_is() {
    let _shared = QUIET.read().await;
    let (worker, upstream) = host();
    for (tenant, gateway) in [("own-gateway", "own-gateway-7"), ("no-gateway", DEFAULT_GATEWAY)] {
        let api = worker.tenant(tenant);
        for (stream, with_session) in [(false, true), (true, true), (false, false), (true, false)] {
            let (session, tag) = (session(), tag());
            let trace = format!("trace-of-{tag}");
            let traced = api.with("x-trace-id", &trace);
            let on_v1 = if with_session { traced.with("x-session-id", &session) } else { traced.clone() };
            on_v1.complete(&format!("{tag} v1"), &json!({ "stream": stream })).await;
            let mut expected = json!({ "tenantId": tenant, "traceId": trace, "route": "/v1/chat/completions" });
            if with_session {
                expected["sessionId"] = session.clone().into();
            }
            let call = upstream.call(&format!("{tag} v1")).await;
            assert_eq!(call.headers["x-standin-gateway"], gateway);
            assert_eq!(options(&call)["gateway"], json!({ "id": gateway, "metadata": expected }));

            let body = json!({ "sessionId": session, "message": format!("{tag} native"), "stream": stream });
            assert_eq!(traced.post("/chat", &body).await.status, 200);
            let call = upstream.call(&format!("{tag} native")).await;
            let expected = json!({ "tenantId": tenant, "traceId": trace, "route": "/chat", "sessionId": session });
            assert_eq!(options(&call)["gateway"], json!({ "id": gateway, "metadata": expected }));
        }
    }
    // And every other call of these tests.
    let calls = upstream.calls("");
    assert!(calls.len() >= 16);
    for call in calls {
        let gateway = &options(&call)["gateway"];
        assert_eq!(gateway["id"].as_str(), call.headers["x-standin-gateway"].to_str().ok());
        let metadata = gateway["metadata"].as_object().unwrap();
        assert!(metadata.len() <= 5 && metadata.values().all(Value::is_string), "{gateway}");
        assert!(["tenantId", "traceId", "route"].iter().all(|name| metadata.contains_key(*name)), "{gateway}");
        assert!(metadata["route"] != "/chat" || metadata.contains_key("sessionId"), "{gateway}");
    }
}

#[tokio::test]
async fn without_a_gateway_nothing_leaves() {
    let _shared = QUIET.read().await;
    let upstream = Upstream::start();
    let worker = WorkerConfig::new()
        .upstream(&upstream.base_url())
        .variable("ENIGMA_GATEWAY_ID", "")
        .tenant(&Tenant::new("with").with("aiGatewayId", json!("mine")))
        .tenant(&Tenant::new("without"))
        .start();
    let without = worker.tenant("without");
    without.chat(&session(), "hello").await.error(502, "ai_error");
    without.post("/chat", &json!({ "sessionId": session(), "message": "hello" })).await.error(502, "ai_error");
    without.complete("hello", &json!({})).await.openai_error(502, "ai_error", "server_error");
    assert_eq!(upstream.calls("").len(), 0);
    let seen = worker.tell(&json!({ "op": "metrics" }));
    assert_eq!((&seen["ai"]["calls"], &seen["ai"]["withoutGateway"]), (&json!(0), &json!(0)), "{seen}");
    worker.tenant("with").chat(&session(), "hello").await.ok();
    assert_eq!(upstream.calls("hello")[0].headers["x-standin-gateway"], "mine");
}

#[tokio::test]
async fn a_change_of_tenants_counts_within_its_bound() {
    let _shared = QUIET.read().await;
    let upstream = Upstream::start();
    let worker = WorkerConfig::new()
        .upstream(&upstream.base_url())
        .tenant(&Tenant::new("changing"))
        .tenant(&Tenant::new("staying"))
        .start();
    let health = async |tenant: &str, key: &str| {
        let api = Api::new(&worker.base_url).with("x-tenant-id", tenant).with("x-api-key", key);
        api.get("/health").await.status
    };
    // From here on a copy is as old as it gets, and the next to ask reads; a second is for slow machines.
    let seen = || sleep(TENANTS_REFRESH + Duration::from_millis(50));
    let until = async |what: &str, tenant: &str, key: &str, status: u16| {
        let end = Instant::now() + Duration::from_secs(1);
        while health(tenant, key).await != status {
            assert!(Instant::now() < end, "{what}: not within {TENANTS_REFRESH:?}");
        }
        for _ in 0..10 {
            assert_eq!(health(tenant, key).await, status, "{what}, for a moment only");
        }
    };
    let (old, new) = (key_of("changing"), "a-new-key");
    assert_eq!(health("changing", &old).await, 200);
    assert_eq!(health("arriving", &key_of("arriving")).await, 404);

    let fresh = Tenant::new("changing").with("apiKeys", json!([enigma_conformance::tenant::hash(new)]));
    worker.change_tenant("changing", Some(&fresh));
    worker.change_tenant("arriving", Some(&Tenant::new("arriving")));
    seen().await;
    until("a revoked key is dead", "changing", &old, 401).await;
    until("a new key is good", "changing", new, 200).await;
    until("a new tenant is there", "arriving", &key_of("arriving"), 200).await;

    // What is wrong changes nothing, as a whole.
    let wrong = json!({ "tenants": { "staying": null, "changing": { "tenantId": "changing", "limits": "wrong" } } });
    for document in ["{ no document", &wrong.to_string(), "[]"] {
        worker.put_tenants(document);
        seen().await;
        for _ in 0..10 {
            let found = [health("changing", new).await, health("changing", &old).await];
            assert_eq!(found, [200, 401], "{document}");
            assert_eq!(health("staying", &key_of("staying")).await, 200, "{document}");
            assert_eq!(health("arriving", &key_of("arriving")).await, 200, "{document}");
        }
    }
    let log = worker.stderr.text();
    assert_eq!(log.matches("the tenants are refused as KV has them").count(), 3, "each is logged once: {log}");
    assert!(!log.contains(new) && !log.contains(&old));

    worker.change_tenant("arriving", None);
    seen().await;
    until("a removed tenant is gone", "arriving", &key_of("arriving"), 404).await;
    until("the others stay", "staying", &key_of("staying"), 200).await;
}

#[tokio::test]
async fn a_chat_costs_at_most_five_subrequests() {
    let _shared = QUIET.read().await;
    let upstream = Upstream::start();
    let tenant = Tenant::new("acme").with("tokenBudget", json!({ "daily": 100_000, "monthly": 1_000_000 }));
    let worker = WorkerConfig::new()
        .upstream(&upstream.base_url())
        .variable("ENIGMA_LOG_LEVEL", "debug")
        // The tenants are read by the first request, and by no other of this test.
        .variable("ENIGMA_TENANTS_REFRESH_SECONDS", 300)
        .tenant(&tenant)
        .start();
    let (api, session) = (worker.tenant("acme"), session());
    let cost = async |trace: &str, message: &str| {
        api.with("x-trace-id", trace).chat(&session, message).await.ok();
        // What comes after the answer is counted, too.
        sleep(Duration::from_millis(500)).await;
        let log = worker.stderr.text();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let calls = lines.filter(|line| line["target"] == "enigma::subrequest" && line["span"]["trace_id"] == trace);
        calls.map(|line| format!("{} {}", line["binding"], line["port"])).collect::<Vec<_>>()
    };
    let first = cost("cold", "hello").await;
    assert!(first.iter().any(|call| call.contains("CONFIG")), "the first request reads the tenants: {first:?}");
    for trace in ["warm-1", "warm-2"] {
        let calls = cost(trace, "[[usage 7 9]]").await;
        assert!((1..=5).contains(&calls.len()), "{} subrequests: {calls:?}", calls.len());
        println!("{} subrequests besides the model: {calls:?}", calls.len());
    }
    assert_eq!(worker.tell(&json!({ "op": "metrics" }))["ai"]["calls"], 3);
}

/// The address of who asks is the platform's word: here, the connection's.
#[tokio::test]
async fn an_address_is_not_what_a_client_says() {
    let _shared = QUIET.read().await;
    let (worker, _) = host();
    let api = Api::new(&worker.base_url).with("x-tenant-id", "addressed");
    for n in 1..=4 {
        let address = format!("203.0.113.{n}");
        let disguised = api
            .with("x-forwarded-for", &address)
            .with("x-real-ip", &address)
            .with("true-client-ip", &address)
            .with("forwarded", &format!("for={address}"));
        let answer = disguised.chat(&session(), "hello").await;
        if n <= 2 {
            answer.ok();
        } else {
            answer.error(429, "rate_limited");
        }
    }
    let list = api.with("x-forwarded-for", "203.0.113.9").get("/sessions").await.ok();
    let users: BTreeSet<_> = list["sessions"].as_array().unwrap().iter().map(|it| it["userId"].to_string()).collect();
    assert_eq!(users, BTreeSet::from(["\"127.0.0.1\"".to_owned()]));
}
