//! Vectors.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use enigma_core::ModelId;
use enigma_core::model::{Embedder, EmbeddingCall, Embeddings, ModelError, WHOLE_ANSWER_LIMIT};
use enigma_memory::testing::HashEmbedder;
use enigma_openai::{
    Endpoint, EndpointOptions, InvalidEndpoint, NativeTransport, OpenAiEmbedder, Secret, TransportOptions,
};
use futures_util::stream;
use serde_json::{Value, json};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::calls;
use crate::provider::{Provider, piped, typed};

const TWO: &str = r#"{"object":"list","data":[
    {"object":"embedding","index":1,"embedding":[0.25,-1]},{"object":"embedding","index":0,"embedding":"AAAAPwAAgL8="}
],"model":"m","usage":{"prompt_tokens":4,"total_tokens":4}}"#;

fn call() -> EmbeddingCall {
    EmbeddingCall {
        model: ModelId::new("near").unwrap(),
        inputs: vec!["one".to_owned(), "zwei ☔".to_owned()],
        dimensions: None,
        metadata: calls::full().metadata,
    }
}

fn two() -> Response {
    typed("application/json; charset=utf-8", TWO)
}

async fn failure(answer: impl Fn() -> Response + Clone + Send + Sync + 'static) -> ModelError {
    let provider = Provider::start(answer).await;
    provider.embedder_with(|_| {}).embed(&call()).await.unwrap_err()
}

#[tokio::test]
async fn vectors_come_in_the_order_of_their_texts_and_in_either_encoding() {
    let mut provider = Provider::start(two).await;
    let embeddings = provider.embedder_with(|_| {}).embed(&call()).await.unwrap();
    assert_eq!(embeddings, Embeddings { vectors: vec![vec![0.5, -1.0], vec![0.25, -1.0]], prompt_tokens: Some(4) });
    let seen = provider.seen();
    assert_eq!((seen.path.as_str(), seen.headers["accept"].to_str().unwrap()), ("/v1/embeddings", "application/json"));
    let expected = json!({ "model": "near", "input": ["one", "zwei ☔"], "encoding_format": "float" });
    assert_eq!(serde_json::from_slice::<Value>(&seen.body).unwrap(), expected);
}

#[tokio::test]
async fn headers_dimensions_and_the_mapped_model_arrive() {
    let mut provider = Provider::start(two).await;
    let embedder = provider.embedder_with(|options| {
        options.api_key = Some(Secret::new("sk-test"));
        options.models = [(ModelId::new("near").unwrap(), "a chat model of the same name".to_owned())].into();
        options.embeddings = [(ModelId::new("near").unwrap(), "text-embedding-3-small".to_owned())].into();
        options.send_trace_id = true;
    });
    let call = EmbeddingCall { dimensions: Some(2), ..call() };
    embedder.embed(&call).await.unwrap();
    let seen = provider.seen();
    for (name, value) in [
        ("authorization", "Bearer sk-test"),
        ("content-type", "application/json"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("x-trace-id", "trace-1"),
    ] {
        assert_eq!(seen.headers.get(name).map(|value| value.to_str().unwrap()), Some(value), "{name}");
    }
    let body: Value = serde_json::from_slice(&seen.body).unwrap();
    assert_eq!((&body["model"], &body["dimensions"]), (&json!("text-embedding-3-small"), &json!(2)));
    assert!(!format!("{embedder:?}").contains("sk-test"));
}

#[tokio::test]
async fn failures_are_typed_as_those_of_chats_are() {
    let error = failure(|| (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "7")], "{}").into_response()).await;
    assert!(matches!(error, ModelError::RateLimited { retry_after: Some(wait) } if wait == Duration::from_secs(7)));
    let error = failure(|| StatusCode::UNAUTHORIZED.into_response()).await;
    assert!(matches!(error, ModelError::Unauthorized { status: 401 }), "{error:?}");
    let error = failure(|| {
        let body = r#"{"error":{"message":"This model's maximum context length is 8192 tokens","code":null}}"#;
        (StatusCode::BAD_REQUEST, body).into_response()
    });
    assert!(matches!(error.await, ModelError::PromptTooLong));
    let error = failure(|| (StatusCode::NOT_FOUND, r#"{"error":{"code":"model_not_found"}}"#).into_response()).await;
    assert!(matches!(&error, ModelError::Rejected { status: 404, message } if message == "model_not_found"));
    let error = failure(|| StatusCode::SERVICE_UNAVAILABLE.into_response()).await;
    assert!(error.is_retryable() && error.counts_for_breaker(), "{error:?}");
    let error =
        failure(|| typed("application/json", r#"{"error":{"message":"no","code":"overloaded","status":503}}"#)).await;
    assert!(matches!(error, ModelError::Unavailable { .. }), "{error:?}");
}

#[tokio::test]
async fn rubbish_is_no_answer() {
    for answer in [
        || typed("text/html", "<html>Welcome!</html>"),
        || typed("application/json", "<html>Welcome!</html>"),
        || typed("application/json", ""),
        || typed("application/json", "{}"),
        || typed("application/json", r#"{"data":[{"index":0,"embedding":[1]},{"index":0,"embedding":[1]}]}"#),
    ] {
        let error = failure(answer).await;
        assert!(matches!(error, ModelError::Malformed { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn an_answer_without_end_is_read_to_its_bound() {
    let error = failure(|| {
        let pieces = stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 1 << 14])));
        typed("application/json", Body::from_stream(pieces))
    })
    .await;
    assert!(matches!(&error, ModelError::Malformed { message } if message.contains(&WHOLE_ANSWER_LIMIT.to_string())));
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_interrupted_and_secrets_are_taken_out_of_failures() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}/v1", listener.local_addr().unwrap());
    let cut = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"}") {
            stream.read_buf(&mut request).await.unwrap();
        }
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{\"data\":[";
        stream.write_all(head.as_bytes()).await.unwrap();
    };
    let provider = Provider::start(two).await;
    let embedder = provider.embedder_with(|options| options.base_url = base_url);
    let asked = call();
    let (failed, ()) = tokio::join!(embedder.embed(&asked), cut);
    assert!(matches!(failed, Err(ModelError::Interrupted { .. })), "{failed:?}");

    let said = r#"{"error":{"message":"bad key sk-very-secret","code":"sk-very-secret","status":400}}"#;
    let provider = Provider::start(move || typed("application/json", said)).await;
    let embedder = provider.embedder_with(|options| options.api_key = Some(Secret::new("sk-very-secret")));
    let error = embedder.embed(&call()).await.unwrap_err();
    assert!(matches!(&error, ModelError::Rejected { message, .. } if message == "[redacted]"), "{error:?}");
}

#[tokio::test]
async fn who_goes_away_ends_the_exchange() {
    let (bodies, opened) = std::sync::mpsc::channel();
    let provider = Provider::start(move || {
        let (pieces, body) = piped();
        bodies.send(pieces).unwrap();
        typed("application/json", body)
    })
    .await;
    let embedder = provider.embedder_with(|_| {});
    let asked = call();
    let work = embedder.embed(&asked);
    assert!(tokio::time::timeout(Duration::from_millis(300), work).await.is_err(), "the answer has no end yet");
    let pieces = opened.recv().unwrap();
    tokio::time::timeout(Duration::from_secs(10), pieces.closed()).await.expect("the provider sees it");
}

/// A provider that embeds by the words, and answers back to front.
async fn words() -> (OpenAiEmbedder, JoinHandle<()>) {
    let handler = async |Json(body): Json<Value>| {
        let inputs = serde_json::from_value(body["input"].clone()).unwrap();
        let dimensions = body.get("dimensions").map(|dimensions| serde_json::from_value(dimensions.clone()).unwrap());
        let Embeddings { vectors, prompt_tokens } =
            HashEmbedder::default().answer(&EmbeddingCall { inputs, dimensions, ..call() });
        let items = vectors.into_iter().enumerate().rev();
        let data: Vec<_> = items.map(|(index, vector)| json!({ "index": index, "embedding": vector })).collect();
        Json(json!({ "data": data, "usage": { "prompt_tokens": prompt_tokens } }))
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint::new(EndpointOptions::at(format!("http://{}", listener.local_addr().unwrap()))).unwrap();
    let app = Router::new().route("/embeddings", post(handler));
    #[expect(clippy::disallowed_methods, reason = "the provider ends with its test's runtime")]
    let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let transport = NativeTransport::new(&TransportOptions::default()).unwrap();
    (OpenAiEmbedder::new(endpoint, Arc::new(transport)), task)
}

macro_rules! run {
    ($case:ident) => {
        #[tokio::test]
        async fn $case() {
            let (embedder, task) = words().await;
            enigma_contract::embedder::$case(&embedder, "words").await;
            task.abort();
        }
    };
}

enigma_contract::embedder_cases!(run);

#[test]
fn a_model_without_a_name_there_is_refused_at_the_start() {
    let embeddings = [(ModelId::new("near").unwrap(), String::new())].into();
    let options = EndpointOptions { embeddings, ..EndpointOptions::at("http://localhost/v1") };
    assert!(matches!(Endpoint::new(options), Err(InvalidEndpoint::EmptyModelName(_))));
}
