//! Why a search, an ingestion or a call for embeddings was refused.

use thiserror::Error;

use crate::admission::AdmissionError;
use crate::chat::{ChatError, ChatRejected};
use crate::id::ModelId;
use crate::limit::RateStatus;
use crate::model::{GatewayError, ModelError, ModelNotAllowed};
use crate::port_error::PortError;
use crate::retrieval::EmbeddingSpace;

/// Why there is no reply.
#[derive(Debug, Error)]
pub enum RetrievalError {
    /// What can go wrong in a chat.
    #[error(transparent)]
    Common(#[from] ChatError),
    /// The tenant names no embedding model.
    #[error("the tenant has no embedding model")]
    NoEmbeddingModel,
    /// The tenant's documents have vectors of another space than the embedding model makes.
    #[error("the corpus has vectors of {has}, and the embedding model is {model}")]
    OtherSpace {
        /// Where the vectors of the documents are.
        has: EmbeddingSpace,
        /// The model.
        model: ModelId,
        /// How many dimensions its vectors have, where that was seen.
        dimensions: Option<u32>,
    },
    /// The document's text has no characters that anybody could see.
    #[error("the document has no text")]
    NoText,
    /// The document has more chunks than one request may have.
    #[error("the document has {chunks} chunks, more than {most}")]
    TooManyChunks {
        /// So many.
        chunks: usize,
        /// The most.
        most: usize,
    },
    /// What was staged of a document was gone before it could be published.
    #[error("the document's new version was lost before it was published")]
    Lost,
}

macro_rules! common {
    ($($error:ty),+) => {
        $(impl From<$error> for RetrievalError {
            fn from(error: $error) -> Self {
                Self::Common(error.into())
            }
        })+
    };
}
common!(AdmissionError, GatewayError, ModelNotAllowed, PortError);

impl RetrievalError {
    /// Whether a model did not answer in time.
    pub(crate) fn is_timeout(&self) -> bool {
        let of = |error: &GatewayError| matches!(error, GatewayError::Failed { source: ModelError::Timeout(_), .. });
        matches!(self, Self::Common(ChatError::Gateway(error)) if of(error))
    }
}

/// A refusal, and the windows that go into its headers.
#[derive(Debug, Error)]
#[error("{error}")]
pub struct RetrievalRejected {
    /// Why.
    #[source]
    pub error: RetrievalError,
    /// The caller's windows, when they were looked at.
    pub rate: Option<RateStatus>,
}

impl From<RetrievalError> for RetrievalRejected {
    fn from(error: RetrievalError) -> Self {
        match error {
            RetrievalError::Common(error) => {
                let ChatRejected { error, rate } = error.into();
                Self { error: error.into(), rate }
            }
            error => Self { error, rate: None },
        }
    }
}
