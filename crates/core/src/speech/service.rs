//! The use case.

use std::sync::Arc;
use std::time::Duration;

use futures_channel::oneshot;

use super::command::{SpeakCommand, SpeechReply, Voices};
use super::conduct::{Chosen, Opened, conduct};
use super::error::{SpeechError, SpeechRejected};
use crate::admission::Admission;
use crate::chat::ChatError;
use crate::client::Client;
use crate::id::ModelId;
use crate::model::{AudioFormat, GatewayError, ModelError, ModelNotAllowed, SpeechGateway};
use crate::ports::{Background, Clock};
use crate::tenant::{Tenant, TenantContext};

/// The flag that switches speech on.
const FLAG: &str = "tts_enabled";

/// What a deployment decides about speech.
#[derive(Debug, Clone, Copy)]
pub struct SpeechSettings {
    /// How long a request may take in all.
    pub request_timeout: Duration,
    /// How long a client may read nothing.
    pub send_timeout: Duration,
}

impl Default for SpeechSettings {
    fn default() -> Self {
        Self { request_timeout: Duration::from_secs(300), send_timeout: Duration::from_secs(20) }
    }
}

/// What speech needs of the world.
#[derive(Clone)]
pub struct SpeechPorts {
    /// Limits, budgets and records.
    pub admission: Admission,
    /// The models that speak.
    pub speech: SpeechGateway,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// Speaks texts. Cheap to clone.
#[derive(Clone)]
pub struct SpeechService {
    pub(super) ports: SpeechPorts,
    pub(super) settings: SpeechSettings,
}

impl SpeechService {
    /// A service over `ports`.
    pub fn new(ports: SpeechPorts, settings: SpeechSettings) -> Self {
        Self { ports, settings }
    }

    /// The voices of the tenant's model.
    ///
    /// # Errors
    /// [`SpeechError`]: speech is switched off, or there is no model.
    pub fn voices(&self, context: &TenantContext) -> Result<Voices, SpeechError> {
        let tenant = context.tenant();
        let model = speaker(tenant, None)?;
        let abilities = self.ports.speech.abilities(tenant, &model);
        let abilities = abilities.ok_or_else(|| GatewayError::UnknownModel(model.clone()))?;
        Ok(Voices { model, abilities })
    }

    /// Speaks the text of `command`. Returns when the audio has begun; the rest comes as events.
    ///
    /// As with chats, one task on `background` does all of it, and settles and records exactly once on every ending. A text is paid
    /// for as the tokens that it would be in a prompt, all of them as soon as any of its audio was made: engines charge by the
    /// characters that they were given.
    ///
    /// # Errors
    /// [`SpeechRejected`] for everything that goes wrong before the audio begins.
    pub async fn speak(
        &self,
        context: TenantContext,
        command: SpeakCommand,
        background: &dyn Background,
    ) -> Result<SpeechReply, SpeechRejected> {
        let chosen = self.choose(context.tenant(), &command)?;
        let (model, format) = (chosen.model.clone(), chosen.format);
        let SpeechSettings { request_timeout, send_timeout } = self.settings;
        let (client, events) = Client::connect(background, &self.ports.clock, request_timeout, send_timeout);
        let (opened, opening) = oneshot::channel();
        background.spawn(Box::pin(conduct(self.clone(), context, command, chosen, client, opened)));
        let Opened { characters, tokens, rate } =
            opening.await.map_err(|_| SpeechRejected { error: ChatError::Died.into(), rate: None })??;
        Ok(SpeechReply { model, format, characters, tokens, rate, events })
    }

    /// What is asked of the model, where it can do that.
    fn choose(&self, tenant: &Tenant, command: &SpeakCommand) -> Result<Chosen, SpeechError> {
        let model = speaker(tenant, command.model.as_ref())?;
        let Some(abilities) = self.ports.speech.abilities(tenant, &model) else {
            return Err(GatewayError::UnknownModel(model).into());
        };
        let can = |format: &AudioFormat| abilities.formats.contains(format);
        let best = || Some(AudioFormat::Mp3).filter(can).or(abilities.formats.first().copied());
        let format = command.format.or_else(best).unwrap_or(AudioFormat::Mp3);
        if !can(&format) {
            return Err(SpeechError::NoEncoder { format, formats: abilities.formats });
        }
        let has = |voice: &String| abilities.voices.iter().any(|known| known.id == *voice);
        if command.voice.as_ref().is_some_and(|voice| !abilities.other_voices && !has(voice)) {
            return Err(SpeechError::UnknownVoice);
        }
        if !abilities.speed && (command.speed - 1.0).abs() > f64::EPSILON {
            return Err(GatewayError::Failed { model, source: ModelError::Unsupported { feature: "speed" } }.into());
        }
        Ok(Chosen { model, format })
    }
}

/// The model that speaks for `tenant`: the one that is asked for, if the tenant may have it, or else its own.
fn speaker(tenant: &Tenant, asked: Option<&ModelId>) -> Result<ModelId, SpeechError> {
    if !tenant.flag(FLAG) {
        return Err(SpeechError::SwitchedOff);
    }
    let own = tenant.speech_model();
    let model = asked.or(own).ok_or(SpeechError::NoModel)?;
    if own != Some(model) && !tenant.allows_model(model) {
        return Err(ModelNotAllowed(model.clone()).into());
    }
    Ok(model.clone())
}
