//! What is asked of a model.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::{ModelId, SessionId, TenantId, TraceId};

/// Who said a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions for the model.
    System,
    /// The person or program that asks.
    User,
    /// The model.
    Assistant,
    /// The result of a tool that the model called.
    Tool,
}

impl Role {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

/// A function call that a model asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// The model's name for this call; the result refers to it.
    pub id: String,
    /// The function.
    pub name: String,
    /// Its arguments as JSON text, as the model wrote it: it may be invalid.
    pub arguments: String,
}

/// One message of a prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// Who said it.
    pub role: Role,
    /// What was said.
    pub content: String,
    /// The calls that an assistant's message asked for.
    pub tool_calls: Vec<ToolCall>,
    /// The call whose result a tool's message is.
    pub tool_call_id: Option<String>,
}

impl ChatMessage {
    /// A message of plain text.
    pub fn text(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into(), tool_calls: Vec::new(), tool_call_id: None }
    }
}

/// A function that the model may ask to be called.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolDefinition {
    /// Its name.
    pub name: String,
    /// What it does, for the model to read.
    pub description: Option<String>,
    /// JSON Schema of its arguments.
    pub parameters: Option<Value>,
    /// Whether the arguments must keep to the schema exactly.
    pub strict: Option<bool>,
}

/// Whether the model may, must or must not call tools.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ToolChoice {
    /// As the model likes.
    #[default]
    Auto,
    /// Not at all.
    None,
    /// At least one.
    Required,
    /// This one.
    Function(String),
}

/// The form of the answer.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum ResponseFormat {
    /// Plain text.
    #[default]
    Text,
    /// Any JSON object.
    JsonObject,
    /// JSON by a schema, in the shape of OpenAI's `json_schema` member.
    JsonSchema(Value),
}

/// How the next token is chosen. `None` leaves it to the provider.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sampling {
    /// 0 (greedy) to 2.
    pub temperature: Option<f64>,
    /// Nucleus sampling, 0 to 1; 0 leaves the most likely token only.
    pub top_p: Option<f64>,
    /// −2 to 2.
    pub frequency_penalty: Option<f64>,
    /// −2 to 2.
    pub presence_penalty: Option<f64>,
    /// Makes sampling repeatable where the provider can.
    pub seed: Option<i64>,
    /// Texts that end the answer, and are not part of it; at most four.
    pub stop: Vec<String>,
}

/// What a provider is told about a call besides the prompt. Never message text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallMetadata {
    /// Whose call it is.
    pub tenant: TenantId,
    /// The trace of the request.
    pub trace: TraceId,
    /// W3C trace context to pass on, when the request had a valid one.
    pub traceparent: Option<String>,
    /// The session, when there is one.
    pub session: Option<SessionId>,
    /// The route that the request came through, such as `/chat`.
    pub route: &'static str,
    /// The tenant's AI Gateway, for providers that stand behind one.
    pub gateway: Option<String>,
}

/// A whole call of a chat model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelCall {
    /// The model, by the platform's name; an adapter maps it to its provider's.
    pub model: ModelId,
    /// The prompt, oldest message first.
    pub messages: Vec<ChatMessage>,
    /// The most tokens that the answer may have.
    pub max_tokens: u32,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// The tools on offer.
    pub tools: Vec<ToolDefinition>,
    /// Whether they may be called.
    pub tool_choice: ToolChoice,
    /// The form of the answer.
    pub response_format: ResponseFormat,
    /// For the provider's records.
    pub metadata: CallMetadata,
}
