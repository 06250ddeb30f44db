//! The life of one chat, from its first slot to its last record. One task runs it, whatever the client does.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_channel::oneshot;
use futures_util::{FutureExt, join};

use super::client::Client;
use super::command::{ChatCommand, ChatDone, ChatEvent, StreamFailure};
use super::error::{ChatError, ChatRejected};
use super::service::Shared;
use super::transcript::{KeptReply, Transcript};
use crate::admission::{AdmissionError, Entry, Permit};
use crate::id::{MessageId, ModelId, ProviderId, RequestId};
use crate::idempotency::{Begin, REPLAY_FOR};
use crate::ledger::Settlement;
use crate::limit::RateStatus;
use crate::model::{
    CallMetadata, ChatMessage, FinishReason, GatewayError, ModelCall, ModelError, ModelPlan, OpenedReply, Role,
    select_models,
};
use crate::port_error::PortError;
use crate::ports::TurnPermit;
use crate::session::{
    StoredMessage, Turn, answered, assemble_prompt, definition_tokens, estimate_tokens, prompt_tokens,
};
use crate::tenant::TenantContext;
use crate::time::Timestamp;
use crate::usage::{Ending, UsageRecord};

/// What is known when a reply begins.
pub(super) struct Opened {
    pub(super) request: RequestId,
    pub(super) created: Timestamp,
    pub(super) model: ModelId,
    pub(super) tokens_in: u64,
    pub(super) rate: RateStatus,
    pub(super) replayed: bool,
}

type Opening = oneshot::Sender<Result<Opened, ChatRejected>>;

/// One request on its way.
struct Conduct {
    shared: Arc<Shared>,
    context: TenantContext,
    command: ChatCommand,
    started: Timestamp,
}

/// What is needed to call a model.
struct Prepared {
    turn: Option<TurnPermit>,
    history: Vec<StoredMessage>,
    call: ModelCall,
}

/// What a model has answered, and how that ended.
struct Answer {
    transcript: Transcript,
    ending: Ending,
    failure: Option<StreamFailure>,
    model: ModelId,
    provider: Option<ProviderId>,
    first_token: Option<Timestamp>,
}

pub(super) async fn conduct(
    shared: Arc<Shared>,
    context: TenantContext,
    command: ChatCommand,
    client: Client,
    opening: Opening,
) {
    let started = shared.ports.clock.now();
    Conduct { shared, context, command, started }.run(client, opening).await;
}

impl Conduct {
    async fn run(self, mut client: Client, opening: Opening) {
        match self.claim_key().await {
            Ok(None) => {}
            Ok(Some(kept)) => return self.replay(kept, client, opening).await,
            Err(error) => return reject(opening, error.into()),
        }
        match self.enter(&mut client, opening).await {
            Some((kept, last)) => {
                self.keep_answer(&kept).await;
                client.close(last).await;
            }
            None => self.free_key().await,
        }
    }

    /// Chooses the model, takes the slots, answers, and leaves. What it returns is the answer to keep and its last events;
    /// `None` when there is none, and a repeat of the request may try afresh.
    async fn enter(&self, client: &mut Client, opening: Opening) -> Option<(KeptReply, Vec<ChatEvent>)> {
        let Shared { ports, settings } = &*self.shared;
        let tenant = self.context.tenant();
        let has_tools = !self.command.tools.is_empty() || self.command.messages.iter().any(|m| m.role == Role::Tool);
        let plan = select_models(self.command.model.as_ref(), &settings.overrides, tenant)
            .map_err(ChatError::from)
            .and_then(|plan| ports.models.check(tenant, &plan).map(|()| plan).map_err(ChatError::from))
            .and_then(|plan| match self.command.session {
                Some(_) if has_tools => Err(ChatError::SessionWithTools),
                // What comes before the last answer is known, so there would be nothing to ask and to keep.
                Some(_) if !has_question(&self.command.messages) => Err(ChatError::SessionWithoutQuestion),
                _ => Ok(plan),
            });
        let plan = match plan {
            Ok(plan) => plan,
            Err(error) => return refuse(opening, error.into()),
        };
        let request = self.command.request;
        let entry = match ports.admission.enter(&self.context, &self.command.caller, request, self.started).await {
            Ok(entry) => entry,
            Err(error) => return refuse(opening, ChatError::from(error).into()),
        };
        let answered = self.take_turn(client, &plan, &entry, opening).await;
        degrade("stream slots", ports.admission.leave(&self.context, entry).await);
        answered
    }

    /// Waits for the session's turn, reserves, and calls the model.
    async fn take_turn(
        &self,
        client: &mut Client,
        plan: &ModelPlan,
        entry: &Entry,
        opening: Opening,
    ) -> Option<(KeptReply, Vec<ChatEvent>)> {
        let rate = *entry.rate();
        let refused = |error: ChatError| ChatRejected { error, rate: Some(rate) };
        // The turn is held to the end, so that the next one of this session sees this one whole.
        let Prepared { turn: _turn, history, mut call } = match client.race(self.prepare(plan)).await {
            Ok(Ok(prepared)) => prepared,
            Ok(Err(error)) => return refuse(opening, refused(error.into())),
            Err(ending) => return refuse(opening, refused(early(ending))),
        };
        let ports = &self.shared.ports;
        let mut tokens_in = call_tokens(&call);
        let tokens = tokens_in + u64::from(call.max_tokens);
        let permit = match ports.admission.reserve(&self.context, entry, tokens, ports.clock.now()).await {
            Ok(permit) => permit,
            Err(error) => return refuse(opening, refused(error.into())),
        };
        let deadline = self.started.saturating_add(self.shared.settings.request_timeout);
        let mut shown = self.shared.settings.prompt;
        let opened = loop {
            let opening = ports.models.open(&permit, self.context.tenant(), plan, &mut call, deadline);
            let opened = client.race(opening).await;
            let history_tokens = prompt_tokens(&call.messages).saturating_sub(prompt_tokens(&self.command.messages));
            if !matches!(&opened, Ok(Err(error)) if too_long(error)) || history_tokens == 0 {
                break opened;
            }
            // Characters are a rough measure of tokens. A long session must not end in a prompt that never fits.
            shown.max_tokens = history_tokens / 2;
            call.messages = assemble_prompt(&history, self.command.messages.clone(), &shown);
            tokens_in = call_tokens(&call);
        };
        match opened {
            Ok(Ok(reply)) => {
                let (model, created) = (reply.model.clone(), self.started);
                let opened = Opened { request: self.command.request, created, model, tokens_in, rate, replayed: false };
                // A client that has gone is noticed by the first piece.
                let _ = opening.send(Ok(opened));
                let answer = self.pump(client, reply, call.max_tokens).await;
                Some(self.conclude(permit, answer, tokens_in).await)
            }
            Ok(Err(error)) => {
                // Nothing of an answer was seen, so nothing is charged.
                degrade("token ledger", ports.admission.release(&self.context, permit).await);
                let ending = if timed_out(&error) { Ending::TimedOut } else { Ending::Failed };
                self.record(&unanswered(plan, ending), (0, 0), true, nothing()).await;
                refuse(opening, refused(error.into()))
            }
            Err(ending) => {
                // The model was at work already, on a prompt that it has read.
                let charged = degrade(
                    "token ledger",
                    ports.admission.settle(&self.context, permit, tokens_in, ports.clock.now()).await,
                );
                let tokens = u32::try_from(tokens_in).unwrap_or(u32::MAX);
                self.record(&unanswered(plan, ending), (tokens, 0), true, charged.unwrap_or(nothing())).await;
                refuse(opening, refused(early(ending)))
            }
        }
    }

    /// The session's turn, and the call that its history makes.
    async fn prepare(&self, plan: &ModelPlan) -> Result<Prepared, PortError> {
        let Shared { ports, settings } = &*self.shared;
        let (tenant, command) = (self.context.tenant(), &self.command);
        let (mut turn, mut history) = (None, Vec::new());
        if let Some(session) = &command.session {
            turn = Some(ports.turns.enter(tenant.id(), session, command.request).await?);
            let limit = u32::try_from(settings.prompt.max_messages).unwrap_or(u32::MAX);
            let now = ports.clock.now();
            history = ports.store.recent(tenant.id(), session, limit, tenant.retention(), now).await?;
        }
        let call = ModelCall {
            model: plan.primary().clone(),
            messages: assemble_prompt(&history, command.messages.clone(), &settings.prompt),
            max_tokens: command.max_tokens.unwrap_or(settings.default_max_tokens).clamp(1, settings.max_tokens),
            sampling: command.sampling.clone(),
            tools: command.tools.clone(),
            tool_choice: command.tool_choice.clone(),
            response_format: command.response_format.clone(),
            metadata: CallMetadata {
                tenant: tenant.id().clone(),
                trace: command.trace.clone(),
                traceparent: command.traceparent.clone(),
                session: command.session,
                route: command.route,
                gateway: tenant.ai_gateway_id().map(str::to_owned),
            },
        };
        Ok(Prepared { turn, history, call })
    }

    /// Passes the answer on, piece by piece, until it ends in one way or another. The model is not read while the client
    /// does not read.
    async fn pump(&self, client: &mut Client, mut reply: OpenedReply, max_tokens: u32) -> Answer {
        let (model, provider) = (reply.model.clone(), Some(reply.provider.clone()));
        let first_token = Some(self.shared.ports.clock.now());
        let mut transcript = Transcript::default();
        let passing_on = self.pass_on(client, &mut reply, &mut transcript, max_tokens);
        // A model's adapter that panics has failed; the books and the client are owed an end all the same.
        let (ending, failure) = AssertUnwindSafe(passing_on)
            .catch_unwind()
            .await
            .unwrap_or_else(|_| (Ending::Failed, interruption(Ending::Failed)));
        // Whatever was the reason, the model's work ends here, before the bookkeeping.
        drop(reply);
        // An answer whose end was seen is whole, even if the wait for its usage was cut short.
        let (ending, failure) = match (transcript.finish, ending) {
            (Some(_), Ending::TimedOut | Ending::Failed) => (Ending::Finished, None),
            _ => (ending, failure),
        };
        Answer { transcript, ending, failure, model, provider, first_token }
    }

    async fn pass_on(
        &self,
        client: &mut Client,
        reply: &mut OpenedReply,
        transcript: &mut Transcript,
        max_tokens: u32,
    ) -> (Ending, Option<StreamFailure>) {
        let model = reply.model.clone();
        loop {
            match client.race(reply.next()).await {
                Ok(None) => break (Ending::Finished, None),
                Ok(Some(Ok(delta))) => {
                    if let Some(event) = transcript.take(delta)
                        && let Err(ending) = client.send(event).await
                    {
                        break (ending, interruption(ending));
                    }
                    if transcript.is_beyond(max_tokens) {
                        transcript.finish = Some(FinishReason::Length);
                        break (Ending::Finished, None);
                    }
                }
                Ok(Some(Err(error))) => {
                    tracing::warn!(
                        tenant = %self.context.id(), trace = %self.command.trace, %model, %error, "answer broke off"
                    );
                    let ending =
                        if matches!(error, ModelError::Timeout(_)) { Ending::TimedOut } else { Ending::Failed };
                    break (ending, interruption(ending));
                }
                Err(ending) => break (ending, interruption(ending)),
            }
        }
    }

    /// Keeps the turn, settles, and records: once, whatever the ending.
    async fn conclude(&self, permit: Permit, mut answer: Answer, prompt_estimate: u64) -> (KeptReply, Vec<ChatEvent>) {
        let ports = &self.shared.ports;
        let now = ports.clock.now();
        let (usage, estimated) = answer.transcript.usage(prompt_estimate);
        let used = u64::from(usage.prompt_tokens) + u64::from(usage.completion_tokens);
        let (kept, settled) = join!(
            self.keep_turn(&answer, usage.completion_tokens, now),
            ports.admission.settle(&self.context, permit, used, now),
        );
        let settlement = degrade("token ledger", settled).unwrap_or(nothing());
        if let Err(error) = kept {
            tracing::error!(tenant = %self.context.id(), trace = %self.command.trace, error = &error as &dyn std::error::Error, "turn was not kept");
            answer.failure.get_or_insert(StreamFailure::NotKept);
            if answer.ending == Ending::Finished {
                answer.ending = Ending::Failed;
            }
        }
        self.record(&answer, (usage.prompt_tokens, usage.completion_tokens), estimated, settlement).await;
        let done = ChatDone {
            model: answer.model,
            tokens_in: usage.prompt_tokens,
            tokens_out: usage.completion_tokens,
            latency: ports.clock.now().since(self.started),
            finish_reason: answer.transcript.finish.filter(|_| answer.failure.is_none()),
            ending: answer.ending,
        };
        let last = answer.failure.map(ChatEvent::Failed).into_iter().chain([ChatEvent::Done(done.clone())]).collect();
        let kept = KeptReply {
            request: self.command.request,
            created: self.started,
            tokens_in: prompt_estimate,
            content: answer.transcript.content,
            tool_calls: answer.transcript.tool_calls,
            failure: answer.failure,
            done,
        };
        (kept, last)
    }

    /// Appends the turn, when there is a session and the model said anything.
    async fn keep_turn(&self, answer: &Answer, tokens_out: u32, now: Timestamp) -> Result<(), PortError> {
        let (ports, tenant) = (&self.shared.ports, self.context.tenant());
        let Some(session) = self.command.session.filter(|_| !answer.transcript.is_empty()) else { return Ok(()) };
        let message = |role, content: &str, at, tokens, truncated| StoredMessage {
            id: MessageId::new(ports.ids.uuid()),
            role,
            content: content.to_owned(),
            at,
            tokens: Some(tokens),
            truncated,
        };
        let asked = self.command.messages.iter().filter(|message| message.role != Role::System).collect::<Vec<_>>();
        let new = answered(asked.iter().copied());
        let mut messages: Vec<StoredMessage> = asked[new..]
            .iter()
            .map(|ChatMessage { role, content, .. }| {
                let tokens = u32::try_from(estimate_tokens(content)).unwrap_or(u32::MAX);
                message(*role, content, self.started.min(now), tokens, false)
            })
            .collect();
        let truncated = answer.ending != Ending::Finished;
        messages.push(message(Role::Assistant, &answer.transcript.content, now, tokens_out, truncated));
        let turn = Turn { user: self.command.caller.user.clone(), messages };
        let summary = ports.store.append_turn(tenant.id(), &session, &turn, tenant.retention(), now).await?;
        // The list of sessions may lag behind; the turn is safe.
        degrade("session index", ports.index.record(tenant.id(), &summary).await);
        Ok(())
    }

    async fn record(&self, answer: &Answer, tokens: (u32, u32), estimated: bool, settlement: Settlement) {
        let ports = &self.shared.ports;
        let record = UsageRecord {
            request: self.command.request,
            trace: self.command.trace.clone(),
            route: self.command.route.to_owned(),
            user: self.command.caller.user.clone(),
            session: self.command.session,
            model: answer.model.clone(),
            provider: answer.provider.clone(),
            at: self.started,
            latency: ports.clock.now().since(self.started),
            first_token: answer.first_token.map(|at| at.since(self.started)),
            tokens_in: tokens.0,
            tokens_out: tokens.1,
            estimated,
            charged: settlement.charged,
            overrun: settlement.overrun,
            ending: answer.ending,
        };
        degrade("telemetry", ports.telemetry.record_usage(self.context.id(), &record).await);
    }

    /// Asks for the idempotency key; `Some` is the answer of the first request.
    async fn claim_key(&self) -> Result<Option<KeptReply>, ChatError> {
        let Some((key, fingerprint)) = &self.command.idempotency else { return Ok(None) };
        let Shared { ports, settings } = &*self.shared;
        // Who has no slot left is refused before anything is written.
        let rate = ports.admission.peek(&self.context, &self.command.caller, self.started).await?;
        if rate.remaining == 0 {
            return Err(AdmissionError::RateLimited(rate).into());
        }
        // After this time the request has ended, or its process has.
        let lease = self.started.saturating_add(settings.request_timeout * 2);
        let begun = ports
            .idempotency
            .begin(self.context.id(), key, fingerprint, self.command.request, lease, self.started)
            .await?;
        match begun {
            Begin::First => Ok(None),
            Begin::InProgress => Err(ChatError::IdempotencyInProgress),
            Begin::Mismatch => Err(ChatError::IdempotencyMismatch),
            Begin::Replay(kept) => serde_json::from_str(&kept)
                .map(Some)
                .map_err(|error| PortError::corrupt("idempotency store", error).into()),
        }
    }

    async fn replay(&self, kept: KeptReply, mut client: Client, opening: Opening) {
        let ports = &self.shared.ports;
        let rate = match ports.admission.peek(&self.context, &self.command.caller, self.started).await {
            Ok(rate) => rate,
            Err(error) => return reject(opening, ChatError::from(error).into()),
        };
        let opened = Opened {
            request: kept.request,
            created: kept.created,
            model: kept.done.model.clone(),
            tokens_in: kept.tokens_in,
            rate,
            replayed: true,
        };
        let _ = opening.send(Ok(opened));
        let mut events = kept.into_events();
        let last = events.split_off(events.len().saturating_sub(1));
        for event in events {
            if client.send(event).await.is_err() {
                return;
            }
        }
        client.close(last).await;
    }

    async fn keep_answer(&self, kept: &KeptReply) {
        let Some((key, _)) = &self.command.idempotency else { return };
        let ports = &self.shared.ports;
        let answer = serde_json::to_string(kept).expect("a kept reply has no maps with odd keys, so it is JSON");
        let until = self.started.saturating_add(REPLAY_FOR);
        let finished = ports.idempotency.finish(self.context.id(), key, &self.command.request, &answer, until).await;
        degrade("idempotency store", finished);
    }

    async fn free_key(&self) {
        let Some((key, _)) = &self.command.idempotency else { return };
        let abandoned = self.shared.ports.idempotency.abandon(self.context.id(), key, &self.command.request).await;
        degrade("idempotency store", abandoned);
    }
}

/// The outcome of a request that saw nothing of an answer.
fn unanswered(plan: &ModelPlan, ending: Ending) -> Answer {
    let model = plan.primary().clone();
    Answer { transcript: Transcript::default(), ending, failure: None, model, provider: None, first_token: None }
}

/// Whether the newest message is the user's.
fn has_question(messages: &[ChatMessage]) -> bool {
    messages.iter().rfind(|message| message.role != Role::System).is_some_and(|message| message.role == Role::User)
}

/// Tells the caller, who may have gone.
fn reject(opening: Opening, rejected: ChatRejected) {
    let _ = opening.send(Err(rejected));
}

fn refuse<T>(opening: Opening, rejected: ChatRejected) -> Option<T> {
    reject(opening, rejected);
    None
}

/// Goes on without what failed, and says so to operators.
fn degrade<T>(port: &'static str, result: Result<T, PortError>) -> Option<T> {
    result
        .inspect_err(|error| tracing::error!(port, error = error as &dyn std::error::Error, "bookkeeping failed"))
        .ok()
}

const fn nothing() -> Settlement {
    Settlement { charged: 0, overrun: 0 }
}

/// What the client is told of an ending, if it is there to be told.
const fn interruption(ending: Ending) -> Option<StreamFailure> {
    match ending {
        Ending::TimedOut => Some(StreamFailure::TimedOut),
        Ending::ShutDown => Some(StreamFailure::ShutDown),
        Ending::Failed => Some(StreamFailure::Model),
        Ending::Finished | Ending::ClientGone => None,
    }
}

const fn early(ending: Ending) -> ChatError {
    match ending {
        Ending::ShutDown => ChatError::ShuttingDown,
        Ending::ClientGone => ChatError::ClientGone,
        Ending::TimedOut | Ending::Failed | Ending::Finished => ChatError::TimedOut,
    }
}

fn call_tokens(call: &ModelCall) -> u64 {
    prompt_tokens(&call.messages) + definition_tokens(&call.tools, &call.response_format)
}

const fn too_long(error: &GatewayError) -> bool {
    matches!(error, GatewayError::Failed { source: ModelError::ContextLength { .. } | ModelError::PromptTooLong, .. })
}

const fn timed_out(error: &GatewayError) -> bool {
    matches!(error, GatewayError::Failed { source: ModelError::Timeout(_), .. })
}
