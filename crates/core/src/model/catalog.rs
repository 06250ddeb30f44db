//! Which models there are, and who serves them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ChatModel;
use crate::id::{ModelId, ProviderId};
use crate::tenant::Tenant;

/// Where calls of a model go.
#[derive(Clone)]
pub struct ModelRoute {
    /// The provider, for breakers, logs and records.
    pub provider: ProviderId,
    /// The model itself.
    pub model: Arc<dyn ChatModel>,
}

/// The models of this deployment.
///
/// # Contract
/// - Answers from memory: it is asked on every request.
/// - The answer for one tenant does not depend on what another tenant did.
pub trait ModelCatalog: Send + Sync {
    /// Who serves `model` to `tenant`; `None` when nobody does.
    fn find(&self, tenant: &Tenant, model: &ModelId) -> Option<ModelRoute>;

    /// The models with a name of their own, in order.
    fn models(&self, tenant: &Tenant) -> Vec<ModelId>;
}

/// A catalogue that is the same for every tenant and does not change.
#[derive(Clone, Default)]
pub struct StaticCatalog {
    routes: BTreeMap<ModelId, ModelRoute>,
    default: Option<ModelRoute>,
}

impl StaticCatalog {
    /// An empty catalogue.
    pub fn new() -> Self {
        Self::default()
    }

    /// Serves `model` by `route`. The first route of a model stays: providers are asked in the order of the configuration.
    #[must_use]
    pub fn with_model(mut self, model: ModelId, route: ModelRoute) -> Self {
        self.routes.entry(model).or_insert(route);
        self
    }

    /// Serves every model without a route of its own by `route`, under the name that the client gave.
    #[must_use]
    pub fn with_default(mut self, route: ModelRoute) -> Self {
        self.default.get_or_insert(route);
        self
    }
}

impl ModelCatalog for StaticCatalog {
    fn find(&self, _tenant: &Tenant, model: &ModelId) -> Option<ModelRoute> {
        self.routes.get(model).or(self.default.as_ref()).cloned()
    }

    fn models(&self, _tenant: &Tenant) -> Vec<ModelId> {
        self.routes.keys().cloned().collect()
    }
}
