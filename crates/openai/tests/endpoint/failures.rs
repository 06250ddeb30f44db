//! How a provider fails.

use std::error::Error as StdError;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use enigma_core::model::{ModelError, Phase};
use enigma_openai::Secret;
use tokio::net::TcpListener;

use crate::calls;
use crate::provider::{HELLO, Provider, ask, events, typed};

async fn failure(answer: impl Fn() -> Response + Clone + Send + Sync + 'static) -> ModelError {
    let provider = Provider::start(answer).await;
    ask(&provider.model(), &calls::simple()).await.unwrap_err()
}

#[tokio::test]
async fn patience_is_asked_for_in_seconds() {
    let error = failure(|| (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "7")], "{}").into_response()).await;
    assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
    assert!(matches!(error, ModelError::RateLimited { .. }));
}

#[tokio::test]
async fn wrong_credentials_are_not_tried_again_and_not_repeated() {
    let provider = Provider::start(|| {
        (StatusCode::UNAUTHORIZED, r#"{"error":{"message":"Incorrect API key: sk-very-secret"}}"#).into_response()
    })
    .await;
    let model = provider.model_with(|options| options.api_key = Some(Secret::new("sk-very-secret")));
    let error = ask(&model, &calls::simple()).await.unwrap_err();
    assert!(matches!(error, ModelError::Unauthorized { status: 401 }));
    assert!(!format!("{error:?} {error} {model:?}").contains("sk-very-secret"));
}

#[tokio::test]
async fn a_key_that_a_provider_repeats_in_its_stream_is_taken_out() {
    for media_type in ["text/event-stream", "application/json"] {
        let provider = Provider::start(move || {
            let error = r#"{"error":{"message":"bad key sk-very-secret","code":"sk-very-secret","status":400}}"#;
            let body = if media_type == "application/json" { error.into() } else { format!("data: {error}\n\n") };
            typed(media_type, body)
        })
        .await;
        let model = provider.model_with(|options| options.api_key = Some(Secret::new("sk-very-secret")));
        let error = ask(&model, &calls::simple()).await.unwrap_err();
        assert!(matches!(&error, ModelError::Rejected { message, .. } if message == "[redacted]"), "{error:?}");
    }
}

#[tokio::test]
async fn a_refusal_carries_the_providers_name_for_it_alone() {
    let error = failure(|| {
        let body = r#"{"error":{"message":"bad schema in: Hi","code":"invalid_schema"},"prompt":"Hi"}"#;
        (StatusCode::BAD_REQUEST, body).into_response()
    })
    .await;
    let ModelError::Rejected { status: 400, message } = &error else { panic!("{error:?}") };
    assert_eq!(message, "invalid_schema");
    assert!(!error.is_retryable() && !error.allows_fallback());
}

#[tokio::test]
async fn a_prompt_that_does_not_fit_is_told_from_other_refusals() {
    let error = failure(|| {
        let body = r#"{"error":{"message":"maximum context length is 8192 tokens","code":"context_length_exceeded"}}"#;
        (StatusCode::BAD_REQUEST, body).into_response()
    })
    .await;
    assert!(matches!(error, ModelError::PromptTooLong), "{error:?}");
}

#[tokio::test]
async fn a_failing_provider_is_unavailable() {
    let error = failure(|| (StatusCode::INTERNAL_SERVER_ERROR, r#"{"error":"out of memory"}"#).into_response()).await;
    assert_eq!(error.to_string(), "provider unavailable: status 500 (unnamed error)");
    let error = failure(|| (StatusCode::BAD_GATEWAY, "<html>nginx</html>").into_response()).await;
    assert_eq!(error.to_string(), "provider unavailable: status 502 (unnamed error)");
    let error = failure(|| StatusCode::GATEWAY_TIMEOUT.into_response()).await;
    assert!(matches!(error, ModelError::Timeout(Phase::FirstToken)));
}

#[tokio::test]
async fn rubbish_is_no_answer() {
    for answer in [
        || typed("text/html", "<html>Welcome!</html>"),
        || typed("application/json", "<html>Welcome!</html>"),
        || typed("application/json", ""),
        || typed("application/json", "{}"),
        || events("data: <html>\n\n"),
    ] {
        let error = failure(answer).await;
        assert!(matches!(error, ModelError::Malformed { .. }), "{error:?}");
    }
    let error = failure(|| typed("text/plain", "Welcome!")).await;
    assert!(matches!(error, ModelError::Interrupted { .. }), "{error:?}");
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let other = Provider::start(|| events(HELLO)).await;
    let location = format!("{}/chat/completions", other.base_url);
    let error =
        failure(move || (StatusCode::TEMPORARY_REDIRECT, [("location", location.clone())]).into_response()).await;
    assert!(matches!(error, ModelError::Rejected { status: 307, .. }), "{error:?}");
    assert_eq!(other.connections(), 0);
}

#[tokio::test]
async fn a_refused_connection_is_unavailable_and_names_no_url() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let provider = Provider::start(|| events(HELLO)).await;
    let model = provider.model_with(|options| options.base_url = format!("http://{address}/v1?key=sk-1"));
    let error = ask(&model, &calls::simple()).await.unwrap_err();
    assert!(matches!(error, ModelError::Unavailable { .. }), "{error:?}");
    let mut cause: &dyn StdError = &error;
    while let Some(source) = cause.source() {
        assert!(!source.to_string().contains("sk-1"), "{source}");
        cause = source;
    }
    assert!(cause.to_string().contains("refused"), "{cause}");
    assert!(!format!("{error:?}").contains("sk-1"), "{error:?}");
}
