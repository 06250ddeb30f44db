//! Calls of models that speak: retries, breakers, timeouts and bounds, the same for every engine.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;

use super::attempts::{Attempt, Attempts, outcome, within};
use super::breaker::Admitted;
use super::{
    AudioFormat, AudioStream, BreakerPolicy, GatewayError, ModelError, ModelTimeouts, Outcome, Phase, RetryPolicy,
    SpeechAbilities, SpeechCall, SpeechCatalog, SpeechRoute,
};
use crate::admission::Permit;
use crate::id::{ModelId, ProviderId};
use crate::ports::{Clock, IdSource};
use crate::tenant::Tenant;
use crate::time::Timestamp;

/// The longest piece of audio that is handed on at once, in bytes: a few of them wait for a slow client.
const MAX_PIECE: usize = 64 * 1024;

/// Calls models that speak.
#[derive(Clone)]
pub struct SpeechGateway {
    catalog: Arc<dyn SpeechCatalog>,
    attempts: Attempts,
    timeouts: ModelTimeouts,
    max_bytes: usize,
}

impl SpeechGateway {
    /// The most audio of one call where nobody says otherwise, in bytes: ten minutes of 16 bits at 22 kHz, and about an hour and a
    /// half of what is compressed.
    pub const MAX_BYTES: usize = 32 * 1024 * 1024;

    /// A gateway to the models of `catalog`, whose audio may have [`MAX_BYTES`](Self::MAX_BYTES).
    pub fn new(
        catalog: Arc<dyn SpeechCatalog>,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn IdSource>,
        breaker: BreakerPolicy,
        retry: RetryPolicy,
        timeouts: ModelTimeouts,
    ) -> Self {
        Self { catalog, attempts: Attempts::new(clock, ids, breaker, retry), timeouts, max_bytes: Self::MAX_BYTES }
    }

    /// The same, whose audio may have `max_bytes` and no more.
    #[must_use]
    pub fn with_max_bytes(self, max_bytes: usize) -> Self {
        Self { max_bytes, ..self }
    }

    /// What `model` can do for `tenant`; `None` when nobody serves it. Whether the tenant may ask for it is not asked here.
    pub fn abilities(&self, tenant: &Tenant, model: &ModelId) -> Option<SpeechAbilities> {
        self.catalog.find(tenant, model)?.synthesizer.abilities(model)
    }

    /// Asks the model of `call`, as often as the retry policy says, until its audio begins. Nothing is tried again once a piece of
    /// it was seen: it may have reached the client.
    ///
    /// The permit shows that the limiter and the ledger have agreed.
    ///
    /// # Errors
    /// [`GatewayError`].
    pub async fn open(
        &self,
        _permit: &Permit,
        tenant: &Tenant,
        call: &SpeechCall,
        deadline: Timestamp,
    ) -> Result<OpenedSpeech, GatewayError> {
        let model = &call.model;
        let Some(SpeechRoute { provider, synthesizer }) = self.catalog.find(tenant, model) else {
            return Err(GatewayError::UnknownModel(model.clone()));
        };
        let attempt = Attempt { provider: &provider, model, limit: self.timeouts.first_token, deadline };
        let opening = || async { begin(synthesizer.speak(call).await?, call.format).await };
        let opened = self.attempts.make(attempt, opening).await;
        let ((first, stream), admitted) =
            opened.map_err(|source| GatewayError::Failed { model: model.clone(), source })?;
        admitted.answered();
        Ok(OpenedSpeech {
            provider,
            rest: first,
            stream: Some(stream),
            admitted: Some(admitted),
            clock: Arc::clone(&self.attempts.clock),
            timeouts: self.timeouts,
            bytes_left: self.max_bytes,
        })
    }
}

/// Reads the start of `stream`, which must be one of `format`: that tells audio from a page, from a failure with a good status, and
/// from audio that nobody asked for.
async fn begin(mut stream: AudioStream, format: AudioFormat) -> Result<(Bytes, AudioStream), ModelError> {
    let mut start = Bytes::new();
    while start.len() < AudioFormat::START {
        let Some(piece) = stream.next().await.transpose()? else { break };
        start = if start.is_empty() {
            piece
        } else {
            let mut joined = BytesMut::from(start.as_ref());
            joined.extend_from_slice(&piece);
            joined.freeze()
        };
    }
    match AudioFormat::of_start(&start) {
        Some(found) if found == format => Ok((start, stream)),
        _ if start.is_empty() => Err(ModelError::Interrupted { message: "there is no audio".to_owned() }),
        Some(found) => Err(ModelError::Malformed { message: format!("the audio is {found} and not {format}") }),
        None => Err(ModelError::Malformed { message: format!("what came is no {format}") }),
    }
}

/// Audio whose start has been seen.
pub struct OpenedSpeech {
    /// Who speaks.
    pub provider: ProviderId,
    /// What was read and not handed on yet.
    rest: Bytes,
    stream: Option<AudioStream>,
    admitted: Option<Admitted>,
    clock: Arc<dyn Clock>,
    timeouts: ModelTimeouts,
    bytes_left: usize,
}

impl OpenedSpeech {
    /// The next piece; `None` when the audio is whole. Audio that breaks off gives an error last. Dropping this ends the engine's
    /// work.
    pub async fn next(&mut self) -> Option<Result<Bytes, ModelError>> {
        let failure = loop {
            if !self.rest.is_empty() {
                let piece = self.rest.split_to(self.rest.len().min(MAX_PIECE));
                let Some(left) = self.bytes_left.checked_sub(piece.len()) else {
                    break ModelError::Malformed { message: "the audio is too long".to_owned() };
                };
                self.bytes_left = left;
                return Some(Ok(piece));
            }
            let stream = self.stream.as_mut()?;
            match within(&*self.clock, self.timeouts.idle, Phase::Idle, stream.next()).await {
                Ok(Some(Ok(piece))) => self.rest = piece,
                Ok(None) => {
                    self.stream = None;
                    if let Some(admitted) = self.admitted.take() {
                        admitted.record(Outcome::Success, self.clock.now());
                    }
                    return None;
                }
                Ok(Some(Err(error))) | Err(error) => break error,
            }
        };
        self.stream = None;
        self.rest = Bytes::new();
        if let Some(admitted) = self.admitted.take() {
            admitted.record(outcome(&failure), self.clock.now());
        }
        Some(Err(failure))
    }
}
