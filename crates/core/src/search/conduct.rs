//! The life of one search, from its first slot to its last record. One task runs it, whatever the client does.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_channel::oneshot;
use futures_util::future::{Either, select};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::books::Tally;
use super::command::{CacheStatus, KeptSearch, SearchCommand, SearchDone, SearchEvent, Source};
use super::error::{RetrievalError, RetrievalRejected};
use super::flights::{Flight, Joined};
use super::service::Shared;
use crate::admission::{AdmissionError, Entry, Permit, Spent};
use crate::caught::caught;
use crate::chat::{ChatError, StreamFailure};
use crate::client::Client;
use crate::id::ModelId;
use crate::limit::RateStatus;
use crate::model::{
    CallMetadata, ChatMessage, ModelCall, ModelPlan, ResponseFormat, Sampling, ToolChoice, select_models,
};
use crate::port_error::degrade;
use crate::retrieval::{
    CorpusState, EmbeddingSpace, REFUSAL, Ranked, SearchMode, confidence, follow_up_prompt, is_unsafe, rewrite_prompt,
    search_prompt,
};
use crate::session::{estimate_tokens, prompt_tokens};
use crate::tenant::TenantContext;
use crate::time::Timestamp;
use crate::usage::{Ending, UsageRecord};

/// What is told when no document has anything about the question.
const NOTHING_FOUND: &str = "The documents have nothing about this.";
/// What the question's other words may have, in tokens.
pub(super) const REWRITE_TOKENS: u32 = 64;
/// What the follow-up questions may have, in tokens.
pub(super) const FOLLOW_UP_TOKENS: u32 = 128;
/// What is set aside for the sources that the follow-up questions are made from, in tokens.
const EXCERPTS_TOKENS: u64 = 400;
/// How long the cache may hold up an answer's beginning, and its end.
const KEEPING: Duration = Duration::from_millis(500);

/// What is known when a reply begins.
pub(super) struct Opened {
    pub(super) model: ModelId,
    pub(super) rate: RateStatus,
    pub(super) cache: CacheStatus,
}

type Opening = oneshot::Sender<Result<Opened, RetrievalRejected>>;

/// One request on its way.
pub(super) struct Run {
    pub(super) shared: Arc<Shared>,
    pub(super) context: TenantContext,
    pub(super) command: SearchCommand,
    pub(super) started: Timestamp,
    pub(super) tally: Tally,
}

/// How a request that had its slots has ended.
struct Outcome {
    spent: Spent,
    record: Option<UsageRecord>,
    told: Result<Vec<SearchEvent>, (Opening, RetrievalError)>,
}

/// An answer whose end was seen, or not.
pub(super) struct Answer {
    pub(super) text: String,
    /// The end of it that the client had no room for while others waited.
    pub(super) untold: String,
    pub(super) cites: bool,
    pub(super) follow_ups: Vec<String>,
    pub(super) model: ModelId,
    pub(super) first_token: Timestamp,
    pub(super) ending: Ending,
    pub(super) failure: Option<StreamFailure>,
}

/// What was found, and whether something failed on the way that will work another time.
pub(super) struct Found {
    pub(super) sources: Vec<Ranked>,
    pub(super) is_degraded: bool,
}

pub(super) async fn conduct(
    shared: Arc<Shared>,
    context: TenantContext,
    command: SearchCommand,
    client: Client<SearchEvent>,
    opening: Opening,
) {
    let started = shared.ports.clock.now();
    Run { shared, context, command, started, tally: Tally::default() }.run(client, opening).await;
}

impl Run {
    async fn run(self, mut client: Client<SearchEvent>, opening: Opening) {
        let Shared { ports, settings, .. } = &*self.shared;
        let tenant = self.context.tenant();
        let plan = select_models(None, &settings.overrides, tenant)
            .map_err(ChatError::from)
            .and_then(|plan| ports.models.check(tenant, &plan).map(|()| plan).map_err(ChatError::from));
        let plan = match plan {
            Ok(plan) => plan,
            Err(error) => return reject(opening, RetrievalError::from(error).into()),
        };
        let request = self.command.request;
        let entry = match ports.admission.enter(&self.context, &self.command.caller, request, self.started).await {
            Ok(entry) => entry,
            Err(error) => return reject(opening, RetrievalError::from(error).into()),
        };
        let rate = *entry.rate();
        let Outcome { spent, record, told } = self.answer_somehow(&mut client, &plan, &entry, opening).await;
        // The one place where a request that got in is closed, whatever has become of it.
        degrade(ports.admission.close(&self.context, entry, spent, record.as_ref(), ports.clock.now()).await);
        match told {
            Ok(last) => client.close(last).await,
            Err((opening, error)) => reject(opening, RetrievalRejected { error, rate: Some(rate) }),
        }
    }

    /// Answers from what is known without a model, from what is kept, from what somebody else is just told, or from sources.
    async fn answer_somehow(
        &self,
        client: &mut Client<SearchEvent>,
        plan: &ModelPlan,
        entry: &Entry,
        opening: Opening,
    ) -> Outcome {
        let Shared { ports, flights, .. } = &*self.shared;
        let rate = *entry.rate();
        let free = |told| Outcome { spent: Spent::Nothing, record: None, told };
        if is_unsafe(&self.command.query) {
            return free(Ok(self.tell(opening, plan, rate, CacheStatus::Miss, self.without_model(plan, REFUSAL))));
        }
        let state = match client.race(caught("corpus", ports.corpus.state(self.context.id()))).await {
            Ok(Ok(state)) => state,
            Ok(Err(error)) => return free(Err((opening, error.into()))),
            Err(ending) => return free(Err((opening, early(ending).into()))),
        };
        let Some(space) = &state.space else {
            let kept = self.without_model(plan, NOTHING_FOUND);
            return free(Ok(self.tell(opening, plan, rate, CacheStatus::Miss, kept)));
        };
        // What cannot succeed is told before anything is spent on it.
        if let Err(error) = self.check_space(space) {
            return free(Err((opening, error)));
        }
        let key = self.cache_key(&state, plan);
        let flight = loop {
            match client.race(self.kept(&key)).await {
                Ok(Some(kept)) => return free(Ok(self.tell(opening, plan, rate, CacheStatus::Hit, kept))),
                Ok(None) => {}
                Err(ending) => return free(Err((opening, early(ending).into()))),
            }
            match flights.join(self.context.id(), &key) {
                Joined::First(flight) => break flight,
                Joined::Behind(landing) => match client.race(landing).await {
                    Ok(Ok(kept)) => {
                        return free(Ok(self.tell(opening, plan, rate, CacheStatus::Hit, (*kept).clone())));
                    }
                    // Who was ahead has failed.
                    Ok(Err(_)) => {}
                    Err(ending) => return free(Err((opening, early(ending).into()))),
                },
            }
        };
        let permit = match ports.admission.reserve(&self.context, entry, self.estimate(), ports.clock.now()).await {
            Ok(permit) => permit,
            Err(error) => {
                let spent = if matches!(error, AdmissionError::Port(_)) { Spent::Unknown } else { Spent::Nothing };
                return Outcome { spent, record: None, told: Err((opening, error.into())) };
            }
        };
        self.answer(client, plan, rate, permit, &state, (&key, flight), opening).await
    }

    /// Finds sources and has a model answer from them.
    #[expect(clippy::too_many_arguments, reason = "each is of another kind, and this is the one call")]
    async fn answer(
        &self,
        client: &mut Client<SearchEvent>,
        plan: &ModelPlan,
        rate: RateStatus,
        permit: Permit,
        state: &CorpusState,
        (key, flight): (&str, Flight<Arc<KeptSearch>>),
        opening: Opening,
    ) -> Outcome {
        let ports = &self.shared.ports;
        let found = match client.race(self.find(&permit, plan, state)).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                let ending = if error.is_timeout() { Ending::TimedOut } else { Ending::Failed };
                return self.refused(permit, plan.primary(), ending, opening, error);
            }
            Err(ending) => return self.refused(permit, plan.primary(), ending, opening, early(ending).into()),
        };
        let is_lasting = !found.is_degraded && !state.is_settling;
        if found.sources.is_empty() {
            let kept = Arc::new(self.without_model(plan, NOTHING_FOUND));
            if is_lasting {
                self.keep(key, &kept).await;
            }
            flight.land(&kept);
            let (model, latency) = (plan.primary().clone(), kept.done.latency);
            let _ = opening.send(Ok(Opened { model, rate, cache: CacheStatus::Miss }));
            let told = KeptSearch::clone(&kept).told(latency);
            return self.close(permit, plan.primary(), None, Ending::Finished, Ok(told));
        }
        let prompt =
            search_prompt(&self.command.query, found.sources, self.shared.settings.prompt_tokens, ports.ids.random());
        let mut call = self.call(plan, prompt.messages, self.shared.settings.max_tokens);
        let pending = self.tally.begin(prompt_tokens(&call.messages));
        let deadline = self.started.saturating_add(self.shared.settings.request_timeout);
        let tenant = self.context.tenant();
        let reply = match client.race(ports.models.open(&permit, tenant, plan, &mut call, deadline)).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => {
                pending.end();
                let error = RetrievalError::from(error);
                let ending = if error.is_timeout() { Ending::TimedOut } else { Ending::Failed };
                return self.refused(permit, plan.primary(), ending, opening, error);
            }
            Err(ending) => return self.refused(permit, plan.primary(), ending, opening, early(ending).into()),
        };
        let opened = Opened { model: reply.model.clone(), rate, cache: CacheStatus::Miss };
        // A client that has gone is noticed by the first event.
        let _ = opening.send(Ok(opened));
        let sources: Vec<Source> = prompt.sources.iter().map(Source::from).collect();
        let answer = self.say(client, reply, &permit, plan, &prompt.sources, &sources, &call, pending, &flight).await;
        let spending = self.tally.so_far();
        let done = SearchDone {
            confidence: confidence(&prompt.sources, answer.cites),
            follow_ups: answer.follow_ups,
            model: answer.model.clone(),
            tokens_in: spending.tokens_in,
            tokens_out: spending.tokens_out,
            latency: ports.clock.now().since(self.started),
            ending: answer.ending,
        };
        let is_whole = answer.ending == Ending::Finished && answer.failure.is_none();
        // A model that had nothing to say may have something to say the next time.
        if is_whole && !answer.text.trim().is_empty() {
            let kept = Arc::new(KeptSearch { sources, answer: answer.text, done: done.clone() });
            // Whoever asks later may find more; whoever asks now would not.
            if is_lasting {
                self.keep(key, &kept).await;
            }
            flight.land(&kept);
        }
        let untold = Some(answer.untold).filter(|text| !text.is_empty()).map(SearchEvent::Content);
        let end = answer.failure.map(SearchEvent::Failed).into_iter().chain([SearchEvent::Done(done)]);
        let last = untold.into_iter().chain(end).collect();
        self.close(permit, &answer.model, Some(answer.first_token), answer.ending, Ok(last))
    }

    /// Begins a reply that needs nothing more; its events.
    fn tell(
        &self,
        opening: Opening,
        plan: &ModelPlan,
        rate: RateStatus,
        cache: CacheStatus,
        kept: KeptSearch,
    ) -> Vec<SearchEvent> {
        let model = if cache == CacheStatus::Hit { kept.done.model.clone() } else { plan.primary().clone() };
        let _ = opening.send(Ok(Opened { model, rate, cache }));
        kept.into_events(self.shared.ports.clock.now().since(self.started))
    }

    /// Whether the model that embeds the question is, by its name, the one that has embedded the documents.
    fn check_space(&self, has: &EmbeddingSpace) -> Result<(), RetrievalError> {
        if self.command.mode == SearchMode::Keyword {
            return Ok(());
        }
        let embeddings = &self.shared.ports.embeddings;
        let model = embeddings.model_of(self.context.tenant()).ok_or(RetrievalError::NoEmbeddingModel)?;
        if *model == has.model {
            return Ok(());
        }
        Err(RetrievalError::OtherSpace { has: has.clone(), model: model.clone(), dimensions: None })
    }

    /// A reply without sources.
    fn without_model(&self, plan: &ModelPlan, answer: &str) -> KeptSearch {
        let spending = self.tally.so_far();
        let done = SearchDone {
            confidence: 0.0,
            follow_ups: Vec::new(),
            model: plan.primary().clone(),
            tokens_in: spending.tokens_in,
            tokens_out: spending.tokens_out,
            latency: self.shared.ports.clock.now().since(self.started),
            ending: Ending::Finished,
        };
        KeptSearch { sources: Vec::new(), answer: answer.to_owned(), done }
    }

    /// Everything that changes the answer, but the tenant: that is the cache's to keep apart.
    fn cache_key(&self, state: &CorpusState, plan: &ModelPlan) -> String {
        let SearchCommand { query, top_k, filter, mode, .. } = &self.command;
        let (tenant, embeddings) = (self.context.tenant(), &self.shared.ports.embeddings);
        let models: Vec<&str> = plan.models().chain(embeddings.model_of(tenant)).map(ModelId::as_str).collect();
        let (rewrites, asks_on) = (self.rewrite_timeout().is_some(), self.follow_up_wait().is_some());
        let parts = json!([
            state.generation,
            query.trim(),
            top_k,
            format!("{filter:?}"),
            mode.as_str(),
            models,
            rewrites,
            asks_on
        ]);
        hex::encode(Sha256::digest(parts.to_string().as_bytes()))
    }

    async fn kept(&self, key: &str) -> Option<KeptSearch> {
        let ports = &self.shared.ports;
        let getting = caught("cache", ports.cache.get(self.context.id(), key, ports.clock.now()));
        match select(pin!(getting), ports.clock.sleep(KEEPING)).await {
            Either::Left((kept, _)) => serde_json::from_str(&degrade(kept)??).ok(),
            Either::Right(_) => None,
        }
    }

    async fn keep(&self, key: &str, kept: &KeptSearch) {
        let ports = &self.shared.ports;
        let Ok(text) = serde_json::to_string(kept) else { return };
        let now = ports.clock.now();
        let expires_at = now.saturating_add(self.shared.settings.cache_for);
        let keeping = caught("cache", ports.cache.put(self.context.id(), key, &text, expires_at, now));
        if let Either::Left((kept, _)) = select(pin!(keeping), ports.clock.sleep(KEEPING)).await {
            degrade(kept);
        }
    }

    pub(super) fn rewrite_timeout(&self) -> Option<Duration> {
        self.shared.settings.rewrite_timeout.filter(|_| self.context.tenant().flag_or("query_rewriting", true))
    }

    pub(super) fn follow_up_wait(&self) -> Option<Duration> {
        self.shared.settings.follow_up_wait.filter(|_| self.context.tenant().flag_or("follow_ups", true))
    }

    /// What the request may spend in all.
    fn estimate(&self) -> u64 {
        let settings = &self.shared.settings;
        let query = &self.command.query;
        let rewrite =
            self.rewrite_timeout().map_or(0, |_| prompt_tokens(&rewrite_prompt(query)) + u64::from(REWRITE_TOKENS));
        let follow_ups = self.follow_up_wait().map_or(0, |_| {
            prompt_tokens(&follow_up_prompt(query, &[])) + EXCERPTS_TOKENS + u64::from(FOLLOW_UP_TOKENS)
        });
        let embedding = estimate_tokens(query).max(u64::from(REWRITE_TOKENS) * 2);
        rewrite + embedding + settings.prompt_tokens + u64::from(settings.max_tokens) + follow_ups
    }

    pub(super) fn metadata(&self) -> CallMetadata {
        CallMetadata {
            tenant: self.context.id().clone(),
            trace: self.command.trace.clone(),
            traceparent: self.command.traceparent.clone(),
            session: None,
            route: self.command.route,
            gateway: self.context.tenant().ai_gateway_id().map(str::to_owned),
        }
    }

    pub(super) fn call(&self, plan: &ModelPlan, messages: Vec<ChatMessage>, max_tokens: u32) -> ModelCall {
        ModelCall {
            model: plan.primary().clone(),
            messages,
            max_tokens,
            sampling: Sampling::default(),
            tools: Vec::new(),
            tool_choice: ToolChoice::default(),
            response_format: ResponseFormat::default(),
            metadata: self.metadata(),
        }
    }

    fn refused(
        &self,
        permit: Permit,
        model: &ModelId,
        ending: Ending,
        opening: Opening,
        error: RetrievalError,
    ) -> Outcome {
        self.close(permit, model, None, ending, Err((opening, error)))
    }

    /// What the books are owed, and the record.
    fn close(
        &self,
        permit: Permit,
        model: &ModelId,
        first_token: Option<Timestamp>,
        ending: Ending,
        told: Result<Vec<SearchEvent>, (Opening, RetrievalError)>,
    ) -> Outcome {
        let spending = self.tally.so_far();
        let clip = |tokens: u64| u32::try_from(tokens).unwrap_or(u32::MAX);
        let record = UsageRecord {
            request: self.command.request,
            trace: self.command.trace.clone(),
            route: self.command.route.to_owned(),
            user: self.command.caller.user.clone(),
            session: None,
            model: model.clone(),
            provider: spending.provider.clone(),
            at: self.started,
            latency: self.shared.ports.clock.now().since(self.started),
            first_token: first_token.map(|at| at.since(self.started)),
            tokens_in: clip(spending.tokens_in),
            tokens_out: clip(spending.tokens_out),
            characters: None,
            estimated: spending.estimated,
            charged: 0,
            overrun: 0,
            ending,
        };
        let spent = match spending.total() {
            0 => Spent::Unused(permit),
            total => Spent::Used(permit, total),
        };
        Outcome { spent, record: Some(record), told }
    }
}

/// Tells the caller, who may have gone.
fn reject(opening: Opening, rejected: RetrievalRejected) {
    let _ = opening.send(Err(rejected));
}

pub(super) const fn early(ending: Ending) -> ChatError {
    match ending {
        Ending::ShutDown => ChatError::ShuttingDown,
        Ending::ClientGone => ChatError::ClientGone,
        Ending::TimedOut | Ending::Failed | Ending::Finished => ChatError::TimedOut,
    }
}
