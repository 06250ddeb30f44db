//! How bytes get to a provider and back.

use std::error::Error as StdError;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use http::{Request, Response};
use thiserror::Error;

#[cfg(feature = "native")]
mod native;

#[cfg(feature = "native")]
pub use native::{InvalidTransport, NativeTransport, TransportOptions};

type Source = Box<dyn StdError + Send + Sync>;

/// The body of a response, as it comes.
pub type ByteStream = BoxStream<'static, Result<Bytes, TransportError>>;

/// Bytes that did not get through. The sources must not name the URL: its query may hold a key.
#[derive(Debug, Error)]
pub enum TransportError {
    /// No connection; the request was not sent.
    #[error("cannot connect")]
    Connect(#[source] Source),
    /// The network was silent for too long: while connecting, or when a peer was asked for a sign of life.
    #[error("the network is silent")]
    Timeout(#[source] Source),
    /// The connection broke. Whether the request arrived is unknown.
    #[error("the connection broke")]
    Broken(#[source] Source),
}

impl TransportError {
    /// No connection.
    pub fn connect(source: impl Into<Source>) -> Self {
        Self::Connect(source.into())
    }

    /// A silent network.
    pub fn timeout(source: impl Into<Source>) -> Self {
        Self::Timeout(source.into())
    }

    /// A broken connection.
    pub fn broken(source: impl Into<Source>) -> Self {
        Self::Broken(source.into())
    }
}

/// Sends HTTP requests.
///
/// # Contract
/// - Returns when the head of the response is there; its body comes as the peer sends it.
/// - Every status is a response, none an error; redirects are not followed.
/// - Dropping the future or the body ends the exchange, so that the peer can notice.
/// - A body that is not read slows the peer down; it never fills memory.
/// - Never sends a request twice once the peer may have seen it.
#[async_trait]
pub trait Transport: Send + Sync {
    /// Sends `request`, whose URI is absolute.
    ///
    /// # Errors
    /// [`TransportError`].
    async fn send(&self, request: Request<Bytes>) -> Result<Response<ByteStream>, TransportError>;
}
