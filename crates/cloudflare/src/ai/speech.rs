//! The models of Workers AI that speak.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use enigma_core::ModelId;
use enigma_core::model::{AudioFormat, AudioStream, ModelError, SpeechAbilities, SpeechCall, SpeechSynthesizer, Voice};
use serde_json::{Value, json};
use worker::send::SendFuture;

use super::answer::{read_audio, thrown};
use super::binding::AiBinding;
use super::options::options;

/// The languages of `MeloTTS`, which are its voices: its name for each, and the tag.
const MELO: [(&str, &str); 6] = [("en", "en"), ("es", "es"), ("fr", "fr"), ("zh", "zh"), ("jp", "ja"), ("kr", "ko")];

/// The speakers of Aura, in English.
const AURA_1: [&str; 12] =
    ["angus", "asteria", "arcas", "orion", "orpheus", "athena", "luna", "zeus", "perseus", "helios", "hera", "stella"];

/// Some of the speakers of its second version, of which there are more, and more in other languages.
const AURA_2: [&str; 12] =
    ["luna", "apollo", "aries", "asteria", "athena", "aurora", "helena", "hera", "hermes", "orion", "thalia", "zeus"];

/// The models of Workers AI that speak, such as `@cf/deepgram/aura-1` and `@cf/myshell-ai/melotts`. Gateways and dropped calls are as
/// with [`WorkersAiModel`](super::WorkersAiModel).
///
/// What each takes and gives differs, and nothing tells: of a model of neither family this knows nothing, and does not serve it.
#[derive(Debug, Clone)]
pub struct WorkersAiSynthesizer {
    binding: AiBinding,
    default_gateway: Option<String>,
}

impl WorkersAiSynthesizer {
    /// The models behind `binding`, for tenants that have a gateway.
    pub const fn new(binding: AiBinding) -> Self {
        Self { binding, default_gateway: None }
    }

    /// Serves tenants without a gateway of their own by the gateway `id`.
    #[must_use]
    pub fn with_default_gateway(mut self, id: impl Into<String>) -> Self {
        self.default_gateway = Some(id.into());
        self
    }
}

#[async_trait]
impl SpeechSynthesizer for WorkersAiSynthesizer {
    fn abilities(&self, model: &ModelId) -> Option<SpeechAbilities> {
        Family::of(model).map(Family::abilities)
    }

    async fn speak(&self, call: &SpeechCall) -> Result<AudioStream, ModelError> {
        let Some(family) = Family::of(&call.model) else {
            return Err(ModelError::Rejected { status: 404, message: "no model that speaks".to_owned() });
        };
        let options = options(&call.metadata, self.default_gateway.as_deref())?;
        let inputs = family.inputs(call)?;
        // JavaScript's values live and die in here.
        SendFuture::new(async move {
            let called = self.binding.run(call.model.as_str(), &inputs, &options).await;
            let (returned, exchange) = called.map_err(|error| thrown(&error))?;
            read_audio(returned, exchange).await
        })
        .await
    }
}

/// Models that are asked alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    /// Tells its audio as base64 in JSON, or as it is; MP3 always.
    Melo,
    /// Streams in the format that it is told.
    Aura1,
    Aura2,
}

impl Family {
    fn of(model: &ModelId) -> Option<Self> {
        let name = model.as_str().rsplit('/').next().unwrap_or_default();
        [("melotts", Self::Melo), ("aura-1", Self::Aura1), ("aura-2", Self::Aura2)]
            .into_iter()
            .find_map(|(prefix, family)| name.starts_with(prefix).then_some(family))
    }

    fn abilities(self) -> SpeechAbilities {
        let speaker = |id: &&str| {
            // As people write a name.
            let (first, rest) = id.split_at(1);
            let name = format!("{}{rest}", first.to_ascii_uppercase());
            Voice { id: (*id).to_owned(), name, language: Some("en".to_owned()) }
        };
        let language = |(id, tag): &(&str, &str)| Voice {
            id: (*id).to_owned(),
            name: format!("MeloTTS ({tag})"),
            language: Some((*tag).to_owned()),
        };
        let voices: Arc<[Voice]> = match self {
            Self::Melo => MELO.iter().map(language).collect(),
            Self::Aura1 => AURA_1.iter().map(speaker).collect(),
            Self::Aura2 => AURA_2.iter().map(speaker).collect(),
        };
        let formats = match self {
            Self::Melo => vec![AudioFormat::Mp3],
            Self::Aura1 | Self::Aura2 => AudioFormat::ALL.to_vec(),
        };
        SpeechAbilities { formats, voices, other_voices: self == Self::Aura2, speed: false }
    }

    /// What a model is told.
    fn inputs(self, call: &SpeechCall) -> Result<Value, ModelError> {
        if (call.speed - 1.0).abs() > f64::EPSILON {
            return Err(ModelError::Unsupported { feature: "speed" });
        }
        let voice = call.voice.as_deref();
        if self == Self::Melo {
            if call.format != AudioFormat::Mp3 {
                return Err(ModelError::Unsupported { feature: "format" });
            }
            return Ok(json!({ "prompt": call.text, "lang": voice.unwrap_or(MELO[0].0) }));
        }
        let (encoding, container) = match call.format {
            AudioFormat::Mp3 => ("mp3", None),
            AudioFormat::Wav => ("linear16", Some("wav")),
            AudioFormat::Opus => ("opus", Some("ogg")),
        };
        let mut inputs = json!({ "text": call.text, "encoding": encoding });
        if let Some(container) = container {
            inputs["container"] = container.into();
        }
        if let Some(voice) = voice {
            inputs["speaker"] = voice.into();
        }
        Ok(inputs)
    }
}

/// The audio in the JSON of an answer: `{ "audio": base64 }`, which a gateway may wrap as `{ "result": … }`.
pub(super) fn parse_audio(json: &[u8]) -> Result<Bytes, ModelError> {
    let malformed = |message: &str| ModelError::Malformed { message: message.to_owned() };
    let answer: Value = serde_json::from_slice(json).map_err(|_| malformed("the answer is no JSON"))?;
    let audio = ["/audio", "/result/audio"].into_iter().find_map(|place| answer.pointer(place)?.as_str());
    let audio = audio.ok_or_else(|| malformed("the answer has no audio"))?;
    // Some put a data URL there.
    let audio = audio.split_once(";base64,").map_or(audio, |(_, encoded)| encoded);
    STANDARD.decode(audio).map(Bytes::from).map_err(|_| malformed("the audio is no base64"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ai::inputs::tests::metadata;
    use futures_util::FutureExt;

    fn call(model: &str, format: AudioFormat) -> SpeechCall {
        SpeechCall {
            model: model.parse().unwrap(),
            text: "Say \"this\" ☔".to_owned(),
            voice: None,
            format,
            speed: 1.0,
            metadata: metadata(),
        }
    }

    fn inputs(call: &SpeechCall) -> Result<Value, ModelError> {
        Family::of(&call.model).unwrap().inputs(call)
    }

    #[test]
    fn each_family_is_told_what_it_knows() {
        let text = "Say \"this\" ☔";
        let aura = "@cf/deepgram/aura-1";
        assert_eq!(inputs(&call(aura, AudioFormat::Mp3)).unwrap(), json!({ "text": text, "encoding": "mp3" }));
        let wav = SpeechCall { voice: Some("luna".to_owned()), ..call("@cf/deepgram/aura-2-en", AudioFormat::Wav) };
        let expected = json!({ "text": text, "encoding": "linear16", "container": "wav", "speaker": "luna" });
        assert_eq!(inputs(&wav).unwrap(), expected);
        let opus = inputs(&call(aura, AudioFormat::Opus)).unwrap();
        assert_eq!(opus, json!({ "text": text, "encoding": "opus", "container": "ogg" }));
        let melo = "@cf/myshell-ai/melotts";
        assert_eq!(inputs(&call(melo, AudioFormat::Mp3)).unwrap(), json!({ "prompt": text, "lang": "en" }));
        let french = SpeechCall { voice: Some("fr".to_owned()), ..call(melo, AudioFormat::Mp3) };
        assert_eq!(inputs(&french).unwrap()["lang"], "fr");
    }

    #[test]
    fn what_a_model_cannot_is_refused_and_told_before() {
        let melo = call("@cf/myshell-ai/melotts", AudioFormat::Wav);
        assert!(matches!(inputs(&melo), Err(ModelError::Unsupported { feature: "format" })));
        let fast = SpeechCall { speed: 2.0, ..call("@cf/deepgram/aura-1", AudioFormat::Mp3) };
        assert!(matches!(inputs(&fast), Err(ModelError::Unsupported { feature: "speed" })));
        for model in ["@cf/myshell-ai/melotts", "@cf/deepgram/aura-1", "@cf/deepgram/aura-2-es"] {
            let abilities = Family::of(&model.parse().unwrap()).unwrap().abilities();
            assert!(!abilities.speed && !abilities.voices.is_empty());
            for format in AudioFormat::ALL {
                assert_eq!(
                    inputs(&call(model, format)).is_ok(),
                    abilities.formats.contains(&format),
                    "{model} {format}"
                );
            }
        }
        for other in ["@cf/meta/llama-3.1-8b-instruct", "aurora", "@cf/openai/whisper"] {
            assert_eq!(Family::of(&other.parse().unwrap()), None, "{other}");
        }
    }

    #[test]
    fn audio_is_read_out_of_each_shape() {
        for json in [
            r#"{"audio":"SUQzBAE="}"#,
            r#"{"result":{"audio":"SUQzBAE="},"success":true}"#,
            r#"{"audio":"data:audio/mpeg;base64,SUQzBAE="}"#,
        ] {
            assert_eq!(parse_audio(json.as_bytes()).unwrap(), &b"ID3\x04\x01"[..], "{json}");
        }
        for json in ["", "{", "{}", r#"{"audio":7}"#, r#"{"audio":"%"}"#] {
            assert!(matches!(parse_audio(json.as_bytes()), Err(ModelError::Malformed { .. })), "{json}");
        }
    }

    #[test]
    fn without_a_gateway_nothing_leaves() {
        // There is no JavaScript here: a call that left would panic.
        let synthesizer = WorkersAiSynthesizer::new(AiBinding::none()).with_default_gateway("");
        let call = call("@cf/deepgram/aura-1", AudioFormat::Mp3);
        let answer = synthesizer.speak(&call).now_or_never().unwrap();
        assert!(matches!(answer.err(), Some(ModelError::Rejected { .. })));
    }
}
