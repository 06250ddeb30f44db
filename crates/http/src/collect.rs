//! A reply in one piece, for clients that do not stream.

use enigma_core::chat::{ChatDone, ChatEvent, ChatEvents};
use enigma_core::model::ToolCall;
use futures_util::StreamExt;

use crate::error::{ApiError, ErrorCode, stream_failure};

/// A whole reply.
pub(crate) struct Collected {
    pub(crate) content: String,
    pub(crate) reasoning: String,
    pub(crate) tool_calls: Vec<ToolCall>,
    pub(crate) done: ChatDone,
}

/// Waits for the end of a reply.
pub(crate) async fn collect(mut events: ChatEvents) -> Result<Collected, ApiError> {
    let (mut content, mut reasoning, mut tool_calls, mut failure) = (String::new(), String::new(), Vec::new(), None);
    while let Some(event) = events.next().await {
        match event {
            ChatEvent::Content(text) => content.push_str(&text),
            ChatEvent::Reasoning(text) => reasoning.push_str(&text),
            ChatEvent::ToolCall(delta) => {
                delta.add_to(&mut tool_calls);
            }
            ChatEvent::Tool(_) => {}
            ChatEvent::Failed(kind) => failure = Some(stream_failure(kind)),
            ChatEvent::Done(done) => {
                return match failure {
                    Some(code) => Err(code.into()),
                    None => Ok(Collected { content, reasoning, tool_calls, done }),
                };
            }
        }
    }
    Err(ErrorCode::Internal.into())
}
