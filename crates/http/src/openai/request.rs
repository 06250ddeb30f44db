//! The body of `POST /v1/chat/completions`.

use enigma_core::model::{ChatMessage, ResponseFormat, Role, Sampling, ToolCall, ToolChoice, ToolDefinition};
use enigma_core::{ModelId, UserId};
use serde_json::Value;

use crate::validation::{Fields, Issues};

/// A request, parsed and validated.
pub(crate) struct CompletionRequest {
    pub(crate) model: Option<ModelId>,
    pub(crate) messages: Vec<ChatMessage>,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    pub(crate) max_tokens: Option<u32>,
    pub(crate) sampling: Sampling,
    pub(crate) tools: Vec<ToolDefinition>,
    /// Whether the platform's own tools are on offer, and are called here.
    pub(crate) server_tools: bool,
    pub(crate) tool_choice: ToolChoice,
    pub(crate) response_format: ResponseFormat,
    pub(crate) user: Option<UserId>,
}

const MAX_TOOLS: usize = 128;

/// Reads a body. What is wrong is added to `issues`; what is returned then is of no use.
pub(crate) fn parse(body: &Value, issues: &mut Issues) -> Option<CompletionRequest> {
    let fields = Fields::of_body(body, issues)?;
    let model = fields.parsed("model", issues);
    let model = fields.required("model", model, issues);
    let messages = fields.objects("messages", issues);
    let messages = fields.required("messages", messages, issues).unwrap_or_default();
    if fields.list("messages", issues).is_some_and(<[Value]>::is_empty) {
        fields.wrong("messages", "must not be empty", issues);
    }
    let messages = messages.iter().filter_map(|message| parse_message(message, issues)).collect();
    fields.integer_within("n", 1, 1, issues);
    let options = fields.object("stream_options", issues);
    let include_usage = options.and_then(|options| options.boolean("include_usage", issues)).unwrap_or(false);
    let cap = |name, issues: &mut Issues| fields.integer_within(name, 1, u32::MAX.into(), issues);
    let (newer, older) = (cap("max_completion_tokens", issues), cap("max_tokens", issues));
    let server_tools = fields.boolean("server_tools", issues).unwrap_or(false);
    if server_tools && fields.list("tools", issues).is_some_and(|tools| !tools.is_empty()) {
        fields.wrong("server_tools", "must not stand beside tools of the client", issues);
    }
    Some(CompletionRequest {
        model,
        messages,
        stream: fields.boolean("stream", issues).unwrap_or(false),
        include_usage,
        max_tokens: newer.or(older).and_then(|tokens| u32::try_from(tokens).ok()),
        sampling: parse_sampling(&fields, issues),
        tools: parse_tools(&fields, issues),
        server_tools,
        tool_choice: parse_tool_choice(&fields, issues),
        response_format: parse_response_format(&fields, issues),
        user: fields.parsed("user", issues),
    })
}

fn parse_message(message: &Fields<'_>, issues: &mut Issues) -> Option<ChatMessage> {
    let role = message.text("role", issues);
    let role = match message.required("role", role, issues)? {
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" => Role::Tool,
        _ => {
            message.wrong("role", "must be system, developer, user, assistant or tool", issues);
            return None;
        }
    };
    let tool_calls: Vec<ToolCall> = match role {
        Role::Assistant => message
            .objects("tool_calls", issues)
            .unwrap_or_default()
            .iter()
            .filter_map(|call| parse_tool_call(call, issues))
            .collect(),
        _ => Vec::new(),
    };
    let content = parse_content(message, issues);
    if content.is_none() && tool_calls.is_empty() && message.value("content").is_none() {
        message.wrong("content", "is required", issues);
    }
    let tool_call_id = match role {
        Role::Tool => {
            let id = message.text("tool_call_id", issues);
            message.required("tool_call_id", id, issues)
        }
        _ => None,
    };
    Some(ChatMessage {
        role,
        content: content.unwrap_or_default(),
        tool_calls,
        tool_call_id: tool_call_id.map(str::to_owned),
    })
}

/// A string, or a list of parts of which only texts are understood.
fn parse_content(message: &Fields<'_>, issues: &mut Issues) -> Option<String> {
    match message.value("content")? {
        Value::String(text) => Some(text.clone()),
        Value::Array(_) => {
            let mut joined = String::new();
            for part in message.objects("content", issues)? {
                match part.text("type", issues) {
                    Some("text") => {
                        let text = part.text("text", issues);
                        joined.push_str(part.required("text", text, issues).unwrap_or_default());
                    }
                    _ => part.wrong("type", "must be text: other parts are not supported", issues),
                }
            }
            Some(joined)
        }
        _ => {
            message.wrong("content", "must be a string or a list of parts", issues);
            None
        }
    }
}

fn parse_tool_call(call: &Fields<'_>, issues: &mut Issues) -> Option<ToolCall> {
    let id = call.text("id", issues);
    let id = call.required("id", id, issues);
    let function = call.object("function", issues);
    let function = call.required("function", function, issues)?;
    let name = function.text("name", issues);
    let name = function.required("name", name, issues);
    let arguments = function.text("arguments", issues);
    let arguments = function.required("arguments", arguments, issues);
    Some(ToolCall { id: id?.to_owned(), name: name?.to_owned(), arguments: arguments?.to_owned() })
}

fn parse_sampling(fields: &Fields<'_>, issues: &mut Issues) -> Sampling {
    Sampling {
        temperature: fields.number_within("temperature", 0.0, 2.0, issues),
        top_p: fields.number_within("top_p", 0.0, 1.0, issues),
        frequency_penalty: fields.number_within("frequency_penalty", -2.0, 2.0, issues),
        presence_penalty: fields.number_within("presence_penalty", -2.0, 2.0, issues),
        seed: fields.integer("seed", issues),
        stop: parse_stop(fields, issues),
    }
}

fn parse_stop(fields: &Fields<'_>, issues: &mut Issues) -> Vec<String> {
    let texts: Option<Vec<String>> = match fields.value("stop") {
        None => return Vec::new(),
        Some(Value::String(text)) => Some(vec![text.clone()]),
        Some(Value::Array(list)) => list.iter().map(|text| text.as_str().map(str::to_owned)).collect(),
        Some(_) => None,
    };
    match texts {
        Some(texts) if texts.len() <= 4 && texts.iter().all(|text| !text.is_empty()) => texts,
        _ => {
            fields.wrong("stop", "must be a text, or a list of at most four texts", issues);
            Vec::new()
        }
    }
}

fn parse_tools(fields: &Fields<'_>, issues: &mut Issues) -> Vec<ToolDefinition> {
    let tools = fields.objects("tools", issues).unwrap_or_default();
    if tools.len() > MAX_TOOLS {
        fields.wrong("tools", format!("must have at most {MAX_TOOLS} members"), issues);
    }
    tools
        .iter()
        .filter_map(|tool| {
            if tool.text("type", issues) != Some("function") {
                tool.wrong("type", "must be function", issues);
            }
            let function = tool.object("function", issues);
            let function = tool.required("function", function, issues)?;
            let name = function.text_within("name", 1, 64, issues);
            let name = function.required("name", name, issues)?;
            function.object("parameters", issues);
            Some(ToolDefinition {
                name: name.to_owned(),
                description: function.text("description", issues).map(str::to_owned),
                parameters: function.value("parameters").cloned(),
                strict: function.boolean("strict", issues),
            })
        })
        .collect()
}

fn parse_tool_choice(fields: &Fields<'_>, issues: &mut Issues) -> ToolChoice {
    let Some(value) = fields.value("tool_choice") else { return ToolChoice::Auto };
    match value.as_str() {
        Some("auto") => return ToolChoice::Auto,
        Some("none") => return ToolChoice::None,
        Some("required") => return ToolChoice::Required,
        _ => {}
    }
    if let Some(name) = value.pointer("/function/name").and_then(Value::as_str) {
        return ToolChoice::Function(name.to_owned());
    }
    fields.wrong("tool_choice", "must be auto, none, required or a function", issues);
    ToolChoice::Auto
}

fn parse_response_format(fields: &Fields<'_>, issues: &mut Issues) -> ResponseFormat {
    let Some(format) = fields.object("response_format", issues) else { return ResponseFormat::Text };
    match format.text("type", issues) {
        Some("text") => ResponseFormat::Text,
        Some("json_object") => ResponseFormat::JsonObject,
        Some("json_schema") => {
            format.object("json_schema", issues);
            let schema = format.value("json_schema");
            let schema = format.required("json_schema", schema, issues);
            schema.map_or(ResponseFormat::Text, |schema| ResponseFormat::JsonSchema(schema.clone()))
        }
        _ => {
            format.wrong("type", "must be text, json_object or json_schema", issues);
            ResponseFormat::Text
        }
    }
}
