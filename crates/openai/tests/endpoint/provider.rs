//! A provider that says what a test tells it to.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Uri, Version};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::serve::ListenerExt;
use enigma_core::model::{ChatModel, Delta, DeltaStream, ModelCall, ModelError};
use enigma_openai::{
    Endpoint, EndpointOptions, NativeTransport, OpenAiEmbedder, OpenAiModel, OpenAiSynthesizer, TransportOptions,
};
use futures_util::{StreamExt, stream};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

pub(crate) const HELLO: &str = concat!(
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"Grüße\"}}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\" 🌍\"}}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2,\"total_tokens\":9}}\n\n",
    "data: [DONE]\n\n",
);

/// A request as the provider saw it.
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) version: Version,
    pub(crate) body: Bytes,
}

pub(crate) struct Provider {
    pub(crate) base_url: String,
    connections: Arc<AtomicUsize>,
    seen: UnboundedReceiver<Seen>,
    task: JoinHandle<()>,
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Provider {
    /// A provider that answers every request with `answer`.
    pub(crate) async fn start<R: IntoResponse>(answer: impl Fn() -> R + Clone + Send + Sync + 'static) -> Self {
        let connections = Arc::new(AtomicUsize::new(0));
        let (saw, seen) = unbounded_channel();
        let handler = async move |uri: Uri, version: Version, headers: HeaderMap, body: Bytes| {
            saw.send(Seen { path: uri.path().to_owned(), headers, version, body }).ok();
            answer().into_response()
        };
        let app = Router::new()
            .route("/v1/chat/completions", post(handler.clone()))
            .route("/v1/embeddings", post(handler.clone()))
            .route("/v1/audio/speech", post(handler));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}/v1", listener.local_addr().unwrap());
        let count = Arc::clone(&connections);
        let listener = listener.tap_io(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
        });
        #[expect(clippy::disallowed_methods, reason = "the provider ends with its test, which aborts it")]
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { base_url, connections, seen, task }
    }

    pub(crate) fn model(&self) -> OpenAiModel {
        self.model_with(|_| {})
    }

    pub(crate) fn model_with(&self, change: impl FnOnce(&mut EndpointOptions)) -> OpenAiModel {
        let (endpoint, transport) = self.endpoint_with(change);
        OpenAiModel::new(endpoint, transport)
    }

    pub(crate) fn embedder_with(&self, change: impl FnOnce(&mut EndpointOptions)) -> OpenAiEmbedder {
        let (endpoint, transport) = self.endpoint_with(change);
        OpenAiEmbedder::new(endpoint, transport)
    }

    pub(crate) fn synthesizer_with(&self, change: impl FnOnce(&mut EndpointOptions)) -> OpenAiSynthesizer {
        let (endpoint, transport) = self.endpoint_with(change);
        OpenAiSynthesizer::new(endpoint, transport)
    }

    fn endpoint_with(&self, change: impl FnOnce(&mut EndpointOptions)) -> (Endpoint, Arc<NativeTransport>) {
        let mut options = EndpointOptions::at(&self.base_url);
        change(&mut options);
        let transport = NativeTransport::new(&TransportOptions::default()).unwrap();
        (Endpoint::new(options).unwrap(), Arc::new(transport))
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn saw_nothing(&mut self) -> bool {
        self.seen.try_recv().is_err()
    }

    /// The oldest request that was not looked at yet.
    pub(crate) fn seen(&mut self) -> Seen {
        self.seen.try_recv().unwrap()
    }
}

/// An answer with this media type and body.
pub(crate) fn typed(media_type: &'static str, body: impl Into<Body>) -> Response {
    ([("content-type", media_type)], body.into()).into_response()
}

/// A stream of events.
pub(crate) fn events(body: impl Into<Body>) -> Response {
    typed("text/event-stream", body)
}

/// A body that a test writes piece by piece; it ends when the sender is dropped.
pub(crate) fn piped() -> (UnboundedSender<io::Result<Bytes>>, Body) {
    let (sender, receiver) = unbounded_channel();
    let pieces = stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
    (sender, Body::from_stream(pieces))
}

/// Asks for an answer.
pub(crate) async fn open(model: &OpenAiModel, call: &ModelCall) -> Result<DeltaStream, ModelError> {
    model.stream(&call.metadata.tenant, call).await
}

/// Asks for an answer and reads it to its end.
pub(crate) async fn ask(model: &OpenAiModel, call: &ModelCall) -> Result<Vec<Delta>, ModelError> {
    let items: Vec<_> = open(model, call).await?.collect().await;
    items.into_iter().collect()
}
