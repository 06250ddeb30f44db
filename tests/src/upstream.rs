//! A scripted OpenAI-compatible endpoint on a free loopback port, and what it saw.

mod call;
mod embeddings;
mod script;
pub mod speech;

use std::collections::{HashMap, HashSet, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};

pub(crate) use self::call::Guard;
pub use self::call::{Call, Ended};
pub use self::script::words;
use self::script::{Reply, Step};

/// How long a test waits for something that must happen.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// The endpoint. What it answers is written into the prompt, or set by the name of the model:
///
/// | marker | effect |
/// |---|---|
/// | `[[tokens 20 every 5ms]]` | twenty words, one an event; the default is three |
/// | `[[say TEXT]]` | one event with this text |
/// | `[[echo]]` | the messages of the prompt, as JSON |
/// | `[[pause 200ms]]`, `[[gate NAME]]`, `[[hang]]` | silence: for a time, until [`Upstream::open`], for ever |
/// | `[[hang before first]]` | not even a status line |
/// | `[[tool]]` | a call of the function `get_weather` |
/// | `[[call NAME JSON]]` | a call of a function with these arguments |
/// | `[[flood N]]` | N pieces of a kibibyte |
/// | `[[cut]]`, `[[cut after 3]]` | the connection breaks off |
/// | `[[no finish]]`, `[[garbage]]`, `[[error event]]` | a stream without its end, without JSON, with an error |
/// | `[[length]]` | the answer ends by its length |
/// | `[[usage 7 9]]` | tokens of prompt and answer |
/// | `[[status 500]]`, `[[status 429 retry-after 1]]`, `[[html]]` | no answer |
///
/// A text with `[[no embedding]]` is not embedded.
///
/// Of a text that is to be spoken, what does not concern words is obeyed: after the first piece of its audio.
///
/// Markers are obeyed in their order. Those of the last user message count.
pub struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
}

struct Shared {
    state: Mutex<StateOfThings>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct StateOfThings {
    calls: Vec<Arc<Call>>,
    /// The texts of each call for embeddings.
    embedded: Vec<Vec<String>>,
    open_gates: HashSet<String>,
    scripts: HashMap<String, VecDeque<String>>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, StateOfThings> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Upstream {
    /// Starts one, on a thread of its own: tests have a runtime each, and it outlives them.
    pub fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { state: Mutex::default(), changed: watch::Sender::new(()) });
        let app = Router::new()
            .route("/v1/chat/completions", post(complete))
            .route("/v1/embeddings", post(embed))
            .route("/v1/audio/speech", post(speak))
            .with_state(Arc::clone(&shared));
        let (stop, stopped) = oneshot::channel::<()>();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    served = async { axum::serve(listener, app).await } => served.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        Self { address, shared, stop: Some(stop) }
    }

    /// Its base URL, for a provider's configuration.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// What calls of `model` are answered with, whatever their prompt says: each text once, the last one ever after.
    pub fn script(&self, model: &str, markers: &[&str]) {
        let texts = markers.iter().map(|&text| text.to_owned()).collect();
        self.shared.state().scripts.insert(model.to_owned(), texts);
    }

    /// Lets every answer that waits at the gate go on, and those that come later pass.
    pub fn open(&self, gate: &str) {
        self.shared.state().open_gates.insert(gate.to_owned());
        self.shared.changed.send_replace(());
    }

    /// Forgets the calls that have ended, for tests that make very many. Returns how many have not.
    pub fn forget(&self) -> usize {
        let mut state = self.shared.state();
        state.calls.retain(|call| call.ended().is_none());
        state.calls.len()
    }

    /// The calls so far whose last user message contains `part`.
    pub fn calls(&self, part: &str) -> Vec<Arc<Call>> {
        self.shared.state().calls.iter().filter(|call| call.prompt.contains(part)).cloned().collect()
    }

    /// How many texts with `part` in them have been embedded.
    pub fn embedded(&self, part: &str) -> usize {
        self.shared.state().embedded.iter().flatten().filter(|text| text.contains(part)).count()
    }

    /// Waits until one of those calls is as `wanted`.
    pub async fn call_where(&self, part: &str, what: &str, wanted: impl Fn(&Call) -> bool + Send + Sync) -> Arc<Call> {
        let mut changed = self.shared.changed.subscribe();
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                if let Some(call) = self.calls(part).into_iter().find(|call| wanted(call)) {
                    return call;
                }
                changed.changed().await.unwrap();
            }
        });
        found.await.unwrap_or_else(|_| panic!("no call with {part:?} that {what}: {:?}", self.calls(part)))
    }

    /// Waits until one of those calls has come.
    pub async fn call(&self, part: &str) -> Arc<Call> {
        self.call_where(part, "came", |_| true).await
    }

    /// Waits until the caller has dropped one of those calls.
    pub async fn cancelled(&self, part: &str) -> Arc<Call> {
        self.call_where(part, "was cancelled", |call| call.ended() == Some(Ended::Cancelled)).await
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }
}

async fn embed(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let texts = embeddings::texts(&body).into_iter().map(str::to_owned).collect();
    shared.state().embedded.push(texts);
    match embeddings::answer(&body) {
        Some(answer) => axum::Json(answer).into_response(),
        None => (StatusCode::BAD_REQUEST, "{}").into_response(),
    }
}

async fn speak(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let call = Arc::new(Call::new(body, headers));
    shared.state().calls.push(Arc::clone(&call));
    shared.changed.send_replace(());
    let guard = Guard::new(Arc::clone(&call), shared.changed.clone());
    match script::parse(&call.prompt, &Value::Null) {
        Reply::Answer(markers) => {
            let steps = speech::steps(&call.body, markers);
            let headers = [(header::CONTENT_TYPE, speech::media_type(&call.body))];
            (headers, body_of(shared, guard, steps)).into_response()
        }
        reply => refuse(reply, guard).await,
    }
}

async fn complete(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let call = Arc::new(Call::new(body, headers));
    let script = {
        let mut state = shared.state();
        state.calls.push(Arc::clone(&call));
        let scripted = state.scripts.get_mut(&call.model);
        scripted.and_then(|texts| if texts.len() > 1 { texts.pop_front() } else { texts.front().cloned() })
    };
    shared.changed.send_replace(());
    let guard = Guard::new(Arc::clone(&call), shared.changed.clone());
    let reply = script::parse(script.as_deref().unwrap_or(&call.prompt), &call.body["messages"]);
    match reply {
        Reply::Answer(steps) if call.body["stream"] == json!(true) => stream_answer(shared, guard, steps),
        Reply::Answer(steps) => {
            guard.finish();
            axum::Json(script::whole(&call.model, &steps)).into_response()
        }
        reply => refuse(reply, guard).await,
    }
}

/// Whatever is no answer.
async fn refuse(reply: Reply, guard: Guard) -> Response {
    match reply {
        Reply::Silence | Reply::Answer(_) => {
            let _held = guard;
            std::future::pending().await
        }
        Reply::Status(status, retry_after) => {
            guard.finish();
            let body = json!({ "error": { "message": "as the script says", "type": "scripted", "code": "scripted" } });
            let mut response = (status, axum::Json(body)).into_response();
            if let Some(seconds) = retry_after {
                response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
            }
            response
        }
        Reply::Html => {
            guard.finish();
            ([(header::CONTENT_TYPE, "text/html")], "<html><body>Sign in to the guest network</body></html>")
                .into_response()
        }
    }
}

struct Progress {
    shared: Arc<Shared>,
    guard: Guard,
    steps: VecDeque<Step>,
}

fn stream_answer(shared: Arc<Shared>, guard: Guard, steps: VecDeque<Step>) -> Response {
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
    (StatusCode::OK, headers, body_of(shared, guard, steps)).into_response()
}

/// A body that plays the steps.
fn body_of(shared: Arc<Shared>, guard: Guard, steps: VecDeque<Step>) -> Body {
    let progress = Progress { shared, guard, steps };
    let body = stream::unfold(Some(progress), async |progress| {
        let mut progress = progress?;
        loop {
            match progress.steps.pop_front() {
                None => {
                    progress.guard.finish();
                    return None;
                }
                Some(Step::Chunk(bytes)) => {
                    progress.guard.sent(bytes.len());
                    return Some((Ok::<Bytes, std::io::Error>(bytes), Some(progress)));
                }
                Some(Step::Flood(left)) => {
                    if left > 1 {
                        progress.steps.push_front(Step::Flood(left - 1));
                    }
                    let bytes = script::content(&"x".repeat(1024));
                    progress.guard.sent(bytes.len());
                    return Some((Ok(bytes), Some(progress)));
                }
                Some(Step::Pause(pause)) => tokio::time::sleep(pause).await,
                Some(Step::Gate(gate)) => {
                    let mut changed = progress.shared.changed.subscribe();
                    while !progress.shared.state().open_gates.contains(&gate) {
                        changed.changed().await.ok()?;
                    }
                }
                Some(Step::Hang) => match std::future::pending::<Infallible>().await {},
                Some(Step::Cut) => {
                    progress.guard.finish();
                    return Some((Err(std::io::Error::other("cut, as the script says")), None));
                }
            }
        }
    });
    Body::from_stream(body)
}
