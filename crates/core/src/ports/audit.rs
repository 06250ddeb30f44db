//! Where the runs of tools are kept on record.

use async_trait::async_trait;

use crate::id::{AuditId, TenantId};
use crate::port_error::PortError;
use crate::time::Timestamp;
use crate::tools::{AuditPage, AuditQuery, AuditRecord};

/// Keeps audit records for a while.
///
/// # Contract
/// - A record is kept once, however often it is appended.
/// - The newest come first; those of one time in the order of their ids. Pages hold each record once.
/// - From [`AuditRecord::expires_at`] on a record is not listed; it takes no room for ever.
/// - A durable adapter keeps what was appended when it is killed.
#[async_trait]
pub trait AuditLog: Send + Sync {
    /// Keeps a record.
    ///
    /// # Errors
    /// [`PortError`]; the tool's caller is answered all the same.
    async fn append(&self, tenant: &TenantId, record: &AuditRecord) -> Result<(), PortError>;

    /// The records that `query` asks for: those that come after `after`, which is the `next` of the page before.
    ///
    /// # Errors
    /// [`PortError`].
    async fn list(
        &self,
        tenant: &TenantId,
        query: &AuditQuery,
        after: Option<(Timestamp, AuditId)>,
        limit: u32,
        now: Timestamp,
    ) -> Result<AuditPage, PortError>;

    /// Removes records that have expired; tells how many went.
    ///
    /// # Errors
    /// [`PortError`].
    async fn sweep(&self, tenant: &TenantId, now: Timestamp) -> Result<u64, PortError>;
}
