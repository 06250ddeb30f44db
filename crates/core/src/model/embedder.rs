//! Models that turn texts into vectors.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

use super::{CallMetadata, ModelError};
use crate::id::{ModelId, ProviderId};
use crate::tenant::Tenant;

/// A call of an embedding model.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbeddingCall {
    /// The model, by the platform's name; an adapter maps it to its provider's.
    pub model: ModelId,
    /// The texts, none of them empty. An embedder gets at most as many as its route's `max_batch`; an
    /// [`EmbeddingGateway`](super::EmbeddingGateway) takes any number, and cuts them into batches.
    pub inputs: Vec<String>,
    /// How many numbers a vector should have, where the model leaves a choice.
    pub dimensions: Option<u32>,
    /// For the provider's records.
    pub metadata: CallMetadata,
}

/// What an embedding model has made of a call's texts.
#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    /// One for each text, in their order, all with the same number of dimensions.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens that were read, when the provider tells.
    pub prompt_tokens: Option<u32>,
}

/// A model that places texts in a space in which near means alike.
///
/// # Contract
/// - There are as many vectors as texts, in their order; all have as many dimensions, at least one, and only finite numbers. The
///   gateway checks that by [`check_vectors`](super::check_vectors), which also makes them of length 1: an adapter passes on what its
///   provider has answered.
/// - The same text has the same vector, whatever else is in its call, but for rounding.
/// - A text that is too long for the model is cut, unless its provider insists on refusing it.
/// - Who asks for `dimensions` that the model does not have is refused, as [`ModelError::Unsupported`], or gets the model's own: then
///   the gateway refuses the answer.
/// - Dropping the future ends the work soon.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait Embedder: Send + Sync {
    /// Embeds the texts of `call`.
    ///
    /// # Errors
    /// [`ModelError`].
    async fn embed(&self, call: &EmbeddingCall) -> Result<Embeddings, ModelError>;
}

/// Where calls of an embedding model go.
#[derive(Clone)]
pub struct EmbedderRoute {
    /// The provider, for breakers, logs and records.
    pub provider: ProviderId,
    /// The model itself.
    pub embedder: Arc<dyn Embedder>,
    /// The most texts that it takes in one call.
    pub max_batch: usize,
}

/// The embedding models of this deployment. What a [`ModelCatalog`](super::ModelCatalog) promises, it promises too.
pub trait EmbedderCatalog: Send + Sync {
    /// Who serves `model` to `tenant`; `None` when nobody does.
    fn find(&self, tenant: &Tenant, model: &ModelId) -> Option<EmbedderRoute>;
}

/// A catalogue that is the same for every tenant and does not change.
#[derive(Clone, Default)]
pub struct StaticEmbedderCatalog {
    routes: BTreeMap<ModelId, EmbedderRoute>,
    default: Option<EmbedderRoute>,
}

impl StaticEmbedderCatalog {
    /// An empty catalogue.
    pub fn new() -> Self {
        Self::default()
    }

    /// Serves `model` by `route`. The first route of a model stays.
    #[must_use]
    pub fn with_model(mut self, model: ModelId, route: EmbedderRoute) -> Self {
        self.routes.entry(model).or_insert(route);
        self
    }

    /// Serves every model without a route of its own by `route`, under the name that the tenant gave.
    #[must_use]
    pub fn with_default(mut self, route: EmbedderRoute) -> Self {
        self.default.get_or_insert(route);
        self
    }
}

impl EmbedderCatalog for StaticEmbedderCatalog {
    fn find(&self, _tenant: &Tenant, model: &ModelId) -> Option<EmbedderRoute> {
        self.routes.get(model).or(self.default.as_ref()).cloned()
    }
}

/// Checks what a provider has answered to `inputs` texts, and gives each vector the length 1.
///
/// # Errors
/// The reason why it cannot be an answer.
pub fn check_vectors(vectors: &mut [Vec<f32>], inputs: usize) -> Result<(), &'static str> {
    let dimensions = vectors.first().map_or(0, Vec::len);
    if vectors.len() != inputs {
        return Err("there are not as many vectors as texts");
    }
    if vectors.iter().any(|vector| vector.len() != dimensions || vector.is_empty()) {
        return Err("the vectors have not all the same dimensions");
    }
    for vector in vectors {
        let length = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
        if !length.is_finite() || length <= 0.0 {
            return Err("a vector has no direction");
        }
        #[expect(clippy::cast_possible_truncation, reason = "it is at most 1")]
        for x in vector {
            *x = (f64::from(*x) / length) as f32;
        }
    }
    Ok(())
}
