//! The life of one chat, from its first slot to its last record. One task runs it, whatever the client does.

mod answer;
mod repeat;
mod rounds;
mod tool;

use std::sync::Arc;

use futures_channel::oneshot;

use self::answer::Answer;
use self::rounds::Frame;
use self::tool::{RunTool, ToolFailed};
use super::command::{ChatCommand, ChatDone, ChatEvent, StreamFailure};
use super::error::{ChatError, ChatRejected};
use super::service::Shared;
use super::sessions::is_open_to;
use super::transcript::KeptReply;
use crate::admission::{AdmissionError, Entry, Permit, Spent};
use crate::client::Client;
use crate::id::{MessageId, ModelId, RequestId};
use crate::limit::RateStatus;
use crate::model::{
    CallMetadata, ChatMessage, GatewayError, ModelCall, ModelError, ModelPlan, OpenedReply, Role, Usage, select_models,
};
use crate::port_error::{PortError, degrade};
use crate::ports::HeldTurn;
use crate::search::Tally;
use crate::session::{
    StoredMessage, Turn, answered, assemble_prompt, definition_tokens, estimate_tokens, prompt_tokens,
};
use crate::tenant::TenantContext;
use crate::time::Timestamp;
use crate::tools::AuditOutcome;
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
    /// What the tool has spent.
    tally: Tally,
}

/// What is needed to call a model.
struct Prepared {
    turn: Option<Box<dyn HeldTurn>>,
    history: Vec<StoredMessage>,
    call: ModelCall,
}

/// How a request that had its slots has ended: what its books are owed, and what there is to tell when they are closed.
struct Outcome {
    spent: Spent,
    record: Option<UsageRecord>,
    told: Result<Answered, Refused>,
}

/// An answer whose turn is over.
struct Answered {
    answer: Answer,
    usage: Usage,
    prompt_estimate: u64,
}

/// A refusal, and who waits for it.
struct Refused {
    opening: Opening,
    rejected: ChatRejected,
}

pub(super) async fn conduct(
    shared: Arc<Shared>,
    context: TenantContext,
    command: ChatCommand,
    client: Client<ChatEvent>,
    opening: Opening,
) {
    let started = shared.ports.clock.now();
    Conduct { shared, context, command, started, tally: Tally::default() }.run(client, opening).await;
}

impl Conduct {
    async fn run(self, mut client: Client<ChatEvent>, opening: Opening) {
        match self.claim_key().await {
            Ok(None) => {}
            Ok(Some(kept)) => return self.replay(kept, client, opening).await,
            Err(error) => return reject(opening, error.into()),
        }
        match self.enter(&mut client, opening).await {
            Ok((kept, last)) => {
                self.keep_answer(&kept).await;
                client.close(last).await;
            }
            Err(Refused { opening, rejected }) => {
                // Before the client is told: its next try must not meet its own key.
                self.free_key().await;
                reject(opening, rejected);
            }
        }
    }

    /// Chooses the model, takes the slots, answers, and leaves. What it returns is the answer to keep and its last events, or a
    /// refusal, after which a repeat of the request may try afresh.
    async fn enter(
        &self,
        client: &mut Client<ChatEvent>,
        opening: Opening,
    ) -> Result<(KeptReply, Vec<ChatEvent>), Refused> {
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
            Err(error) => return Err(Refused { opening, rejected: error.into() }),
        };
        let request = self.command.request;
        let entry = match ports.admission.enter(&self.context, &self.command.caller, request, self.started).await {
            Ok(entry) => entry,
            Err(error) => return Err(Refused { opening, rejected: ChatError::from(error).into() }),
        };
        let Outcome { spent, record, told } = self.take_turn(client, &plan, &entry, opening).await;
        // The one place where a request that got in is closed, whatever has become of it.
        degrade(ports.admission.close(&self.context, entry, spent, record.as_ref(), ports.clock.now()).await);
        told.map(|answered| self.last_words(answered))
    }

    /// Waits for the session's turn, reserves, and calls the model. The turn is over when it returns.
    async fn take_turn(
        &self,
        client: &mut Client<ChatEvent>,
        plan: &ModelPlan,
        entry: &Entry,
        opening: Opening,
    ) -> Outcome {
        let rate = *entry.rate();
        let refused = |opening, error, spent, record| {
            let rejected = ChatRejected { error, rate: Some(rate) };
            Outcome { spent, record, told: Err(Refused { opening, rejected }) }
        };
        let tool = match self.check_tool().await {
            Ok(tool) => tool,
            Err(error) => return refused(opening, error, Spent::Nothing, None),
        };
        let offered = self.offered();
        let asked = self.asked(offered.as_ref());
        let Prepared { turn, history, mut call } = match client.race(self.prepare(plan, &asked)).await {
            Ok(Ok(prepared)) => prepared,
            Ok(Err(error)) => return refused(opening, error, Spent::Nothing, None),
            Err(ending) => return refused(opening, early(ending), Spent::Nothing, None),
        };
        let ports = &self.shared.ports;
        if let Some(offered) = &offered {
            offered.offer(&mut call);
        }
        let for_tools = offered.as_ref().map_or(0, |_| self.shared.settings.tool_tokens);
        let tokens =
            call_tokens(&call) + u64::from(call.max_tokens) + tool.as_ref().map_or(0, RunTool::estimate) + for_tools;
        let permit = match ports.admission.reserve(&self.context, entry, tokens, ports.clock.now()).await {
            Ok(permit) => permit,
            Err(error) => {
                let_go(turn).await;
                if tool.is_some() {
                    self.audit_tool(AuditOutcome::Refused).await;
                }
                // An answer may have been lost that tokens were set aside: they would be charged when they expire.
                let spent = if matches!(error, AdmissionError::Port(_)) { Spent::Unknown } else { Spent::Nothing };
                return refused(opening, error.into(), spent, None);
            }
        };
        let asked = match tool {
            None => asked,
            Some(tool) => match self.run_tool(client, &permit, tool, asked).await {
                Ok(asked) => {
                    call.messages = assemble_prompt(&history, asked.clone(), &self.shared.settings.prompt);
                    asked
                }
                Err(ToolFailed { error, ending }) => {
                    let_go(turn).await;
                    let record = self.record(&Answer::none(plan, ending), Usage::default(), true);
                    return refused(opening, error, self.spent_on_tool(permit), Some(record));
                }
            },
        };
        let opened = self.open(client, plan, &permit, &history, &asked, &mut call).await;
        let tokens_in = call_tokens(&call);
        match opened {
            Ok(Ok(reply)) => {
                let (model, created) = (reply.model.clone(), self.started);
                let opened = Opened { request: self.command.request, created, model, tokens_in, rate, replayed: false };
                // A client that has gone is noticed by the first piece.
                let _ = opening.send(Ok(opened));
                let (answer, tokens_in) = match &offered {
                    None => (self.pump(client, reply, call.max_tokens, true).await, tokens_in),
                    Some(offered) => {
                        let frame = Frame { plan, permit: &permit, offered, reserved: tokens };
                        self.answer_in_rounds(client, frame, reply, &mut call).await
                    }
                };
                self.conclude(turn, permit, answer, tokens_in).await
            }
            Ok(Err(error)) => {
                let_go(turn).await;
                // Nothing of an answer was seen, so nothing is charged for one.
                let ending = if timed_out(&error) { Ending::TimedOut } else { Ending::Failed };
                let record = self.record(&Answer::none(plan, ending), Usage::default(), true);
                refused(opening, error.into(), self.spent_on_tool(permit), Some(record))
            }
            Err(ending) => {
                let_go(turn).await;
                // The model was at work already, on a prompt that it has read.
                let prompt_tokens = u32::try_from(tokens_in).unwrap_or(u32::MAX);
                let usage = Usage { prompt_tokens, completion_tokens: 0 };
                let record = self.record(&Answer::none(plan, ending), usage, true);
                let used = tokens_in + self.tally.so_far().total();
                refused(opening, early(ending), Spent::Used(permit, used), Some(record))
            }
        }
    }

    /// Calls the model, with less and less of the history while that is too long for it.
    async fn open(
        &self,
        client: &mut Client<ChatEvent>,
        plan: &ModelPlan,
        permit: &Permit,
        history: &[StoredMessage],
        asked: &[ChatMessage],
        call: &mut ModelCall,
    ) -> Result<Result<OpenedReply, GatewayError>, Ending> {
        let Shared { ports, settings } = &*self.shared;
        let deadline = self.started.saturating_add(settings.request_timeout);
        let mut shown = settings.prompt;
        loop {
            let opening = ports.models.open(permit, self.context.tenant(), plan, call, deadline);
            let opened = client.race(opening).await;
            let history_tokens = prompt_tokens(&call.messages).saturating_sub(prompt_tokens(asked));
            if !matches!(&opened, Ok(Err(error)) if too_long(error)) || history_tokens == 0 {
                return opened;
            }
            // Characters are a rough measure of tokens. A long session must not end in a prompt that never fits.
            shown.max_tokens = history_tokens / 2;
            call.messages = assemble_prompt(history, asked.to_vec(), &shown);
        }
    }

    /// The session's turn, and the call that its history makes.
    async fn prepare(&self, plan: &ModelPlan, asked: &[ChatMessage]) -> Result<Prepared, ChatError> {
        let Shared { ports, settings } = &*self.shared;
        let (tenant, command) = (self.context.tenant(), &self.command);
        let (mut turn, mut history) = (None, Vec::new());
        if let Some(session) = &command.session {
            let limit = u32::try_from(settings.prompt.max_messages).unwrap_or(u32::MAX);
            let (request, retention, now) = (command.request, tenant.retention(), ports.clock.now());
            // At least one, so that a session without a known user is told from a new one.
            let begun = ports.turns.begin(tenant.id(), session, request, limit.max(1), retention, now).await?;
            let is_new = begun.user.is_none() && begun.history.is_empty();
            if !is_new && !is_open_to(self.context.confined_to().as_ref(), begun.user.as_ref()) {
                begun.held.end().await;
                return Err(ChatError::SessionOfAnother);
            }
            (turn, history) = (Some(begun.held), begun.history);
        }
        let call = ModelCall {
            model: plan.primary().clone(),
            messages: assemble_prompt(&history, asked.to_vec(), &settings.prompt),
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

    /// Ends the turn, and says what the books are owed.
    async fn conclude(
        &self,
        turn: Option<Box<dyn HeldTurn>>,
        permit: Permit,
        mut answer: Answer,
        prompt_estimate: u64,
    ) -> Outcome {
        let (usage, estimated) = answer.transcript.usage(prompt_estimate);
        answer.join();
        // Before the books are closed: the record says if the turn could not be kept.
        if let Err(error) = self.keep_turn(turn, &answer, usage.completion_tokens).await {
            tracing::error!(tenant = %self.context.id(), trace = %self.command.trace, error = &error as &dyn std::error::Error, "turn was not kept");
            answer.failure.get_or_insert(StreamFailure::NotKept);
            if answer.ending == Ending::Finished {
                answer.ending = Ending::Failed;
            }
        }
        let record = self.record(&answer, usage, estimated);
        let usage = self.with_tool(usage);
        let used = u64::from(usage.prompt_tokens) + u64::from(usage.completion_tokens);
        let told = Ok(Answered { answer, usage, prompt_estimate });
        Outcome { spent: Spent::Used(permit, used), record: Some(record), told }
    }

    /// Appends the turn, when there is a session and the model said anything.
    async fn keep_turn(
        &self,
        turn: Option<Box<dyn HeldTurn>>,
        answer: &Answer,
        tokens_out: u32,
    ) -> Result<(), PortError> {
        let Some(held) = turn else { return Ok(()) };
        if answer.transcript.is_empty() {
            held.end().await;
            return Ok(());
        }
        let (ports, now) = (&self.shared.ports, self.shared.ports.clock.now());
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
        held.append(&turn, self.context.tenant().retention(), now).await
    }

    /// The record of the request, before it is known what it was charged.
    fn record(&self, answer: &Answer, usage: Usage, estimated: bool) -> UsageRecord {
        let usage = self.with_tool(usage);
        let estimated = estimated || self.tally.so_far().estimated;
        UsageRecord {
            request: self.command.request,
            trace: self.command.trace.clone(),
            route: self.command.route.to_owned(),
            user: self.command.caller.user.clone(),
            session: self.command.session,
            model: answer.model.clone(),
            provider: answer.provider.clone(),
            at: self.started,
            latency: self.shared.ports.clock.now().since(self.started),
            first_token: answer.first_token.map(|at| at.since(self.started)),
            tokens_in: usage.prompt_tokens,
            tokens_out: usage.completion_tokens,
            characters: None,
            estimated,
            charged: 0,
            overrun: 0,
            ending: answer.ending,
        }
    }

    /// The answer to keep, and its last events.
    fn last_words(&self, answered: Answered) -> (KeptReply, Vec<ChatEvent>) {
        let Answered { mut answer, usage, prompt_estimate } = answered;
        let told = if self.command.whole { answer.transcript.events() } else { Vec::new() };
        let done = ChatDone {
            model: answer.model,
            tokens_in: usage.prompt_tokens,
            tokens_out: usage.completion_tokens,
            latency: self.shared.ports.clock.now().since(self.started),
            finish_reason: answer.transcript.finish.filter(|_| answer.failure.is_none()),
            ending: answer.ending,
        };
        let end = answer.failure.map(ChatEvent::Failed).into_iter().chain([ChatEvent::Done(done.clone())]);
        let last = told.into_iter().chain(end).collect();
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
}

/// Ends a turn that leaves nothing.
async fn let_go(turn: Option<Box<dyn HeldTurn>>) {
    if let Some(turn) = turn {
        turn.end().await;
    }
}

/// Whether the newest message is the user's.
fn has_question(messages: &[ChatMessage]) -> bool {
    messages.iter().rfind(|message| message.role != Role::System).is_some_and(|message| message.role == Role::User)
}

/// Tells the caller, who may have gone.
fn reject(opening: Opening, rejected: ChatRejected) {
    let _ = opening.send(Err(rejected));
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
