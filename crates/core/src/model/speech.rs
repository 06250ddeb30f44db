//! Models that speak.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use serde::Serialize;

use super::{CallMetadata, ModelError};
use crate::id::{ModelId, ProviderId};
use crate::tenant::Tenant;

/// What audio is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AudioFormat {
    /// MPEG audio, layer III.
    Mp3,
    /// Samples as they are, behind a RIFF header. That of a stream may tell more bytes than there are: it is written before the end
    /// is known.
    Wav,
    /// Opus in Ogg (RFC 7845).
    Opus,
}

impl AudioFormat {
    /// Every format.
    pub const ALL: [Self; 3] = [Self::Mp3, Self::Wav, Self::Opus];

    /// How many bytes at the start tell a format for sure.
    pub const START: usize = 4;

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mp3 => "mp3",
            Self::Wav => "wav",
            Self::Opus => "opus",
        }
    }

    /// The format of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.as_str() == name)
    }

    /// The media type of a body.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Mp3 => "audio/mpeg",
            Self::Wav => "audio/wav",
            Self::Opus => "audio/ogg",
        }
    }

    /// The format of audio that begins with `bytes`, of which there should be [`START`](Self::START); `None` when it is none of
    /// these.
    pub fn of_start(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [b'R', b'I', b'F', b'F', ..] => Some(Self::Wav),
            [b'O', b'g', b'g', b'S', ..] => Some(Self::Opus),
            // A tag with a title and the like, or the first frame: eleven bits that are set, and a layer that is not the reserved
            // one.
            [b'I', b'D', b'3', ..] => Some(Self::Mp3),
            [0xff, second, ..] if second & 0xe0 == 0xe0 && second & 0x06 != 0 => Some(Self::Mp3),
            _ => None,
        }
    }
}

impl fmt::Display for AudioFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A voice of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Voice {
    /// What a request calls it.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// The language that it speaks, as a BCP 47 tag such as `en-gb`, where it is made for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
}

/// A call of a model that speaks.
#[derive(Debug, Clone, PartialEq)]
pub struct SpeechCall {
    /// The model, by the platform's name; an adapter maps it to its provider's.
    pub model: ModelId,
    /// What to say; not blank. Nothing in it is a command.
    pub text: String,
    /// The voice, one that the model has; the model's first where there is none.
    pub voice: Option<String>,
    /// What the audio is to be written as.
    pub format: AudioFormat,
    /// How fast, as a multiple of the voice's own speed, from 0.25 to 4. An engine that has a narrower range goes as far as it can.
    pub speed: f64,
    /// For the provider's records.
    pub metadata: CallMetadata,
}

/// What a model that speaks can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpeechAbilities {
    /// What it can write, best first.
    pub formats: Vec<AudioFormat>,
    /// Its voices, as far as they are known.
    pub voices: Arc<[Voice]>,
    /// Whether it may have more voices than those.
    pub other_voices: bool,
    /// Whether its speed can be chosen.
    pub speed: bool,
}

/// Audio as it is made.
pub type AudioStream = BoxStream<'static, Result<Bytes, ModelError>>;

/// Speaks.
///
/// # Contract
/// - What [`abilities`](Self::abilities) tells is known without asking anybody, and is what [`speak`](Self::speak) does: whatever
///   else is asked for is refused as [`ModelError::Unsupported`], or fails.
/// - The audio begins as its format does; the gateway refuses what does not. It is complete when the stream ends without an error.
/// - After an error the stream ends.
/// - Dropping the stream, or the future that opens it, ends the engine's work soon.
/// - A slow reader slows the engine down, or fills a bounded buffer; it never fills memory.
/// - The text is spoken, never interpreted: not by a shell, not as an option, not as markup.
#[async_trait]
pub trait SpeechSynthesizer: Send + Sync {
    /// What `model` can do; `None` when there is no such model here.
    fn abilities(&self, model: &ModelId) -> Option<SpeechAbilities>;

    /// Speaks the text of `call`, and returns once the engine has accepted it.
    ///
    /// # Errors
    /// [`ModelError`], which says whether another try may help.
    async fn speak(&self, call: &SpeechCall) -> Result<AudioStream, ModelError>;
}

/// Where calls of a model that speaks go.
#[derive(Clone)]
pub struct SpeechRoute {
    /// The provider, for breakers, logs and records.
    pub provider: ProviderId,
    /// The model itself.
    pub synthesizer: Arc<dyn SpeechSynthesizer>,
}

/// The models of this deployment that speak. What a [`ModelCatalog`](super::ModelCatalog) promises, it promises too.
pub trait SpeechCatalog: Send + Sync {
    /// Who speaks as `model` for `tenant`; `None` when nobody does.
    fn find(&self, tenant: &Tenant, model: &ModelId) -> Option<SpeechRoute>;
}

/// A catalogue that is the same for every tenant and does not change.
#[derive(Clone, Default)]
pub struct StaticSpeechCatalog {
    routes: BTreeMap<ModelId, SpeechRoute>,
    default: Option<SpeechRoute>,
}

impl StaticSpeechCatalog {
    /// An empty catalogue.
    pub fn new() -> Self {
        Self::default()
    }

    /// Serves `model` by `route`. The first route of a model stays.
    #[must_use]
    pub fn with_model(mut self, model: ModelId, route: SpeechRoute) -> Self {
        self.routes.entry(model).or_insert(route);
        self
    }

    /// Serves every model without a route of its own by `route`, under the name that the tenant gave.
    #[must_use]
    pub fn with_default(mut self, route: SpeechRoute) -> Self {
        self.default.get_or_insert(route);
        self
    }
}

impl SpeechCatalog for StaticSpeechCatalog {
    fn find(&self, _tenant: &Tenant, model: &ModelId) -> Option<SpeechRoute> {
        self.routes.get(model).or(self.default.as_ref()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_told_by_its_start() {
        for (start, format) in [
            (&b"RIFF"[..], Some(AudioFormat::Wav)),
            (b"OggS", Some(AudioFormat::Opus)),
            (b"ID3\x04", Some(AudioFormat::Mp3)),
            (b"\xff\xfb\x90\x00", Some(AudioFormat::Mp3)),
            (b"\xff\xf3\x44\xc4", Some(AudioFormat::Mp3)),
            // The reserved layer, which AAC in ADTS has.
            (b"\xff\xf1\x50\x80", None),
            (b"{\"er", None),
            (b"<htm", None),
            (b"", None),
            (b"RI", None),
        ] {
            assert_eq!(AudioFormat::of_start(start), format, "{start:?}");
        }
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for format in AudioFormat::ALL {
            assert_eq!(AudioFormat::of_name(format.as_str()), Some(format));
        }
        assert_eq!(AudioFormat::of_name("MP3"), None);
    }
}
