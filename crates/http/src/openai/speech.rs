//! `POST /v1/audio/speech`

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use enigma_core::ModelId;
use enigma_core::model::AudioFormat;
use enigma_core::speech::SpeakCommand;
use enigma_core::tenant::{Caller, Scope};
use http::HeaderMap;
use serde_json::Value;

use crate::access::Access;
use crate::app::App;
use crate::audio::audio;
use crate::body::read_json;
use crate::error::{ApiError, ErrorCode};
use crate::request_info::RequestInfo;
use crate::routes::chat::with_windows;
use crate::routes::speech::{MAX_SPEED, MAX_TEXT_CHARS, MAX_VOICE_CHARS, MIN_SPEED, audible, known_format};
use crate::validation::{Fields, Issues};

const ROUTE: &str = "/v1/audio/speech";

/// `POST /v1/audio/speech`
pub(crate) async fn create(
    State(app): State<App>,
    info: RequestInfo,
    access: Access,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let mut caller = access.caller_without_body();
    let answer = answer(&app, &info, &access, &mut caller, &headers, body).await;
    with_windows(&app, &access, &caller, answer).await
}

async fn answer(
    app: &App,
    info: &RequestInfo,
    access: &Access,
    caller: &mut Caller,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    access.require(Scope::Speech)?;
    // Before the body is read, so that a refusal costs nothing.
    let place = access.stream(app)?;
    let (_, json) = read_json(headers, body, app.settings().max_body_bytes).await?;
    let mut issues = Issues::default();
    let asked = parse(&json, &mut issues);
    // The protocol has no member for the user.
    let known = access.caller(None, &mut issues);
    caller.clone_from(&known);
    issues.check()?;
    let Some(SpeechRequest { model: Some(model), input: Some(input), voice: Some(voice), format, speed }) = asked
    else {
        return Err(ErrorCode::InvalidRequest.into());
    };
    let command = SpeakCommand {
        request: info.request,
        trace: info.trace.clone(),
        traceparent: info.traceparent.clone(),
        route: ROUTE,
        caller: known,
        model: Some(model),
        text: input.to_owned(),
        voice: Some(voice.to_owned()),
        format: Some(format),
        speed,
    };
    access.sit(place);
    let reply = app.ports().speech.speak(access.context.clone(), command, &*access.background()).await?;
    audio(app, access, reply, true).await
}

/// A body, parsed and validated as far as it goes.
pub(crate) struct SpeechRequest<'a> {
    model: Option<ModelId>,
    input: Option<&'a str>,
    voice: Option<&'a str>,
    format: AudioFormat,
    speed: f64,
}

/// Reads a body. What is wrong is added to `issues`.
pub(crate) fn parse<'a>(body: &'a Value, issues: &mut Issues) -> Option<SpeechRequest<'a>> {
    let fields = Fields::of_body(body, issues)?;
    let model = fields.parsed("model", issues);
    let model = fields.required("model", model, issues);
    let input = fields.text_within("input", 1, MAX_TEXT_CHARS, issues);
    let input = audible(&fields, "input", input, issues);
    let voice = fields.text_within("voice", 1, MAX_VOICE_CHARS, issues);
    let voice = fields.required("voice", voice, issues);
    // The protocol's own default, which clients count on: never another one in its place.
    let format = fields.text("response_format", issues);
    let format = known_format(&fields, "response_format", format, issues).unwrap_or(AudioFormat::Mp3);
    let speed = fields.number_within("speed", MIN_SPEED, MAX_SPEED, issues).unwrap_or(1.0);
    if fields.text("stream_format", issues).is_some_and(|format| format != "audio") {
        fields.wrong("stream_format", "must be audio", issues);
    }
    Some(SpeechRequest { model, input, voice, format, speed })
}
