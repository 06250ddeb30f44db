//! What the Worker does when a binding fails, each of them in two ways: its calls throw, or they never end. What guards fails closed,
//! within a deadline; what only helps is left out. `docs/architecture/failure-modes.md` says the same.
//!
//! Bindings fail from the start here. Only `AI` can begin to fail, and end to; that a copy of the tenants outlives KV is shown by
//! the unit tests of `enigma-cloudflare`.

#![expect(clippy::unwrap_used, reason = "all of this is test code: a panic is how it reports")]

use std::time::Duration;

use enigma_conformance::client::{assert_secured, session, tag};
use enigma_conformance::host::settings;
use enigma_conformance::tenant::key_of;
use enigma_conformance::upstream::words;
use enigma_conformance::{Answer, Api, Tenant, Upstream, Worker, WorkerConfig};
use serde_json::{Value, json};
use tokio::time::Instant;

/// How long KV is waited for.
const KV: Duration = Duration::from_secs(3);
/// How long D1 is waited for, and an object that answers at once.
const OBJECT: Duration = Duration::from_secs(5);
/// How long a chat may take in all.
const CHAT: Duration = Duration::from_secs(8);
/// What a machine that is busy with other tests takes besides.
const SLACK: Duration = Duration::from_secs(10);

/// A Worker with a binding that fails.
struct Failing {
    binding: &'static str,
    hangs: bool,
    worker: Worker,
    upstream: Upstream,
    api: Api,
}

fn start(configure: impl FnOnce(WorkerConfig) -> WorkerConfig) -> (Worker, Upstream) {
    let upstream = Upstream::start();
    let config = WorkerConfig::new()
        .upstream(&upstream.base_url())
        .variable("ENIGMA_CHAT_REQUEST_TIMEOUT_SECONDS", CHAT.as_secs())
        // It would answer for a model that has failed often enough.
        .variable("ENIGMA_MODELS_BREAKER_FAILURES", 1000)
        .tenant(&Tenant::new("acme").with("tokenBudget", json!({ "daily": 100_000 })));
    (configure(config).start(), upstream)
}

impl Failing {
    fn start(binding: &'static str, how: &'static str) -> Self {
        let hangs = how == "hangs";
        // What throws is not waited for, however slow the machine is.
        let patience = if hangs { settings::FIRST_TOKEN_TIMEOUT.as_secs() } else { 60 };
        let (worker, upstream) =
            start(|config| config.breaks(binding, how).variable("ENIGMA_MODELS_FIRST_TOKEN_TIMEOUT_SECONDS", patience));
        let api = worker.tenant("acme");
        Self { binding, hangs, worker, upstream, api }
    }

    /// An answer that must be there at once where calls throw, and within `limit` where they hang.
    async fn within(&self, limit: Duration, answer: impl Future<Output = Answer>) -> Answer {
        let begun = Instant::now();
        let answer = answer.await;
        let (took, most) = (begun.elapsed(), if self.hangs { limit } else { Duration::ZERO } + SLACK);
        assert!(took < most, "{} took {took:?}: {answer:?}", self.binding);
        assert_secured(&answer.headers);
        if answer.status >= 400 {
            let told = format!("{:?}{}", answer.headers, answer.text);
            let broken = format!("{} is", self.binding);
            for inside in [&*broken, "as the test wants", "JsValue", "file:", "workerd", "3043", &key_of("acme")] {
                assert!(!told.contains(inside), "{inside} leaks: {told}");
            }
        }
        answer
    }

    /// Everything that asks for an answer of a model and needs what fails: both faces, streamed and whole.
    async fn chats(&self, limit: Duration, message: &str) -> Vec<Answer> {
        let keyed = self.api.with("idempotency-key", "k");
        // Sessions of their own: turns of one would wait for each other.
        let [on_v1, on_v1_too] = [session(), session()].map(|id| self.api.with("x-session-id", &id));
        let streamed = json!({ "sessionId": session(), "message": message });
        let (in_pieces, in_one) = (json!({ "stream": true }), json!({}));
        let sessions = [session(), session()];
        let (whole, stream, repeatable, v1_stream, v1_whole) = tokio::join!(
            self.within(limit, self.api.chat(&sessions[0], message)),
            self.within(limit, self.api.post("/chat", &streamed)),
            self.within(limit, keyed.chat(&sessions[1], message)),
            self.within(limit, on_v1.complete(message, &in_pieces)),
            self.within(limit, on_v1_too.complete(message, &in_one)),
        );
        vec![whole, stream, repeatable, v1_stream, v1_whole]
    }

    /// Asserts that none of them got through, and that no model was asked.
    async fn assert_refused(&self, limit: Duration, status: u16, code: &str) {
        let tag = tag();
        for (n, answer) in self.chats(limit, &tag).await.iter().enumerate() {
            if n < 3 {
                answer.error(status, code);
            } else {
                answer.openai_error(status, code, "server_error");
            }
        }
        assert!(self.upstream.calls(&tag).is_empty(), "a model was called");
    }
}

macro_rules! failing {
    ($($binding:literal, $throws:ident, $hangs:ident: $check:ident;)*) => { $(
        #[tokio::test]
        async fn $throws() {
            $check(&Failing::start($binding, "throws")).await;
        }

        #[tokio::test]
        async fn $hangs() {
            $check(&Failing::start($binding, "hangs")).await;
        }
    )* };
}

failing! {
    "CONFIG", config_throws, config_hangs: nobody_gets_in;
    "RATE_LIMITER_DO", rate_limiter_throws, rate_limiter_hangs: nothing_is_spent;
    "TENANT_LEDGER", tenant_ledger_throws, tenant_ledger_hangs: nothing_is_spent;
    "CHAT_SESSION", chat_session_throws, chat_session_hangs: sessions_are_closed;
    "DB", db_throws, db_hangs: only_lists_are_missing;
    "AI", ai_throws, ai_hangs: models_are_missing;
}

/// Without the tenants nobody is known, whatever they show.
async fn nobody_gets_in(failing: &Failing) {
    failing.assert_refused(KV, 503, "unavailable").await;
    let id = session();
    let (history, deletion) = (format!("/chat/{id}/history"), format!("/chat/{id}"));
    let stranger = Api::new(&failing.worker.base_url).with("x-tenant-id", "nobody");
    let (health, list, history, deletion, models, stranger) = tokio::join!(
        failing.within(KV, failing.api.get("/health")),
        failing.within(KV, failing.api.get("/sessions")),
        failing.within(KV, failing.api.get(&history)),
        failing.within(KV, failing.api.delete(&deletion)),
        failing.within(KV, failing.api.get("/v1/models")),
        failing.within(KV, stranger.get("/health")),
    );
    for answer in [health, list, history, deletion, stranger] {
        answer.error(503, "unavailable");
    }
    models.openai_error(503, "unavailable", "server_error");
    failing.api.get("/healthz").await.ok();
}

/// Without the books no model is asked; what is no chat goes on.
async fn nothing_is_spent(failing: &Failing) {
    // Twice: once for the slot, once more for the headers of the refusal.
    failing.assert_refused(OBJECT * 2, 503, "unavailable").await;
    let without_session = failing.within(OBJECT * 2, failing.api.complete("hello", &json!({}))).await;
    without_session.openai_error(503, "unavailable", "server_error");
    assert!(failing.upstream.calls("").is_empty());
    assert_eq!(failing.api.get("/sessions").await.ok()["sessions"], json!([]));
    failing.api.assert_unknown(&session()).await;
    failing.api.get("/health").await.ok();
    // A request that is wrong is told so, without the state of its windows.
    let wrong = failing.within(OBJECT, failing.api.post("/chat", &json!({}))).await;
    wrong.error(400, "invalid_request");
    assert!(wrong.header("x-ratelimit-remaining").is_none());
    let ready = failing.within(OBJECT, failing.api.get("/readyz")).await;
    assert_eq!(ready.status, if failing.binding == "TENANT_LEDGER" { 503 } else { 200 });
}

/// No session is read, written or deleted. Who has none goes on.
async fn sessions_are_closed(failing: &Failing) {
    if failing.hangs {
        // A turn may wait for as long as a request may take, and nothing tells an object that hangs from one that lets wait.
        failing.assert_refused(CHAT, 504, "ai_timeout").await;
    } else {
        failing.assert_refused(CHAT, 503, "unavailable").await;
    }
    let id = session();
    let (history, deletion) = (format!("/sessions/{id}/history"), format!("/sessions/{id}"));
    let (history, deletion) = tokio::join!(
        failing.within(OBJECT, failing.api.get(&history)),
        failing.within(CHAT, failing.api.delete(&deletion)),
    );
    history.error(503, "unavailable");
    deletion.error(503, "unavailable");
    let answer = failing.api.complete("hello [[usage 1 1]]", &json!({})).await.object();
    assert_eq!(answer["choices"][0]["message"]["content"], words(3));
    assert_eq!(failing.api.get("/sessions").await.ok()["sessions"], json!([]));
    // Those that were refused hold no tokens.
    let all = json!({ "max_tokens": 100_000 - 2 - 5 });
    failing.api.complete("[[usage 100000 0]]", &all).await.object();
}

/// Chats are answered whole, and kept. That they are not listed is made good later.
async fn only_lists_are_missing(failing: &Failing) {
    let (id, streamed) = (session(), session());
    let message = format!("{} [[tokens 3]]", tag());
    let (whole, stream) = tokio::join!(failing.within(OBJECT, failing.api.chat(&id, &message)), async {
        failing.api.chat_stream(&streamed, &message).await.finish().await
    },);
    assert_eq!(whole.ok()["message"], words(3));
    assert_eq!((stream.text, stream.error), (words(3), None));
    for id in [&id, &streamed] {
        let said: Vec<_> = failing.api.said(id).await.into_iter().map(|(_, content)| content).collect();
        assert_eq!(said, [message.clone(), words(3)]);
    }
    let keeping = failing.api.with("x-session-id", &id);
    failing.within(OBJECT, keeping.complete("[[say more]]", &json!({}))).await.object();
    assert_eq!(failing.api.said(&id).await.len(), 4);
    let (list, ready) = tokio::join!(
        failing.within(OBJECT, failing.api.get("/sessions")),
        failing.within(OBJECT, failing.api.get("/readyz")),
    );
    list.error(503, "unavailable");
    ready.error(503, "unavailable");
    // A deletion deletes, and cannot say that the list knows.
    let path = format!("/chat/{streamed}");
    failing.within(OBJECT * 2, failing.api.delete(&path)).await.error(503, "unavailable");
    failing.api.assert_unknown(&streamed).await;
    let log = failing.worker.stderr.text();
    assert_eq!(log.matches("session was not listed, and will be").count(), 3, "{log}");
}

/// As with any model that fails: nothing is kept, and nothing is charged.
async fn models_are_missing(failing: &Failing) {
    let (status, code) = if failing.hangs { (504, "ai_timeout") } else { (502, "ai_error") };
    let tries = u32::try_from(settings::MAX_ATTEMPTS).unwrap();
    failing.assert_refused(settings::FIRST_TOKEN_TIMEOUT * tries, status, code).await;
    assert_eq!(failing.api.get("/sessions").await.ok()["sessions"], json!([]));
    failing.api.get("/readyz").await.ok();
    // It can end to fail, and then everything is as if it never had; all of the budget can be spent.
    failing.worker.tell(&json!({ "op": "fault", "binding": "AI", "fault": null }));
    failing.api.chat(&session(), "hello [[usage 0 0]]").await.ok();
    let all = json!({ "max_tokens": 100_000 - 5 });
    failing.api.complete("[[usage 100000 0]]", &all).await.object();
}

/// A call that hangs harms no other, and what comes after it is answered.
#[tokio::test]
async fn a_model_that_begins_to_hang_is_got_over() {
    let (worker, upstream) = start(|config| {
        let config = config.variable("ENIGMA_CHAT_REQUEST_TIMEOUT_SECONDS", 60);
        config.variable("ENIGMA_MODELS_IDLE_TIMEOUT_SECONDS", 60)
    });
    let (api, id, gate) = (worker.tenant("acme"), session(), tag());
    let mut running = api.chat_stream(&id, &format!("[[tokens 1]][[gate {gate}]][[tokens 2]]")).await;
    assert_eq!(running.text().await, words(1));
    for (fault, status, code) in [("hang", 504, "ai_timeout"), ("error", 502, "ai_error")] {
        worker.tell(&json!({ "op": "fault", "binding": "AI", "fault": fault }));
        api.chat(&session(), "hello").await.error(status, code);
        worker.tell(&json!({ "op": "fault", "binding": "AI", "fault": null }));
        api.chat(&session(), "hello").await.ok();
    }
    upstream.open(&gate);
    let finished = running.finish().await;
    assert_eq!((finished.text, finished.error), (words(2), None), "the one that was open has gone on");
    assert_eq!(api.said(&id).await.len(), 2);
}

/// A Worker cannot refuse to start: it refuses everything else, and its log says what is wrong.
#[tokio::test]
async fn wrong_variables_answer_everything_with_an_error() {
    const SECRET: &str = "sk-secret-0451";
    let providers = json!([{ "id": "other", "base_url": "no address", "api_key_env": "OTHER_KEY", "models": {} }]);
    let (worker, upstream) = start(|config| {
        config
            .variable("MAX_MESSAGE_LENGTH", "many")
            .variable("ENIGMA_CHAT_SEND_TIMEOUT_SECONDS", 26)
            .variable("OTHER_KEY", SECRET)
            .variable("ENIGMA_PROVIDERS", providers)
    });
    let api = worker.tenant("acme").with("x-trace-id", "trace-1");
    let id = session();
    let history = format!("/chat/{id}/history");
    for path in ["/", "/health", "/healthz", "/readyz", "/openapi.json", "/sessions", &history, "/nothing"] {
        let answer = api.get(path).await;
        assert!(answer.error(503, "unavailable").is_null());
        assert_eq!(answer.header("x-trace-id"), Some("trace-1"));
        assert!(!answer.text.contains("variable"), "{answer:?}");
    }
    api.chat(&id, "hello").await.error(503, "unavailable");
    api.post("/chat", &json!({ "sessionId": id, "message": "hello" })).await.error(503, "unavailable");
    api.delete(&format!("/sessions/{id}")).await.error(503, "unavailable");
    for stream in [true, false] {
        let answer = api.complete("hello", &json!({ "stream": stream })).await;
        answer.openai_error(503, "unavailable", "server_error");
    }
    api.get("/v1/models").await.openai_error(503, "unavailable", "server_error");
    assert!(upstream.calls("").is_empty());

    let log = worker.stderr.text();
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let told: Vec<&Value> = lines.iter().filter(|line| line["message"] == "this Worker answers nothing").collect();
    let [told] = told[..] else { panic!("it is not told once: {log}") };
    let wrong = told["error"].as_str().unwrap();
    for name in ["MAX_MESSAGE_LENGTH", "ENIGMA_CHAT_SEND_TIMEOUT_SECONDS", "ENIGMA_PROVIDERS[0]"] {
        assert!(wrong.contains(&format!("variable {name}: ")), "{name} is not named: {wrong}");
    }
    assert!(!log.contains(SECRET), "{log}");
}
