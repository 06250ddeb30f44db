//! `POST /tts` and `GET /tts/voices`

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use enigma_core::UserId;
use enigma_core::model::AudioFormat;
use enigma_core::speech::{SpeakCommand, Voices};
use enigma_core::tenant::{Caller, Scope};
use http::HeaderMap;
use serde_json::{Value, json};

use super::chat::with_windows;
use crate::access::Access;
use crate::app::App;
use crate::audio::audio;
use crate::body::read_json;
use crate::envelope::success;
use crate::error::{ApiError, ErrorCode};
use crate::request_info::RequestInfo;
use crate::validation::{Fields, Issues};

const ROUTE: &str = "/tts";
/// The longest text, in characters.
pub(crate) const MAX_TEXT_CHARS: usize = 5000;
/// The longest name of a voice, in characters.
pub(crate) const MAX_VOICE_CHARS: usize = 128;
/// The slowest, as a multiple of a voice's own speed.
pub(crate) const MIN_SPEED: f64 = 0.25;
/// The fastest.
pub(crate) const MAX_SPEED: f64 = 4.0;

/// `POST /tts`
pub(crate) async fn speak(
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
    let known = access.caller(asked.as_ref().and_then(|asked| asked.user.clone()), &mut issues);
    caller.clone_from(&known);
    issues.check()?;
    let Some(SpeechRequest { text: Some(text), voice, format, streaming, speed, .. }) = asked else {
        return Err(ErrorCode::InvalidRequest.into());
    };
    let command = SpeakCommand {
        request: info.request,
        trace: info.trace.clone(),
        traceparent: info.traceparent.clone(),
        route: ROUTE,
        caller: known,
        model: None,
        text: text.to_owned(),
        voice: voice.map(str::to_owned),
        format,
        speed,
    };
    access.sit(place);
    let reply = app.ports().speech.speak(access.context.clone(), command, &*access.background()).await?;
    audio(app, access, reply, streaming).await
}

/// A body, parsed and validated as far as it goes.
pub(crate) struct SpeechRequest<'a> {
    text: Option<&'a str>,
    voice: Option<&'a str>,
    format: Option<AudioFormat>,
    streaming: bool,
    speed: f64,
    user: Option<UserId>,
}

/// Reads a body. What is wrong is added to `issues`.
pub(crate) fn parse<'a>(body: &'a Value, issues: &mut Issues) -> Option<SpeechRequest<'a>> {
    let fields = Fields::of_body(body, issues)?;
    let text = fields.text_within("text", 1, MAX_TEXT_CHARS, issues);
    let text = audible(&fields, "text", text, issues);
    let voice = fields.text_within("voice", 1, MAX_VOICE_CHARS, issues);
    let format = fields.text("format", issues);
    let format = known_format(&fields, "format", format, issues);
    let streaming = fields.boolean("streaming", issues).unwrap_or(false);
    let speed = fields.number_within("speed", MIN_SPEED, MAX_SPEED, issues).unwrap_or(1.0);
    let user = fields.parsed("userId", issues);
    Some(SpeechRequest { text, voice, format, streaming, speed, user })
}

/// The text of a field that is required, if there is something in it to be heard.
pub(crate) fn audible<'a>(
    fields: &Fields<'a>,
    name: &'static str,
    text: Option<&'a str>,
    issues: &mut Issues,
) -> Option<&'a str> {
    let text = fields.required(name, text, issues)?;
    if text.chars().any(|c| !c.is_whitespace() && !c.is_control()) {
        return Some(text);
    }
    fields.wrong(name, "must not be blank", issues);
    None
}

/// The format of this name.
pub(crate) fn known_format(
    fields: &Fields<'_>,
    name: &'static str,
    format: Option<&str>,
    issues: &mut Issues,
) -> Option<AudioFormat> {
    let known = AudioFormat::of_name(format?);
    if known.is_none() {
        let names = AudioFormat::ALL.map(AudioFormat::as_str).join(", ");
        fields.wrong(name, format!("must be one of: {names}"), issues);
    }
    known
}

/// `GET /tts/voices`
pub(crate) async fn voices(State(app): State<App>, info: RequestInfo, access: Access) -> Result<Response, ApiError> {
    access.require(Scope::Speech)?;
    let Voices { model, abilities } = app.ports().speech.voices(&access.context)?;
    let data = json!({
        "modelId": model,
        "voices": &*abilities.voices,
        "otherVoices": abilities.other_voices,
        "formats": abilities.formats,
        "speed": abilities.speed,
    });
    Ok(success(&info, data))
}
