//! An embedding model that does as the seed likes.

use std::sync::Arc;

use async_trait::async_trait;
use enigma_core::RequestId;
use enigma_core::model::{Embedder, EmbeddingCall, Embeddings, ModelError};
use enigma_memory::testing::HashEmbedder;
use futures_util::future::pending;
use uuid::Uuid;

use crate::model::die;
use crate::plan::{Plan, Steps};
use crate::ports::ledger::JournaledLedger;
use crate::sim::Sim;
use crate::witness::{Witness, number};

pub(crate) struct SimEmbedder {
    pub(crate) plan: Arc<Plan>,
    pub(crate) witness: Witness,
    pub(crate) ledger: JournaledLedger,
}

#[async_trait]
impl Embedder for SimEmbedder {
    async fn embed(&self, call: &EmbeddingCall) -> Result<Embeddings, ModelError> {
        let sim = &self.witness.sim;
        let request = call.metadata.trace.as_str().parse().map(|number| RequestId::new(Uuid::from_u128(number)));
        let Ok(request) = request else {
            sim.violate(format!("a call with the trace {}", call.metadata.trace));
            return Err(ModelError::unavailable("nobody's call"));
        };
        if self.plan.steps != Steps::Wild {
            let reservation = self.ledger.reservation(&call.metadata.tenant, &request);
            let is_covered = reservation.is_some_and(|it| it.end.is_none());
            sim.check(is_covered, || format!("r{} embeds with {reservation:?}", number(&request)));
        }
        self.witness.about(&request, |facts| facts.calls += 1);
        match sim.below(6) {
            0 => sim.pause(sim.between(1, 3000)).await,
            1 => Sim::turns(sim.between(1, 5)).await,
            _ => {}
        }
        if sim.chance(self.plan.rates.model) {
            match sim.below(6) {
                0 => die(),
                1 => pending().await,
                2 => return Ok(Embeddings { vectors: Vec::new(), prompt_tokens: None }),
                3 => return Err(ModelError::Unauthorized { status: 401 }),
                _ => return Err(ModelError::unavailable("told to fail")),
            }
        }
        let mut answer = HashEmbedder::new(16).answer(call);
        answer.prompt_tokens = answer.prompt_tokens.filter(|_| sim.chance(500));
        Ok(answer)
    }
}
