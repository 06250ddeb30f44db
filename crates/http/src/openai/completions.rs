//! `POST /v1/chat/completions`

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use enigma_core::SessionId;
use enigma_core::chat::{ChatCommand, ChatDone, ChatEvent, ChatReply};
use enigma_core::model::{FinishReason, ToolCallDelta};
use enigma_core::tenant::{Caller, Scope};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::request;
use crate::access::Access;
use crate::app::App;
use crate::body::read_json;
use crate::collect::collect;
use crate::envelope::{error_body, json_response};
use crate::error::{ApiError, ErrorCode, stream_failure};
use crate::event_stream::{Render, event_stream};
use crate::request_info::RequestInfo;
use crate::routes::chat::{idempotency, reply_headers, with_windows};
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
    access.require(Scope::Chat)?;
    // Before the body is read, so that a refusal costs nothing.
    let place = access.stream(app)?;
    let (bytes, json) = read_json(headers, body, app.settings().max_body_bytes).await?;
    let mut issues = Issues::default();
    let parsed = request::parse(&json, &mut issues);
    let session = session(headers, &mut issues);
    let known = access.caller(parsed.as_ref().and_then(|parsed| parsed.user.clone()), &mut issues);
    caller.clone_from(&known);
    let session_text = session.map(|session| session.to_string()).unwrap_or_default();
    let idempotency = idempotency(headers, &known.subject, ROUTE, &[session_text.as_bytes(), &bytes], &mut issues);
    issues.check()?;
    let asked = parsed.ok_or(ErrorCode::InvalidRequest)?;
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
        idempotency,
        whole: !asked.stream,
        ..ChatCommand::new(info.request, info.trace.clone(), known, asked.messages)
    };
    access.sit(place);
    let reply = app.ports().chat.send(access.context.clone(), command, &*access.background()).await?;
    let mut headers = reply_headers(app, access.context.id(), &reply);
    let identity = Identity::of(&reply);
    if asked.stream {
        let render = CompletionRender {
            identity,
            info: info.clone(),
            include_usage: asked.include_usage,
            begun: false,
            failed: false,
        };
        return Ok(event_stream(reply.events, render, &app.ports().clock, app.settings().keep_alive, headers));
    }
    let rate = reply.rate;
    let answer = collect(reply.events).await.map_err(|error| ApiError { rate: Some(Box::new(rate)), ..error })?;
    headers.insert("x-tokens-in", answer.done.tokens_in.into());
    headers.insert("x-tokens-out", answer.done.tokens_out.into());
    let mut message = json!({ "role": "assistant", "content": answer.content, "refusal": null });
    if !answer.reasoning.is_empty() {
        message["reasoning_content"] = answer.reasoning.into();
    }
    if !answer.tool_calls.is_empty() {
        if answer.content.is_empty() {
            message["content"] = Value::Null;
        }
        let call = |call: &enigma_core::model::ToolCall| json!({ "id": call.id, "type": "function", "function": { "name": call.name, "arguments": call.arguments } });
        message["tool_calls"] = answer.tool_calls.iter().map(call).collect();
    }
    let mut body = identity.object("chat.completion");
    body["choices"] = json!([{
        "index": 0, "message": message, "logprobs": null, "finish_reason": reason(&answer.done),
    }]);
    body["usage"] = usage(&answer.done);
    let mut response = json_response(StatusCode::OK, &body);
    response.headers_mut().extend(headers);
    Ok(response)
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

    fn object(&self, kind: &str) -> Value {
        json!({ "id": self.id, "object": kind, "created": self.created, "model": self.model })
    }
}

/// An answer that was cut has reached a length of a kind: OpenAI's protocol knows no other word for it.
fn reason(done: &ChatDone) -> &'static str {
    done.finish_reason.unwrap_or(FinishReason::Length).as_str()
}

fn usage(done: &ChatDone) -> Value {
    json!({
        "prompt_tokens": done.tokens_in,
        "completion_tokens": done.tokens_out,
        "total_tokens": u64::from(done.tokens_in) + u64::from(done.tokens_out),
    })
}

struct CompletionRender {
    identity: Identity,
    info: RequestInfo,
    include_usage: bool,
    begun: bool,
    failed: bool,
}

impl CompletionRender {
    fn chunk(&mut self, mut delta: Value, finish_reason: Option<&str>, out: &mut String) {
        if !std::mem::replace(&mut self.begun, true) {
            delta["role"] = "assistant".into();
        }
        let mut chunk = self.identity.object("chat.completion.chunk");
        chunk["choices"] = json!([{ "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason }]);
        if self.include_usage {
            chunk["usage"] = Value::Null;
        }
        data(&chunk, out);
    }
}

fn data(value: &Value, out: &mut String) {
    out.push_str("data: ");
    out.push_str(&value.to_string());
    out.push_str("\n\n");
}

impl Render<ChatEvent> for CompletionRender {
    fn render(&mut self, event: ChatEvent, out: &mut String) {
        match event {
            ChatEvent::Content(text) => self.chunk(json!({ "content": text }), None, out),
            ChatEvent::Reasoning(text) => self.chunk(json!({ "reasoning_content": text }), None, out),
            ChatEvent::ToolCall(call) => self.chunk(json!({ "tool_calls": [tool_call(&call)] }), None, out),
            ChatEvent::Failed(failure) => {
                self.failed = true;
                data(&error_body(&self.info, &stream_failure(failure).into()), out);
            }
            ChatEvent::Done(done) => {
                if !self.failed {
                    self.chunk(json!({}), Some(reason(&done)), out);
                }
                if self.include_usage {
                    let mut chunk = self.identity.object("chat.completion.chunk");
                    chunk["choices"] = json!([]);
                    chunk["usage"] = usage(&done);
                    data(&chunk, out);
                }
                out.push_str("data: [DONE]\n\n");
            }
        }
    }
}

fn tool_call(call: &ToolCallDelta) -> Value {
    let mut wire = json!({ "index": call.index, "function": { "arguments": call.arguments } });
    if let Some(id) = &call.id {
        wire["id"] = id.as_str().into();
        wire["type"] = "function".into();
    }
    if let Some(name) = &call.name {
        wire["function"]["name"] = name.as_str().into();
    }
    wire
}
