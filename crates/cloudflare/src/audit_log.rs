//! The audit log of tools, in D1.

mod statements;

use std::time::Duration;

use async_trait::async_trait;
use enigma_core::ports::AuditLog;
use enigma_core::tools::{AuditPage, AuditQuery, AuditRecord};
use enigma_core::{AuditId, PortError, TenantId, Timestamp};
use serde::de::IgnoredAny;
use worker::Env;

use crate::d1::Database;

const PORT: &str = "audit log";

/// How long D1 may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Keeps audit records in a D1 database of the schema in `migrations/`. Each record that is added takes some of the tenant's that
/// have expired with it: nothing else has to come by for them to go.
#[derive(Debug, Clone)]
pub struct D1AuditLog {
    database: Database,
}

impl D1AuditLog {
    /// The log in the database that `env` calls `DB`.
    ///
    /// # Errors
    /// [`PortError`] when there is no such binding, or it is no D1 database.
    pub fn from_env(env: &Env) -> Result<Self, PortError> {
        Ok(Self { database: Database::from_env(env, PORT)? })
    }
}

#[async_trait]
impl AuditLog for D1AuditLog {
    async fn append(&self, tenant: &TenantId, record: &AuditRecord) -> Result<(), PortError> {
        let add = statements::add(tenant, record)?;
        // Before it: what is added late may have expired itself.
        let sweep = statements::delete_expired(tenant, record.at)?;
        self.database.batch::<IgnoredAny>(&[sweep, add], LIMIT).await?;
        Ok(())
    }

    async fn list(
        &self,
        tenant: &TenantId,
        query: &AuditQuery,
        after: Option<(Timestamp, AuditId)>,
        limit: u32,
        now: Timestamp,
    ) -> Result<AuditPage, PortError> {
        let rows = self.database.rows(&statements::list(tenant, query, after, limit, now)?, LIMIT).await?;
        statements::page(rows, limit)
    }

    async fn sweep(&self, tenant: &TenantId, now: Timestamp) -> Result<u64, PortError> {
        let mut removed = 0;
        loop {
            let rows: Vec<IgnoredAny> = self.database.rows(&statements::delete_expired(tenant, now)?, LIMIT).await?;
            removed += rows.len() as u64;
            if (rows.len() as u64) < statements::ROWS_AT_ONCE {
                return Ok(removed);
            }
        }
    }
}
