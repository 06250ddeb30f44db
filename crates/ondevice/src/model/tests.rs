use enigma_core::model::{CallMetadata, ChatMessage, Delta, FinishReason, Sampling, ToolCall, ToolDefinition, Usage};
use futures_util::StreamExt;

use super::*;
use crate::testing;

fn model(options: OnDeviceOptions) -> OnDeviceModel {
    OnDeviceModel::read(testing::file(), options).unwrap()
}

fn call(text: &str) -> ModelCall {
    ModelCall {
        model: "tiny".parse().unwrap(),
        messages: vec![ChatMessage::text(Role::System, "s"), ChatMessage::text(Role::User, text)],
        max_tokens: 1000,
        sampling: Sampling { temperature: Some(0.0), ..Sampling::default() },
        tools: Vec::new(),
        tool_choice: ToolChoice::Auto,
        response_format: ResponseFormat::Text,
        metadata: CallMetadata {
            tenant: "acme".parse().unwrap(),
            trace: "t".parse().unwrap(),
            traceparent: None,
            session: None,
            route: "/chat",
            gateway: None,
        },
    }
}

async fn ask(model: &OnDeviceModel, call: &ModelCall) -> Result<Vec<Delta>, ModelError> {
    let answer = model.stream(&call.metadata.tenant, call).await?;
    Ok(answer.map(Result::unwrap).collect().await)
}

#[tokio::test]
async fn an_answer_fills_the_context_and_no_more() {
    let model = model(OnDeviceOptions::default());
    assert_eq!(model.context(), testing::CONTEXT, "the model's own, as it is smaller than the option");
    let deltas = ask(&model, &call("hello")).await.unwrap();
    let [.., Delta::Finish(reason), Delta::Usage(usage)] = deltas[..] else { panic!("{deltas:?}") };
    assert_eq!(reason, FinishReason::Length);
    assert_eq!((usage.prompt_tokens + usage.completion_tokens) as usize, testing::CONTEXT);

    let short = ModelCall { max_tokens: 3, ..call("hello") };
    let deltas = ask(&model, &short).await.unwrap();
    let expected = Usage { prompt_tokens: usage.prompt_tokens, completion_tokens: 3 };
    assert_eq!(deltas[deltas.len() - 2..], [Delta::Finish(FinishReason::Length), Delta::Usage(expected)]);
}

#[tokio::test]
async fn a_prompt_beyond_the_context_is_refused() {
    let model = model(OnDeviceOptions { context: 100, ..OnDeviceOptions::default() });
    let empty = match ask(&model, &ModelCall { max_tokens: 1, ..call("") }).await.unwrap()[..] {
        [.., Delta::Usage(usage)] => usage.prompt_tokens,
        _ => panic!(),
    };
    let of_tokens = |tokens: u32| ModelCall { max_tokens: 1, ..call(&"x".repeat((tokens - empty) as usize)) };
    assert!(ask(&model, &of_tokens(99)).await.is_ok());
    let refused = ask(&model, &of_tokens(100)).await;
    assert!(matches!(refused, Err(ModelError::ContextLength { tokens: 100, limit: 99 })), "{refused:?}");
}

#[tokio::test]
async fn what_it_cannot_do_is_refused() {
    let model = model(OnDeviceOptions::default());
    let tool = ToolDefinition { name: "f".to_owned(), description: None, parameters: None, strict: None };
    let called = ToolCall { id: "1".to_owned(), name: "f".to_owned(), arguments: "{}".to_owned() };
    let mut with_call = call("x");
    with_call.messages[1].tool_calls.push(called);
    let mut with_result = call("x");
    with_result.messages.push(ChatMessage::text(Role::Tool, "y"));
    for (call, expected) in [
        (ModelCall { tools: vec![tool], ..call("x") }, "tools"),
        (ModelCall { tool_choice: ToolChoice::Required, ..call("x") }, "tools"),
        (with_call, "tools"),
        (with_result, "tools"),
        (ModelCall { response_format: ResponseFormat::JsonObject, ..call("x") }, "response_format"),
    ] {
        let refused = ask(&model, &call).await;
        assert!(matches!(refused, Err(ModelError::Unsupported { feature }) if feature == expected), "{refused:?}");
    }
    assert!(ask(&model, &ModelCall { tool_choice: ToolChoice::None, max_tokens: 1, ..call("x") }).await.is_ok());
}

#[test]
fn other_files_are_refused() {
    let garbage = OnDeviceModel::read(std::io::Cursor::new(b"not a model".to_vec()), OnDeviceOptions::default());
    assert!(matches!(garbage, Err(LoadError::Format(_))));
    let missing = OnDeviceModel::load(Path::new("/nonexistent/file"), OnDeviceOptions::default());
    assert!(matches!(missing, Err(LoadError::Open { .. })));
}
