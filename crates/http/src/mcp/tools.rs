//! Tools as the protocol tells of them: what there is, what is called, and what came of it.

use enigma_core::tools::ToolDefinition;
use serde_json::{Map, Value, json};

use super::json_rpc::RpcError;
use super::version::Era;
use crate::error::ApiError;

/// What is called, as far as the protocol knows.
#[derive(Debug, PartialEq)]
pub(crate) struct Called<'a> {
    pub(crate) name: &'a str,
    pub(crate) arguments: Value,
}

/// The result of `tools/list`.
pub(crate) fn listed<'a>(tools: impl Iterator<Item = &'a ToolDefinition>, era: Era) -> Value {
    let tools: Vec<Value> = tools.map(|tool| told(tool, era)).collect();
    json!({ "tools": tools })
}

fn told(tool: &ToolDefinition, era: Era) -> Value {
    let mut told = json!({
        "name": tool.name,
        "description": tool.description,
        "inputSchema": tool.parameters,
    });
    // Before 2026-07-28 a structured result is an object, and its schema says so.
    if era == Era::Modern || tool.output["type"] == "object" {
        told["outputSchema"] = tool.output.clone();
    }
    told
}

/// Reads the parameters of `tools/call`.
///
/// # Errors
/// Where they name no tool, or have arguments that are no object.
pub(crate) fn called(params: &mut Map<String, Value>) -> Result<Called<'_>, RpcError> {
    let arguments = match params.get_mut("arguments").map(Value::take) {
        None | Some(Value::Null) => json!({}),
        Some(arguments @ Value::Object(_)) => arguments,
        Some(_) => return Err(RpcError::invalid_params("arguments must be an object")),
    };
    match params.get("name") {
        Some(Value::String(name)) => Ok(Called { name, arguments }),
        _ => Err(RpcError::invalid_params("name must be a text")),
    }
}

/// A tool that is not there is a fault of the call, not of the tool.
pub(crate) fn unknown() -> RpcError {
    RpcError::invalid_params("Unknown tool")
}

/// The result of a call that has one: as a value, and for older clients as its JSON.
pub(crate) fn succeeded(data: Value, era: Era) -> Value {
    let mut result = json!({ "content": [{ "type": "text", "text": data.to_string() }], "isError": false });
    if era == Era::Modern || data.is_object() {
        result["structuredContent"] = data;
    }
    result
}

/// The result of a call that has none: told in a text, so that the model that has called can do better.
pub(crate) fn failed(error: &ApiError) -> Value {
    let mut text = format!("{}: {}", error.code.as_str(), error.message);
    let issues = error.details.as_deref().and_then(|details| details.get("issues")).and_then(Value::as_array);
    for issue in issues.into_iter().flatten() {
        let of = |name: &str| issue[name].as_str().unwrap_or_default();
        let pointer = if of("pointer").is_empty() { "arguments" } else { of("pointer") };
        text = text + "\n- " + pointer + ": " + of("message");
    }
    if let Some(Value::String(reason)) = error.details.as_deref().and_then(|details| details.get("reason")) {
        text = text + " (" + reason + ")";
    }
    json!({ "content": [{ "type": "text", "text": text }], "isError": true })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;
    use enigma_core::ToolName;
    use std::time::Duration;

    fn tool(output: Value) -> ToolDefinition {
        ToolDefinition {
            name: ToolName::new("count").unwrap(),
            description: "Counts.".to_owned(),
            parameters: json!({ "type": "object" }),
            output,
            timeout: Duration::from_secs(1),
            permissions: Vec::new(),
            takes_documents: false,
        }
    }

    #[test]
    fn tools_are_told_with_the_schemas_that_the_version_knows() {
        let (object, number) = (tool(json!({ "type": "object" })), tool(json!({ "type": "integer" })));
        let told = |tool: &ToolDefinition, era| listed(std::iter::once(tool), era)["tools"][0].clone();
        let whole = json!({
            "name": "count", "description": "Counts.", "inputSchema": { "type": "object" }, "outputSchema": { "type": "object" },
        });
        assert_eq!(told(&object, Era::Handshake), whole);
        assert_eq!(told(&number, Era::Handshake).get("outputSchema"), None);
        assert_eq!(told(&number, Era::Modern)["outputSchema"], json!({ "type": "integer" }));
        assert_eq!(succeeded(json!(3), Era::Handshake).get("structuredContent"), None);
        assert_eq!(succeeded(json!(3), Era::Modern)["structuredContent"], 3);
        assert_eq!(succeeded(json!({ "n": 3 }), Era::Handshake)["content"][0]["text"], "{\"n\":3}");
    }

    #[test]
    fn a_call_names_a_tool_and_has_an_object() {
        let call = |params: Value| {
            let Value::Object(mut params) = params else { panic!("params are an object") };
            called(&mut params).map(|it| (it.name.to_owned(), it.arguments)).map_err(|error| error.code)
        };
        let named = |arguments| Ok(("a/../b\u{0}".to_owned(), arguments));
        assert_eq!(call(json!({ "name": "a/../b\u{0}" })), named(json!({})));
        assert_eq!(call(json!({ "name": "a/../b\u{0}", "arguments": null })), named(json!({})));
        assert_eq!(call(json!({ "name": "a/../b\u{0}", "arguments": { "x": [1] } })), named(json!({ "x": [1] })));
        for bad in [json!({}), json!({ "name": 1 }), json!({ "name": "a", "arguments": [] }), json!({ "name": null })] {
            assert_eq!(call(bad.clone()), Err(super::super::json_rpc::INVALID_PARAMS), "{bad}");
        }
    }

    #[test]
    fn a_failure_is_told_in_a_text() {
        let issues =
            json!({ "issues": [{ "pointer": "/text", "message": "is missing" }, { "pointer": "", "message": "no" }] });
        let error = ApiError { details: Some(Box::new(issues)), ..ApiError::new(ErrorCode::ValidationFailed) };
        let result = failed(&error);
        assert_eq!(result["isError"], true);
        let text = result["content"][0]["text"].as_str().unwrap();
        assert!(
            text.starts_with("VALIDATION_FAILED: ") && text.ends_with("\n- /text: is missing\n- arguments: no"),
            "{text}"
        );
        let reason = ApiError {
            details: Some(Box::new(json!({ "reason": "ai_error" }))),
            ..ApiError::new(ErrorCode::ExecutionError)
        };
        assert!(failed(&reason)["content"][0]["text"].as_str().unwrap().ends_with("(ai_error)"));
    }
}
