//! The documents that a tenant has.

use std::sync::Arc;

use crate::port_error::PortError;
use crate::ports::Corpus;
use crate::retrieval::{DocumentId, DocumentPage};
use crate::tenant::TenantContext;

/// Lists and deletes documents. Cheap to clone.
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

    /// Deletes a document; whether there was one.
    ///
    /// # Errors
    /// [`PortError`].
    pub async fn delete(&self, context: &TenantContext, document: &DocumentId) -> Result<bool, PortError> {
        self.corpus.delete(context.id(), document).await
    }
}
