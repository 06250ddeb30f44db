//! How a model fails.

use std::error::Error as StdError;
use std::time::Duration;

use thiserror::Error;

/// The part of a call that took too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Until the provider accepted the call.
    Connect,
    /// Until the first piece of the answer.
    FirstToken,
    /// Between two pieces.
    Idle,
    /// The request as a whole.
    Deadline,
}

/// A failed call of a model. Its text is for operators; clients get a fixed sentence for each kind.
#[derive(Debug, Error)]
pub enum ModelError {
    /// The provider cannot be reached, or failed by its own account (5xx).
    #[error("provider unavailable: {message}")]
    Unavailable {
        /// What was seen.
        message: String,
        /// The transport's error, when it was that.
        #[source]
        source: Option<Box<dyn StdError + Send + Sync>>,
        /// How long it asked us to wait, as with a 503.
        retry_after: Option<Duration>,
    },
    /// The provider asks for patience (429).
    #[error("provider rate limit reached")]
    RateLimited {
        /// How long it asked us to wait.
        retry_after: Option<Duration>,
    },
    /// The model's own queue is full.
    #[error("model queue is full")]
    Busy,
    /// Nothing came in time.
    #[error("no answer in time ({0:?})")]
    Timeout(Phase),
    /// The answer broke off.
    #[error("answer broke off: {message}")]
    Interrupted {
        /// How.
        message: String,
    },
    /// The provider answered with what is not an answer.
    #[error("malformed answer: {message}")]
    Malformed {
        /// What was wrong.
        message: String,
    },
    /// The provider refused the call as it stands (4xx).
    #[error("provider refused the call with status {status} ({message})")]
    Rejected {
        /// The HTTP status.
        status: u16,
        /// The provider's name for the error. Not its sentence, which may repeat the prompt.
        message: String,
    },
    /// The provider does not accept our credentials.
    #[error("provider refused our credentials with status {status}")]
    Unauthorized {
        /// The HTTP status.
        status: u16,
    },
    /// The model cannot do what the call asks for.
    #[error("the model does not support {feature}")]
    Unsupported {
        /// What it cannot do, in the client's terms, such as `tools`.
        feature: &'static str,
    },
    /// The prompt does not fit the model's context.
    #[error("the prompt has {tokens} tokens and the model takes {limit}")]
    ContextLength {
        /// Tokens of the prompt.
        tokens: u32,
        /// What the model takes.
        limit: u32,
    },
    /// The prompt does not fit the model's context, by the provider's word.
    #[error("the prompt is too long for the model")]
    PromptTooLong,
    /// The breaker of this provider and model is open.
    #[error("breaker is open")]
    BreakerOpen,
}

impl ModelError {
    /// A provider that cannot be reached or failed, without an underlying error.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::Unavailable { message: message.into(), source: None, retry_after: None }
    }

    /// Whether the same call may succeed when it is tried again, as long as nothing of an answer was seen.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable { .. }
            | Self::RateLimited { .. }
            | Self::Timeout(Phase::Connect | Phase::FirstToken | Phase::Idle)
            | Self::Interrupted { .. }
            | Self::Malformed { .. } => true,
            // A full queue is told to the client at once: waiting in line is what the queue was for.
            Self::Busy
            | Self::Timeout(Phase::Deadline)
            | Self::Rejected { .. }
            | Self::Unauthorized { .. }
            | Self::Unsupported { .. }
            | Self::ContextLength { .. }
            | Self::PromptTooLong
            | Self::BreakerOpen => false,
        }
    }

    /// Whether another model may do what this one could not. False where the request itself is at fault.
    pub const fn allows_fallback(&self) -> bool {
        match self {
            Self::Unsupported { .. }
            | Self::ContextLength { .. }
            | Self::PromptTooLong
            | Self::Timeout(Phase::Deadline) => false,
            Self::Rejected { status, .. } => !matches!(status, 400 | 413 | 422),
            _ => true,
        }
    }

    /// Whether it says something about the provider's health, and so counts for its breaker. A provider that asks for patience
    /// is well; and one tenant's haste must not shut it to the others.
    pub const fn counts_for_breaker(&self) -> bool {
        matches!(
            self,
            Self::Unavailable { .. }
                | Self::Timeout(Phase::Connect | Phase::FirstToken | Phase::Idle)
                | Self::Interrupted { .. }
                | Self::Malformed { .. }
                | Self::Unauthorized { .. }
        )
    }

    /// How long the provider asked us to wait.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after } | Self::Unavailable { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_to_wait_is_kept_whatever_the_status_was() {
        let retry_after = Some(Duration::from_secs(7));
        let unavailable = ModelError::Unavailable { message: String::new(), source: None, retry_after };
        assert_eq!(unavailable.retry_after(), retry_after);
        assert_eq!(ModelError::RateLimited { retry_after }.retry_after(), retry_after);
        assert_eq!(ModelError::unavailable("500").retry_after(), None);
        assert!(unavailable.counts_for_breaker(), "a provider that is down is not well, however politely it says so");
        assert!(!ModelError::RateLimited { retry_after }.counts_for_breaker());
    }
}
