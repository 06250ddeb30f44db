//! Calls of models: retries, fallback, breakers and timeouts, the same for every provider.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use thiserror::Error;

use super::attempts::{Attempt, Attempts, outcome, within};
use super::breaker::Admitted;
use super::{
    BreakerPolicy, Delta, DeltaStream, ModelCall, ModelCatalog, ModelError, ModelPlan, ModelRoute, Outcome, Phase,
    RetryPolicy,
};
use crate::admission::Permit;
use crate::id::{ModelId, ProviderId};
use crate::ports::{Clock, IdSource};
use crate::tenant::Tenant;
use crate::time::Timestamp;

/// How long a model may be silent. Connecting has a timeout of its own in each adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelTimeouts {
    /// From the call to the first piece of the answer.
    pub first_token: Duration,
    /// Between two pieces.
    pub idle: Duration,
}

impl Default for ModelTimeouts {
    fn default() -> Self {
        Self { first_token: Duration::from_secs(60), idle: Duration::from_secs(30) }
    }
}

/// How long the usage of an answer is waited for when its end was seen. Some servers send none, and keep the connection open.
const AFTER_FINISH: Duration = Duration::from_secs(2);

/// Why no model answered.
#[derive(Debug, Error)]
pub enum GatewayError {
    /// Nobody serves this model.
    #[error("nobody serves model {0}")]
    UnknownModel(ModelId),
    /// The last model that was tried failed.
    #[error("model {model} failed")]
    Failed {
        /// That model.
        model: ModelId,
        /// How.
        #[source]
        source: ModelError,
    },
}

/// Calls the models of a plan.
#[derive(Clone)]
pub struct ModelGateway {
    catalog: Arc<dyn ModelCatalog>,
    attempts: Attempts,
    timeouts: ModelTimeouts,
}

impl ModelGateway {
    /// A gateway to the models of `catalog`.
    pub fn new(
        catalog: Arc<dyn ModelCatalog>,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn IdSource>,
        breaker: BreakerPolicy,
        retry: RetryPolicy,
        timeouts: ModelTimeouts,
    ) -> Self {
        Self { catalog, attempts: Attempts::new(clock, ids, breaker, retry), timeouts }
    }

    /// The models that `tenant` can ask for by name: those of the catalogue that it allows, and its own.
    pub fn models(&self, tenant: &Tenant) -> Vec<ModelId> {
        let own = std::iter::once(tenant.chat_model()).chain(tenant.allowed_models().into_iter().flatten());
        let mut models: Vec<ModelId> =
            self.catalog.models(tenant).into_iter().chain(own.cloned()).filter(|m| self.offers(tenant, m)).collect();
        models.sort_unstable();
        models.dedup();
        models
    }

    /// Whether `tenant` may ask for `model`, and somebody serves it.
    pub fn offers(&self, tenant: &Tenant, model: &ModelId) -> bool {
        tenant.allows_model(model) && self.catalog.find(tenant, model).is_some()
    }

    /// Checks that somebody serves the plan's primary model.
    ///
    /// # Errors
    /// [`GatewayError::UnknownModel`].
    pub fn check(&self, tenant: &Tenant, plan: &ModelPlan) -> Result<(), GatewayError> {
        match self.catalog.find(tenant, plan.primary()) {
            Some(_) => Ok(()),
            None => Err(GatewayError::UnknownModel(plan.primary().clone())),
        }
    }

    /// Asks the models of `plan` in order, each as often as the retry policy says, until one begins to answer. Nothing is
    /// tried again once a piece of an answer was seen: it may have reached the client.
    ///
    /// The permit shows that the limiter and the ledger have agreed.
    ///
    /// # Errors
    /// [`GatewayError`], with the failure of the model that was tried last.
    pub async fn open(
        &self,
        _permit: &Permit,
        tenant: &Tenant,
        plan: &ModelPlan,
        call: &mut ModelCall,
        deadline: Timestamp,
    ) -> Result<OpenedReply, GatewayError> {
        let mut failure = GatewayError::UnknownModel(plan.primary().clone());
        for model in plan.models() {
            let Some(route) = self.catalog.find(tenant, model) else { continue };
            call.model = model.clone();
            match self.ask(&route, tenant, call, deadline).await {
                Ok(reply) => return Ok(reply),
                Err(source) => {
                    let may_fall_back = source.allows_fallback();
                    failure = GatewayError::Failed { model: model.clone(), source };
                    if !may_fall_back {
                        break;
                    }
                }
            }
        }
        Err(failure)
    }

    async fn ask(
        &self,
        route: &ModelRoute,
        tenant: &Tenant,
        call: &ModelCall,
        deadline: Timestamp,
    ) -> Result<OpenedReply, ModelError> {
        let (provider, model) = (&route.provider, &call.model);
        let attempt = Attempt { provider, model, limit: self.timeouts.first_token, deadline };
        let opening = || async {
            let mut stream = route.model.stream(tenant.id(), call).await?;
            match stream.next().await {
                Some(Ok(first)) => Ok((first, stream)),
                Some(Err(error)) => Err(error),
                None => Err(ModelError::Interrupted { message: "the answer is empty".to_owned() }),
            }
        };
        let ((first, stream), admitted) = self.attempts.make(attempt, opening).await?;
        admitted.answered();
        Ok(OpenedReply {
            model: model.clone(),
            provider: provider.clone(),
            first: Some(first),
            stream: Some(stream),
            admitted: Some(admitted),
            clock: Arc::clone(&self.attempts.clock),
            idle: self.timeouts.idle,
            finished: false,
        })
    }
}

/// A reply whose first piece has been seen.
pub struct OpenedReply {
    /// The model that answers.
    pub model: ModelId,
    /// Who serves it.
    pub provider: ProviderId,
    first: Option<Delta>,
    stream: Option<DeltaStream>,
    admitted: Option<Admitted>,
    clock: Arc<dyn Clock>,
    idle: Duration,
    finished: bool,
}

impl OpenedReply {
    /// The next piece; `None` when the answer is whole. A reply that breaks off gives an error last. Dropping the reply ends
    /// the model's work.
    pub async fn next(&mut self) -> Option<Result<Delta, ModelError>> {
        if let Some(first) = self.first.take() {
            return Some(Ok(self.note(first)));
        }
        let stream = self.stream.as_mut()?;
        let patience = if self.finished { self.idle.min(AFTER_FINISH) } else { self.idle };
        let item = within(&*self.clock, patience, Phase::Idle, stream.next()).await;
        let failure = match item {
            Ok(Some(Ok(delta))) => return Some(Ok(self.note(delta))),
            // What goes wrong after the end is no harm: only the usage could still have come.
            _ if self.finished => None,
            Ok(Some(Err(error))) | Err(error) => Some(error),
            Ok(None) => Some(ModelError::Interrupted { message: "the answer has no end".to_owned() }),
        };
        self.stream = None;
        if let (Some(admitted), Some(error)) = (self.admitted.take(), &failure) {
            admitted.record(outcome(error), self.clock.now());
        }
        failure.map(Err)
    }

    fn note(&mut self, delta: Delta) -> Delta {
        if matches!(delta, Delta::Finish(_)) {
            self.finished = true;
            if let Some(admitted) = self.admitted.take() {
                admitted.record(Outcome::Success, self.clock.now());
            }
        }
        delta
    }
}
