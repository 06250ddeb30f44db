//! `POST /v1/chat/completions`

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use enigma_core::SessionId;
use enigma_core::chat::{ChatCommand, ChatDone, ChatEvent, ChatReply, TOOL_CALLING};
use enigma_core::model::{FinishReason, ToolCall, ToolCallDelta};
use enigma_core::tenant::{Caller, Scope};
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde_json::Value;

use super::request;
use crate::access::Access;
use crate::app::App;
use crate::body::read_json;
use crate::collect::collect;
use crate::envelope::{error_body, json_response_with};
use crate::error::{ApiError, ErrorCode, stream_failure};
use crate::event_stream::{Render, event_stream};
use crate::request_info::RequestInfo;
use crate::routes::chat::{TOKENS_IN, TOKENS_OUT, idempotency, reply_headers, with_windows};
use crate::validation::{Issue, Issues};

const ROUTE: &str = "/v1/chat/completions";

/// `POST /v1/chat/completions`
pub(crate) async fn create(
    State(app): State<App>,
    info: RequestInfo,
    access: Access,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let mut caller = access.caller_without_body();
    let answer = answer(&app, &info, &access, &mut caller, headers, body).await;
    with_windows(&app, &access, &caller, answer).await
}

async fn answer(
    app: &App,
    info: &RequestInfo,
    access: &Access,
    caller: &mut Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    access.require(Scope::Chat)?;
    // Before the body is read, so that a refusal costs nothing.
    let place = access.stream(app)?;
    let Asked { command, stream, include_usage } = {
        let (bytes, json) = read_json(&headers, body, app.settings().max_body_bytes).await?;
        command(&json, access, caller, &headers, &bytes, info)?
    };
    // The model may be long in coming; nothing of the request lies in memory meanwhile but what was understood of it.
    drop(headers);
    access.sit(place);
    let reply = app.ports().chat.send(access.context.clone(), command, &*access.background()).await?;
    let mut headers = reply_headers(app, access.context.id(), &reply);
    let identity = Identity::of(&reply);
    if stream {
        let render = CompletionRender::new(&identity, info.clone(), include_usage);
        return Ok(event_stream(reply.events, render, &app.ports().clock, app.settings().keep_alive, headers));
    }
    let rate = reply.rate;
    let answer = collect(reply.events).await.map_err(|error| ApiError { rate: Some(Box::new(rate)), ..error })?;
    headers.insert(TOKENS_IN, answer.done.tokens_in.into());
    headers.insert(TOKENS_OUT, answer.done.tokens_out.into());
    let content = Some(answer.content).filter(|content| !content.is_empty() || answer.tool_calls.is_empty());
    let message = WireMessage {
        role: "assistant",
        content,
        refusal: (),
        reasoning_content: Some(answer.reasoning).filter(|reasoning| !reasoning.is_empty()),
        tool_calls: answer.tool_calls.into_iter().map(WireToolCall::from).collect(),
    };
    let choice = WireChoice { index: 0, message, logprobs: (), finish_reason: reason(&answer.done) };
    let body = WireCompletion {
        head: identity.object("chat.completion"),
        choices: [choice],
        usage: WireUsage::from(&answer.done),
    };
    Ok(json_response_with(StatusCode::OK, headers, &body))
}

struct Asked {
    command: ChatCommand,
    stream: bool,
    include_usage: bool,
}

/// What a body asks for. `caller` becomes whom it names.
fn command(
    json: &Value,
    access: &Access,
    caller: &mut Caller,
    headers: &HeaderMap,
    bytes: &[u8],
    info: &RequestInfo,
) -> Result<Asked, ApiError> {
    let mut issues = Issues::default();
    let parsed = request::parse(json, &mut issues);
    let session = session(headers, &mut issues);
    let known = access.caller(parsed.as_ref().and_then(|parsed| parsed.user.clone()), &mut issues);
    caller.clone_from(&known);
    let session_text = session.map(|session| session.to_string()).unwrap_or_default();
    let idempotency = idempotency(headers, &known.subject, ROUTE, &[session_text.as_bytes(), bytes], &mut issues);
    issues.check()?;
    let asked = parsed.ok_or(ErrorCode::InvalidRequest)?;
    if asked.server_tools && !access.context.tenant().flag(TOOL_CALLING) {
        let message = "Models may not call the platform's tools for this tenant".into();
        return Err(ApiError { message, ..ApiError::new(ErrorCode::FeatureDisabled) });
    }
    let command = ChatCommand {
        traceparent: info.traceparent.clone(),
        route: ROUTE,
        session,
        model: asked.model,
        max_tokens: asked.max_tokens,
        sampling: asked.sampling,
        tools: asked.tools,
        tool_choice: asked.tool_choice,
        response_format: asked.response_format,
        server_tools: asked.server_tools,
        idempotency,
        whole: !asked.stream,
        ..ChatCommand::new(info.request, info.trace.clone(), known, asked.messages)
    };
    Ok(Asked { command, stream: asked.stream, include_usage: asked.include_usage })
}

fn session(headers: &HeaderMap, issues: &mut Issues) -> Option<SessionId> {
    let value = headers.get("x-session-id")?;
    let session = value.to_str().ok().and_then(|text| text.parse().ok());
    if session.is_none() {
        issues.add(Issue::new("x-session-id", "must be a UUID"));
    }
    session
}

/// What every object of one answer has in common.
struct Identity {
    id: String,
    created: u64,
    model: String,
}

impl Identity {
    fn of(reply: &ChatReply) -> Self {
        Self {
            id: format!("chatcmpl-{}", reply.request.uuid().simple()),
            created: reply.created.as_secs(),
            model: reply.model.to_string(),
        }
    }

    fn object(&self, kind: &'static str) -> WireHead<'_> {
        WireHead { id: &self.id, object: kind, created: self.created, model: &self.model }
    }
}

/// An answer that was cut has reached a length of a kind: OpenAI's protocol knows no other word for it.
fn reason(done: &ChatDone) -> &'static str {
    done.finish_reason.unwrap_or(FinishReason::Length).as_str()
}

#[derive(Serialize)]
struct WireHead<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
}

#[derive(Serialize)]
struct WireCompletion<'a> {
    #[serde(flatten)]
    head: WireHead<'a>,
    choices: [WireChoice; 1],
    usage: WireUsage,
}

#[derive(Serialize)]
struct WireChoice {
    index: u32,
    message: WireMessage,
    logprobs: (),
    finish_reason: &'static str,
}

#[derive(Serialize)]
struct WireMessage {
    role: &'static str,
    content: Option<String>,
    refusal: (),
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<WireToolCall>,
}

#[derive(Serialize)]
struct WireToolCall {
    id: String,
    r#type: &'static str,
    function: WireFunction,
}

#[derive(Serialize)]
struct WireFunction {
    name: String,
    arguments: String,
}

impl From<ToolCall> for WireToolCall {
    fn from(ToolCall { id, name, arguments }: ToolCall) -> Self {
        Self { id, r#type: "function", function: WireFunction { name, arguments } }
    }
}

#[expect(clippy::struct_field_names, reason = "the names of OpenAI's protocol")]
#[derive(Serialize)]
struct WireUsage {
    prompt_tokens: u32,
    completion_tokens: u32,
    total_tokens: u64,
}

impl From<&ChatDone> for WireUsage {
    fn from(done: &ChatDone) -> Self {
        Self {
            prompt_tokens: done.tokens_in,
            completion_tokens: done.tokens_out,
            total_tokens: u64::from(done.tokens_in) + u64::from(done.tokens_out),
        }
    }
}

/// What a chunk adds to the message.
#[derive(Default, Serialize)]
struct WireDelta {
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<[WireToolCallDelta; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
}

#[derive(Serialize)]
struct WireToolCallDelta {
    index: u32,
    function: WireFunctionDelta,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<&'static str>,
}

#[derive(Serialize)]
struct WireFunctionDelta {
    arguments: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
}

impl From<ToolCallDelta> for WireToolCallDelta {
    fn from(ToolCallDelta { index, id, name, arguments }: ToolCallDelta) -> Self {
        let kind = id.as_ref().map(|_| "function");
        Self { index, function: WireFunctionDelta { arguments, name }, id, r#type: kind }
    }
}

struct CompletionRender {
    /// What every chunk begins with, up to its choices: the same text, so it is made once.
    head: String,
    info: RequestInfo,
    include_usage: bool,
    begun: bool,
    failed: bool,
}

impl CompletionRender {
    fn new(identity: &Identity, info: RequestInfo, include_usage: bool) -> Self {
        let object = json(&identity.object("chat.completion.chunk"));
        let members = object.strip_suffix('}').expect("an object ends with a brace");
        Self { head: format!("data: {members},\"choices\":["), info, include_usage, begun: false, failed: false }
    }

    fn chunk(&mut self, mut delta: WireDelta, finish_reason: Option<&str>, out: &mut String) {
        if !std::mem::replace(&mut self.begun, true) {
            delta.role = Some("assistant");
        }
        let finish_reason = finish_reason.map_or_else(|| "null".to_owned(), |reason| json(&reason));
        let end = if self.include_usage { ",\"usage\":null}\n\n" } else { "}\n\n" };
        out.extend([&*self.head, "{\"index\":0,\"delta\":", &json(&delta)]);
        out.extend([",\"logprobs\":null,\"finish_reason\":", &finish_reason, "}]", end]);
    }
}

fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("wire types have text keys only, so they are JSON")
}

impl Render<ChatEvent> for CompletionRender {
    fn render(&mut self, event: ChatEvent, out: &mut String) {
        let nothing = WireDelta::default();
        match event {
            ChatEvent::Content(text) => self.chunk(WireDelta { content: Some(text), ..nothing }, None, out),
            ChatEvent::Reasoning(text) => {
                self.chunk(WireDelta { reasoning_content: Some(text), ..nothing }, None, out);
            }
            ChatEvent::ToolCall(call) => {
                self.chunk(WireDelta { tool_calls: Some([call.into()]), ..nothing }, None, out);
            }
            // The calls of the platform's own tools are not the client's to answer.
            ChatEvent::Tool(_) => {}
            ChatEvent::Failed(failure) => {
                self.failed = true;
                let body = error_body(&self.info, &stream_failure(failure).into());
                out.extend(["data: ", &body.to_string(), "\n\n"]);
            }
            ChatEvent::Done(done) => {
                if !self.failed {
                    self.chunk(nothing, Some(reason(&done)), out);
                }
                if self.include_usage {
                    out.extend([&*self.head, "],\"usage\":", &json(&WireUsage::from(&done)), "}\n\n"]);
                }
                out.push_str("data: [DONE]\n\n");
            }
        }
    }
}
