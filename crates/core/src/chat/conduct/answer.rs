//! A model's answer on its way to the client.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

use super::Conduct;
use crate::chat::command::{ChatEvent, StreamFailure};
use crate::chat::transcript::Transcript;
use crate::client::Client;
use crate::id::{ModelId, ProviderId};
use crate::model::{FinishReason, ModelError, ModelPlan, OpenedReply};
use crate::time::Timestamp;
use crate::usage::Ending;

/// What a model has answered, and how that ended.
pub(super) struct Answer {
    pub(super) transcript: Transcript,
    /// What it said between calls of tools.
    pub(super) said_before: String,
    pub(super) ending: Ending,
    pub(super) failure: Option<StreamFailure>,
    pub(super) model: ModelId,
    pub(super) provider: Option<ProviderId>,
    pub(super) first_token: Option<Timestamp>,
}

impl Answer {
    /// The outcome of a request that saw nothing of an answer.
    pub(super) fn none(plan: &ModelPlan, ending: Ending) -> Self {
        let model = plan.primary().clone();
        let (transcript, said_before) = (Transcript::default(), String::new());
        Self { transcript, said_before, ending, failure: None, model, provider: None, first_token: None }
    }

    /// Puts what was said between calls of tools before the rest. To be done when the rest has been counted.
    pub(super) fn join(&mut self) {
        self.transcript.content.insert_str(0, &std::mem::take(&mut self.said_before));
    }
}

impl Conduct {
    /// Passes the answer on, piece by piece, until it ends in one way or another. The model is not read while the client
    /// does not read. Calls of tools are told only where `tells_calls`.
    pub(super) async fn pump(
        &self,
        client: &mut Client<ChatEvent>,
        mut reply: OpenedReply,
        max_tokens: u32,
        tells_calls: bool,
    ) -> Answer {
        let (model, provider) = (reply.model.clone(), Some(reply.provider.clone()));
        let first_token = Some(self.shared.ports.clock.now());
        let mut transcript = if self.command.whole { Transcript::whole() } else { Transcript::default() };
        let passing_on = self.pass_on(client, &mut reply, &mut transcript, max_tokens, tells_calls);
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
        Answer { transcript, said_before: String::new(), ending, failure, model, provider, first_token }
    }

    async fn pass_on(
        &self,
        client: &mut Client<ChatEvent>,
        reply: &mut OpenedReply,
        transcript: &mut Transcript,
        max_tokens: u32,
        tells_calls: bool,
    ) -> (Ending, Option<StreamFailure>) {
        let model = reply.model.clone();
        loop {
            match client.race(reply.next()).await {
                Ok(None) => break (Ending::Finished, None),
                Ok(Some(Ok(delta))) => {
                    if let Some(event) = transcript.take(delta)
                        && !self.command.whole
                        && (tells_calls || !matches!(event, ChatEvent::ToolCall(_)))
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
}

/// What the client is told of an ending, if it is there to be told.
pub(super) const fn interruption(ending: Ending) -> Option<StreamFailure> {
    match ending {
        Ending::TimedOut => Some(StreamFailure::TimedOut),
        Ending::ShutDown => Some(StreamFailure::ShutDown),
        Ending::Failed => Some(StreamFailure::Model),
        Ending::Finished | Ending::ClientGone => None,
    }
}
