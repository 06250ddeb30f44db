//! A model's answer on its way to the client, and the questions beside it.

use std::panic::AssertUnwindSafe;
use std::pin::pin;

use futures_util::FutureExt;
use futures_util::future::{Either, select};

use super::books::Pending;
use super::command::{SearchEvent, Source};
use super::conduct::{Answer, FOLLOW_UP_TOKENS, Run};
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
    ) -> Answer {
        let clock = &self.shared.ports.clock;
        let (model, provider, first_token) = (reply.model.clone(), reply.provider.clone(), clock.now());
        let mut transcript = Transcript::default();
        let mut citations = CitationFilter::new(sources.iter().map(|source| source.id.clone()));
        let mut text = String::new();
        let ((ending, failure), follow_ups) = {
            let passing_on = async {
                if let Err(ending) = client.send(SearchEvent::Sources(sources.to_vec())).await {
                    return (ending, interruption(ending));
                }
                self.pass_on(client, &mut reply, &mut transcript, &mut citations, &mut text, call.max_tokens).await
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
        Answer { text, cites, follow_ups, model, first_token, ending, failure }
    }

    async fn pass_on(
        &self,
        client: &mut Client<SearchEvent>,
        reply: &mut OpenedReply,
        transcript: &mut Transcript,
        citations: &mut CitationFilter,
        text: &mut String,
        max_tokens: u32,
    ) -> (Ending, Option<StreamFailure>) {
        let end = loop {
            match client.race(reply.next()).await {
                Ok(None) => break (Ending::Finished, None),
                Ok(Some(Ok(delta))) => {
                    if let Some(ChatEvent::Content(piece)) = transcript.take(delta) {
                        let told = citations.push(&piece);
                        text.push_str(&told);
                        if !told.is_empty()
                            && let Err(ending) = client.send(SearchEvent::Content(told)).await
                        {
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
        if !rest.is_empty() {
            text.push_str(&rest);
            if let Err(ending) = client.send(SearchEvent::Content(rest)).await {
                return (ending, interruption(ending));
            }
        }
        end
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

/// What the client is told of an ending, if it is there to be told.
const fn interruption(ending: Ending) -> Option<StreamFailure> {
    match ending {
        Ending::TimedOut => Some(StreamFailure::TimedOut),
        Ending::ShutDown => Some(StreamFailure::ShutDown),
        Ending::Failed => Some(StreamFailure::Model),
        Ending::Finished | Ending::ClientGone => None,
    }
}
