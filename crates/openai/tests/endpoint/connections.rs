//! What becomes of connections.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{StatusCode, Version};
use axum::response::IntoResponse;
use enigma_core::model::ModelError;
use enigma_openai::{Endpoint, EndpointOptions, NativeTransport, OpenAiModel, Secret, TransportOptions};
use futures_util::{StreamExt, future, stream};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::calls;
use crate::provider::{HELLO, Provider, ask, events, open};

fn over_http2(provider: &Provider) -> OpenAiModel {
    let options = TransportOptions { http2_prior_knowledge: true, ..TransportOptions::default() };
    let endpoint = Endpoint::new(EndpointOptions::at(&provider.base_url)).unwrap();
    OpenAiModel::new(endpoint, Arc::new(NativeTransport::new(&options).unwrap()))
}

#[tokio::test]
async fn one_connection_serves_one_request_after_the_other() {
    let mut provider = Provider::start(|| events(HELLO)).await;
    let model = provider.model();
    for _ in 0..5 {
        ask(&model, &calls::simple()).await.unwrap();
        assert_eq!(provider.seen().version, Version::HTTP_11);
    }
    assert_eq!(provider.connections(), 1);
}

#[tokio::test]
async fn a_failure_does_not_cost_the_connection() {
    let provider = Provider::start(|| (StatusCode::BAD_REQUEST, r#"{"error":"no"}"#).into_response()).await;
    let model = provider.model();
    for _ in 0..3 {
        ask(&model, &calls::simple()).await.unwrap_err();
    }
    assert_eq!(provider.connections(), 1);
}

#[tokio::test]
async fn http_2_is_spoken_with_prior_knowledge_and_shares_one_connection() {
    let mut provider = Provider::start(|| events(HELLO)).await;
    let model = over_http2(&provider);
    ask(&model, &calls::simple()).await.unwrap();
    let call = calls::simple();
    let together = future::join_all((0..4).map(|_| ask(&model, &call))).await;
    assert!(together.iter().all(|answer| answer.as_ref().is_ok_and(|deltas| deltas.len() == 4)));
    assert_eq!(provider.seen().version, Version::HTTP_2);
    assert_eq!(provider.connections(), 1);
}

fn through(proxy: &str, base_url: &str) -> OpenAiModel {
    let options = TransportOptions { proxy: Some(Secret::new(proxy)), ..TransportOptions::default() };
    let endpoint = Endpoint::new(EndpointOptions::at(base_url)).unwrap();
    OpenAiModel::new(endpoint, Arc::new(NativeTransport::new(&options).unwrap()))
}

#[tokio::test]
async fn a_proxy_is_used_for_all_but_this_machine() {
    let provider = Provider::start(|| events(HELLO)).await;
    let proxy = provider.base_url.strip_suffix("/v1").unwrap();
    ask(&through(proxy, "http://model.invalid/v1"), &calls::simple()).await.unwrap();
    assert_eq!(provider.connections(), 1);
    ask(&through("http://proxy.invalid", &provider.base_url), &calls::simple()).await.unwrap();
}

#[tokio::test]
async fn a_provider_without_tls_is_not_spoken_to_in_the_clear() {
    let mut provider = Provider::start(|| events(HELLO)).await;
    let url = provider.base_url.replace("http:", "https:");
    let error = ask(&provider.model_with(|options| options.base_url = url), &calls::simple()).await.unwrap_err();
    assert!(matches!(error, ModelError::Unavailable { .. }), "{error:?}");
    assert!(provider.saw_nothing());
}

/// A provider that says one thing and then nothing more, and what tells when it was hung up on.
async fn silent_provider() -> (Provider, oneshot::Receiver<()>) {
    let (body_lives, hung_up) = oneshot::channel::<()>();
    let body_lives = Arc::new(Mutex::new(Some(body_lives)));
    let provider = Provider::start(move || {
        let body_lives = body_lives.lock().unwrap().take();
        let first = Bytes::from(HELLO.split_inclusive("\n\n").next().unwrap());
        let silence = stream::once(async move {
            let _body_lives = body_lives;
            future::pending::<Result<Bytes, std::io::Error>>().await
        });
        events(Body::from_stream(stream::iter([Ok(first)]).chain(silence)))
    })
    .await;
    (provider, hung_up)
}

#[tokio::test]
async fn dropping_the_answer_hangs_up() {
    for http2 in [false, true] {
        let (provider, hung_up) = silent_provider().await;
        let model = if http2 { over_http2(&provider) } else { provider.model() };
        let mut answer = open(&model, &calls::simple()).await.unwrap();
        answer.next().await.unwrap().unwrap();
        drop(answer);
        // The sender is dropped, not used, so that the receiver fails.
        assert!(timeout(Duration::from_secs(1), hung_up).await.expect("the provider was not told").is_err());
    }
}

#[tokio::test]
async fn a_slow_reader_slows_the_provider_down() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let provider = Provider::start(move || {
        let counter = Arc::clone(&counter);
        let piece = format!(": {}\n\n", "x".repeat(16 * 1024));
        let endless = stream::repeat_with(move || {
            counter.fetch_add(piece.len(), Ordering::SeqCst);
            Ok::<_, std::io::Error>(piece.clone())
        });
        let first = HELLO.split_inclusive("\n\n").next().unwrap().to_owned();
        events(Body::from_stream(stream::iter([Ok(first)]).chain(endless)))
    })
    .await;
    let mut answer = open(&over_http2(&provider), &calls::simple()).await.unwrap();
    answer.next().await.unwrap().unwrap();
    // Nobody reads. The window and the server's own buffer are soon full, whatever the socket could take.
    for _ in 0..2000 {
        tokio::task::yield_now().await;
    }
    assert!(sent.load(Ordering::SeqCst) < 4 * 1024 * 1024);
}
