//! The life of one request for speech, from its first slot to its last record. One task runs it, whatever the client does.

use std::panic::AssertUnwindSafe;

use futures_channel::oneshot;
use futures_util::FutureExt;

use super::command::{SpeakCommand, SpeechDone, SpeechEvent};
use super::error::{SpeechError, SpeechRejected};
use super::service::SpeechService;
use crate::admission::{AdmissionError, Permit, Spent};
use crate::chat::ChatError;
use crate::client::Client;
use crate::id::{ModelId, ProviderId};
use crate::limit::RateStatus;
use crate::model::{AudioFormat, CallMetadata, GatewayError, ModelError, OpenedSpeech, SpeechCall};
use crate::port_error::degrade;
use crate::session::estimate_tokens;
use crate::tenant::TenantContext;
use crate::time::Timestamp;
use crate::usage::{Ending, UsageRecord};

/// What is asked of a model that can do it.
pub(super) struct Chosen {
    pub(super) model: ModelId,
    pub(super) format: AudioFormat,
}

/// What is known when the audio begins.
pub(super) struct Opened {
    pub(super) characters: u32,
    pub(super) tokens: u64,
    pub(super) rate: RateStatus,
}

type Opening = oneshot::Sender<Result<Opened, SpeechRejected>>;

/// One request on its way.
struct Run {
    service: SpeechService,
    context: TenantContext,
    command: SpeakCommand,
    chosen: Chosen,
    characters: u32,
    tokens: u64,
    started: Timestamp,
}

/// How a request that had its slots has ended.
struct Outcome {
    spent: Spent,
    record: Option<UsageRecord>,
    told: Result<Vec<SpeechEvent>, (Opening, SpeechError)>,
}

/// What has become of audio that had begun.
struct Spoken {
    bytes: u64,
    ending: Ending,
    failure: Option<SpeechError>,
}

pub(super) async fn conduct(
    service: SpeechService,
    context: TenantContext,
    command: SpeakCommand,
    chosen: Chosen,
    client: Client<SpeechEvent>,
    opening: Opening,
) {
    let started = service.ports.clock.now();
    let characters = u32::try_from(command.text.chars().count()).unwrap_or(u32::MAX);
    let tokens = estimate_tokens(&command.text);
    Run { service, context, command, chosen, characters, tokens, started }.run(client, opening).await;
}

impl Run {
    async fn run(self, mut client: Client<SpeechEvent>, opening: Opening) {
        let ports = &self.service.ports;
        let request = self.command.request;
        let entry = match ports.admission.enter(&self.context, &self.command.caller, request, self.started).await {
            Ok(entry) => entry,
            Err(error) => return reject(opening, SpeechError::from(error).into()),
        };
        let rate = *entry.rate();
        let now = ports.clock.now();
        let Outcome { spent, record, told } =
            match ports.admission.reserve(&self.context, &entry, self.tokens, now).await {
                Ok(permit) => self.speak(&mut client, permit, rate, opening).await,
                Err(error) => {
                    let spent = if matches!(error, AdmissionError::Port(_)) { Spent::Unknown } else { Spent::Nothing };
                    Outcome { spent, record: None, told: Err((opening, error.into())) }
                }
            };
        // The one place where a request that got in is closed, whatever has become of it.
        degrade(ports.admission.close(&self.context, entry, spent, record.as_ref(), ports.clock.now()).await);
        match told {
            Ok(last) => client.close(last).await,
            Err((opening, error)) => reject(opening, SpeechRejected { error, rate: Some(rate) }),
        }
    }

    async fn speak(
        &self,
        client: &mut Client<SpeechEvent>,
        permit: Permit,
        rate: RateStatus,
        opening: Opening,
    ) -> Outcome {
        let ports = &self.service.ports;
        let call = self.call();
        let deadline = self.started.saturating_add(self.service.settings.request_timeout);
        let opened = client.race(ports.speech.open(&permit, self.context.tenant(), &call, deadline)).await;
        match opened {
            Ok(Ok(speech)) => {
                let first = ports.clock.now();
                // A client that has gone is noticed by the first piece.
                let _ = opening.send(Ok(Opened { characters: self.characters, tokens: self.tokens, rate }));
                let provider = speech.provider.clone();
                let Spoken { bytes, ending, failure } = self.pump(client, speech).await;
                let record = self.record(Some(provider), Some(first), ending, true);
                let latency = ports.clock.now().since(self.started);
                let failed = failure.map(SpeechEvent::Failed).into_iter();
                let last = failed.chain([SpeechEvent::Done(SpeechDone { bytes, latency, ending })]).collect();
                Outcome { spent: Spent::Used(permit, self.tokens), record: Some(record), told: Ok(last) }
            }
            Ok(Err(error)) => {
                // Nothing was heard, so nothing is charged.
                let record = self.record(None, None, ending_of(&error), false);
                Outcome { spent: Spent::Unused(permit), record: Some(record), told: Err((opening, error.into())) }
            }
            Err(ending) => {
                // The engine is at work on a text that it has been given.
                let record = self.record(None, None, ending, true);
                let spent = Spent::Used(permit, self.tokens);
                Outcome { spent, record: Some(record), told: Err((opening, early(ending))) }
            }
        }
    }

    /// Passes the audio on, piece by piece, until it ends in one way or another. The engine is not read while the client does not
    /// read.
    async fn pump(&self, client: &mut Client<SpeechEvent>, mut speech: OpenedSpeech) -> Spoken {
        let mut bytes = 0;
        let passing_on = async {
            loop {
                match client.race(speech.next()).await {
                    Ok(None) => break (Ending::Finished, None),
                    Ok(Some(Ok(piece))) => {
                        bytes += piece.len() as u64;
                        if let Err(ending) = client.send(SpeechEvent::Audio(piece)).await {
                            break (ending, Some(early(ending)));
                        }
                    }
                    Ok(Some(Err(source))) => {
                        let error = GatewayError::Failed { model: self.chosen.model.clone(), source };
                        tracing::warn!(
                            tenant = %self.context.id(), trace = %self.command.trace,
                            error = &error as &dyn std::error::Error, "audio broke off"
                        );
                        break (ending_of(&error), Some(error.into()));
                    }
                    Err(ending) => break (ending, Some(early(ending))),
                }
            }
        };
        // An adapter that panics has failed; the books and the client are owed an end all the same.
        let (ending, failure) = AssertUnwindSafe(passing_on).catch_unwind().await.unwrap_or_else(|_| {
            let source = ModelError::Interrupted { message: "the model's adapter panicked".to_owned() };
            let error = GatewayError::Failed { model: self.chosen.model.clone(), source };
            (Ending::Failed, Some(error.into()))
        });
        // Whatever was the reason, the engine's work ends here, before the bookkeeping.
        drop(speech);
        Spoken { bytes, ending, failure }
    }

    fn call(&self) -> SpeechCall {
        let (tenant, command) = (self.context.tenant(), &self.command);
        SpeechCall {
            model: self.chosen.model.clone(),
            text: command.text.clone(),
            voice: command.voice.clone(),
            format: self.chosen.format,
            speed: command.speed,
            metadata: CallMetadata {
                tenant: tenant.id().clone(),
                trace: command.trace.clone(),
                traceparent: command.traceparent.clone(),
                session: None,
                route: command.route,
                gateway: tenant.ai_gateway_id().map(str::to_owned),
            },
        }
    }

    /// The record of the request, before it is known what it was charged.
    fn record(
        &self,
        provider: Option<ProviderId>,
        first: Option<Timestamp>,
        ending: Ending,
        is_spent: bool,
    ) -> UsageRecord {
        let tokens = u32::try_from(self.tokens).unwrap_or(u32::MAX);
        UsageRecord {
            request: self.command.request,
            trace: self.command.trace.clone(),
            route: self.command.route.to_owned(),
            user: self.command.caller.user.clone(),
            session: None,
            model: self.chosen.model.clone(),
            provider,
            at: self.started,
            latency: self.service.ports.clock.now().since(self.started),
            first_token: first.map(|at| at.since(self.started)),
            tokens_in: if is_spent { tokens } else { 0 },
            tokens_out: 0,
            characters: Some(if is_spent { self.characters } else { 0 }),
            // Of characters there is an exact count, and of tokens none.
            estimated: true,
            charged: 0,
            overrun: 0,
            ending,
        }
    }
}

/// Tells the caller, who may have gone.
fn reject(opening: Opening, rejected: SpeechRejected) {
    let _ = opening.send(Err(rejected));
}

fn early(ending: Ending) -> SpeechError {
    match ending {
        Ending::ShutDown => ChatError::ShuttingDown,
        Ending::ClientGone => ChatError::ClientGone,
        Ending::TimedOut | Ending::Failed | Ending::Finished => ChatError::TimedOut,
    }
    .into()
}

const fn ending_of(error: &GatewayError) -> Ending {
    match error {
        GatewayError::Failed { source: ModelError::Timeout(_), .. } => Ending::TimedOut,
        GatewayError::Failed { .. } | GatewayError::UnknownModel(_) => Ending::Failed,
    }
}
