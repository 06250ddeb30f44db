//! A model's answer on its way to the client, and the questions beside it.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{Either, select};

use super::books::Pending;
use super::command::{KeptSearch, SearchEvent, Source};
use super::conduct::{Answer, FOLLOW_UP_TOKENS, Run};
use super::flights::Flight;
use crate::admission::Permit;
use crate::chat::{ChatEvent, StreamFailure, Transcript};
use crate::client::Client;
use crate::model::{FinishReason, ModelCall, ModelError, ModelPlan, OpenedReply};
use crate::retrieval::{CitationFilter, Ranked, follow_up_prompt, read_follow_ups};
use crate::session::prompt_tokens;
use crate::usage::Ending;

impl Run {
    /// Passes the sources and the answer on, and has follow-up questions written beside it.
    #[expect(clippy::too_many_arguments, reason = "each is of another kind, and this is the one call")]
    pub(super) async fn say(
        &self,
        client: &mut Client<SearchEvent>,
        mut reply: OpenedReply,
        permit: &Permit,
        plan: &ModelPlan,
        ranked: &[Ranked],
        sources: &[Source],
        call: &ModelCall,
        pending: Pending<'_>,
        flight: &Flight<Arc<KeptSearch>>,
    ) -> Answer {
        let clock = &self.shared.ports.clock;
        let (model, provider, first_token) = (reply.model.clone(), reply.provider.clone(), clock.now());
        let mut transcript = Transcript::default();
        let mut citations = CitationFilter::new(sources.iter().map(|source| source.id.clone()));
        let (mut text, mut untold) = (String::new(), Untold { text: String::new(), flight });
        let ((ending, failure), follow_ups) = {
            let passing_on = async {
                if let Err(ending) = client.send(SearchEvent::Sources(sources.to_vec())).await {
                    return (ending, interruption(ending));
                }
                let (max_tokens, told) = (call.max_tokens, (&mut text, &mut untold));
                self.pass_on(client, &mut reply, &mut transcript, &mut citations, told, max_tokens).await
            };
            // A model's adapter that panics has failed; the books and the client are owed an end all the same.
            let failed = (Ending::Failed, interruption(Ending::Failed));
            let passing_on = AssertUnwindSafe(passing_on).catch_unwind().map(|said| said.unwrap_or(failed));
            let asking_on = AssertUnwindSafe(self.follow_ups(permit, plan, ranked)).catch_unwind();
            match select(pin!(passing_on), pin!(asking_on)).await {
                Either::Left((said, asking_on)) => {
                    let wait = self.follow_up_wait().filter(|_| said.0 == Ending::Finished && said.1.is_none());
                    let written = match wait {
                        Some(wait) => match select(asking_on, clock.sleep(wait)).await {
                            Either::Left((written, _)) => written.unwrap_or_default(),
                            Either::Right(_) => Vec::new(),
                        },
                        None => Vec::new(),
                    };
                    (said, written)
                }
                Either::Right((written, passing_on)) => (passing_on.await, written.unwrap_or_default()),
            }
        };
        drop(reply);
        // An answer whose end was seen is whole, even if the wait for its usage was cut short.
        let (ending, failure) = match (transcript.finish, ending) {
            (Some(_), Ending::TimedOut | Ending::Failed) => (Ending::Finished, None),
            _ => (ending, failure),
        };
        pending.end();
        let (usage, estimated) = transcript.usage(prompt_tokens(&call.messages));
        let (prompt, answer) = (u64::from(usage.prompt_tokens), u64::from(usage.completion_tokens));
        self.tally.add(prompt, answer, estimated, Some(&provider));
        let cites = citations.cited().next().is_some();
        Answer { text, untold: untold.text, cites, follow_ups, model, first_token, ending, failure }
    }

    async fn pass_on(
        &self,
        client: &mut Client<SearchEvent>,
        reply: &mut OpenedReply,
        transcript: &mut Transcript,
        citations: &mut CitationFilter,
        (text, untold): (&mut String, &mut Untold<'_>),
        max_tokens: u32,
    ) -> (Ending, Option<StreamFailure>) {
        let end = loop {
            match client.race(reply.next()).await {
                Ok(None) => break (Ending::Finished, None),
                Ok(Some(Ok(delta))) => {
                    if let Some(ChatEvent::Content(piece)) = transcript.take(delta) {
                        let told = citations.push(&piece);
                        text.push_str(&told);
                        if let Err(ending) = untold.tell(client, told).await {
                            return (ending, interruption(ending));
                        }
                    }
                    if transcript.is_beyond(max_tokens) {
                        transcript.finish = Some(FinishReason::Length);
                        break (Ending::Finished, None);
                    }
                }
                Ok(Some(Err(error))) => {
                    tracing::warn!(tenant = %self.context.id(), trace = %self.command.trace, %error, "answer broke off");
                    let ending =
                        if matches!(error, ModelError::Timeout(_)) { Ending::TimedOut } else { Ending::Failed };
                    break (ending, interruption(ending));
                }
                Err(ending) => break (ending, interruption(ending)),
            }
        };
        let rest = citations.finish();
        text.push_str(&rest);
        match untold.tell(client, rest).await {
            Ok(()) => end,
            Err(ending) => (ending, interruption(ending)),
        }
    }

    async fn follow_ups(&self, permit: &Permit, plan: &ModelPlan, ranked: &[Ranked]) -> Vec<String> {
        if self.follow_up_wait().is_none() {
            return Vec::new();
        }
        let query = &self.command.query;
        let answer = self.ask_beside(permit, plan, follow_up_prompt(query, ranked), FOLLOW_UP_TOKENS).await;
        answer.map(|answer| read_follow_ups(&answer, query)).unwrap_or_default()
    }
}

/// What the client has no room for. As a rule the model waits for its client; but one that reads slowly must not hold up others who
/// wait for the same answer. What has to be kept is bounded by the answer's cap.
struct Untold<'a> {
    text: String,
    flight: &'a Flight<Arc<KeptSearch>>,
}

impl Untold<'_> {
    /// Tells the client more of the answer.
    async fn tell(&mut self, client: &mut Client<SearchEvent>, more: String) -> Result<(), Ending> {
        self.text.push_str(&more);
        if self.text.is_empty() {
            return Ok(());
        }
        match client.offer(SearchEvent::Content(std::mem::take(&mut self.text)))? {
            Some(SearchEvent::Content(text)) if self.flight.is_awaited() => {
                self.text = text;
                Ok(())
            }
            Some(refused) => client.send(refused).await,
            None => Ok(()),
        }
    }
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
