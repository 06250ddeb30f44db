//! The model itself.

use async_trait::async_trait;
use enigma_core::TenantId;
use enigma_core::model::{ChatModel, DeltaStream, ModelCall, ModelError};
use worker::send::SendFuture;

use super::answer::{read, thrown};
use super::binding::AiBinding;
use super::inputs::inputs;
use super::options::options;

/// The chat models of Workers AI.
///
/// Every call goes through an AI Gateway: the tenant's own, or else the deployment's default one. Where there is neither, the
/// call is refused before it leaves, as [`ModelError::Rejected`].
///
/// Dropping the answer, or the future that opens it, aborts the call. Where the runtime's class does not hear the signal yet,
/// what still comes is cancelled as soon as it does.
#[derive(Debug, Clone)]
pub struct WorkersAiModel {
    binding: AiBinding,
    default_gateway: Option<String>,
}

impl WorkersAiModel {
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
impl ChatModel for WorkersAiModel {
    async fn stream(&self, _tenant: &TenantId, call: &ModelCall) -> Result<DeltaStream, ModelError> {
        let options = options(&call.metadata, self.default_gateway.as_deref())?;
        let inputs = inputs(call);
        // JavaScript's values live and die in here.
        SendFuture::new(async move {
            let called = self.binding.run(call.model.as_str(), &inputs, &options).await;
            let (returned, exchange) = called.map_err(|error| thrown(&error))?;
            read(returned, exchange).await
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ai::inputs::tests::call;
    use futures_util::FutureExt;

    fn assert_shared<T: Clone + Send + Sync + 'static>(_: &T) {}

    #[test]
    fn without_a_gateway_nothing_leaves() {
        // There is no JavaScript here: a call that left would panic.
        let model = WorkersAiModel::new(AiBinding::none()).with_default_gateway("");
        assert_shared(&model);
        let call = call(Vec::new());
        let answer = model.stream(&call.metadata.tenant, &call).now_or_never().unwrap();
        assert!(matches!(answer.err(), Some(ModelError::Rejected { .. })));
    }
}
