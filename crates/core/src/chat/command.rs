//! What a chat is asked with, and what it answers.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::client::Events;
use crate::id::{ModelId, RequestId, SessionId, ToolName, TraceId};
use crate::idempotency::{Fingerprint, IdempotencyKey};
use crate::limit::RateStatus;
use crate::model::{ChatMessage, FinishReason, ResponseFormat, Sampling, ToolCallDelta, ToolChoice, ToolDefinition};
use crate::tenant::Caller;
use crate::time::Timestamp;
use crate::tools;
use crate::usage::Ending;

/// The flag that lets models call tools of the platform. It is off unless the tenant's file says otherwise.
pub const TOOL_CALLING: &str = "tool_calling";

/// A chat request, parsed and validated.
#[derive(Debug, Clone)]
pub struct ChatCommand {
    /// The request.
    pub request: RequestId,
    /// Its trace.
    pub trace: TraceId,
    /// W3C trace context to pass on.
    pub traceparent: Option<String>,
    /// The route that it came through, such as `/chat`.
    pub route: &'static str,
    /// On whose behalf, and against whose limit.
    pub caller: Caller,
    /// The session to go on with; without one nothing is kept.
    pub session: Option<SessionId>,
    /// The model that was asked for.
    pub model: Option<ModelId>,
    /// The new messages, oldest first.
    pub messages: Vec<ChatMessage>,
    /// The most tokens that the answer may have; the deployment's default, and never more than its limit.
    pub max_tokens: Option<u32>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Tools on offer.
    pub tools: Vec<ToolDefinition>,
    /// Whether they may be called.
    pub tool_choice: ToolChoice,
    /// The form of the answer.
    pub response_format: ResponseFormat,
    /// Whether the model may call tools of the platform, where the tenant's flag `tool_calling` is on and `tools` is empty. The calls
    /// are made here, and the answer is the model's last one.
    pub server_tools: bool,
    /// A tool of the platform that runs first, and whose result the model is shown.
    pub tool: Option<tools::ToolCall>,
    /// Makes the request safe to repeat.
    pub idempotency: Option<(IdempotencyKey, Fingerprint)>,
    /// Whether the client waits for the whole answer: its pieces are then put together before they are told.
    pub whole: bool,
}

impl ChatCommand {
    /// A request with nothing but messages, such as a program in the same process makes.
    pub fn new(request: RequestId, trace: TraceId, caller: Caller, messages: Vec<ChatMessage>) -> Self {
        Self {
            request,
            trace,
            traceparent: None,
            route: "embedded",
            caller,
            session: None,
            model: None,
            messages,
            max_tokens: None,
            sampling: Sampling::default(),
            tools: Vec::new(),
            tool_choice: ToolChoice::default(),
            response_format: ResponseFormat::default(),
            server_tools: false,
            tool: None,
            idempotency: None,
            whole: false,
        }
    }
}

/// A reply that has begun.
#[derive(Debug)]
pub struct ChatReply {
    /// The request that made the answer: for a repeat, the first one.
    pub request: RequestId,
    /// When that request came.
    pub created: Timestamp,
    /// The model that answers.
    pub model: ModelId,
    /// Tokens of the prompt, estimated before the provider has counted them.
    pub tokens_in: u64,
    /// The caller's windows.
    pub rate: RateStatus,
    /// Whether this is the answer of an earlier request again.
    pub replayed: bool,
    /// The answer. Dropping it ends the model's work.
    pub events: ChatEvents,
}

/// Why a reply that had begun did not come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamFailure {
    /// The model failed.
    Model,
    /// It took too long.
    TimedOut,
    /// The program was told to stop.
    ShutDown,
    /// The answer is whole, but could not be kept.
    NotKept,
}

/// The last event of every reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatDone {
    /// The model that answered.
    pub model: ModelId,
    /// Tokens of the prompt.
    pub tokens_in: u32,
    /// Tokens of the answer.
    pub tokens_out: u32,
    /// How long it took.
    pub latency: Duration,
    /// Why the answer ended; `None` when it broke off.
    pub finish_reason: Option<FinishReason>,
    /// How the request ended.
    pub ending: Ending,
}

/// How far a call of a tool of the platform is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolState {
    /// It has begun.
    Started,
    /// It has given a result, after this time.
    Succeeded(Duration),
    /// It has given none, after this time; the model is told why.
    Failed(Duration),
}

/// A call of a tool of the platform that the model has asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolProgress {
    /// The model's name for the call.
    pub call: String,
    /// The tool.
    pub tool: ToolName,
    /// How far it is.
    pub state: ToolState,
}

/// A piece of a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChatEvent {
    /// More text.
    Content(String),
    /// More of what the model thinks aloud.
    Reasoning(String),
    /// More of a tool call.
    ToolCall(ToolCallDelta),
    /// A tool of the platform is at work for the model, or has been.
    Tool(ToolProgress),
    /// Something failed; [`ChatEvent::Done`] follows.
    Failed(StreamFailure),
    /// The reply has ended, and what it changed has been kept.
    Done(ChatDone),
}

/// The events of a reply: any number of pieces, at most one failure, and [`ChatEvent::Done`] last, always.
pub type ChatEvents = Events<ChatEvent>;
