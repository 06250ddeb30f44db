//! Calls to ask.

use enigma_core::model::{
    CallMetadata, ChatMessage, ModelCall, ResponseFormat, Role, Sampling, ToolCall, ToolChoice, ToolDefinition,
};
use enigma_core::{ModelId, TenantId, TraceId};
use serde_json::json;

/// The least that can be asked.
pub(crate) fn simple() -> ModelCall {
    ModelCall {
        model: ModelId::new("small").unwrap(),
        messages: vec![ChatMessage::text(Role::User, "Hi")],
        max_tokens: 64,
        sampling: Sampling::default(),
        tools: Vec::new(),
        tool_choice: ToolChoice::Auto,
        response_format: ResponseFormat::Text,
        metadata: CallMetadata {
            tenant: TenantId::new("acme").unwrap(),
            trace: TraceId::new("trace-1").unwrap(),
            traceparent: None,
            session: None,
            route: "/chat",
            gateway: None,
        },
    }
}

/// A call with all there is.
pub(crate) fn full() -> ModelCall {
    let call = ToolCall { id: "c1".into(), name: "weather".into(), arguments: "{\"city\":".into() };
    let silent = ChatMessage { tool_calls: vec![call.clone()], ..ChatMessage::text(Role::Assistant, "") };
    let spoken = ChatMessage { tool_calls: vec![call], ..ChatMessage::text(Role::Assistant, "Let me see") };
    let result = ChatMessage { tool_call_id: Some("c1".into()), ..ChatMessage::text(Role::Tool, "") };
    let tool = ToolDefinition {
        name: "weather".into(),
        description: Some("Tells the weather".into()),
        parameters: Some(json!({ "type": "object", "properties": { "city": { "type": "string" } } })),
        strict: Some(true),
    };
    let bare = ToolDefinition { name: "now".into(), description: None, parameters: None, strict: None };
    let mut full = simple();
    full.messages = vec![
        ChatMessage::text(Role::System, "Be \"brief\""),
        ChatMessage::text(Role::User, "Wie ist das Wetter in Zürich? ☔"),
        silent,
        result,
        spoken,
    ];
    full.sampling = Sampling {
        temperature: Some(0.5),
        top_p: Some(0.9),
        frequency_penalty: Some(-1.0),
        presence_penalty: Some(1.5),
        seed: Some(-3),
        stop: vec!["END".into(), "\n".into()],
    };
    full.tools = vec![tool, bare];
    full.tool_choice = ToolChoice::Function("weather".into());
    full.response_format = ResponseFormat::JsonSchema(json!({ "name": "w", "schema": { "type": "object" } }));
    full.metadata.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
    full.metadata.session = Some("6f9619ff-8b86-d011-b42d-00cf4fc964ff".parse().unwrap());
    full.metadata.gateway = Some("acme-gateway".into());
    full
}
