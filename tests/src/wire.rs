//! A models' endpoint that speaks HTTP byte by byte, so that it can speak it wrongly.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::upstream::{Call, Ended, Guard};

/// A step of what a connection does after it has read a request.
#[derive(Debug, Clone)]
pub enum Move {
    /// Sends these bytes, whatever they are.
    Send(Bytes),
    /// Sends these bytes again and again, with pauses, until nobody takes them any more.
    Repeat(Bytes, Duration),
    /// Says nothing for a time.
    Pause(Duration),
    /// Says nothing, for ever.
    Hang,
    /// Tears the connection down: the peer sees a reset, not an end.
    Reset,
}

impl Move {
    /// The head of an event stream without a length, which the end of the connection ends.
    pub fn events() -> Self {
        Self::head(200, &[("content-type", "text/event-stream")])
    }

    /// A head, and that the connection ends after the answer.
    pub fn head(status: u16, headers: &[(&str, &str)]) -> Self {
        let mut text = format!("HTTP/1.1 {status} As Scripted\r\nconnection: close\r\n");
        for (name, value) in headers {
            text.extend([name, ": ", value, "\r\n"]);
        }
        Self::Send((text + "\r\n").into())
    }

    /// Any text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Send(text.into().into())
    }

    /// An event with a piece of an answer.
    pub fn piece(text: &str) -> Self {
        Self::event(&json!({ "choices": [{ "index": 0, "delta": { "content": text } }] }))
    }

    /// The event that ends an answer.
    pub fn finish() -> Self {
        Self::event(&json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": "stop" }] }))
    }

    /// An event.
    pub fn event(value: &Value) -> Self {
        Self::text(format!("data: {value}\n\n"))
    }

    /// The last event of a stream.
    pub fn done() -> Self {
        Self::text("data: [DONE]\n\n")
    }
}

/// What each model's calls are answered with: one script a call, the last one ever after.
type Scripts = HashMap<String, VecDeque<Vec<Move>>>;

#[derive(Default)]
struct State {
    calls: Vec<Arc<Call>>,
    scripts: Scripts,
}

struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The endpoint.
pub struct Wire {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
}

impl Wire {
    /// Starts one on a free port of this machine, on a thread of its own.
    pub fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { state: Mutex::default(), changed: watch::Sender::new(()) });
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                let accepting = async {
                    let mut connections = JoinSet::new();
                    loop {
                        let (connection, _) = listener.accept().await.unwrap();
                        connections.spawn(serve(connection, Arc::clone(&serving)));
                        while connections.try_join_next().is_some() {}
                    }
                };
                tokio::select! { () = accepting => {}, _ = stopped => {} }
            });
        });
        Self { address, shared, stop: Some(stop) }
    }

    /// Its base URL, for a provider's configuration.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// What calls of `model` are answered with: each script once, the last one ever after.
    pub fn script(&self, model: &str, scripts: impl IntoIterator<Item = Vec<Move>>) {
        self.shared.state().scripts.insert(model.to_owned(), scripts.into_iter().collect());
    }

    /// The calls of `model` so far.
    pub fn calls(&self, model: &str) -> Vec<Arc<Call>> {
        self.shared.state().calls.iter().filter(|call| call.model == model).cloned().collect()
    }

    /// Waits until every call of `model` has ended.
    pub async fn all_ended(&self, model: &str) {
        let mut changed = self.shared.changed.subscribe();
        let ended = tokio::time::timeout(crate::upstream::PATIENCE, async {
            while self.calls(model).iter().any(|call| call.ended().is_none()) {
                changed.changed().await.unwrap();
            }
        });
        ended.await.unwrap_or_else(|_| panic!("calls go on: {:?}", self.calls(model)));
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }
}

/// Reads a request; `None` when the connection ends before it is whole.
async fn request(connection: &mut TcpStream) -> Option<(HeaderMap, Value)> {
    let mut read = Vec::new();
    loop {
        if connection.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
        let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = std::str::from_utf8(&read[..end]).unwrap();
        let headers: HeaderMap = head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap()))
            .collect();
        let length: usize = headers["content-length"].to_str().unwrap().parse().unwrap();
        if read.len() >= end + 4 + length {
            return Some((headers, serde_json::from_slice(&read[end + 4..end + 4 + length]).unwrap()));
        }
    }
}

async fn serve(mut connection: TcpStream, shared: Arc<Shared>) {
    let Some((headers, body)) = request(&mut connection).await else { return };
    let call = Arc::new(Call::new(body, headers));
    let moves = {
        let mut state = shared.state();
        state.calls.push(Arc::clone(&call));
        let scripts = state.scripts.get_mut(&call.model).expect("a script for this model");
        if scripts.len() > 1 { scripts.pop_front() } else { scripts.front().cloned() }
    };
    shared.changed.send_replace(());
    let guard = Guard::new(call, shared.changed.clone());
    let (mut reading, mut writing) = connection.split();
    let mut nothing = [0];
    let mut tear_down = false;
    // Who hangs up is noticed in the middle of a silence as well.
    tokio::select! {
        biased;
        ended = play(moves.unwrap_or_default(), &mut writing, &guard) => match ended {
            Ok(reset) => {
                tear_down = reset;
                guard.finish();
            }
            Err(_) => drop(guard),
        },
        _ = reading.read(&mut nothing) => drop(guard),
    }
    if tear_down {
        connection.set_zero_linger().unwrap();
    }
}

/// Plays a script; whether it ends with a reset.
async fn play(moves: Vec<Move>, writing: &mut tokio::net::tcp::WriteHalf<'_>, guard: &Guard) -> std::io::Result<bool> {
    for step in moves {
        match step {
            Move::Send(bytes) => {
                writing.write_all(&bytes).await?;
                guard.sent(bytes.len());
            }
            Move::Repeat(bytes, pause) => loop {
                writing.write_all(&bytes).await?;
                guard.sent(bytes.len());
                tokio::time::sleep(pause).await;
            },
            Move::Pause(time) => tokio::time::sleep(time).await,
            Move::Hang => std::future::pending().await,
            Move::Reset => return Ok(true),
        }
    }
    Ok(false)
}

/// How many of `calls` were dropped by the caller before their script was over.
pub fn cancelled(calls: &[Arc<Call>]) -> usize {
    calls.iter().filter(|call| call.ended() == Some(Ended::Cancelled)).count()
}
