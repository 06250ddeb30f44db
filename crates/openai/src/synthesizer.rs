//! The models of an endpoint that speak.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use enigma_core::ModelId;
use enigma_core::model::{
    AudioFormat, AudioStream, ModelError, SpeechAbilities, SpeechCall, SpeechSynthesizer, read_failure,
};

use crate::answer::read_audio;
use crate::model::not_sent;
use crate::protocol::Endpoint;
use crate::transport::Transport;

/// The models of one endpoint that speak, by `POST {base_url}/audio/speech`. Audio is passed on as the endpoint sends it. What its
/// models and voices are the protocol does not tell: every model is taken to write every format, and a voice that there is not is the
/// endpoint's to refuse.
#[derive(Clone)]
pub struct OpenAiSynthesizer {
    endpoint: Endpoint,
    transport: Arc<dyn Transport>,
}

impl OpenAiSynthesizer {
    /// The models of `endpoint`, asked through `transport`.
    pub fn new(endpoint: Endpoint, transport: Arc<dyn Transport>) -> Self {
        Self { endpoint, transport }
    }
}

impl fmt::Debug for OpenAiSynthesizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenAiSynthesizer").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

#[async_trait]
impl SpeechSynthesizer for OpenAiSynthesizer {
    fn abilities(&self, _model: &ModelId) -> Option<SpeechAbilities> {
        let voices = Arc::clone(self.endpoint.voices());
        Some(SpeechAbilities { formats: AudioFormat::ALL.to_vec(), voices, other_voices: true, speed: true })
    }

    async fn speak(&self, call: &SpeechCall) -> Result<AudioStream, ModelError> {
        let request = self.endpoint.speech_request(call);
        let (head, body) = self.transport.send(request).await.map_err(not_sent)?.into_parts();
        if !head.status.is_success() {
            let body = read_failure(body).await;
            return Err(self.endpoint.failure(&head, &body));
        }
        Ok(read_audio(body))
    }
}
