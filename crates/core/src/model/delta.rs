//! What a model answers, piece by piece.

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};

use super::{ModelCall, ModelError, ToolCall};
use crate::id::TenantId;

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model had said what it wanted, or reached a stop text.
    Stop,
    /// The cap on tokens, or the model's context, was reached.
    Length,
    /// The model asks for tools to be called.
    ToolCalls,
    /// The provider withheld the rest.
    ContentFilter,
}

impl FinishReason {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
            Self::ContentFilter => "content_filter",
        }
    }
}

/// Tokens as the provider counted them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens of the answer.
    pub completion_tokens: u32,
}

/// A piece of a call that the model is writing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCallDelta {
    /// Which call of the answer, from 0.
    pub index: u32,
    /// The call's id, in its first piece.
    pub id: Option<String>,
    /// The function's name, in its first piece.
    pub name: Option<String>,
    /// More of the arguments.
    pub arguments: String,
}

impl ToolCallDelta {
    /// The most calls that one answer may hold.
    const MAX_CALLS: u32 = 128;

    /// Adds this piece to the calls of its answer; whether it was taken in. What lies beyond the most calls is not.
    pub fn add_to(&self, calls: &mut Vec<ToolCall>) -> bool {
        if self.index >= Self::MAX_CALLS {
            return false;
        }
        let index = self.index as usize;
        if calls.len() <= index {
            let empty = || ToolCall { id: String::new(), name: String::new(), arguments: String::new() };
            calls.resize_with(index + 1, empty);
        }
        let call = &mut calls[index];
        if let Some(id) = &self.id {
            call.id.clone_from(id);
        }
        if let Some(name) = &self.name {
            call.name.clone_from(name);
        }
        call.arguments.push_str(&self.arguments);
        true
    }
}

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delta {
    /// More text.
    Content(String),
    /// More of what the model thinks aloud, which is not part of the answer.
    Reasoning(String),
    /// More of a tool call.
    ToolCall(ToolCallDelta),
    /// The answer is complete, for this reason. A [`Usage`] may still follow.
    Finish(FinishReason),
    /// What the provider counted.
    Usage(Usage),
}

/// An answer as it is made.
pub type DeltaStream = BoxStream<'static, Result<Delta, ModelError>>;

/// A chat model.
///
/// # Contract
/// - The stream yields pieces as the provider makes them, and [`Delta::Finish`] once. A stream that ends without it was cut, and
///   yields [`ModelError::Interrupted`] as its last item.
/// - After an error the stream ends.
/// - Dropping the stream, or the future that opens it, ends the provider's work soon.
/// - A slow reader slows the provider down, or fills a bounded buffer; it never fills memory.
/// - What the model cannot do is refused before it is called, as [`ModelError::Unsupported`].
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait ChatModel: Send + Sync {
    /// Asks the model for `tenant`, and returns once the provider has accepted the call.
    ///
    /// # Errors
    /// [`ModelError`], which says whether another try may help.
    async fn stream(&self, tenant: &TenantId, call: &ModelCall) -> Result<DeltaStream, ModelError>;
}
