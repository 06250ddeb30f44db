//! What is said to a provider.

use enigma_core::ModelId;
use enigma_core::model::{ChatMessage, ModelCall, ModelError, ResponseFormat, Role, ToolChoice};
use enigma_openai::{AnswerForm, Dialect, Endpoint, EndpointOptions, InvalidEndpoint, Secret, TokenLimitField};
use serde_json::{Value, json};

use crate::calls;
use crate::provider::{HELLO, Provider, ask, events};

fn body(dialect: Dialect, call: &ModelCall) -> Value {
    let options = EndpointOptions { dialect, ..EndpointOptions::at("http://localhost/v1") };
    let request = Endpoint::new(options).unwrap().request(call).unwrap();
    serde_json::from_slice(request.body()).unwrap()
}

#[test]
fn the_least_call_says_no_more_than_it_must() {
    let expected = json!({
        "model": "small",
        "messages": [{ "role": "user", "content": "Hi" }],
        "stream": true,
        "stream_options": { "include_usage": true },
        "max_tokens": 64,
    });
    assert_eq!(body(Dialect::default(), &calls::simple()), expected);
}

#[test]
fn the_full_call_says_everything() {
    let call = json!({ "id": "c1", "type": "function", "function": { "name": "weather", "arguments": "{\"city\":" } });
    let expected = json!({
        "model": "small",
        "messages": [
            { "role": "system", "content": "Be \"brief\"" },
            { "role": "user", "content": "Wie ist das Wetter in Zürich? ☔" },
            { "role": "assistant", "content": null, "tool_calls": [call] },
            { "role": "tool", "content": "", "tool_call_id": "c1" },
            { "role": "assistant", "content": "Let me see", "tool_calls": [call] },
        ],
        "stream": true,
        "stream_options": { "include_usage": true },
        "max_tokens": 64,
        "temperature": 0.5,
        "top_p": 0.9,
        "frequency_penalty": -1.0,
        "presence_penalty": 1.5,
        "seed": -3,
        "stop": ["END", "\n"],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "weather",
                    "description": "Tells the weather",
                    "parameters": { "type": "object", "properties": { "city": { "type": "string" } } },
                    "strict": true,
                },
            },
            { "type": "function", "function": { "name": "now" } },
        ],
        "tool_choice": { "type": "function", "function": { "name": "weather" } },
        "response_format": { "type": "json_schema", "json_schema": { "name": "w", "schema": { "type": "object" } } },
    });
    assert_eq!(body(Dialect::default(), &calls::full()), expected);
}

#[test]
fn dialects_change_what_is_said() {
    let quiet = Dialect { answers: AnswerForm::Stream { usage: false }, ..Dialect::default() };
    let said = body(quiet, &calls::simple());
    assert_eq!((&said["stream"], said.get("stream_options")), (&json!(true), None));

    let whole =
        Dialect { answers: AnswerForm::Whole, token_limit: TokenLimitField::MaxCompletionTokens, ..Dialect::default() };
    let said = body(whole, &calls::simple());
    assert_eq!((&said["stream"], said.get("stream_options")), (&json!(false), None));
    assert_eq!((said.get("max_tokens"), &said["max_completion_tokens"]), (None, &json!(64)));
}

#[test]
fn choices_and_formats_have_their_words() {
    for (choice, word) in [(ToolChoice::None, json!("none")), (ToolChoice::Required, json!("required"))] {
        let call = ModelCall { tool_choice: choice, response_format: ResponseFormat::JsonObject, ..calls::full() };
        let said = body(Dialect::default(), &call);
        assert_eq!((&said["tool_choice"], &said["response_format"]), (&word, &json!({ "type": "json_object" })));
    }
    let call = ModelCall { tool_choice: ToolChoice::Required, ..calls::simple() };
    assert_eq!(body(Dialect::default(), &call).get("tool_choice"), None, "there is nothing to choose from");
}

#[test]
fn members_of_other_roles_are_not_sent() {
    let mut call = calls::full();
    let all = ChatMessage { role: Role::User, content: String::new(), ..call.messages[2].clone() };
    call.messages = vec![ChatMessage { tool_call_id: Some("c1".into()), ..all }];
    assert_eq!(body(Dialect::default(), &call)["messages"], json!([{ "role": "user", "content": "" }]));
}

#[test]
fn what_the_provider_cannot_do_is_refused_before_it_is_asked() {
    let with = |dialect: Dialect, call: &ModelCall| {
        let options = EndpointOptions { dialect, ..EndpointOptions::at("http://localhost") };
        Endpoint::new(options).unwrap().request(call).map(drop)
    };
    let tools = with(Dialect { tools: false, ..Dialect::default() }, &calls::full());
    assert!(matches!(tools, Err(ModelError::Unsupported { feature: "tools" })));
    let format = with(Dialect { response_format: false, ..Dialect::default() }, &calls::full());
    assert!(matches!(format, Err(ModelError::Unsupported { feature: "response_format" })));
    assert!(with(Dialect { tools: false, response_format: false, ..Dialect::default() }, &calls::simple()).is_ok());
}

#[tokio::test]
async fn headers_and_the_mapped_model_arrive() {
    let mut provider = Provider::start(|| events(HELLO)).await;
    let model = provider.model_with(|options| {
        options.api_key = Some(Secret::new("sk-test"));
        options.headers = vec![("X-Extra".into(), Secret::new("yes"))];
        options.models = [(ModelId::new("small").unwrap(), "llama3.2:1b".to_owned())].into();
        options.send_trace_id = true;
        options.ai_gateway = true;
    });
    ask(&model, &calls::full()).await.unwrap();

    let seen = provider.seen();
    for (name, value) in [
        ("authorization", "Bearer sk-test"),
        ("content-type", "application/json"),
        ("x-extra", "yes"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("x-trace-id", "trace-1"),
        ("cf-aig-gateway-id", "acme-gateway"),
    ] {
        assert_eq!(seen.headers.get(name).map(|value| value.to_str().unwrap()), Some(value), "{name}");
    }
    let metadata: Value = serde_json::from_slice(seen.headers["cf-aig-metadata"].as_bytes()).unwrap();
    let session = "6f9619ff-8b86-d011-b42d-00cf4fc964ff";
    let expected = json!({ "tenantId": "acme", "traceId": "trace-1", "sessionId": session, "route": "/chat" });
    assert_eq!(metadata, expected);
    assert_eq!(serde_json::from_slice::<Value>(&seen.body).unwrap()["model"], "llama3.2:1b");
}

#[tokio::test]
async fn nothing_is_told_that_was_not_configured() {
    let mut provider = Provider::start(|| events(HELLO)).await;
    let mut call = calls::full();
    call.metadata.traceparent = Some("not a\nheader".into());
    ask(&provider.model(), &call).await.unwrap();
    let seen = provider.seen();
    for name in ["authorization", "x-trace-id", "traceparent", "cf-aig-metadata", "cf-aig-gateway-id"] {
        assert!(!seen.headers.contains_key(name), "{name}");
    }
}

#[test]
fn wrong_options_are_refused_at_the_start() {
    let new = |change: fn(&mut EndpointOptions)| {
        let mut options = EndpointOptions::at("http://localhost/v1");
        change(&mut options);
        Endpoint::new(options).map(drop).unwrap_err()
    };
    let header = |options: &mut EndpointOptions, name: &str, value: &str| {
        options.headers.push((name.to_owned(), Secret::new(value)));
    };
    assert!(matches!(new(|o| o.base_url = "localhost:11434".into()), InvalidEndpoint::BaseUrl(_)));
    assert_eq!(new(|o| o.api_key = Some(Secret::new("a\nb"))), InvalidEndpoint::ApiKey);
    assert_eq!(new(|o| o.headers.push(("a b".into(), Secret::new("c")))), InvalidEndpoint::HeaderName("a b".into()));
    assert_eq!(new(|o| o.headers.push(("x".into(), Secret::new("a\nb")))), InvalidEndpoint::HeaderValue("x".into()));
    for name in ["Host", "Content-Length", "traceparent", "authorization"] {
        let mut options = EndpointOptions::at("http://localhost/v1");
        options.api_key = Some(Secret::new("sk-test"));
        header(&mut options, name, "x");
        assert_eq!(Endpoint::new(options).unwrap_err(), InvalidEndpoint::ReservedHeader(name.to_lowercase()));
    }
    let unnamed = new(|o| drop(o.models.insert(ModelId::new("small").unwrap(), " ".into())));
    assert!(matches!(unnamed, InvalidEndpoint::EmptyModelName(_)));
}

#[test]
fn keys_are_never_shown() {
    let mut options = EndpointOptions::at("http://localhost/v1?key=sk-in-query");
    options.api_key = Some(Secret::new("sk-in-bearer"));
    options.headers = vec![("api-key".into(), Secret::new("sk-in-header"))];
    let shown = format!("{options:?}");
    let endpoint = Endpoint::new(options).unwrap();
    let headers = format!("{:?}", endpoint.request(&calls::simple()).unwrap().headers());
    let shown = format!("{shown} {endpoint:?} {headers}");
    assert!(!shown.contains("sk-"), "{shown}");
    let wrong = Endpoint::new(EndpointOptions::at("http://u:sk-in-url@localhost")).unwrap_err();
    assert!(!format!("{wrong:?} {wrong}").contains("sk-"));
}
