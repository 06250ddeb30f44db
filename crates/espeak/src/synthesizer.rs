//! The engine.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use enigma_core::ModelId;
use enigma_core::model::{AudioFormat, AudioStream, ModelError, SpeechAbilities, SpeechCall, SpeechSynthesizer, Voice};
use futures_util::StreamExt;
use tokio::process::Command;
use tokio::sync::Semaphore;

use crate::encoder::{Encoder, candidates};
use crate::error::DetectError;
use crate::pipeline::{Bounds, start};
use crate::text::plain;
use crate::{program, voices};

/// The engine's usual speed, in words a minute.
const USUAL_SPEED: f64 = 175.0;
/// The slowest that it speaks.
const SLOWEST: f64 = 80.0;
/// The fastest that a request can ask for.
const FASTEST: f64 = USUAL_SPEED * 4.0;

/// How long a program may take to show what it can, when it is looked for.
const PROBE: Bounds = Bounds { time: Duration::from_secs(10), bytes: 4 << 20 };

/// What the engine may cost.
#[derive(Debug, Clone)]
pub struct EspeakOptions {
    /// The program: its name, which is looked for in `PATH`, or its path.
    pub program: PathBuf,
    /// The voice where none is asked for, such as `en-us`.
    pub voice: String,
    /// Texts that are spoken at once.
    pub max_processes: usize,
    /// Texts that wait for one of those to end. Further ones are refused as [`ModelError::Busy`].
    pub queue: usize,
    /// How long one text may take, from the start of its processes until its audio is read.
    pub timeout: Duration,
    /// How many bytes of audio one text may make.
    pub max_bytes: u64,
}

impl Default for EspeakOptions {
    fn default() -> Self {
        Self {
            program: PathBuf::from("espeak-ng"),
            voice: "en-us".to_owned(),
            max_processes: 2,
            queue: 32,
            timeout: Duration::from_secs(120),
            max_bytes: 64 << 20,
        }
    }
}

/// The engine. Cheap to clone; clones share the processes.
#[derive(Debug, Clone)]
pub struct Espeak {
    program: PathBuf,
    voices: Arc<[Voice]>,
    /// The formats besides WAV.
    encoders: Arc<[(AudioFormat, Encoder)]>,
    bounds: Bounds,
    places: Arc<Semaphore>,
    running: Arc<Semaphore>,
}

impl Espeak {
    /// Looks for the programs, and has each of them say something.
    ///
    /// # Errors
    /// [`DetectError`], where there is no engine that can be used. An encoder that cannot is left out.
    pub async fn detect(options: &EspeakOptions) -> Result<Self, DetectError> {
        let found = program::find(&options.program);
        let program = found.ok_or_else(|| DetectError::NotInstalled(options.program.clone()))?;
        let voices = list(&program, &options.voice).await?;
        let processes = options.max_processes.max(1);
        let mut engine = Self {
            program,
            voices: voices.into(),
            encoders: Arc::new([]),
            bounds: Bounds { time: options.timeout, bytes: options.max_bytes },
            places: Arc::new(Semaphore::new(processes.saturating_add(options.queue).min(Semaphore::MAX_PERMITS))),
            running: Arc::new(Semaphore::new(processes.min(Semaphore::MAX_PERMITS))),
        };
        engine
            .probe(AudioFormat::Wav, None)
            .await
            .map_err(|error| DetectError::NotUsable(engine.program.clone(), error.to_string()))?;
        let mut encoders = Vec::new();
        for format in [AudioFormat::Mp3, AudioFormat::Opus] {
            for encoder in candidates(format) {
                match engine.probe(format, Some(&encoder)).await {
                    Ok(()) => {
                        encoders.push((format, encoder));
                        break;
                    }
                    Err(error) => {
                        tracing::warn!(program = %encoder.program().display(), %format, %error, "cannot be used");
                    }
                }
            }
        }
        engine.encoders = encoders.into();
        Ok(engine)
    }

    /// The formats that it writes.
    pub fn formats(&self) -> Vec<AudioFormat> {
        let is_there = |format: &AudioFormat| *format == AudioFormat::Wav || self.encoder(*format).is_some();
        AudioFormat::ALL.into_iter().filter(is_there).collect()
    }

    fn encoder(&self, format: AudioFormat) -> Option<&Encoder> {
        self.encoders.iter().find(|(writes, _)| *writes == format).map(|(_, encoder)| encoder)
    }

    /// The engine that reads UTF-8 from its standard input, all of it before it speaks, and writes a WAV.
    fn command(&self, voice: &str, speed: f64) -> Command {
        let words = (USUAL_SPEED * speed).round().clamp(SLOWEST, FASTEST);
        let mut command = program::command(&self.program);
        command.args(["--stdin", "--stdout", "-b", "1", "-v", voice, "-s"]).arg(words.to_string());
        command
    }

    /// Whether what comes of it is of `format`.
    async fn probe(&self, format: AudioFormat, encoder: Option<&Encoder>) -> Result<(), ModelError> {
        let mut audio = start(self.command(self.first_voice(), 1.0), encoder, "a", PROBE, ()).await?;
        let mut heard = Vec::new();
        while let Some(piece) = audio.next().await {
            heard.extend_from_slice(&piece?);
        }
        if AudioFormat::of_start(&heard) == Some(format) {
            return Ok(());
        }
        Err(ModelError::Malformed { message: format!("what came is no {format}") })
    }

    fn first_voice(&self) -> &str {
        self.voices.first().map_or("en", |voice| &voice.id)
    }
}

#[async_trait]
impl SpeechSynthesizer for Espeak {
    fn abilities(&self, _model: &ModelId) -> Option<SpeechAbilities> {
        let voices = Arc::clone(&self.voices);
        Some(SpeechAbilities { formats: self.formats(), voices, other_voices: false, speed: true })
    }

    async fn speak(&self, call: &SpeechCall) -> Result<AudioStream, ModelError> {
        let encoder = self.encoder(call.format);
        if call.format != AudioFormat::Wav && encoder.is_none() {
            return Err(ModelError::Unsupported { feature: "format" });
        }
        let voice = match call.voice.as_deref() {
            None => self.first_voice(),
            // Of its own list, and nothing else: it becomes an argument.
            Some(asked) => match self.voices.iter().find(|voice| voice.id == asked) {
                Some(voice) => &voice.id,
                None => return Err(ModelError::Unsupported { feature: "voice" }),
            },
        };
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| ModelError::Busy)?;
        let running = Arc::clone(&self.running).acquire_owned().await.map_err(|_| ModelError::Busy)?;
        start(self.command(voice, call.speed), encoder, &plain(&call.text), self.bounds, (place, running)).await
    }
}

/// Asks for the voices.
async fn list(program: &Path, default: &str) -> Result<Vec<Voice>, DetectError> {
    let not_run = |error| DetectError::DoesNotRun(program.to_owned(), error);
    let said = program::command(program).arg("--voices").output();
    let late = || std::io::Error::new(std::io::ErrorKind::TimedOut, "it does not answer");
    let said = tokio::time::timeout(PROBE.time, said).await.map_err(|_| not_run(late()))?.map_err(not_run)?;
    let voices = voices::parse(&String::from_utf8_lossy(&said.stdout), default);
    if !said.status.success() || voices.is_empty() {
        return Err(DetectError::NotUsable(program.to_owned(), "it tells no voices".to_owned()));
    }
    Ok(voices)
}
