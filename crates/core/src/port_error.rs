//! What can go wrong behind a port.

use std::error::Error as StdError;

use thiserror::Error;

type Source = Box<dyn StdError + Send + Sync>;

/// Trouble behind a port: the adapter could not keep its promise. Absence is an `Option` and a denial is a value, neither is
/// an error. The text is for operators and never reaches a client.
#[derive(Debug, Error)]
pub enum PortError {
    /// The backend cannot be reached or refuses work now; a later try may succeed.
    #[error("{port} is unavailable")]
    Unavailable {
        /// The port that failed, such as `session store`.
        port: &'static str,
        /// Why, as the backend said it.
        #[source]
        source: Source,
    },
    /// The backend did not answer in time; whether it did the work is unknown.
    #[error("{port} did not answer in time")]
    Timeout {
        /// The port that failed.
        port: &'static str,
    },
    /// The backend answered with something that cannot be what was stored.
    #[error("{port} returned corrupt data")]
    Corrupt {
        /// The port that failed.
        port: &'static str,
        /// What was wrong with it.
        #[source]
        source: Source,
    },
}

impl PortError {
    /// The backend of `port` failed with `source`.
    pub fn unavailable(port: &'static str, source: impl Into<Source>) -> Self {
        Self::Unavailable { port, source: source.into() }
    }

    /// The backend of `port` returned what cannot be, as `source` says.
    pub fn corrupt(port: &'static str, source: impl Into<Source>) -> Self {
        Self::Corrupt { port, source: source.into() }
    }

    /// The port that failed.
    pub fn port(&self) -> &'static str {
        match self {
            Self::Unavailable { port, .. } | Self::Timeout { port } | Self::Corrupt { port, .. } => port,
        }
    }
}

/// Goes on without what failed, and says so to operators.
pub(crate) fn degrade<T>(result: Result<T, PortError>) -> Option<T> {
    let told = |error: &PortError| {
        let port = error.port();
        tracing::error!(port, error = error as &dyn StdError, "bookkeeping failed");
    };
    result.inspect_err(told).ok()
}
