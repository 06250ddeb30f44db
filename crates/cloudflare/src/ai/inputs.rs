//! What a model of Workers AI is asked.

use enigma_core::model::{ChatMessage, ModelCall, ResponseFormat, Role, ToolCall, ToolChoice, ToolDefinition};
use serde_json::{Map, Value, json};

/// The inputs of a chat model, in OpenAI's shape, which Workers AI shares. What the call leaves open is left out. A stream is
/// always asked for: a model that cannot stream answers whole, which is understood as well.
pub(super) fn inputs(call: &ModelCall) -> Value {
    let mut inputs = Map::new();
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            inputs.insert(name.to_owned(), value);
        }
    };
    let sampling = &call.sampling;
    set("messages", Some(call.messages.iter().map(message).collect()));
    set("stream", Some(true.into()));
    set("max_tokens", Some(call.max_tokens.into()));
    set("temperature", sampling.temperature.map(Value::from));
    set("top_p", sampling.top_p.map(Value::from));
    set("frequency_penalty", sampling.frequency_penalty.map(Value::from));
    set("presence_penalty", sampling.presence_penalty.map(Value::from));
    set("seed", sampling.seed.map(Value::from));
    set("stop", (!sampling.stop.is_empty()).then(|| sampling.stop.as_slice().into()));
    // Without tools there is nothing to choose. `auto` is the default.
    if !call.tools.is_empty() {
        set("tools", Some(call.tools.iter().map(tool).collect()));
        set("tool_choice", choice(&call.tool_choice));
    }
    set("response_format", format(&call.response_format));
    inputs.into()
}

fn message(message: &ChatMessage) -> Value {
    // A text even where only tools are called: the schemas of many models refuse `null`.
    let mut shaped = json!({ "role": message.role.as_str(), "content": message.content });
    match message.role {
        Role::Assistant if !message.tool_calls.is_empty() => {
            shaped["tool_calls"] = message.tool_calls.iter().map(tool_call).collect();
        }
        Role::Tool => {
            if let Some(id) = &message.tool_call_id {
                shaped["tool_call_id"] = id.as_str().into();
            }
        }
        Role::System | Role::User | Role::Assistant => {}
    }
    shaped
}

fn tool_call(call: &ToolCall) -> Value {
    json!({ "id": call.id, "type": "function", "function": { "name": call.name, "arguments": call.arguments } })
}

fn tool(tool: &ToolDefinition) -> Value {
    let mut function = json!({ "name": tool.name });
    if let Some(description) = &tool.description {
        function["description"] = description.as_str().into();
    }
    if let Some(parameters) = &tool.parameters {
        function["parameters"] = parameters.clone();
    }
    if let Some(strict) = tool.strict {
        function["strict"] = strict.into();
    }
    json!({ "type": "function", "function": function })
}

fn choice(choice: &ToolChoice) -> Option<Value> {
    match choice {
        ToolChoice::Auto => None,
        ToolChoice::None => Some("none".into()),
        ToolChoice::Required => Some("required".into()),
        ToolChoice::Function(name) => Some(json!({ "type": "function", "function": { "name": name } })),
    }
}

fn format(format: &ResponseFormat) -> Option<Value> {
    match format {
        ResponseFormat::Text => None,
        ResponseFormat::JsonObject => Some(json!({ "type": "json_object" })),
        ResponseFormat::JsonSchema(schema) => Some(json!({ "type": "json_schema", "json_schema": schema })),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use enigma_core::model::{CallMetadata, Sampling};

    pub(crate) fn metadata() -> CallMetadata {
        CallMetadata {
            tenant: "acme".parse().unwrap(),
            trace: "trace-1".parse().unwrap(),
            traceparent: None,
            session: None,
            route: "/chat",
            gateway: None,
        }
    }

    pub(crate) fn call(messages: Vec<ChatMessage>) -> ModelCall {
        ModelCall {
            model: "@cf/meta/llama".parse().unwrap(),
            messages,
            max_tokens: 256,
            sampling: Sampling::default(),
            tools: Vec::new(),
            tool_choice: ToolChoice::Required,
            response_format: ResponseFormat::Text,
            metadata: metadata(),
        }
    }

    #[test]
    fn the_least_call_says_no_more_than_it_must() {
        let inputs = inputs(&call(vec![ChatMessage::text(Role::System, "s"), ChatMessage::text(Role::User, "hi")]));
        let messages = json!([{ "role": "system", "content": "s" }, { "role": "user", "content": "hi" }]);
        assert_eq!(inputs, json!({ "messages": messages, "stream": true, "max_tokens": 256 }));
    }

    #[test]
    fn a_full_call_says_everything() {
        let parameters = json!({ "type": "object", "properties": { "__proto__": { "maximum": u64::MAX } } });
        let call = ModelCall {
            sampling: Sampling {
                temperature: Some(0.0),
                top_p: Some(0.5),
                frequency_penalty: Some(-1.0),
                presence_penalty: Some(1.5),
                seed: Some(i64::MIN),
                stop: vec!["\n".to_owned(), "END".to_owned()],
            },
            tools: vec![
                ToolDefinition { name: "a".to_owned(), description: None, parameters: None, strict: None },
                ToolDefinition {
                    name: "b".to_owned(),
                    description: Some("does b".to_owned()),
                    parameters: Some(parameters.clone()),
                    strict: Some(true),
                },
            ],
            tool_choice: ToolChoice::Function("b".to_owned()),
            response_format: ResponseFormat::JsonSchema(json!({ "name": "n", "schema": {} })),
            ..call(vec![ChatMessage::text(Role::User, "hi")])
        };
        let b = json!({ "name": "b", "description": "does b", "parameters": parameters, "strict": true });
        let expected = json!({
            "messages": [{ "role": "user", "content": "hi" }],
            "stream": true,
            "max_tokens": 256,
            "temperature": 0.0,
            "top_p": 0.5,
            "frequency_penalty": -1.0,
            "presence_penalty": 1.5,
            "seed": i64::MIN,
            "stop": ["\n", "END"],
            "tools": [
                { "type": "function", "function": { "name": "a" } },
                { "type": "function", "function": b },
            ],
            "tool_choice": { "type": "function", "function": { "name": "b" } },
            "response_format": { "type": "json_schema", "json_schema": { "name": "n", "schema": {} } },
        });
        assert_eq!(inputs(&call), expected);
    }

    #[test]
    fn a_round_of_tools_is_told_and_members_of_other_roles_are_not() {
        let tool_calls = vec![ToolCall { id: "1".to_owned(), name: "f".to_owned(), arguments: "{".to_owned() }];
        let everything = |role| ChatMessage {
            role,
            content: String::new(),
            tool_calls: tool_calls.clone(),
            tool_call_id: Some("1".to_owned()),
        };
        let calls = json!([{ "id": "1", "type": "function", "function": { "name": "f", "arguments": "{" } }]);
        let messages = [Role::User, Role::Assistant, Role::Tool].map(everything).to_vec();
        let expected = json!([
            { "role": "user", "content": "" },
            { "role": "assistant", "content": "", "tool_calls": calls },
            { "role": "tool", "content": "", "tool_call_id": "1" },
        ]);
        assert_eq!(inputs(&call(messages))["messages"], expected);
    }

    #[test]
    fn choices_and_formats_have_their_words() {
        assert_eq!(choice(&ToolChoice::Auto), None);
        assert_eq!(choice(&ToolChoice::None), Some(json!("none")));
        assert_eq!(choice(&ToolChoice::Required), Some(json!("required")));
        assert_eq!(format(&ResponseFormat::JsonObject), Some(json!({ "type": "json_object" })));
    }
}
