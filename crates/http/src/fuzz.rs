//! The readers of bodies, for fuzzing: what they make of bytes, without a server around them.

use enigma_core::model::{ChatMessage, Role, Sampling};
use serde_json::Value;

use crate::error::ApiError;
use crate::validation::Issues;
use crate::{openai, routes};

/// What a request asks.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// The messages.
    pub messages: Vec<ChatMessage>,
    /// How to sample.
    pub sampling: Sampling,
    /// The names of its tools.
    pub tools: Vec<String>,
}

/// The `details` of an answer that refuses a body.
pub type Refused = Value;

fn refused(issues: Issues) -> Result<(), Refused> {
    issues.check().map_err(|error: ApiError| error.details.map(|details| *details).unwrap_or_default())
}

/// What `POST /chat` makes of a body; `None` when it is not JSON.
pub fn chat(body: &[u8], max_message_chars: usize) -> Option<Result<Asked, Refused>> {
    let json: Value = serde_json::from_slice(body).ok()?;
    let mut issues = Issues::default();
    let asked = routes::chat::parse(&json, max_message_chars, &mut issues);
    Some(refused(issues).map(|()| {
        let message = asked.and_then(|asked| asked.message);
        let messages = message.into_iter().map(|text| ChatMessage::text(Role::User, text)).collect();
        Asked { messages, sampling: Sampling::default(), tools: Vec::new() }
    }))
}

/// What `POST /v1/chat/completions` makes of a body; `None` when it is not JSON.
pub fn completion(body: &[u8]) -> Option<Result<Asked, Refused>> {
    let json: Value = serde_json::from_slice(body).ok()?;
    let mut issues = Issues::default();
    let asked = openai::request::parse(&json, &mut issues);
    Some(refused(issues).map(|()| {
        let asked = asked.expect("what no issue was found in was read");
        let tools = asked.tools.into_iter().map(|tool| tool.name).collect();
        Asked { messages: asked.messages, sampling: asked.sampling, tools }
    }))
}
