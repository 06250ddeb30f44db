//! What can go wrong with the database.

use std::sync::Arc;

use enigma_core::PortError;
use rusqlite::ErrorCode;
use thiserror::Error;

/// Why a database was not opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// An option makes no sense.
    #[error("{0} must be between 1 and {max}", max = crate::options::MOST)]
    Option(&'static str),
    /// The file or its lock file cannot be opened.
    #[error("the database file cannot be opened")]
    File(#[source] std::io::Error),
    /// Another program, or another part of this one, has the database open.
    #[error("the database is in use")]
    InUse,
    /// The file is something else.
    #[error("the file is not a database of this program")]
    Foreign,
    /// The file was one of ours and is damaged.
    #[error("the database is damaged")]
    Damaged(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A newer version of this program has written the file.
    #[error("the database has schema {found}, and this program knows none after {known}")]
    NewerSchema {
        /// The schema of the file.
        found: i64,
        /// The newest schema that this program knows.
        known: i64,
    },
    /// The schema could not be brought up to date; it is as it was.
    #[error("the database could not be migrated to schema {to}")]
    Migration {
        /// The schema that was to be reached.
        to: i64,
        /// Why not.
        #[source]
        source: rusqlite::Error,
    },
    /// SQLite refuses for another reason.
    #[error("the database cannot be opened")]
    Sqlite(#[source] rusqlite::Error),
    /// The system gives no thread to write with.
    #[error("the writer's thread cannot be started")]
    Thread(#[source] std::io::Error),
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => Self::Foreign,
            Some(ErrorCode::DatabaseCorrupt) => Self::Damaged(error.into()),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::InUse,
            _ => Self::Sqlite(error),
        }
    }
}

/// Why a piece of work with an open database failed.
#[derive(Debug, Error)]
pub(crate) enum StoreError {
    #[error("the statement failed")]
    Sqlite(#[from] rusqlite::Error),
    #[error("the transaction failed")]
    Transaction(#[source] Arc<rusqlite::Error>),
    #[error("the work panicked")]
    Panicked,
    #[error("{0}")]
    Refused(&'static str),
    #[error("too many wait for the database")]
    Busy,
    #[error("the database is closed")]
    Closed,
}

impl StoreError {
    /// The same, for another one who waits for the same piece of work.
    pub(crate) fn again(&self) -> Self {
        match self {
            Self::Transaction(error) => Self::Transaction(Arc::clone(error)),
            Self::Panicked => Self::Panicked,
            Self::Busy => Self::Busy,
            // Only transactions are waited for by several.
            Self::Sqlite(_) | Self::Refused(_) | Self::Closed => Self::Closed,
        }
    }

    /// The error as the users of `port` see it.
    pub(crate) fn into_port(self, port: &'static str) -> PortError {
        if self.is_corruption() { PortError::corrupt(port, self) } else { PortError::unavailable(port, self) }
    }

    fn is_corruption(&self) -> bool {
        let error = match self {
            Self::Sqlite(error) => error,
            Self::Transaction(error) => error.as_ref(),
            Self::Panicked | Self::Refused(_) | Self::Busy | Self::Closed => return false,
        };
        match error {
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::Utf8Error(..) => true,
            other => matches!(other.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)),
        }
    }
}
