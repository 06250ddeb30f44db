//! What a provider answers.

use axum::body::{Body, Bytes};
use enigma_core::model::{Delta, FinishReason, ModelError, ToolCallDelta, Usage};
use enigma_openai::AnswerForm;
use futures_util::{StreamExt, stream};

use crate::calls;
use crate::provider::{HELLO, Provider, ask, events, open, piped, typed};

const USAGE: Delta = Delta::Usage(Usage { prompt_tokens: 7, completion_tokens: 2 });

fn content(text: &str) -> Delta {
    Delta::Content(text.to_owned())
}

fn hello() -> Vec<Delta> {
    vec![content("Grüße"), content(" 🌍"), Delta::Finish(FinishReason::Stop), USAGE]
}

#[tokio::test]
async fn a_stream_is_passed_on_while_it_is_made() {
    let (bodies, opened) = std::sync::mpsc::channel();
    let provider = Provider::start(move || {
        let (pieces, body) = piped();
        bodies.send(pieces).unwrap();
        events(body)
    })
    .await;
    let mut answer = open(&provider.model(), &calls::simple()).await.unwrap();
    let pieces = opened.recv().unwrap();
    // Each piece is sent only when the one before it has arrived.
    let mut deltas = Vec::new();
    for event in HELLO.split_inclusive("\n\n").filter(|event| !event.contains("[DONE]")) {
        pieces.send(Ok(Bytes::from_static(event.as_bytes()))).unwrap();
        deltas.push(answer.next().await.unwrap().unwrap());
    }
    drop(pieces);
    assert!(answer.next().await.is_none());
    assert_eq!(deltas, hello());
}

#[tokio::test]
async fn splits_in_events_and_characters_change_nothing() {
    let provider = Provider::start(|| {
        let bytes = HELLO.as_bytes().iter().map(|byte| Ok::<_, std::io::Error>(Bytes::copy_from_slice(&[*byte])));
        events(Body::from_stream(stream::iter(bytes)))
    })
    .await;
    assert_eq!(ask(&provider.model(), &calls::simple()).await.unwrap(), hello());
}

#[tokio::test]
async fn tools_are_called_in_pieces() {
    let provider = Provider::start(|| {
        events(concat!(
            "data: {\"choices\":[{\"delta\":{\"content\":null,\"tool_calls\":[{\"index\":0,\"id\":\"c1\",\"type\":\"function\",",
            "\"function\":{\"name\":\"weather\",\"arguments\":\"\"}}]}}]}\n\n",
            "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{}\"}}]}}]}\n\n",
            "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\ndata: [DONE]\n\n",
        ))
    })
    .await;
    let call = |id: Option<&str>, name: Option<&str>, arguments: &str| {
        let (id, name) = (id.map(str::to_owned), name.map(str::to_owned));
        Delta::ToolCall(ToolCallDelta { index: 0, id, name, arguments: arguments.to_owned() })
    };
    let calls_and_end =
        [call(Some("c1"), Some("weather"), ""), call(None, None, "{}"), Delta::Finish(FinishReason::ToolCalls)];
    assert_eq!(ask(&provider.model(), &calls::full()).await.unwrap(), calls_and_end);
}

#[tokio::test]
async fn usage_may_be_missing() {
    let provider = Provider::start(|| events(HELLO.split_at(HELLO.find("data: {\"choices\":[],").unwrap()).0)).await;
    assert_eq!(ask(&provider.model(), &calls::simple()).await.unwrap(), hello()[..3]);
}

#[tokio::test]
async fn a_whole_answer_is_understood_whatever_was_asked_for() {
    let provider = Provider::start(|| {
        let answer = r#"{"choices":[{"message":{"role":"assistant","content":"Hi"},"finish_reason":"length"}],
            "usage":{"prompt_tokens":7,"completion_tokens":2}}"#;
        typed("application/json; charset=utf-8", answer)
    })
    .await;
    let expected = [content("Hi"), Delta::Finish(FinishReason::Length), USAGE];
    assert_eq!(ask(&provider.model(), &calls::simple()).await.unwrap(), expected);
    let whole = provider.model_with(|options| options.dialect.answers = AnswerForm::Whole);
    assert_eq!(ask(&whole, &calls::simple()).await.unwrap(), expected);
}

#[tokio::test]
async fn a_stream_is_understood_where_none_was_asked_for() {
    let provider = Provider::start(|| events(HELLO)).await;
    let whole = provider.model_with(|options| options.dialect.answers = AnswerForm::Whole);
    assert_eq!(ask(&whole, &calls::simple()).await.unwrap(), hello());
}

#[tokio::test]
async fn a_reset_in_the_middle_is_an_interruption() {
    let provider = Provider::start(|| {
        let start = HELLO.split_inclusive("\n\n").next().unwrap().to_owned();
        let reset = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        events(Body::from_stream(stream::iter([Ok(start), Err(reset)])))
    })
    .await;
    // The head and the first event may be lost together with the connection; what never happens is a silent end.
    match open(&provider.model(), &calls::simple()).await {
        Ok(answer) => {
            let items: Vec<_> = answer.collect().await;
            assert!(matches!(items.last(), Some(Err(ModelError::Interrupted { .. }))), "{items:?}");
        }
        Err(error) => assert!(matches!(error, ModelError::Unavailable { .. }), "{error}"),
    }
}

#[tokio::test]
async fn an_end_without_a_finish_is_an_interruption() {
    let provider = Provider::start(|| events(HELLO.split_inclusive("\n\n").next().unwrap())).await;
    let items: Vec<_> = open(&provider.model(), &calls::simple()).await.unwrap().collect().await;
    assert!(matches!(&items[..], [Ok(Delta::Content(_)), Err(ModelError::Interrupted { .. })]), "{items:?}");
}
