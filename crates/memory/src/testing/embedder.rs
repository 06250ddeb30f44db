//! Embedders whose vectors follow from the words alone, and which fail on demand.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use enigma_core::model::{Embedder, EmbeddingCall, Embeddings, ModelError};
use enigma_core::ports::Clock;
use futures_util::future::pending;

use super::CallState;
use super::ids::mix;

/// Embeds a text as the sum of its words, each of which has a direction of its own. So texts are as near to each other as they have
/// words in common, whatever the order and the case of the words; texts without a common word are nearly at right angles.
///
/// It counts words as tokens. The dimensions that a call asks for are those that it gets.
#[derive(Debug, Clone, Copy)]
pub struct HashEmbedder {
    dimensions: u32,
}

impl HashEmbedder {
    /// An embedder of so many dimensions. With 256, the cosine of texts without a common word is within ±0.25.
    pub const fn new(dimensions: u32) -> Self {
        Self { dimensions }
    }

    /// What `call` is answered.
    pub fn answer(&self, call: &EmbeddingCall) -> Embeddings {
        let dimensions = call.dimensions.unwrap_or(self.dimensions);
        let words = call.inputs.iter().map(|text| words(text).count()).sum::<usize>();
        Embeddings {
            vectors: call.inputs.iter().map(|text| vector(text, dimensions)).collect(),
            prompt_tokens: u32::try_from(words).ok(),
        }
    }
}

impl Default for HashEmbedder {
    /// 256 dimensions.
    fn default() -> Self {
        Self::new(256)
    }
}

#[async_trait]
impl Embedder for HashEmbedder {
    async fn embed(&self, call: &EmbeddingCall) -> Result<Embeddings, ModelError> {
        Ok(self.answer(call))
    }
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase)
}

fn vector(text: &str, dimensions: u32) -> Vec<f32> {
    let mut sum = vec![0.0; dimensions as usize];
    words(text).for_each(|word| add(&word, &mut sum));
    // A text without words, or whose words cancel each other out, has to have a direction too.
    if sum.iter().all(|x| *x == 0.0) {
        add(text, &mut sum);
    }
    let length = sum.iter().map(|x| x * x).sum::<f32>().sqrt();
    sum.iter().map(|x| x / length).collect()
}

fn add(word: &str, sum: &mut [f32]) {
    let seed = hash(word);
    for (place, x) in (0..).zip(sum) {
        *x += if mix(seed.wrapping_add(place)) & 1 == 0 { 1.0 } else { -1.0 };
    }
}

/// FNV-1a, spread so that neighbouring seeds have nothing in common.
fn hash(text: &str) -> u64 {
    let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    mix(text.bytes().fold(0xcbf2_9ce4_8422_2325, fnv))
}

/// What an embedder does with one call.
#[derive(Debug)]
pub enum EmbedderStep {
    /// Answers this, whatever was asked.
    Answer(Embeddings),
    /// Fails.
    Fail(ModelError),
    /// Takes its time, then answers as [`HashEmbedder`] does.
    Wait(Duration),
    /// Does nothing, for ever.
    Hang,
}

/// A call that an embedder got.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedEmbedding {
    /// What was asked.
    pub call: EmbeddingCall,
    /// How far it has come; never `Streaming`.
    pub state: CallState,
}

/// Does one step per call, in the order in which they were given, and answers as [`HashEmbedder`] does when there is none.
pub struct ScriptedEmbedder {
    embedder: HashEmbedder,
    clock: Arc<dyn Clock>,
    steps: Mutex<VecDeque<EmbedderStep>>,
    calls: Arc<Mutex<Vec<RecordedEmbedding>>>,
}

impl ScriptedEmbedder {
    /// An embedder without steps, whose waits are those of `clock`.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { embedder: HashEmbedder::default(), clock, steps: Mutex::default(), calls: Arc::default() }
    }

    /// Adds the step of a further call.
    pub fn push(&self, step: EmbedderStep) {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner).push_back(step);
    }

    /// The calls so far, oldest first.
    pub fn calls(&self) -> Vec<RecordedEmbedding> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How far the calls have come, oldest first.
    pub fn states(&self) -> Vec<CallState> {
        self.calls().into_iter().map(|call| call.state).collect()
    }

    fn record(&self, call: &EmbeddingCall) -> Progress {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.push(RecordedEmbedding { call: call.clone(), state: CallState::Opening });
        Progress { calls: Arc::clone(&self.calls), place: calls.len() - 1, state: CallState::Dropped }
    }
}

#[async_trait]
impl Embedder for ScriptedEmbedder {
    async fn embed(&self, call: &EmbeddingCall) -> Result<Embeddings, ModelError> {
        let mut progress = self.record(call);
        let step = self.steps.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let answer = match step {
            None => Ok(self.embedder.answer(call)),
            Some(EmbedderStep::Answer(answer)) => Ok(answer),
            Some(EmbedderStep::Fail(error)) => Err(error),
            Some(EmbedderStep::Wait(duration)) => {
                self.clock.sleep(duration).await;
                Ok(self.embedder.answer(call))
            }
            Some(EmbedderStep::Hang) => pending().await,
        };
        progress.state = CallState::Ended;
        answer
    }
}

/// Notes how a call ends when it is dropped.
struct Progress {
    calls: Arc<Mutex<Vec<RecordedEmbedding>>>,
    place: usize,
    state: CallState,
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)[self.place].state = self.state;
    }
}
