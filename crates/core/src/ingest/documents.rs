//! The documents that a tenant has.

use std::sync::Arc;

use thiserror::Error;

use crate::port_error::PortError;
use crate::ports::Corpus;
use crate::retrieval::{DocumentId, DocumentPage, DocumentSummary, DocumentText, TextTooLarge};
use crate::tenant::TenantContext;

/// How many chunks are read at once: of the usual size they are a few hundred kilobytes.
const PART: u32 = 100;
/// How often a document is read again from its beginning, when it was replaced meanwhile.
const ATTEMPTS: usize = 3;

/// Why a document cannot be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The text is longer than was asked for.
    #[error(transparent)]
    TooLarge(#[from] TextTooLarge),
    /// The corpus failed, or the document was replaced each time while it was read.
    #[error(transparent)]
    Port(#[from] PortError),
}

/// Lists, reads and deletes documents. Cheap to clone.
#[derive(Clone)]
pub struct DocumentService {
    corpus: Arc<dyn Corpus>,
}

impl DocumentService {
    /// The service over `corpus`.
    pub fn new(corpus: Arc<dyn Corpus>) -> Self {
        Self { corpus }
    }

    /// The documents after `after`, at most `limit`, by name.
    ///
    /// # Errors
    /// [`PortError`].
    pub async fn list(
        &self,
        context: &TenantContext,
        after: Option<&DocumentId>,
        limit: u32,
    ) -> Result<DocumentPage, PortError> {
        self.corpus.documents(context.id(), after, limit).await
    }

    /// A document with its text, as it was normalised when it was taken in, of at most `most` bytes; `None` where there is none of
    /// that name. The text is of one version, whatever happens to the document meanwhile.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn read(
        &self,
        context: &TenantContext,
        document: &DocumentId,
        most: usize,
    ) -> Result<Option<(DocumentSummary, String)>, ReadError> {
        'anew: for _ in 0..ATTEMPTS {
            let (mut text, mut begun, mut from) = (DocumentText::new(most), None, 0);
            loop {
                let Some(part) = self.corpus.read(context.id(), document, from, PART).await? else { return Ok(None) };
                if *begun.get_or_insert(part.version) != part.version {
                    continue 'anew;
                }
                for chunk in &part.chunks {
                    text.add(chunk)?;
                }
                match part.chunks.last() {
                    // A part that is not full is the last one.
                    Some(last) if part.chunks.len() >= PART as usize => from = last.ordinal.saturating_add(1),
                    _ => return Ok(Some((part.summary, text.into_text()))),
                }
            }
        }
        Err(PortError::unavailable("corpus", "the document was replaced each time that it was read").into())
    }

    /// Deletes a document; whether there was one.
    ///
    /// # Errors
    /// [`PortError`].
    pub async fn delete(&self, context: &TenantContext, document: &DocumentId) -> Result<bool, PortError> {
        self.corpus.delete(context.id(), document).await
    }
}
