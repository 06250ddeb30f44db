//! Where key sets come from.

use std::error::Error as StdError;
use std::sync::Arc;

use async_trait::async_trait;
use enigma_core::token::KeySetLocation;
use thiserror::Error;

/// The longest key set that is read. A hundred RSA keys of 4096 bits with certificates fit.
pub const MAX_KEY_SET_BYTES: usize = 256 * 1024;

type Source = Arc<dyn StdError + Send + Sync>;

/// Why a key set could not be had.
#[derive(Debug, Clone, Error)]
pub enum FetchError {
    /// It could not be reached or read.
    #[error("the key set cannot be reached")]
    Unreachable(#[source] Source),
    /// The peer answered with this status, a redirect included.
    #[error("the key set's server answered with status {0}")]
    Status(u16),
    /// It is longer than [`MAX_KEY_SET_BYTES`].
    #[error("the key set is longer than {MAX_KEY_SET_BYTES} bytes")]
    TooLong,
    /// It took too long.
    #[error("the key set did not come in time")]
    Timeout,
    /// What came is no key set.
    #[error("the key set is none: {0}")]
    Malformed(&'static str),
    /// The source failed in a way that it does not know.
    #[error("the source of key sets panicked")]
    Died,
}

impl FetchError {
    /// It could not be reached or read.
    pub fn unreachable(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Unreachable(Arc::from(source.into()))
    }
}

/// Reads key sets.
///
/// # Contract
/// - Never reads more than [`MAX_KEY_SET_BYTES`]; what is longer is an error.
/// - Follows no redirect: whom the tenant trusts is written in its file.
/// - Need not watch the time. Dropping the future ends the work.
#[async_trait]
pub trait KeySetSource: Send + Sync {
    /// The bytes at `location`.
    ///
    /// # Errors
    /// [`FetchError`].
    async fn fetch(&self, location: &KeySetLocation) -> Result<Vec<u8>, FetchError>;
}
