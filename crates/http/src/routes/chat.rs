//! `POST /chat`

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use enigma_core::chat::{ChatCommand, ChatEvent, ChatReply, ToolProgress, ToolState};
use enigma_core::idempotency::{Fingerprint, IdempotencyKey};
use enigma_core::limit::Subject;
use enigma_core::model::{ChatMessage, Role};
use enigma_core::tenant::{Caller, Scope};
use enigma_core::tools::ToolCall;
use enigma_core::{ModelId, SessionId, TenantId, ToolName, UserId};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;
use serde_json::{Value, json};

use super::tools::params;
use crate::access::Access;
use crate::app::App;
use crate::body::read_json;
use crate::collect::collect;
use crate::envelope::{HEADERS, error_body, json_response_with};
use crate::error::{ApiError, ErrorCode, stream_failure};
use crate::event_stream::{Render, event_stream, write_event};
use crate::rate_headers;
use crate::request_info::RequestInfo;
use crate::validation::{Fields, Issue, Issues};

const ROUTE: &str = "/chat";

pub(crate) const TOKENS_IN: HeaderName = HeaderName::from_static("x-tokens-in");
pub(crate) const TOKENS_OUT: HeaderName = HeaderName::from_static("x-tokens-out");
const TOKENS_TOTAL: HeaderName = HeaderName::from_static("x-tokens-total");
const LATENCY: HeaderName = HeaderName::from_static("x-ai-latency-ms");
const TENANT: HeaderName = HeaderName::from_static("x-tenant-id");
const MODEL: HeaderName = HeaderName::from_static("x-model-id");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// `POST /chat`
pub(crate) async fn send(
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
    let asked = {
        let (bytes, json) = read_json(&headers, body, app.settings().max_body_bytes).await?;
        command(&json, app.settings().max_message_chars, access, &headers, &bytes, info)?
    };
    caller.clone_from(&asked.command.caller);
    // The model may be long in coming; nothing of the request lies in memory meanwhile but what was understood of it.
    drop(headers);
    access.sit(place);
    let reply = app.ports().chat.send(access.context.clone(), asked.command, &*access.background()).await?;
    let tenant = access.context.id();
    if asked.stream {
        Ok(stream(app, info, tenant, asked.session, reply))
    } else {
        whole(app, info, tenant, asked.session, reply).await
    }
}

/// A body, parsed and validated as far as it goes.
pub(crate) struct ChatRequest<'a> {
    pub(crate) session: Option<SessionId>,
    pub(crate) message: Option<&'a str>,
    pub(crate) stream: bool,
    pub(crate) model: Option<ModelId>,
    pub(crate) user: Option<UserId>,
    pub(crate) tool: Option<ToolCall>,
}

/// Reads a body. What is wrong is added to `issues`.
pub(crate) fn parse<'a>(body: &'a Value, max_message_chars: usize, issues: &mut Issues) -> Option<ChatRequest<'a>> {
    let fields = Fields::of_body(body, issues)?;
    let session = fields.parsed("sessionId", issues);
    let session = fields.required("sessionId", session, issues);
    let message = fields.text_within("message", 1, max_message_chars, issues);
    let message = fields.required("message", message, issues);
    let stream = fields.boolean("stream", issues).unwrap_or(true);
    let model = fields.parsed("modelId", issues);
    let user = fields.parsed("userId", issues);
    let tool: Option<ToolName> = fields.parsed("tool_name", issues);
    fields.object("tool_params", issues);
    let params = params(fields.value("tool_params"));
    let tool = tool.map(|name| ToolCall { name, params });
    Some(ChatRequest { session, message, stream, model, user, tool })
}

struct Asked {
    command: ChatCommand,
    session: SessionId,
    stream: bool,
}

fn command(
    json: &Value,
    max_message_chars: usize,
    access: &Access,
    headers: &HeaderMap,
    bytes: &[u8],
    info: &RequestInfo,
) -> Result<Asked, ApiError> {
    let mut issues = Issues::default();
    let Some(asked) = parse(json, max_message_chars, &mut issues) else {
        issues.check()?;
        return Err(ErrorCode::InvalidRequest.into());
    };
    let caller = access.caller(asked.user, &mut issues);
    let idempotency = idempotency(headers, &caller.subject, ROUTE, &[bytes], &mut issues);
    issues.check()?;
    if asked.tool.is_some() {
        access.require(Scope::Tools)?;
    }
    let (Some(session), Some(message)) = (asked.session, asked.message) else {
        return Err(ErrorCode::InvalidRequest.into());
    };
    let messages = vec![ChatMessage::text(Role::User, message)];
    let command = ChatCommand {
        traceparent: info.traceparent.clone(),
        route: ROUTE,
        session: Some(session),
        model: asked.model,
        tool: asked.tool,
        server_tools: true,
        idempotency,
        whole: !asked.stream,
        ..ChatCommand::new(info.request, info.trace.clone(), caller, messages)
    };
    Ok(Asked { command, session, stream: asked.stream })
}

/// The idempotency key of a request, and the fingerprint of what it asks.
pub(crate) fn idempotency(
    headers: &HeaderMap,
    caller: &Subject,
    route: &str,
    asked: &[&[u8]],
    issues: &mut Issues,
) -> Option<(IdempotencyKey, Fingerprint)> {
    let value = headers.get("idempotency-key")?;
    let key = value.to_str().ok().and_then(|text| IdempotencyKey::new(caller, route, text));
    if key.is_none() {
        issues.add(Issue::new("Idempotency-Key", "must be 1 to 255 printable ASCII characters"));
    }
    Some((key?, Fingerprint::of(asked)))
}

/// A limited route tells the state of its windows with every answer, refusals included.
pub(crate) async fn with_windows(
    app: &App,
    access: &Access,
    caller: &Caller,
    answer: Result<Response, ApiError>,
) -> Result<Response, ApiError> {
    let mut error = match answer {
        Ok(response) => return Ok(response),
        Err(error) => error,
    };
    // Whoever comes when the host is full is told that and nothing more.
    if error.rate.is_none() && !error.told {
        let (admission, now) = (app.ports().chat.admission(), app.ports().clock.now());
        error.rate = admission.peek(&access.context, caller, now).await.ok().map(Box::new);
    }
    Err(error)
}

/// The headers that a reply has, whatever its form.
pub(crate) fn reply_headers(app: &App, tenant: &TenantId, reply: &ChatReply) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(HEADERS);
    let text = |text: &str| HeaderValue::from_str(text).expect("ids are visible ASCII");
    headers.insert(TENANT, text(tenant.as_str()));
    headers.insert(MODEL, text(reply.model.as_str()));
    headers.insert(TOKENS_IN, reply.tokens_in.into());
    if reply.replayed {
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
    }
    rate_headers::write(&mut headers, &reply.rate, app.ports().clock.now());
    headers
}

async fn whole(
    app: &App,
    info: &RequestInfo,
    tenant: &TenantId,
    session: SessionId,
    reply: ChatReply,
) -> Result<Response, ApiError> {
    let mut headers = reply_headers(app, tenant, &reply);
    let rate = reply.rate;
    let answer = collect(reply.events).await.map_err(|error| ApiError { rate: Some(Box::new(rate)), ..error })?;
    let usage = WireUsage::from(&answer.done);
    for (name, value) in [
        (TOKENS_IN, u64::from(usage.tokens_in)),
        (TOKENS_OUT, u64::from(usage.tokens_out)),
        (TOKENS_TOTAL, usage.total_tokens),
        (LATENCY, usage.latency_ms),
    ] {
        headers.insert(name, value.into());
    }
    let data = WireAnswer {
        status: "accepted",
        session_id: session,
        stream: false,
        message: answer.content,
        // The answer of an earlier request again, whose client went away before its end.
        truncated: answer.done.finish_reason.is_none(),
    };
    let body = WireReply { ok: true, data, usage, trace_id: info.trace.as_str() };
    Ok(json_response_with(http::StatusCode::OK, headers, &body))
}

fn stream(app: &App, info: &RequestInfo, tenant: &TenantId, session: SessionId, reply: ChatReply) -> Response {
    let headers = reply_headers(app, tenant, &reply);
    let render = ChatRender {
        session: session.to_string(),
        tenant: tenant.to_string(),
        info: info.clone(),
        number: 0,
        failed: false,
    };
    event_stream(reply.events, render, &app.ports().clock, app.settings().keep_alive, headers)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WireReply<'a> {
    ok: bool,
    data: WireAnswer,
    usage: WireUsage,
    trace_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WireAnswer {
    status: &'static str,
    session_id: SessionId,
    stream: bool,
    message: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    truncated: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WireUsage {
    model_id: String,
    tokens_in: u32,
    tokens_out: u32,
    total_tokens: u64,
    latency_ms: u64,
}

impl From<&enigma_core::chat::ChatDone> for WireUsage {
    fn from(done: &enigma_core::chat::ChatDone) -> Self {
        Self {
            model_id: done.model.to_string(),
            tokens_in: done.tokens_in,
            tokens_out: done.tokens_out,
            total_tokens: u64::from(done.tokens_in) + u64::from(done.tokens_out),
            latency_ms: u64::try_from(done.latency.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WireChunk<'a> {
    session_id: &'a str,
    role: &'static str,
    content: &'a str,
    tenant_id: &'a str,
    trace_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WireDone {
    done: bool,
    usage: WireUsage,
    finish_reason: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WireTool<'a> {
    id: &'a str,
    tool: &'a str,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_ms: Option<u64>,
}

impl<'a> From<&'a ToolProgress> for WireTool<'a> {
    fn from(progress: &'a ToolProgress) -> Self {
        let (state, took) = match progress.state {
            ToolState::Started => ("started", None),
            ToolState::Succeeded(took) => ("succeeded", Some(took)),
            ToolState::Failed(took) => ("failed", Some(took)),
        };
        let duration_ms = took.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        Self { id: &progress.call, tool: progress.tool.as_str(), state, duration_ms }
    }
}

struct ChatRender {
    session: String,
    tenant: String,
    info: RequestInfo,
    number: u64,
    failed: bool,
}

impl Render<ChatEvent> for ChatRender {
    fn render(&mut self, event: ChatEvent, out: &mut String) {
        match event {
            ChatEvent::Content(content) => {
                self.number += 1;
                let chunk = WireChunk {
                    session_id: &self.session,
                    role: "assistant",
                    content: &content,
                    tenant_id: &self.tenant,
                    trace_id: self.info.trace.as_str(),
                };
                write_event(out, &format!("id: {}\n", self.number), &chunk);
            }
            // This route shows the answer only.
            ChatEvent::Reasoning(_) | ChatEvent::ToolCall(_) => {}
            ChatEvent::Tool(progress) => write_event(out, "event: tool\n", &WireTool::from(&progress)),
            ChatEvent::Failed(failure) => {
                self.failed = true;
                let body = error_body(&self.info, &stream_failure(failure).into());
                let (code, message) = (&body["error"]["code"], &body["error"]["message"]);
                write_event(
                    out,
                    "event: error\n",
                    &json!({ "code": code, "message": message, "traceId": self.info.trace }),
                );
            }
            ChatEvent::Done(done) => {
                let broken = if self.failed { "error" } else { "truncated" };
                let finish_reason = done.finish_reason.map_or(broken, enigma_core::model::FinishReason::as_str);
                let done = WireDone { done: true, usage: WireUsage::from(&done), finish_reason };
                write_event(out, "event: done\n", &done);
            }
        }
    }
}
