//! The embedding models of Workers AI.

use async_trait::async_trait;
use enigma_core::ModelId;
use enigma_core::model::{Embedder, EmbeddingCall, Embeddings, ModelError};
use serde_json::{Value, json};
use worker::send::SendFuture;

use super::answer::{read_vectors, thrown};
use super::binding::AiBinding;
use super::options::options;

/// The embedding models of Workers AI, such as `@cf/baai/bge-m3`. Gateways and dropped calls are as with
/// [`WorkersAiModel`](super::WorkersAiModel).
///
/// A model has the dimensions that it has: none can be asked for.
#[derive(Debug, Clone)]
pub struct WorkersAiEmbedder {
    binding: AiBinding,
    default_gateway: Option<String>,
}

impl WorkersAiEmbedder {
    /// The most texts that Workers AI takes in one call.
    pub const MAX_BATCH: usize = 100;

    /// The models behind `binding`, for tenants that have a gateway.
    pub const fn new(binding: AiBinding) -> Self {
        Self { binding, default_gateway: None }
    }

    /// Serves tenants without a gateway of their own by the gateway `id`.
    #[must_use]
    pub fn with_default_gateway(mut self, id: impl Into<String>) -> Self {
        self.default_gateway = Some(id.into());
        self
    }
}

#[async_trait]
impl Embedder for WorkersAiEmbedder {
    async fn embed(&self, call: &EmbeddingCall) -> Result<Embeddings, ModelError> {
        let options = options(&call.metadata, self.default_gateway.as_deref())?;
        let inputs = inputs(&call.model, &call.inputs);
        // JavaScript's values live and die in here.
        SendFuture::new(async move {
            let called = self.binding.run(call.model.as_str(), &inputs, &options).await;
            let (returned, exchange) = called.map_err(|error| thrown(&error))?;
            read_vectors(returned, exchange).await
        })
        .await
    }
}

/// What the model is told. A list always, for one text too: the answer is a list of vectors then, and not one.
fn inputs(model: &ModelId, texts: &[String]) -> Value {
    let mut inputs = json!({ "text": texts });
    // It alone refuses texts that are too long, unless it is told to cut them; the others cut, and know no such member.
    if model.as_str().ends_with("/bge-m3") {
        inputs["truncate_inputs"] = true.into();
    }
    inputs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ai::inputs::tests::metadata;
    use futures_util::FutureExt;

    fn assert_shared<T: Clone + Send + Sync + 'static>(_: &T) {}

    #[test]
    fn texts_are_a_list_and_cut_where_the_model_would_refuse_them() {
        let texts = |model: &str| inputs(&model.parse().unwrap(), &["a".to_owned(), "\"☔\"".to_owned()]);
        assert_eq!(texts("@cf/baai/bge-base-en-v1.5"), json!({ "text": ["a", "\"☔\""] }));
        assert_eq!(texts("@cf/baai/bge-m3"), json!({ "text": ["a", "\"☔\""], "truncate_inputs": true }));
    }

    #[test]
    fn without_a_gateway_nothing_leaves() {
        // There is no JavaScript here: a call that left would panic.
        let embedder = WorkersAiEmbedder::new(AiBinding::none()).with_default_gateway("");
        assert_shared(&embedder);
        let call = EmbeddingCall {
            model: "@cf/baai/bge-m3".parse().unwrap(),
            inputs: vec!["a".to_owned()],
            dimensions: None,
            metadata: metadata(),
        };
        let answer = embedder.embed(&call).now_or_never().unwrap();
        assert!(matches!(answer.err(), Some(ModelError::Rejected { .. })));
    }
}
