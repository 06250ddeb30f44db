//! What a tool is asked with, and what it answers.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::{RequestId, ToolName, TraceId};
use crate::idempotency::{Fingerprint, IdempotencyKey};
use crate::limit::RateStatus;
use crate::tenant::Caller;

/// A tool, and the parameters to call it with. Nobody has looked at them yet.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolCall {
    /// The tool.
    pub name: ToolName,
    /// Its parameters.
    pub params: Value,
}

/// A request to run a tool.
#[derive(Debug, Clone)]
pub struct ToolCommand {
    /// The request.
    pub request: RequestId,
    /// Its trace.
    pub trace: TraceId,
    /// W3C trace context to pass on.
    pub traceparent: Option<String>,
    /// The route that it came through, such as `/tools/execute`.
    pub route: &'static str,
    /// On whose behalf, and against whose limit.
    pub caller: Caller,
    /// What is called.
    pub call: ToolCall,
    /// Makes the request safe to repeat.
    pub idempotency: Option<(IdempotencyKey, Fingerprint)>,
}

/// What a tool has given back.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolReply {
    /// The result; it keeps to the output's schema.
    pub data: Value,
    /// How long it took.
    pub duration: Duration,
    /// The tokens that it used; 0 where it asked no model.
    pub tokens: u64,
    /// The caller's windows.
    pub rate: RateStatus,
    /// Whether this is the answer of an earlier request again.
    pub replayed: bool,
}

/// A reply as it is kept for a repeat of its request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct KeptResult {
    pub(super) data: Value,
    pub(super) duration: Duration,
    pub(super) tokens: u64,
}
