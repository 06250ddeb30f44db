//! A server that works for long does not grow: its memory stays flat, and it leaks no file descriptor.
//!
//! `ENIGMA_SOAK_SECONDS` says for how long; `just soak` takes ten minutes, CI two, and `cargo test` alone twenty seconds.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "all of this is test code: a panic is how it reports")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use enigma_conformance::client::{completion, session};
use enigma_conformance::upstream::PATIENCE;
use enigma_conformance::{Api, Server, ServerConfig, Tenant, Upstream};
use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

const DEFAULT_SECONDS: u64 = 20;
const TENANTS: [&str; 3] = ["acme", "globex", "initech"];
/// Sessions of a tenant. Each is asked again and again, so its history is as long as it may get.
const SESSIONS: usize = 60;
const USERS: u64 = 500;
/// How many requests are under way at most. As many as that are while the peak is measured, so that what the server needs for them
/// is there before its memory is looked at: a machine that was busy for a moment, and has to catch up, is no leak.
const WORKERS: usize = 64;
/// How much the memory of the last third may differ from that of the first, in a hundred.
const FLAT: f64 = 5.0;
const SAMPLE: Duration = Duration::from_millis(200);

fn any(bound: u64) -> u64 {
    u64::from_le_bytes(Uuid::new_v4().into_bytes()[..8].try_into().unwrap()) % bound
}

/// The traffic: who asks, and for what.
struct Traffic {
    apis: Vec<(Api, Vec<String>)>,
    done: AtomicU64,
}

impl Traffic {
    fn new(server: &Server) -> Arc<Self> {
        let sessions = || (0..SESSIONS).map(|_| session()).collect();
        let apis = TENANTS.iter().map(|tenant| (server.tenant(tenant), sessions())).collect();
        Arc::new(Self { apis, done: AtomicU64::new(0) })
    }

    /// One request of any kind, as often as the numbers say.
    async fn ask(self: Arc<Self>) {
        let (api, sessions) = &self.apis[usize::try_from(any(self.apis.len() as u64)).unwrap()];
        let session = &sessions[usize::try_from(any(SESSIONS as u64)).unwrap()];
        let api = api.with("x-user-id", &format!("user-{}", any(USERS)));
        match any(100) {
            0..3 => drop(api.chat(session, &"long ".repeat(800)).await.ok()),
            3..35 => drop(api.chat(session, "How are you? [[tokens 8]]").await.ok()),
            35..50 => {
                let finished = api.chat_stream(session, "[[tokens 10 every 2ms]]").await.finish().await;
                assert!(finished.error.is_none(), "{finished:?}");
            }
            50..60 => drop(api.complete("[[tokens 20]]", &json!({})).await.object()),
            60..70 => {
                let events = api.complete_stream("[[tokens 10 every 2ms]]", &json!({})).await.rest().await;
                assert_eq!(events.last().unwrap().data.as_deref(), Some("[DONE]"));
            }
            70..77 => leave(&api, session).await,
            77..85 => {
                let answer = api.history(session).await;
                assert!(matches!(answer.status, 200 | 404), "{answer:?}");
            }
            85..90 => drop(api.get("/sessions?limit=20").await.ok()),
            90..92 => {
                let answer = api.delete(&format!("/chat/{session}")).await;
                assert!(matches!(answer.status, 200 | 404), "{answer:?}");
            }
            92..94 => {
                let api = api.with("idempotency-key", &Uuid::new_v4().to_string());
                let body = completion("again [[tokens 3]]", &json!({}));
                let first = api.post("/v1/chat/completions", &body).await.object();
                assert_eq!(api.post("/v1/chat/completions", &body).await.object(), first);
            }
            94..96 => drop(api.post("/chat", &json!({ "sessionId": "nonsense" })).await.error(400, "invalid_request")),
            96..98 => drop(api.with("x-api-key", "wrong").get("/sessions").await.error(401, "unauthorized")),
            98 => drop(api.get(&format!("/nowhere/{}", Uuid::new_v4())).await.error(404, "not_found")),
            _ => {
                // A model of its own, so that what fails opens nobody else's breaker; and none remembers its failures for long.
                let body =
                    json!({ "sessionId": session, "message": "[[cut after 2]]", "stream": false, "modelId": "broken" });
                let answer = api.post("/chat", &body).await;
                assert!(matches!(answer.status, 502), "{answer:?}");
            }
        }
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    /// Fills what has a bound, so that it does not look like a leak while it fills: the caches that SQLite has for each of its
    /// connections, above all.
    async fn fill(self: &Arc<Self>) {
        let sessions: Vec<_> =
            (0..self.apis.len()).flat_map(|tenant| (0..SESSIONS).map(move |n| (tenant, n))).collect();
        for of_each in sessions.chunks(WORKERS) {
            let asking = of_each.iter().map(|&(tenant, n)| async move {
                let (api, sessions) = &self.apis[tenant];
                for _ in 0..4 {
                    api.chat(&sessions[n], &"long ".repeat(900)).await.ok();
                    api.history(&sessions[n]).await.ok();
                }
            });
            join_all(asking).await;
        }
    }

    /// As many requests as fit into `time`, each second.
    async fn peak(self: &Arc<Self>, time: Duration) -> f64 {
        let (before, started) = (self.done.load(Ordering::Relaxed), Instant::now());
        let mut workers = JoinSet::new();
        for _ in 0..WORKERS {
            let traffic = Arc::clone(self);
            workers.spawn(async move {
                while started.elapsed() < time {
                    Arc::clone(&traffic).ask().await;
                }
            });
        }
        while let Some(worker) = workers.join_next().await {
            worker.unwrap();
        }
        #[expect(clippy::cast_precision_loss, reason = "no machine answers so many")]
        let count = (self.done.load(Ordering::Relaxed) - before) as f64;
        count / started.elapsed().as_secs_f64()
    }
}

/// A client that leaves: before the first piece, or after it.
async fn leave(api: &Api, session: &str) {
    let body = json!({ "sessionId": session, "message": "[[tokens 3]][[pause 5]][[hang]]" });
    let body = Some(("application/json", body.to_string().into()));
    let reading = async {
        let mut reply = api.begin(Method::POST, "/chat", body).await.unwrap();
        while reply.next().await.is_some() {}
    };
    assert!(tokio::time::timeout(Duration::from_millis(any(40)), reading).await.is_err());
}

/// The memory of a process that is its own, in kibibytes: not what it maps of files.
fn memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// What a process has open: its sockets, and how often it has which file.
fn open(pid: u32) -> (usize, BTreeMap<PathBuf, usize>) {
    let (mut sockets, mut files) = (0, BTreeMap::new());
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        // One may be closed while they are listed.
        let Ok(target) = std::fs::read_link(entry.unwrap().path()) else { continue };
        if target.to_string_lossy().starts_with("socket:") {
            sockets += 1;
        } else {
            *files.entry(target).or_default() += 1;
        }
    }
    (sockets, files)
}

fn median(samples: &[u64]) -> u64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

fn start(upstream: &Upstream, directory: &Arc<tempfile::TempDir>) -> Server {
    // Short windows, so that they are as full as they get within the warm-up.
    let limits = json!({ "perMinute": 100_000, "windowSec": 2, "tenant": { "perMinute": 100_000 } });
    let tenant = |id: &&str| {
        Tenant::new(id)
            .with("rateLimit", limits.clone())
            .with("maxMessagesPerSession", json!(40))
            .with("concurrency", json!({ "maxStreams": 1000 }))
            .with("tokenBudget", json!({ "daily": 1_000_000_000_u64 }))
    };
    let config = ServerConfig::new()
        .upstream(&upstream.base_url())
        .set("models.breaker_failures", 1000)
        // A machine that is busy for a moment is no fault of the server's.
        .set("models.first_token_timeout_seconds", 60)
        .set("models.idle_timeout_seconds", 60)
        .set("chat.send_timeout_seconds", 60)
        .set("server.header_read_timeout_seconds", 60)
        .set("models.max_attempts", 1)
        .set("log.level", "error");
    let config = TENANTS.iter().map(tenant).fold(config, |config, tenant| config.tenant(&tenant));
    config.stored_in(directory).start()
}

#[tokio::test]
async fn memory_is_flat_and_no_descriptor_is_leaked() {
    let seconds = std::env::var("ENIGMA_SOAK_SECONDS").ok().map_or(DEFAULT_SECONDS, |text| text.parse().unwrap());
    let (upstream, directory) = (Upstream::start(), Arc::new(tempfile::tempdir().unwrap()));
    let server = start(&upstream, &directory);
    let (sockets, _) = open(server.pid());
    let traffic = Traffic::new(&server);
    let total = Duration::from_secs(seconds);
    traffic.fill().await;
    let peak = traffic.peak(total / 10).await;
    let files = open(server.pid()).1;

    // At half of the peak, a part of the time to warm up, and the rest to be judged.
    let (started, warm) = (Instant::now(), total * 3 / 10);
    let mut pace = tokio::time::interval(Duration::from_secs_f64(2.0 / peak));
    let mut sampling = tokio::time::interval(SAMPLE);
    let (mut running, mut samples, mut asked) = (JoinSet::new(), Vec::new(), 0_u64);
    while started.elapsed() < total * 9 / 10 {
        tokio::select! {
            _ = pace.tick(), if running.len() < WORKERS => {
                running.spawn(Arc::clone(&traffic).ask());
                asked += 1;
            }
            Some(ended) = running.join_next() => ended.unwrap(),
            _ = sampling.tick() => {
                upstream.forget();
                if started.elapsed() > warm {
                    samples.push(memory(server.pid()));
                }
            }
        }
    }
    while let Some(ended) = running.join_next().await {
        ended.unwrap();
    }
    let third = samples.len() / 3;
    let (first, last) = (median(&samples[..third]), median(&samples[samples.len() - third..]));
    #[expect(clippy::cast_precision_loss, reason = "no process has so much memory")]
    let grown = (last as f64 / first as f64 - 1.0) * 100.0;
    let told = format!(
        "{asked} requests in {:?}, half of a peak of {peak:.0}/s: from {first} KiB to {last} KiB, which is {grown:+.1} %",
        started.elapsed(),
    );
    println!("{told}");
    assert!(grown < FLAT, "the memory is not flat: {told}\n{samples:?}");

    // Nobody asks any more, and the models are gone: what is open then was open before.
    drop(traffic);
    drop(upstream);
    let end = Instant::now() + PATIENCE;
    while open(server.pid()).0 > sockets {
        assert!(Instant::now() < end, "{} sockets are open, and {sockets} were at the start", open(server.pid()).0);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(open(server.pid()).1, files, "files that are open now, and that were before");
    let log: Vec<Value> = server.stderr.text().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let strange = log.iter().find(|line| line["code"] != "ai_error");
    assert!(strange.is_none(), "{strange:?}");
}
