//! Synthesizers that make tones, and which fail on demand.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use enigma_core::ModelId;
use enigma_core::model::{AudioFormat, AudioStream, ModelError, SpeechAbilities, SpeechCall, SpeechSynthesizer, Voice};
use enigma_core::ports::Clock;
use futures_util::future::pending;
use futures_util::{StreamExt, stream};

use super::CallState;

/// Samples a second.
const RATE: u32 = 8000;
/// How long a character takes, in samples.
const SAMPLES_PER_CHARACTER: f64 = 400.0;

/// Makes a tone of each character, so that audio is as long as its text, and another text is another audio. Only its WAV can be
/// played: the others are the same samples behind the first bytes of their format.
#[derive(Debug, Clone, Copy, Default)]
pub struct ToneSynthesizer;

impl ToneSynthesizer {
    /// The audio of `call`.
    pub fn answer(call: &SpeechCall) -> Bytes {
        let mut samples = Vec::new();
        for character in call.text.chars() {
            let period = f64::from(20 + u32::from(character) % 40);
            let mut at = 0.0;
            while at < SAMPLES_PER_CHARACTER / call.speed {
                let high = (at / period * 2.0).rem_euclid(2.0) < 1.0;
                samples.extend(if high { 8000_i16 } else { -8000 }.to_le_bytes());
                at += 1.0;
            }
        }
        let mut audio = match call.format {
            AudioFormat::Wav => wav_header(u32::try_from(samples.len()).unwrap_or(u32::MAX)),
            AudioFormat::Mp3 => b"ID3\x04".to_vec(),
            AudioFormat::Opus => b"OggS".to_vec(),
        };
        audio.extend(samples);
        audio.into()
    }

    fn abilities() -> SpeechAbilities {
        let voice = |id: &str| Voice { id: id.to_owned(), name: id.to_uppercase(), language: Some("en".to_owned()) };
        let voices = ["low", "high"].map(voice).to_vec().into();
        SpeechAbilities { formats: AudioFormat::ALL.to_vec(), voices, other_voices: false, speed: true }
    }
}

fn wav_header(bytes: u32) -> Vec<u8> {
    let mut header = b"RIFF".to_vec();
    header.extend(bytes.saturating_add(36).to_le_bytes());
    header.extend(b"WAVEfmt ");
    header.extend(16_u32.to_le_bytes());
    for number in [1_u16, 1] {
        header.extend(number.to_le_bytes());
    }
    for number in [RATE, RATE * 2] {
        header.extend(number.to_le_bytes());
    }
    for number in [2_u16, 16] {
        header.extend(number.to_le_bytes());
    }
    header.extend(b"data");
    header.extend(bytes.to_le_bytes());
    header
}

#[async_trait]
impl SpeechSynthesizer for ToneSynthesizer {
    fn abilities(&self, _model: &ModelId) -> Option<SpeechAbilities> {
        Some(Self::abilities())
    }

    async fn speak(&self, call: &SpeechCall) -> Result<AudioStream, ModelError> {
        let has = |voice: &String| Self::abilities().voices.iter().any(|known| known.id == *voice);
        if call.voice.as_ref().is_some_and(|voice| !has(voice)) {
            return Err(ModelError::Unsupported { feature: "voice" });
        }
        Ok(stream::iter([Ok(Self::answer(call))]).boxed())
    }
}

/// What a synthesizer does next.
#[derive(Debug)]
pub enum SpeechStep {
    /// Says these bytes.
    Say(Vec<u8>),
    /// Takes its time.
    Wait(Duration),
    /// Fails.
    Fail(ModelError),
    /// Does nothing, for ever.
    Hang,
    /// Has a fault.
    Panic,
}

/// A call that a synthesizer got.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedSpeech {
    /// What was asked.
    pub call: SpeechCall,
    /// How far it has come.
    pub state: CallState,
}

/// Does the steps of one script per call, in the order in which they were given, and answers as [`ToneSynthesizer`] does when there
/// is none.
pub struct ScriptedSynthesizer {
    clock: Arc<dyn Clock>,
    abilities: SpeechAbilities,
    scripts: Mutex<VecDeque<VecDeque<SpeechStep>>>,
    calls: Arc<Mutex<Vec<RecordedSpeech>>>,
}

impl ScriptedSynthesizer {
    /// A synthesizer without scripts, whose waits are those of `clock`.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let abilities = ToneSynthesizer::abilities();
        Self { clock, abilities, scripts: Mutex::default(), calls: Arc::default() }
    }

    /// The same, with other abilities.
    #[must_use]
    pub fn with_abilities(self, abilities: SpeechAbilities) -> Self {
        Self { abilities, ..self }
    }

    /// Adds the script of a further call.
    pub fn push(&self, steps: impl IntoIterator<Item = SpeechStep>) {
        self.scripts.lock().unwrap_or_else(PoisonError::into_inner).push_back(steps.into_iter().collect());
    }

    /// The calls so far, oldest first.
    pub fn calls(&self) -> Vec<RecordedSpeech> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn record(&self, call: &SpeechCall) -> Progress {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.push(RecordedSpeech { call: call.clone(), state: CallState::Streaming });
        Progress { calls: Arc::clone(&self.calls), place: calls.len() - 1, state: CallState::Dropped }
    }
}

#[async_trait]
impl SpeechSynthesizer for ScriptedSynthesizer {
    fn abilities(&self, _model: &ModelId) -> Option<SpeechAbilities> {
        Some(self.abilities.clone())
    }

    async fn speak(&self, call: &SpeechCall) -> Result<AudioStream, ModelError> {
        let progress = self.record(call);
        let script = self.scripts.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let steps = script.unwrap_or_else(|| [SpeechStep::Say(ToneSynthesizer::answer(call).to_vec())].into());
        let clock = Arc::clone(&self.clock);
        let audio = stream::unfold(Some((progress, steps, clock)), async |state| {
            let (mut progress, mut steps, clock) = state?;
            loop {
                match steps.pop_front() {
                    None => {
                        progress.state = CallState::Ended;
                        return None;
                    }
                    Some(SpeechStep::Say(bytes)) => return Some((Ok(bytes.into()), Some((progress, steps, clock)))),
                    Some(SpeechStep::Wait(duration)) => clock.sleep(duration).await,
                    Some(SpeechStep::Fail(error)) => {
                        progress.state = CallState::Ended;
                        return Some((Err(error), None));
                    }
                    Some(SpeechStep::Hang) => pending().await,
                    #[expect(clippy::panic, reason = "the fault that a test asks for")]
                    Some(SpeechStep::Panic) => panic!("a fault of the adapter"),
                }
            }
        });
        Ok(audio.boxed())
    }
}

/// Notes how a call ends when it is dropped.
struct Progress {
    calls: Arc<Mutex<Vec<RecordedSpeech>>>,
    place: usize,
    state: CallState,
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)[self.place].state = self.state;
    }
}
