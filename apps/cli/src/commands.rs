//! What the tool does, one command a file.

pub(crate) mod audit;
pub(crate) mod keys;
pub(crate) mod models;
pub(crate) mod tenants;

use std::error::Error;
use std::io;

use enigma_ondevice::weights::PullError;
use enigma_operator::keys::NoRandomness;
use enigma_operator::tenants::Problems;
use enigma_sqlite::OpenError;
use thiserror::Error;

/// Why a command has not done its work.
#[derive(Debug, Error)]
pub(crate) enum CommandError {
    #[error("there is no model {0}; the models are: {1}")]
    UnknownModel(String, String),
    #[error("there is no home directory: say --directory")]
    NoDirectory,
    #[error("the weights cannot be fetched")]
    Pull(#[from] PullError),
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
    #[error(transparent)]
    Tenants(#[from] Problems),
    #[error("the database cannot be read")]
    Database(#[from] OpenError),
    #[error("cannot use the operating system's services")]
    System(#[from] io::Error),
}

impl CommandError {
    /// 2 for what the operator has to write differently, 1 for what went wrong.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::UnknownModel(..) | Self::NoDirectory | Self::Tenants(_) => 2,
            Self::Pull(_) | Self::Randomness(_) | Self::Database(_) | Self::System(_) => 1,
        }
    }
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
