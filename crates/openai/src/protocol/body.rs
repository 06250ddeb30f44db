//! The JSON body of a request.

use bytes::Bytes;
use enigma_core::model::{ChatMessage, ModelCall, ResponseFormat, Role, ToolCall, ToolChoice, ToolDefinition};
use serde::Serialize;
use serde_json::Value;

use super::{AnswerForm, Dialect, TokenLimitField};

/// The body that asks `model` for `call`.
pub(super) fn encode(call: &ModelCall, model: &str, dialect: &Dialect) -> Bytes {
    let (stream, include_usage) = match dialect.answers {
        AnswerForm::Stream { usage } => (true, usage),
        AnswerForm::Whole => (false, false),
    };
    let (max_tokens, max_completion_tokens) = match dialect.token_limit {
        TokenLimitField::MaxTokens => (Some(call.max_tokens), None),
        TokenLimitField::MaxCompletionTokens => (None, Some(call.max_tokens)),
    };
    let body = Body {
        model,
        messages: call.messages.iter().map(Message::from).collect(),
        stream,
        stream_options: include_usage.then_some(StreamOptions { include_usage }),
        max_tokens,
        max_completion_tokens,
        temperature: call.sampling.temperature,
        top_p: call.sampling.top_p,
        frequency_penalty: call.sampling.frequency_penalty,
        presence_penalty: call.sampling.presence_penalty,
        seed: call.sampling.seed,
        stop: &call.sampling.stop,
        tools: call.tools.iter().map(Tool::from).collect(),
        // Without tools there is nothing to choose, and servers refuse a choice then. `auto` is the default everywhere.
        tool_choice: if call.tools.is_empty() { None } else { choice(&call.tool_choice) },
        response_format: format(&call.response_format),
    };
    let json = serde_json::to_vec(&body).expect("texts, numbers and JSON values have a JSON form");
    Bytes::from(json)
}

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    messages: Vec<Message<'a>>,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frequency_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    presence_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<i64>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    stop: &'a [String],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<Choice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<Format<'a>>,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Call<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<&'a str>,
}

impl<'a> From<&'a ChatMessage> for Message<'a> {
    fn from(message: &'a ChatMessage) -> Self {
        let calls: &[ToolCall] = if message.role == Role::Assistant { &message.tool_calls } else { &[] };
        Self {
            role: message.role.as_str(),
            // Where only tools are called, nothing was said; some servers refuse an empty text in its place.
            content: (calls.is_empty() || !message.content.is_empty()).then_some(&message.content),
            tool_calls: calls.iter().map(Call::from).collect(),
            tool_call_id: message.tool_call_id.as_deref().filter(|_| message.role == Role::Tool),
        }
    }
}

#[derive(Serialize)]
struct Call<'a> {
    id: &'a str,
    r#type: &'static str,
    function: CallFunction<'a>,
}

#[derive(Serialize)]
struct CallFunction<'a> {
    name: &'a str,
    arguments: &'a str,
}

impl<'a> From<&'a ToolCall> for Call<'a> {
    fn from(call: &'a ToolCall) -> Self {
        let function = CallFunction { name: &call.name, arguments: &call.arguments };
        Self { id: &call.id, r#type: "function", function }
    }
}

#[derive(Serialize)]
struct Tool<'a> {
    r#type: &'static str,
    function: ToolFunction<'a>,
}

#[derive(Serialize)]
struct ToolFunction<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    strict: Option<bool>,
}

impl<'a> From<&'a ToolDefinition> for Tool<'a> {
    fn from(tool: &'a ToolDefinition) -> Self {
        let function = ToolFunction {
            name: &tool.name,
            description: tool.description.as_deref(),
            parameters: tool.parameters.as_ref(),
            strict: tool.strict,
        };
        Self { r#type: "function", function }
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum Choice<'a> {
    Word(&'static str),
    Function { r#type: &'static str, function: ChosenFunction<'a> },
}

#[derive(Serialize)]
struct ChosenFunction<'a> {
    name: &'a str,
}

fn choice(choice: &ToolChoice) -> Option<Choice<'_>> {
    match choice {
        ToolChoice::Auto => None,
        ToolChoice::None => Some(Choice::Word("none")),
        ToolChoice::Required => Some(Choice::Word("required")),
        ToolChoice::Function(name) => Some(Choice::Function { r#type: "function", function: ChosenFunction { name } }),
    }
}

#[derive(Serialize)]
struct Format<'a> {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    json_schema: Option<&'a Value>,
}

fn format(format: &ResponseFormat) -> Option<Format<'_>> {
    match format {
        ResponseFormat::Text => None,
        ResponseFormat::JsonObject => Some(Format { r#type: "json_object", json_schema: None }),
        ResponseFormat::JsonSchema(schema) => Some(Format { r#type: "json_schema", json_schema: Some(schema) }),
    }
}
