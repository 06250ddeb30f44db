//! Why a chat was refused, or failed before its first piece.

use thiserror::Error;

use crate::admission::AdmissionError;
use crate::limit::RateStatus;
use crate::model::{GatewayError, ModelNotAllowed};
use crate::port_error::PortError;
use crate::tools::ToolError;

/// Why there is no reply.
#[derive(Debug, Error)]
pub enum ChatError {
    /// The tenant does not allow the model.
    #[error(transparent)]
    ModelNotAllowed(#[from] ModelNotAllowed),
    /// The limiter or the ledger refused.
    #[error(transparent)]
    Admission(#[from] AdmissionError),
    /// No model answered.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// A backend failed.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The first request with this idempotency key still runs.
    #[error("the first request with this idempotency key still runs")]
    IdempotencyInProgress,
    /// The idempotency key was used for something else.
    #[error("the idempotency key was used for another request")]
    IdempotencyMismatch,
    /// The session was begun by another user, for whom the caller does not speak.
    #[error("the session is another user's")]
    SessionOfAnother,
    /// A session keeps plain text, not tool calls.
    #[error("a session cannot be combined with tools")]
    SessionWithTools,
    /// With a session, the newest message must be a question.
    #[error("the newest message is not the user's")]
    SessionWithoutQuestion,
    /// The tool that should have run first has no result.
    #[error("the tool has no result")]
    Tool(#[source] Box<ToolError>),
    /// The request took too long before the model answered.
    #[error("no answer within the time that a request may take")]
    TimedOut,
    /// The client went away; nobody reads this.
    #[error("the client has gone")]
    ClientGone,
    /// The program is about to stop.
    #[error("the service is stopping")]
    ShuttingDown,
    /// The task of the request died.
    #[error("the request's task ended without an answer")]
    Died,
}

/// A refusal, and the windows that go into its headers.
#[derive(Debug, Error)]
#[error("{error}")]
pub struct ChatRejected {
    /// Why.
    #[source]
    pub error: ChatError,
    /// The caller's windows, when they were looked at.
    pub rate: Option<RateStatus>,
}

impl<E: Into<ChatError>> From<E> for ChatRejected {
    fn from(error: E) -> Self {
        let error = error.into();
        let rate = match &error {
            ChatError::Admission(AdmissionError::RateLimited(rate) | AdmissionError::TooManyStreams { rate, .. }) => {
                Some(*rate)
            }
            _ => None,
        };
        Self { error, rate }
    }
}
