//! What the corpus asks of a database.

use std::time::Duration;

use async_trait::async_trait;
use enigma_core::PortError;

use super::cells::Row;
use crate::d1::{Database, Statement};

/// How long a question may take.
pub(super) const QUESTION: Duration = Duration::from_secs(5);
/// How long a change may take. Of a long document it writes hundreds of thousands of words; D1 ends it after 30 s.
pub(super) const CHANGE: Duration = Duration::from_secs(25);

/// A database of the schema in `migrations/`.
#[async_trait]
pub(crate) trait Tables: Send + Sync {
    /// Runs all of the statements or none, and tells the rows of each.
    async fn batch(&self, statements: Vec<Statement>, limit: Duration) -> Result<Vec<Vec<Row>>, PortError>;
}

#[async_trait]
impl Tables for Database {
    async fn batch(&self, statements: Vec<Statement>, limit: Duration) -> Result<Vec<Vec<Row>>, PortError> {
        Self::batch(self, &statements, limit).await
    }
}
