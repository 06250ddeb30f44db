//! The JSON body of a request for speech.

use bytes::Bytes;
use enigma_core::model::SpeechCall;
use serde::Serialize;

/// The voice where nobody names one: the protocol demands one, and this is the first of OpenAI's.
pub(super) const DEFAULT_VOICE: &str = "alloy";

/// The body that asks `model` for the audio of `call` in `voice`. The usual speed is not mentioned: not all models know the member.
pub(super) fn encode(call: &SpeechCall, model: &str, voice: &str) -> Bytes {
    let is_usual = (call.speed - 1.0).abs() <= f64::EPSILON;
    let body = Body {
        model,
        input: &call.text,
        voice,
        response_format: call.format.as_str(),
        speed: (!is_usual).then_some(call.speed),
    };
    Bytes::from(serde_json::to_vec(&body).expect("texts and numbers have a JSON form"))
}

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    input: &'a str,
    voice: &'a str,
    response_format: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    speed: Option<f64>,
}
