//! What speech is asked with, and what it answers.

use std::time::Duration;

use bytes::Bytes;

use super::SpeechError;
use crate::client::Events;
use crate::id::{ModelId, RequestId, TraceId};
use crate::limit::RateStatus;
use crate::model::{AudioFormat, SpeechAbilities};
use crate::tenant::Caller;
use crate::usage::Ending;

/// A request for speech, parsed and validated.
#[derive(Debug, Clone)]
pub struct SpeakCommand {
    /// The request.
    pub request: RequestId,
    /// Its trace.
    pub trace: TraceId,
    /// W3C trace context to pass on.
    pub traceparent: Option<String>,
    /// The route that it came through, such as `/tts`.
    pub route: &'static str,
    /// On whose behalf, and against whose limit.
    pub caller: Caller,
    /// The model; the tenant's when none is named.
    pub model: Option<ModelId>,
    /// What to say; not blank.
    pub text: String,
    /// The voice; the model's first when none is named.
    pub voice: Option<String>,
    /// What the audio is to be written as. Without one it is MP3 where the model can, and else what the model does best.
    pub format: Option<AudioFormat>,
    /// How fast, as a multiple of the voice's own speed, from 0.25 to 4.
    pub speed: f64,
}

/// Audio that has begun.
#[derive(Debug)]
pub struct SpeechReply {
    /// The model that speaks.
    pub model: ModelId,
    /// What the audio is written as.
    pub format: AudioFormat,
    /// How many characters are spoken, and recorded.
    pub characters: u32,
    /// How many tokens that is, which the budget is charged.
    pub tokens: u64,
    /// The caller's windows.
    pub rate: RateStatus,
    /// How it goes on. Dropping it ends the engine's work.
    pub events: SpeechEvents,
}

/// The last event of every reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpeechDone {
    /// How many bytes there were.
    pub bytes: u64,
    /// How long it took.
    pub latency: Duration,
    /// How it ended; the audio is whole only if it [`Finished`](Ending::Finished).
    pub ending: Ending,
}

/// A piece of a reply.
#[derive(Debug)]
pub enum SpeechEvent {
    /// More audio.
    Audio(Bytes),
    /// The audio has broken off; [`SpeechEvent::Done`] follows.
    Failed(SpeechError),
    /// The reply has ended.
    Done(SpeechDone),
}

/// The events of a reply: pieces of audio, at most one failure, and [`SpeechEvent::Done`] last, always.
pub type SpeechEvents = Events<SpeechEvent>;

/// The voices that a tenant can have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voices {
    /// The model that has them.
    pub model: ModelId,
    /// What it can do.
    pub abilities: SpeechAbilities,
}
