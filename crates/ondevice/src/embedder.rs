//! The port that the core asks, and the thread that computes.

mod line;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use enigma_core::model::{Embedder, EmbeddingCall, Embeddings, ModelError};
use futures_channel::oneshot;

use self::line::{Line, Text};
use crate::bert::Bert;
use crate::error::LoadError;

/// Tokens that one step computes for, or a few more: enough for the multiplications to be fast, and few enough for a question to be
/// answered soon while documents are being embedded.
const STEP: usize = 512;

/// What is read of a text. 256 tokens are at most 26,000 letters, as longer words are none; what follows after 64 kB could count only
/// if nearly all of that were space.
const READ: usize = 64 << 10;

/// How much an embedder takes on. The number of computing threads is that of [`OnDeviceOptions`](crate::OnDeviceOptions).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnDeviceEmbedderOptions {
    /// Calls that are under way or wait, of all tenants together. Further ones are refused with [`ModelError::Busy`]; but a tenant that
    /// has fewer than another takes the place of the newest of the tenant with the most that has not begun, and that one is told `Busy`
    /// instead.
    pub queue: usize,
    /// How long a call waits until it begins; then it is refused with [`ModelError::Busy`].
    pub patience: Duration,
    /// Tokens of a text; what follows is cut off. Those who made all-MiniLM-L6-v2 say 256.
    pub max_tokens: usize,
}

impl Default for OnDeviceEmbedderOptions {
    /// 64 calls, which wait for at most 20 s, and 256 tokens.
    fn default() -> Self {
        Self { queue: 64, patience: Duration::from_secs(20), max_tokens: 256 }
    }
}

/// A sentence embedder in this process: all-MiniLM-L6-v2, and other models of the BERT architecture whose tokens' outputs are averaged.
///
/// It computes in a thread of its own, which sleeps while there is nothing to do and ends soon after the value is dropped. Tenants take
/// turns, text by text, and of one tenant's calls the one with the fewest texts left is next: a question does not wait until documents
/// are done. A call whose future is dropped is forgotten within a step.
///
/// Its vectors have the length 1.
pub struct OnDeviceEmbedder {
    shared: Arc<Shared>,
    thread: Thread,
    dimensions: usize,
}

impl OnDeviceEmbedder {
    /// The most texts that a call should have: few enough for it to be done in time beside those of other tenants.
    pub const MAX_BATCH: usize = 16;

    /// Loads `model.safetensors`, `tokenizer.json` and `config.json` of a folder, which takes some tenths of a second of computing:
    /// call it where blocking is allowed.
    ///
    /// # Errors
    /// [`LoadError`] when the files are not those of a model that can be served.
    pub fn load(folder: &Path, options: OnDeviceEmbedderOptions) -> Result<Self, LoadError> {
        let network = Bert::load(folder)?;
        let tokenizer = tokenizer(&folder.join("tokenizer.json"), options.max_tokens.min(network.context()))?;
        let words = tokenizer.get_vocab_size(true);
        if words > network.words() {
            let found = format!("{words} tokens, {} of which the network knows", network.words());
            return Err(LoadError::Unsupported { what: "vocabulary", found });
        }
        let dimensions = network.dimensions();
        Self::start(Sentences { network, tokenizer }, dimensions, options).map_err(LoadError::Thread)
    }

    fn start(encoder: impl Encoder, dimensions: usize, options: OnDeviceEmbedderOptions) -> Result<Self, io::Error> {
        let line = Mutex::new(Some(Line::new(options.queue.max(1), options.patience)));
        let shared = Arc::new(Shared { line });
        let worker = Worker { shared: Arc::clone(&shared), encoder };
        let thread = thread::Builder::new().name("embedder".to_owned()).spawn(move || worker.work())?;
        Ok(Self { shared, thread: thread.thread().clone(), dimensions })
    }

    /// How many numbers a vector has.
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }
}

#[async_trait]
impl Embedder for OnDeviceEmbedder {
    async fn embed(&self, call: &EmbeddingCall) -> Result<Embeddings, ModelError> {
        if call.dimensions.is_some_and(|asked| asked as usize != self.dimensions) {
            return Err(ModelError::Unsupported { feature: "dimensions" });
        }
        let stopped = || ModelError::unavailable("the on-device embedder stopped");
        let texts = call.inputs.iter().map(|text| text[..text.floor_char_boundary(READ)].to_owned()).collect();
        let (answer, asked) = oneshot::channel();
        self.shared.line().as_mut().ok_or_else(stopped)?.push(call.metadata.tenant.clone(), texts, answer, now())?;
        self.thread.unpark();
        asked.await.map_err(|_| stopped())?
    }
}

impl Drop for OnDeviceEmbedder {
    fn drop(&mut self) {
        self.shared.close();
        self.thread.unpark();
    }
}

/// What the handle and the thread have in common: the line, until it is closed.
struct Shared {
    line: Mutex<Option<Line>>,
}

impl Shared {
    /// No code between lock and unlock leaves the line half changed, so a panic there would not spoil it.
    fn line(&self) -> MutexGuard<'_, Option<Line>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who waits still is told, as their senders are dropped.
    fn close(&self) {
        let line = self.line().take();
        drop(line);
    }
}

/// Texts to tokens to vectors.
trait Encoder: Send + 'static {
    fn tokens(&self, text: &str) -> Result<Vec<u32>, ModelError>;
    fn vectors(&self, texts: &[&[u32]]) -> Result<Vec<Vec<f32>>, ModelError>;
}

struct Sentences {
    network: Bert,
    tokenizer: tokenizers::Tokenizer,
}

/// Reads a tokenizer. Its file may say to fill each text up to a fixed length, and to cut it off elsewhere.
fn tokenizer(path: &Path, max_tokens: usize) -> Result<tokenizers::Tokenizer, LoadError> {
    let text = std::fs::read(path).map_err(|source| LoadError::Open { path: path.to_owned(), source })?;
    let mut tokenizer = tokenizers::Tokenizer::from_bytes(text).map_err(LoadError::Tokenizer)?;
    let truncation = tokenizers::TruncationParams { max_length: max_tokens, ..Default::default() };
    tokenizer.with_padding(None).with_truncation(Some(truncation)).map_err(LoadError::Tokenizer)?;
    Ok(tokenizer)
}

impl Encoder for Sentences {
    fn tokens(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let encoding = self.tokenizer.encode_fast(text, true).map_err(|source| {
            let message = "cannot tokenize a text".to_owned();
            ModelError::Unavailable { message, source: Some(source), retry_after: None }
        })?;
        Ok(encoding.get_ids().to_vec())
    }

    fn vectors(&self, texts: &[&[u32]]) -> Result<Vec<Vec<f32>>, ModelError> {
        self.network.embed(texts).map_err(|error| ModelError::Interrupted { message: error.to_string() })
    }
}

/// What the thread owns.
struct Worker<E> {
    shared: Arc<Shared>,
    encoder: E,
}

impl<E: Encoder> Worker<E> {
    fn work(self) {
        while let Some(texts) = self.next_step() {
            if texts.is_empty() {
                thread::park();
                continue;
            }
            // The weights do not change, so that the embedder can go on after a panic.
            let step = || self.encoder.vectors(&texts.iter().map(|(_, tokens)| tokens.as_slice()).collect::<Vec<_>>());
            let result = catch_unwind(AssertUnwindSafe(step)).unwrap_or_else(|_| {
                tracing::error!(texts = texts.len(), "the on-device embedder panicked; its calls have failed");
                Err(ModelError::Interrupted { message: "the on-device embedder panicked".to_owned() })
            });
            let mut line = self.shared.line();
            let Some(line) = line.as_mut() else { return };
            match result {
                Ok(vectors) => {
                    for ((text, tokens), vector) in texts.into_iter().zip(vectors) {
                        line.finish(&text, tokens.len(), vector);
                    }
                }
                Err(error) => {
                    let message = error.to_string();
                    for (text, _) in texts {
                        line.fail(&text, ModelError::Interrupted { message: message.clone() });
                    }
                }
            }
        }
    }

    /// The texts of the next step, with their tokens; `None` when the line is closed.
    fn next_step(&self) -> Option<Vec<(Text, Vec<u32>)>> {
        let (mut texts, mut count) = (Vec::new(), 0);
        while count < STEP {
            let Some(mut text) = self.shared.line().as_mut()?.next(now()) else { break };
            match catch_unwind(AssertUnwindSafe(|| self.encoder.tokens(&std::mem::take(&mut text.content)))) {
                Ok(Ok(tokens)) => {
                    count += tokens.len();
                    texts.push((text, tokens));
                }
                Ok(Err(error)) => self.shared.line().as_mut()?.fail(&text, error),
                Err(_) => {
                    let error = ModelError::Interrupted { message: "the tokenizer panicked".to_owned() };
                    self.shared.line().as_mut()?.fail(&text, error);
                }
            }
        }
        Some(texts)
    }
}

#[expect(clippy::disallowed_methods, reason = "the thread has no clock but this, and never runs on wasm32")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests;
