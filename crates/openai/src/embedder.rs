//! The embedding models of an endpoint.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use enigma_core::model::{Embedder, EmbeddingCall, Embeddings, ModelError, read_failure};

use crate::answer::read_vectors;
use crate::model::{Form, not_sent};
use crate::protocol::Endpoint;
use crate::transport::Transport;

/// The embedding models of one endpoint. What a provider refuses because a text is too long is not cut here: chunks are short.
#[derive(Clone)]
pub struct OpenAiEmbedder {
    endpoint: Endpoint,
    transport: Arc<dyn Transport>,
}

impl OpenAiEmbedder {
    /// The most texts that a call should have: what the most modest of the usual servers take.
    pub const MAX_BATCH: usize = 32;

    /// The models of `endpoint`, asked through `transport`.
    pub fn new(endpoint: Endpoint, transport: Arc<dyn Transport>) -> Self {
        Self { endpoint, transport }
    }
}

impl fmt::Debug for OpenAiEmbedder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenAiEmbedder").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

#[async_trait]
impl Embedder for OpenAiEmbedder {
    async fn embed(&self, call: &EmbeddingCall) -> Result<Embeddings, ModelError> {
        let request = self.endpoint.embedding_request(call);
        let (head, body) = self.transport.send(request).await.map_err(not_sent)?.into_parts();
        if !head.status.is_success() {
            let body = read_failure(body).await;
            return Err(self.endpoint.failure(&head, &body));
        }
        if Form::of(&head.headers, false) == Form::Page {
            return Err(ModelError::Malformed { message: "the provider answered with a web page".to_owned() });
        }
        read_vectors(body).await.map_err(|error| self.endpoint.scrubber().error(error))
    }
}
