//! One call that the endpoint was made.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use http::HeaderMap;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The script was played to its end.
    Finished,
    /// The caller went away before.
    Cancelled,
}

/// A call, as it was seen.
pub struct Call {
    /// The model that was asked for.
    pub model: String,
    /// The last user message, or the text to be spoken.
    pub prompt: String,
    /// The body.
    pub body: Value,
    /// The headers.
    pub headers: HeaderMap,
    /// When it came.
    pub at: Instant,
    sent: AtomicUsize,
    ended: OnceLock<(Ended, Instant)>,
}

impl Call {
    pub(crate) fn new(body: Value, headers: HeaderMap) -> Self {
        let messages = body["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
        let asked = messages.iter().rfind(|message| message["role"] == "user");
        let prompt =
            asked.map_or(&body["input"], |message| &message["content"]).as_str().unwrap_or_default().to_owned();
        let model = body["model"].as_str().unwrap_or_default().to_owned();
        Self { model, prompt, body, headers, at: Instant::now(), sent: AtomicUsize::new(0), ended: OnceLock::new() }
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Option<Ended> {
        self.ended.get().map(|(ended, _)| *ended)
    }

    /// When it ended.
    pub fn ended_at(&self) -> Option<Instant> {
        self.ended.get().map(|(_, at)| *at)
    }

    /// Bytes of the answer that were handed to the connection.
    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }

    /// The contents of its messages.
    pub fn contents(&self) -> Vec<&str> {
        let messages = self.body["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
        messages.iter().map(|message| message["content"].as_str().unwrap_or_default()).collect()
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("model", &self.model)
            .field("prompt", &self.prompt)
            .field("sent", &self.sent())
            .field("ended", &self.ended())
            .finish_non_exhaustive()
    }
}

/// Goes with the answer, and notes when it is dropped.
pub(crate) struct Guard {
    call: Arc<Call>,
    changed: watch::Sender<()>,
}

impl Guard {
    pub(crate) fn new(call: Arc<Call>, changed: watch::Sender<()>) -> Self {
        Self { call, changed }
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.call.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn finish(&self) {
        self.end(Ended::Finished);
    }

    fn end(&self, ended: Ended) {
        if self.call.ended.set((ended, Instant::now())).is_ok() {
            self.changed.send_replace(());
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.end(Ended::Cancelled);
    }
}
