//! Embeddings for clients that do more with vectors than this platform does.

use std::sync::Arc;
use std::time::Duration;

use futures_channel::oneshot;

use crate::admission::{Admission, AdmissionError, Permit, Spent};
use crate::chat::ChatError;
use crate::client::Client;
use crate::id::{ModelId, RequestId, TraceId};
use crate::limit::RateStatus;
use crate::model::{CallMetadata, Embedded, EmbeddingCall, EmbeddingGateway, GatewayError, ModelNotAllowed};
use crate::port_error::degrade;
use crate::ports::{Background, Clock};
use crate::search::{RetrievalError, RetrievalRejected};
use crate::session::estimate_tokens;
use crate::tenant::{Caller, TenantContext};
use crate::time::Timestamp;
use crate::usage::{Ending, UsageRecord};

/// A request for embeddings, parsed and validated.
#[derive(Debug, Clone)]
pub struct EmbedCommand {
    /// The request.
    pub request: RequestId,
    /// Its trace.
    pub trace: TraceId,
    /// W3C trace context to pass on.
    pub traceparent: Option<String>,
    /// The route that it came through, such as `/v1/embeddings`.
    pub route: &'static str,
    /// On whose behalf, and against whose limit.
    pub caller: Caller,
    /// The model; the tenant's when none is named.
    pub model: Option<ModelId>,
    /// The texts, one at least, none of them empty.
    pub inputs: Vec<String>,
    /// How many numbers a vector should have, where the model leaves a choice.
    pub dimensions: Option<u32>,
}

/// Vectors, and what they cost.
#[derive(Debug)]
pub struct EmbedReply {
    /// The vectors.
    pub embedded: Embedded,
    /// The caller's windows.
    pub rate: RateStatus,
}

/// What embedding needs of the world.
#[derive(Clone)]
pub struct EmbedPorts {
    /// Limits, budgets and records.
    pub admission: Admission,
    /// The models.
    pub embeddings: EmbeddingGateway,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// Embeds texts. Cheap to clone.
#[derive(Clone)]
pub struct EmbedService {
    ports: EmbedPorts,
    request_timeout: Duration,
}

type Opening = oneshot::Sender<Result<EmbedReply, RetrievalRejected>>;

impl EmbedService {
    /// A service over `ports`, whose requests may take `request_timeout`.
    pub fn new(ports: EmbedPorts, request_timeout: Duration) -> Self {
        Self { ports, request_timeout }
    }

    /// Embeds the texts of `command`. One task on `background` does all of it, and settles and records exactly once.
    ///
    /// # Errors
    /// [`RetrievalRejected`].
    pub async fn embed(
        &self,
        context: TenantContext,
        command: EmbedCommand,
        background: &dyn Background,
    ) -> Result<EmbedReply, RetrievalRejected> {
        let (timeout, clock) = (self.request_timeout, &self.ports.clock);
        let (client, _present) = Client::<()>::connect(background, clock, timeout, timeout);
        let (opened, opening) = oneshot::channel();
        background.spawn(Box::pin(self.clone().run(context, command, client, opened)));
        opening.await.map_err(|_| RetrievalRejected { error: ChatError::Died.into(), rate: None })?
    }

    async fn run(self, context: TenantContext, command: EmbedCommand, mut client: Client<()>, opening: Opening) {
        let started = self.ports.clock.now();
        let told = self.answer(&context, &command, &mut client, started).await;
        // The caller may have gone.
        let _ = opening.send(told);
    }

    async fn answer(
        &self,
        context: &TenantContext,
        command: &EmbedCommand,
        client: &mut Client<()>,
        started: Timestamp,
    ) -> Result<EmbedReply, RetrievalRejected> {
        let (ports, tenant) = (&self.ports, context.tenant());
        let own = ports.embeddings.model_of(tenant);
        let model = command.model.as_ref().or(own).ok_or(RetrievalError::NoEmbeddingModel)?;
        if own != Some(model) && !tenant.allows_model(model) {
            return Err(RetrievalError::from(ModelNotAllowed(model.clone())).into());
        }
        if !ports.embeddings.serves(tenant, model) {
            return Err(RetrievalError::from(GatewayError::UnknownModel(model.clone())).into());
        }
        let entered = ports.admission.enter(context, &command.caller, command.request, started).await;
        let entry = entered.map_err(RetrievalError::from)?;
        let rate = *entry.rate();
        let tokens = command.inputs.iter().map(|text| estimate_tokens(text)).sum();
        let (spent, record, told) = match ports.admission.reserve(context, &entry, tokens, ports.clock.now()).await {
            Ok(permit) => {
                let work = self.work(context, command, model, &permit, started);
                let outcome = client.race(work).await;
                let (used, ending) = match &outcome {
                    Ok(Ok(embedded)) => (embedded.tokens, Ending::Finished),
                    Ok(Err(_)) => (0, Ending::Failed),
                    // The provider is at work on texts that it has read.
                    Err(ending) => (tokens, *ending),
                };
                let record = self.record(command, model, &outcome, used, ending, started);
                let spent = if used == 0 { Spent::Unused(permit) } else { Spent::Used(permit, used) };
                let told = match outcome {
                    Ok(embedded) => embedded.map_err(RetrievalError::from),
                    Err(Ending::ShutDown) => Err(ChatError::ShuttingDown.into()),
                    Err(Ending::ClientGone) => Err(ChatError::ClientGone.into()),
                    Err(_) => Err(ChatError::TimedOut.into()),
                };
                (spent, Some(record), told)
            }
            Err(error) => {
                let spent = if matches!(error, AdmissionError::Port(_)) { Spent::Unknown } else { Spent::Nothing };
                (spent, None, Err(error.into()))
            }
        };
        degrade(ports.admission.close(context, entry, spent, record.as_ref(), ports.clock.now()).await);
        match told {
            Ok(embedded) => Ok(EmbedReply { embedded, rate }),
            Err(error) => Err(RetrievalRejected { error, rate: Some(rate) }),
        }
    }

    async fn work(
        &self,
        context: &TenantContext,
        command: &EmbedCommand,
        model: &ModelId,
        permit: &Permit,
        started: Timestamp,
    ) -> Result<Embedded, GatewayError> {
        let tenant = context.tenant();
        let metadata = CallMetadata {
            tenant: tenant.id().clone(),
            trace: command.trace.clone(),
            traceparent: command.traceparent.clone(),
            session: None,
            route: command.route,
            gateway: tenant.ai_gateway_id().map(str::to_owned),
        };
        let call = EmbeddingCall {
            model: model.clone(),
            inputs: command.inputs.clone(),
            dimensions: command.dimensions,
            metadata,
        };
        self.ports.embeddings.embed(permit, tenant, call, started.saturating_add(self.request_timeout)).await
    }

    fn record(
        &self,
        command: &EmbedCommand,
        model: &ModelId,
        outcome: &Result<Result<Embedded, GatewayError>, Ending>,
        used: u64,
        ending: Ending,
        started: Timestamp,
    ) -> UsageRecord {
        let embedded = outcome.as_ref().ok().and_then(|outcome| outcome.as_ref().ok());
        UsageRecord {
            request: command.request,
            trace: command.trace.clone(),
            route: command.route.to_owned(),
            user: command.caller.user.clone(),
            session: None,
            model: model.clone(),
            provider: embedded.map(|it| it.provider.clone()),
            at: started,
            latency: self.ports.clock.now().since(started),
            first_token: None,
            tokens_in: u32::try_from(used).unwrap_or(u32::MAX),
            tokens_out: 0,
            characters: None,
            estimated: embedded.is_none_or(|it| it.estimated),
            charged: 0,
            overrun: 0,
            ending,
        }
    }
}
