//! Why there is no speech.

use thiserror::Error;

use crate::admission::AdmissionError;
use crate::chat::{ChatError, ChatRejected};
use crate::limit::RateStatus;
use crate::model::{AudioFormat, GatewayError, ModelNotAllowed};

/// Why there is no audio, or not all of it.
#[derive(Debug, Error)]
pub enum SpeechError {
    /// What can go wrong in a chat.
    #[error(transparent)]
    Common(#[from] ChatError),
    /// The tenant has not switched speech on.
    #[error("speech is switched off")]
    SwitchedOff,
    /// The tenant names no model that speaks.
    #[error("the tenant has no model that speaks")]
    NoModel,
    /// The model cannot write this.
    #[error("the model cannot write {format}")]
    NoEncoder {
        /// What was asked for.
        format: AudioFormat,
        /// What it can write.
        formats: Vec<AudioFormat>,
    },
    /// The model has no such voice.
    #[error("the model has no such voice")]
    UnknownVoice,
}

macro_rules! common {
    ($($error:ty),+) => {
        $(impl From<$error> for SpeechError {
            fn from(error: $error) -> Self {
                Self::Common(error.into())
            }
        })+
    };
}
common!(AdmissionError, GatewayError, ModelNotAllowed);

/// A refusal, and the windows that go into its headers.
#[derive(Debug, Error)]
#[error("{error}")]
pub struct SpeechRejected {
    /// Why.
    #[source]
    pub error: SpeechError,
    /// The caller's windows, when they were looked at.
    pub rate: Option<RateStatus>,
}

impl From<SpeechError> for SpeechRejected {
    fn from(error: SpeechError) -> Self {
        match error {
            SpeechError::Common(error) => {
                let ChatRejected { error, rate } = error.into();
                Self { error: error.into(), rate }
            }
            error => Self { error, rate: None },
        }
    }
}
