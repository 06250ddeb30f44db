//! Why a tool did not do what it was asked.

use std::time::Duration;

use thiserror::Error;

use super::definition::Permission;
use super::schema::Violation;
use crate::admission::AdmissionError;
use crate::chat::{ChatError, ChatRejected};
use crate::id::ToolName;
use crate::limit::RateStatus;
use crate::model::{GatewayError, ModelNotAllowed};
use crate::port_error::PortError;
use crate::search::RetrievalError;

/// How a tool itself fails. Its text is for operators; clients get a fixed sentence for each kind, but of [`ToolFailure::Told`].
#[derive(Debug, Error)]
pub enum ToolFailure {
    /// Parameters that keep to the schema and yet cannot be used.
    #[error("the parameters cannot be used")]
    Invalid(Vec<Violation>),
    /// The model gave no answer that could be used, when it was asked again either.
    #[error("the model's answer cannot be used: {0}")]
    Unusable(String),
    /// No model answered, or another part of the platform refused.
    #[error(transparent)]
    Common(#[from] ChatError),
    /// A document could not be taken in.
    #[error(transparent)]
    Retrieval(RetrievalError),
    /// Something that the client is told as it is: one sentence, with nothing secret in it.
    #[error("{0}")]
    Told(String),
    /// Something that the client is not told.
    #[error("{0}")]
    Other(String),
}

impl From<GatewayError> for ToolFailure {
    fn from(error: GatewayError) -> Self {
        Self::Common(error.into())
    }
}

impl From<ModelNotAllowed> for ToolFailure {
    fn from(error: ModelNotAllowed) -> Self {
        Self::Common(error.into())
    }
}

impl From<PortError> for ToolFailure {
    fn from(error: PortError) -> Self {
        Self::Common(error.into())
    }
}

impl From<RetrievalError> for ToolFailure {
    fn from(error: RetrievalError) -> Self {
        match error {
            RetrievalError::Common(error) => Self::Common(error),
            error => Self::Retrieval(error),
        }
    }
}

/// Why there is no result.
#[derive(Debug, Error)]
pub enum ToolError {
    /// Limits, budget, idempotency, a backend, the end of the program: what can happen to every request.
    #[error(transparent)]
    Common(#[from] ChatError),
    /// There is no such tool.
    #[error("there is no tool {0}")]
    NotFound(ToolName),
    /// The caller may not use it.
    #[error("the caller lacks {0}")]
    Denied(Permission),
    /// The parameters break the schema.
    #[error("the parameters break the schema in {} places", .0.len())]
    Invalid(Vec<Violation>),
    /// It took longer than it may.
    #[error("the tool took longer than {0:?}")]
    TimedOut(Duration),
    /// It failed.
    #[error("the tool failed")]
    Failed(#[source] ToolFailure),
}

impl From<AdmissionError> for ToolError {
    fn from(error: AdmissionError) -> Self {
        Self::Common(error.into())
    }
}

impl From<PortError> for ToolError {
    fn from(error: PortError) -> Self {
        Self::Common(error.into())
    }
}

/// A refusal or a failure, and the windows that go into its headers.
#[derive(Debug, Error)]
#[error("{error}")]
pub struct ToolRejected {
    /// Why.
    #[source]
    pub error: ToolError,
    /// The caller's windows, when they were looked at.
    pub rate: Option<RateStatus>,
}

impl From<ToolError> for ToolRejected {
    fn from(error: ToolError) -> Self {
        match error {
            ToolError::Common(error) => {
                let ChatRejected { error, rate } = error.into();
                Self { error: error.into(), rate }
            }
            error => Self { error, rate: None },
        }
    }
}
