//! The life of one request for a tool, from its first slot to its last record. One task runs it, whatever the client does.

use futures_channel::oneshot;

use super::audit::AuditOutcome;
use super::command::{KeptResult, ToolCommand, ToolReply};
use super::error::{ToolError, ToolRejected};
use super::perform::{Part, Performed, ReadyTool, ending};
use super::service::ToolService;
use crate::admission::{AdmissionError, Entry, Permit, Spent};
use crate::chat::ChatError;
use crate::client::Client;
use crate::id::ModelId;
use crate::idempotency::{Begin, REPLAY_FOR};
use crate::limit::RateStatus;
use crate::port_error::{PortError, degrade};
use crate::search::Tally;
use crate::tenant::TenantContext;
use crate::time::Timestamp;
use crate::usage::{Ending, UsageRecord};

type Told = oneshot::Sender<Result<ToolReply, ToolRejected>>;

/// One request on its way.
struct Conduct {
    service: ToolService,
    context: TenantContext,
    command: ToolCommand,
    started: Timestamp,
    tally: Tally,
}

/// What a request that had its slots has come to.
struct Outcome {
    spent: Spent,
    record: Option<UsageRecord>,
    result: Result<serde_json::Value, ToolError>,
}

pub(super) async fn conduct(
    service: ToolService,
    context: TenantContext,
    command: ToolCommand,
    client: Client<()>,
    told: Told,
) {
    let started = service.ports().clock.now();
    let conduct = Conduct { service, context, command, started, tally: Tally::default() };
    let reply = conduct.run(client).await;
    // A client that has gone needs no answer.
    let _ = told.send(reply);
}

impl Conduct {
    async fn run(&self, mut client: Client<()>) -> Result<ToolReply, ToolRejected> {
        if let Some(kept) = self.claim_key().await? {
            return self.replay(kept).await;
        }
        let done = self.enter(&mut client).await;
        match &done {
            Ok(reply) => self.keep_answer(reply).await,
            // Before the client is told: its next try must not meet its own key.
            Err(_) => self.free_key().await,
        }
        done
    }

    async fn enter(&self, client: &mut Client<()>) -> Result<ToolReply, ToolRejected> {
        let (ports, command) = (self.service.ports(), &self.command);
        let entry = ports.admission.enter(&self.context, &command.caller, command.request, self.started).await;
        let entry = entry.map_err(ToolError::from)?;
        let rate = *entry.rate();
        let Outcome { spent, record, result } = self.execute(client, &entry).await;
        // The one place where a request that got in is closed, and its audit record written, whatever has become of it.
        let now = ports.clock.now();
        degrade(ports.admission.close(&self.context, entry, spent, record.as_ref(), now).await);
        let outcome = result.as_ref().map_or_else(AuditOutcome::from, |_| AuditOutcome::Succeeded);
        let (duration, tokens) = (now.since(self.started), self.tally.so_far().total());
        self.service.record(self.part(), &command.call, outcome, duration, tokens).await;
        match result {
            Ok(data) => Ok(ToolReply { data, duration, tokens, rate, replayed: false }),
            Err(error) => Err(ToolRejected { rate: Some(rate), ..error.into() }),
        }
    }

    async fn execute(&self, client: &mut Client<()>, entry: &Entry) -> Outcome {
        let ready = match self.service.check(&self.context, &self.command.call) {
            Ok(ready) => ready,
            Err(error) => return Outcome { spent: Spent::Nothing, record: None, result: Err(error) },
        };
        match ready.estimate() {
            0 => {
                let Performed { result, .. } = self.perform(client, &ready, None).await;
                Outcome { spent: Spent::Nothing, record: None, result }
            }
            estimate => self.spend(client, entry, &ready, estimate).await,
        }
    }

    /// Runs a tool that may ask models.
    async fn spend(&self, client: &mut Client<()>, entry: &Entry, ready: &ReadyTool<'_>, estimate: u64) -> Outcome {
        let ports = self.service.ports();
        let permit = match ports.admission.reserve(&self.context, entry, estimate, ports.clock.now()).await {
            Ok(permit) => permit,
            Err(error) => {
                let spent = if matches!(error, AdmissionError::Port(_)) { Spent::Unknown } else { Spent::Nothing };
                return Outcome { spent, record: None, result: Err(error.into()) };
            }
        };
        let Performed { result, model } = self.perform(client, ready, Some(&permit)).await;
        let ending = result.as_ref().err().map_or(Ending::Finished, ending);
        let model = model.unwrap_or_else(|| self.context.tenant().chat_model().clone());
        let record = Some(self.record(model, ending));
        let spent = match self.tally.so_far().total() {
            0 => Spent::Unused(permit),
            total => Spent::Used(permit, total),
        };
        Outcome { spent, record, result }
    }

    async fn perform(&self, client: &mut Client<()>, ready: &ReadyTool<'_>, permit: Option<&Permit>) -> Performed {
        self.service.perform(client, self.part(), ready, permit, &self.tally).await
    }

    fn part(&self) -> Part<'_> {
        Part {
            context: &self.context,
            caller: &self.command.caller,
            request: self.command.request,
            trace: &self.command.trace,
            traceparent: self.command.traceparent.as_deref(),
            route: self.command.route,
            started: self.started,
        }
    }

    fn record(&self, model: ModelId, ending: Ending) -> UsageRecord {
        let spending = self.tally.so_far();
        let clip = |tokens: u64| u32::try_from(tokens).unwrap_or(u32::MAX);
        UsageRecord {
            request: self.command.request,
            trace: self.command.trace.clone(),
            route: self.command.route.to_owned(),
            user: self.command.caller.user.clone(),
            session: None,
            model,
            provider: spending.provider.clone(),
            at: self.started,
            latency: self.service.ports().clock.now().since(self.started),
            first_token: None,
            tokens_in: clip(spending.tokens_in),
            tokens_out: clip(spending.tokens_out),
            characters: None,
            estimated: spending.estimated,
            charged: 0,
            overrun: 0,
            ending,
        }
    }

    /// Asks for the idempotency key; `Some` is the answer of the first request.
    async fn claim_key(&self) -> Result<Option<KeptResult>, ToolError> {
        let Some((key, fingerprint)) = &self.command.idempotency else { return Ok(None) };
        let ports = self.service.ports();
        // Who has no slot left is refused before anything is written.
        let rate = self.peek().await?;
        if rate.remaining == 0 {
            return Err(AdmissionError::RateLimited(rate).into());
        }
        let lease = self.started.saturating_add(self.service.settings().request_timeout * 2);
        let (request, tenant) = (self.command.request, self.context.id());
        let begun = ports.idempotency.begin(tenant, key, fingerprint, request, lease, self.started).await;
        if begun.is_err() {
            // It may have been given the key all the same, and would keep its own repeat out until the lease ends.
            self.free_key().await;
        }
        match begun? {
            Begin::First => Ok(None),
            Begin::InProgress => Err(ChatError::IdempotencyInProgress.into()),
            Begin::Mismatch => Err(ChatError::IdempotencyMismatch.into()),
            Begin::Replay(kept) => serde_json::from_str(&kept)
                .map(Some)
                .map_err(|error| PortError::corrupt("idempotency store", error).into()),
        }
    }

    async fn replay(&self, kept: KeptResult) -> Result<ToolReply, ToolRejected> {
        let rate = self.peek().await.map_err(ToolError::from)?;
        let KeptResult { data, duration, tokens } = kept;
        Ok(ToolReply { data, duration, tokens, rate, replayed: true })
    }

    async fn peek(&self) -> Result<RateStatus, PortError> {
        self.service.ports().admission.peek(&self.context, &self.command.caller, self.started).await
    }

    async fn keep_answer(&self, reply: &ToolReply) {
        let Some((key, _)) = &self.command.idempotency else { return };
        let kept = KeptResult { data: reply.data.clone(), duration: reply.duration, tokens: reply.tokens };
        let Ok(answer) = serde_json::to_string(&kept) else { return };
        let until = self.started.saturating_add(REPLAY_FOR);
        let store = &self.service.ports().idempotency;
        degrade(store.finish(self.context.id(), key, &self.command.request, &answer, until).await);
    }

    async fn free_key(&self) {
        let Some((key, _)) = &self.command.idempotency else { return };
        degrade(self.service.ports().idempotency.abandon(self.context.id(), key, &self.command.request).await);
    }
}
