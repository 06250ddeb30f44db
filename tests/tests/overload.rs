//! More than the server does at once: who is refused, how fast, and that every place comes back.

#![expect(clippy::unwrap_used, reason = "all of this is test code: a panic is how it reports")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use enigma_conformance::client::{Reply, completion, session, tag};
use enigma_conformance::upstream::PATIENCE;
use enigma_conformance::{Answer, Api, Server, ServerConfig, Tenant, Upstream, raw};
use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Answers under way, in all.
const STREAMS: usize = 40;
/// What one tenant has of them, however much it asks for.
const HALF: usize = STREAMS / 2;
/// What another one gets beside it.
const QUARTER: usize = STREAMS / 4;
/// Requests in work, in all, where they are what is asked too much of.
const REQUESTS: usize = 12;
/// Where they are not.
const PLENTY: usize = 4096;
const FLOOD: usize = 500;
/// A refusal does no work. What it may take is a matter of this machine, which has other things to do.
const FAST: Duration = Duration::from_secs(3);

/// A server that has so many requests in work at once, and whose models may be silent for `silence`; on a busy machine that should
/// be long.
fn start(upstream: &Upstream, requests: usize, silence: Duration) -> Server {
    let many = |id: &str| Tenant::new(id).with("concurrency", json!({ "maxStreams": 10_000 }));
    ServerConfig::new()
        .upstream(&upstream.base_url())
        .set("overload.max_streams", STREAMS)
        .set("overload.max_requests", requests)
        .set("models.max_attempts", 1)
        .set("models.breaker_failures", 1000)
        .set("models.first_token_timeout_seconds", 60)
        .set("models.idle_timeout_seconds", silence.as_secs())
        .set("chat.send_timeout_seconds", 60)
        .set("server.header_read_timeout_seconds", 120)
        .set("server.body_read_timeout_seconds", 120)
        .tenant(&many("flood"))
        .tenant(&many("calm"))
        .start()
}

/// What became of a request for a stream.
enum Asked {
    Granted(Reply),
    Refused(Answer, Duration),
}

async fn ask(api: &Api, path: &str, message: &str) -> Asked {
    let body = if path == "/chat" {
        json!({ "sessionId": session(), "message": message })
    } else {
        completion(message, &json!({ "stream": true }))
    };
    let before = Instant::now();
    let body = Some(("application/json", body.to_string().into()));
    let reply = api.begin(Method::POST, path, body).await.unwrap();
    if reply.status == 200 {
        return Asked::Granted(reply);
    }
    let answer = reply.whole().await;
    Asked::Refused(answer, before.elapsed())
}

/// Asserts that a refusal says what it should, in the way of its route.
fn judge(path: &str, answer: &Answer) {
    if path.starts_with("/v1") {
        answer.openai_error(503, "unavailable", "server_error");
    } else {
        assert_eq!(answer.error(503, "unavailable"), Value::Null);
    }
    assert_eq!(answer.number("retry-after"), 1);
}

/// Asks for `count` streams at once, on both faces. Returns those that were granted, and how long the refusals took.
async fn flood(api: &Api, count: usize, message: &str) -> (Vec<Reply>, Vec<Duration>) {
    let paths = ["/chat", "/v1/chat/completions"];
    let asked =
        join_all((0..count).map(|n| async move { (paths[n % 2], ask(api, paths[n % 2], message).await) })).await;
    let (mut granted, mut took) = (Vec::new(), Vec::new());
    for (path, asked) in asked {
        match asked {
            Asked::Granted(reply) => granted.push(reply),
            Asked::Refused(answer, time) => {
                judge(path, &answer);
                took.push(time);
            }
        }
    }
    (granted, took)
}

/// Waits until all of a tenant's places are free, and takes them.
async fn all_places(api: &Api, message: &str) -> Vec<Reply> {
    let end = Instant::now() + PATIENCE;
    let mut granted = Vec::new();
    while granted.len() < HALF {
        granted.extend(flood(api, HALF - granted.len(), message).await.0);
        assert!(Instant::now() < end, "only {} of {HALF} places came back", granted.len());
    }
    granted
}

async fn assert_full(api: &Api) {
    let (granted, refused) = flood(api, 2, "one too many").await;
    assert!(granted.is_empty(), "{} were let in above the bound", granted.len());
    assert_eq!(refused.len(), 2);
}

#[tokio::test]
async fn a_flood_of_answers_costs_others_no_more_than_its_share() {
    let upstream = Upstream::start();
    let server = start(&upstream, PLENTY, Duration::from_secs(60));
    let (flooding, calm) = (server.tenant("flood"), server.tenant("calm"));
    let (gate, theirs) = (tag(), tag());
    let slow = format!("{gate} [[tokens 1]][[gate {gate}]][[tokens 1]]");
    let (held, mut took) = flood(&flooding, FLOOD, &slow).await;
    assert_eq!((held.len(), took.len()), (HALF, FLOOD - HALF), "one tenant has its share, and all of it");
    assert_eq!(upstream.calls(&gate).len(), HALF, "whoever is refused costs the model nothing");
    took.sort_unstable();
    assert!(took[took.len() / 2] < FAST, "half of the refusals took longer than {:?}", took[took.len() / 2]);

    // It goes on and on, and the other one does not notice.
    let stop = Arc::new(AtomicBool::new(false));
    let refused = Arc::new(AtomicU64::new(0));
    let (flag, count) = (Arc::clone(&stop), Arc::clone(&refused));
    let mut hammer = JoinSet::new();
    hammer.spawn(async move {
        while !flag.load(Ordering::SeqCst) {
            let (granted, took) = flood(&flooding, 20, "more").await;
            assert!(granted.is_empty());
            count.fetch_add(took.len() as u64, Ordering::SeqCst);
        }
        flooding
    });
    let mine = format!("{theirs} [[tokens 1]][[gate {theirs}]][[tokens 1]]");
    let (granted, turned_away) = flood(&calm, QUARTER, &mine).await;
    assert_eq!((granted.len(), turned_away.len()), (QUARTER, 0), "a quarter is sure");
    let nobody = Api::new(&server.base_url);
    let mut slowest = Duration::ZERO;
    for _ in 0..20 {
        let before = Instant::now();
        calm.get("/sessions").await.ok();
        slowest = slowest.max(before.elapsed());
        assert_eq!(nobody.get("/healthz").await.status, 200);
        assert_eq!(nobody.get("/readyz").await.status, 200);
    }
    assert!(slowest < FAST, "a short request of another tenant took {slowest:?}");
    upstream.open(&theirs);
    for reply in granted {
        assert!(!reply.rest().await.is_empty());
    }
    stop.store(true, Ordering::SeqCst);
    let flooding = hammer.join_next().await.unwrap().unwrap();
    assert!(refused.load(Ordering::SeqCst) > 0);

    upstream.open(&gate);
    for reply in held {
        assert!(!reply.rest().await.is_empty());
    }
    let again = all_places(&flooding, "[[tokens 1]][[hang]]").await;
    assert_full(&flooding).await;
    drop(again);

    let log = server.stderr.text();
    let told = log.lines().filter(|line| line.contains("at capacity")).count();
    assert!((1..60).contains(&told), "{told} lines for thousands of refusals");
    assert!(!log.contains("\"ERROR\""), "a refusal is no error of the server's:\n{log}");
}

#[tokio::test]
async fn places_come_back_however_the_answer_ends() {
    let upstream = Upstream::start();
    let server = start(&upstream, PLENTY, Duration::from_secs(10));
    let api = server.tenant("flood");

    // The client leaves in the middle.
    for _ in 0..3 {
        let mut held = all_places(&api, "[[tokens 1]][[hang]]").await;
        for reply in &mut held {
            reply.next().await;
        }
        assert_full(&api).await;
        drop(held);
    }
    // It leaves before the first piece.
    let tag = tag();
    let mut waiting = JoinSet::new();
    for _ in 0..HALF {
        let (api, message) = (api.clone(), format!("{tag} [[hang before first]]"));
        waiting.spawn(async move {
            // A place of the round before may not be free yet.
            while let Asked::Refused(..) = ask(&api, "/chat", &message).await {}
            panic!("a model that says nothing was heard");
        });
    }
    let end = Instant::now() + PATIENCE;
    while upstream.calls(&tag).len() < HALF {
        assert!(Instant::now() < end, "not all were let in");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Their tasks end where they are.
    drop(waiting);
    // The model falls silent, breaks off, refuses.
    for message in ["[[tokens 1]][[hang]]", "[[cut after 2]]"] {
        for reply in all_places(&api, message).await {
            reply.rest().await;
        }
    }
    let failed = join_all((0..HALF).map(|_| api.chat("not a session", ""))).await;
    assert!(failed.iter().all(|answer| matches!(answer.status, 400 | 503)), "{failed:?}");
    // Each of them is free again, and not one more.
    let held = all_places(&api, "[[tokens 1]][[hang]]").await;
    assert_full(&api).await;
    drop(held);
}

/// A chat whose body does not come.
async fn bodiless(server: &Server, tenant: &str) -> TcpStream {
    let key = enigma_conformance::tenant::key_of(tenant);
    let headers = [("x-api-key", &*key), ("content-type", "application/json"), ("content-length", "100")];
    let mut connection = raw::connect(&server.base_url).await;
    let head = raw::head(&server.base_url, "POST", "/chat", &headers);
    connection.write_all(head.as_bytes()).await.unwrap();
    connection
}

#[tokio::test]
async fn a_flood_of_requests_costs_others_no_more_than_its_share() {
    let upstream = Upstream::start();
    let server = start(&upstream, REQUESTS, Duration::from_secs(60));
    let (flooding, calm) = (server.tenant("flood"), server.tenant("calm"));

    // Half of all requests wait for bodies that do not come. Each further request of the tenant is refused at once.
    let mut held = JoinSet::new();
    for _ in 0..REQUESTS {
        let mut connection = bodiless(&server, "flood").await;
        held.spawn(async move { raw::status(&raw::answer(&mut connection, PATIENCE * 2).await) });
    }
    for _ in 0..REQUESTS / 2 {
        assert_eq!(held.join_next().await.unwrap().unwrap(), 503, "only half of them have a place");
    }
    judge("/sessions", &flooding.get("/sessions").await);
    judge("/v1/models", &flooding.get("/v1/models").await);
    judge("/health", &flooding.get("/health").await);
    let before = Instant::now();
    for mut connection in join_all((0..100).map(|_| bodiless(&server, "flood"))).await {
        let answer = raw::answer(&mut connection, PATIENCE).await;
        assert_eq!(raw::status(&answer), 503, "{answer}");
        assert!(answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
    }
    assert!(before.elapsed() < FAST * 5, "a hundred refusals took {:?}", before.elapsed());
    for _ in 0..20 {
        calm.get("/sessions").await.ok();
        calm.chat(&session(), "hello").await.ok();
    }
    assert_eq!(Api::new(&server.base_url).get("/readyz").await.status, 200);
    drop(held);
    let end = Instant::now() + PATIENCE;
    while flooding.get("/sessions").await.status != 200 {
        assert!(Instant::now() < end, "the places did not come back");
    }

    // As fast as they can, from more connections than there are places.
    let stop = Arc::new(AtomicBool::new(false));
    let mut hammers = JoinSet::new();
    for _ in 0..4 * REQUESTS {
        let (api, stop) = (flooding.clone(), Arc::clone(&stop));
        hammers.spawn(async move {
            let mut asked = 0_u64;
            while !stop.load(Ordering::SeqCst) {
                let answer = api.get("/sessions").await;
                if answer.status != 200 {
                    judge("/sessions", &answer);
                }
                asked += 1;
            }
            asked
        });
    }
    for _ in 0..100 {
        calm.get("/sessions").await.ok();
    }
    calm.chat(&session(), "hello").await.ok();
    stop.store(true, Ordering::SeqCst);
    while let Some(asked) = hammers.join_next().await {
        assert!(asked.unwrap() > 0);
    }
}
