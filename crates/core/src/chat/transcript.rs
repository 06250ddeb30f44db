//! What a reply has said so far, and what of it is kept.

use serde::{Deserialize, Serialize};

use super::command::{ChatDone, ChatEvent, StreamFailure};
use crate::id::RequestId;
use crate::model::{Delta, FinishReason, ToolCall, ToolCallDelta, Usage};
use crate::session::estimate_tokens;
use crate::time::Timestamp;

/// More than the tokens of any language have, on average over an answer.
const BYTES_PER_TOKEN: usize = 16;
/// What a short answer may have beyond that.
const SLACK_BYTES: usize = 4096;

/// Adds up the pieces of a reply.
#[derive(Debug, Default)]
pub(crate) struct Transcript {
    pub(crate) content: String,
    pub(crate) tool_calls: Vec<ToolCall>,
    pub(crate) finish: Option<FinishReason>,
    /// What the model thought aloud, where it is told at the end.
    reasoning: String,
    keeps_reasoning: bool,
    usage: Option<Usage>,
    reasoning_characters: u64,
    bytes: usize,
}

impl Transcript {
    /// One of an answer that is told when it is whole.
    pub(crate) fn whole() -> Self {
        Self { keeps_reasoning: true, ..Self::default() }
    }

    /// The answer as few events, for a client that waits for all of it.
    pub(crate) fn events(&mut self) -> Vec<ChatEvent> {
        let reasoning = std::mem::take(&mut self.reasoning);
        let reasoning = Some(reasoning).filter(|text| !text.is_empty()).map(ChatEvent::Reasoning);
        reasoning.into_iter().chain(told(self.content.clone(), self.tool_calls.clone())).collect()
    }

    /// Takes a piece in, and says what of it the client is told.
    pub(crate) fn take(&mut self, delta: Delta) -> Option<ChatEvent> {
        match delta {
            Delta::Content(text) => {
                self.bytes += text.len();
                self.content.push_str(&text);
                Some(ChatEvent::Content(text))
            }
            Delta::Reasoning(text) => {
                self.bytes += text.len();
                self.reasoning_characters += text.chars().count() as u64;
                if self.keeps_reasoning {
                    self.reasoning.push_str(&text);
                }
                Some(ChatEvent::Reasoning(text))
            }
            Delta::ToolCall(call) => {
                self.bytes += call.arguments.len();
                call.add_to(&mut self.tool_calls).then_some(ChatEvent::ToolCall(call))
            }
            Delta::Finish(reason) => {
                self.finish = Some(reason);
                None
            }
            Delta::Usage(usage) => {
                self.usage = Some(usage);
                None
            }
        }
    }

    /// Whether the answer is longer than `max_tokens` tokens can be: a provider that does not keep to its cap is stopped here,
    /// or it could fill memory and spend without limit.
    pub(crate) fn is_beyond(&self, max_tokens: u32) -> bool {
        self.bytes > max_tokens as usize * BYTES_PER_TOKEN + SLACK_BYTES
    }

    /// Whether the model said anything at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.content.is_empty() && self.tool_calls.is_empty()
    }

    /// The provider's usage, or an estimate where it gave none; and whether it is one. What a provider counted before its answer
    /// broke off may lack what came after, so the greater of both counts then.
    pub(crate) fn usage(&self, prompt_estimate: u64) -> (Usage, bool) {
        if let (Some(usage), Some(_)) = (self.usage, self.finish) {
            return (usage, false);
        }
        let calls: u64 =
            self.tool_calls.iter().map(|call| estimate_tokens(&call.name) + estimate_tokens(&call.arguments)).sum();
        let answer = estimate_tokens(&self.content) + calls + self.reasoning_characters.div_ceil(4);
        let clip = |tokens: u64| u32::try_from(tokens).unwrap_or(u32::MAX);
        let counted = self.usage.unwrap_or_default();
        let usage = Usage {
            prompt_tokens: clip(prompt_estimate).max(counted.prompt_tokens),
            completion_tokens: clip(answer).max(counted.completion_tokens),
        };
        (usage, true)
    }
}

/// An answer as it is kept for a repeat of its request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptReply {
    pub(crate) request: RequestId,
    pub(crate) created: Timestamp,
    pub(crate) tokens_in: u64,
    pub(crate) content: String,
    pub(crate) tool_calls: Vec<ToolCall>,
    pub(crate) failure: Option<StreamFailure>,
    pub(crate) done: ChatDone,
}

impl KeptReply {
    /// The events that tell the answer again.
    pub(crate) fn into_events(self) -> Vec<ChatEvent> {
        let mut events: Vec<_> = told(self.content, self.tool_calls).collect();
        events.extend(self.failure.map(ChatEvent::Failed));
        events.push(ChatEvent::Done(self.done));
        events
    }
}

/// An answer, as if it had come in whole pieces.
fn told(content: String, tool_calls: Vec<ToolCall>) -> impl Iterator<Item = ChatEvent> {
    let content = Some(content).filter(|text| !text.is_empty()).map(ChatEvent::Content);
    let calls = (0u32..).zip(tool_calls).map(|(index, call)| {
        let ToolCall { id, name, arguments } = call;
        ChatEvent::ToolCall(ToolCallDelta { index, id: Some(id), name: Some(name), arguments })
    });
    content.into_iter().chain(calls)
}
