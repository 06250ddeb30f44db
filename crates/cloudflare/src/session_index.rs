//! The list of sessions, in D1.

mod statements;

use std::time::Duration;

use async_trait::async_trait;
use enigma_core::ports::SessionIndex;
use enigma_core::session::{SessionPage, SessionSummary};
use enigma_core::{PortError, SessionId, TenantId, Timestamp, UserId};
use worker::Env;

use crate::d1::Database;

const PORT: &str = "session index";

/// How long D1 may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Lists sessions from a D1 database of the schema in `migrations/`. For the Worker and for Durable Objects alike.
#[derive(Debug, Clone)]
pub struct D1SessionIndex {
    database: Database,
}

impl D1SessionIndex {
    /// The index in the database that `env` calls `DB`.
    ///
    /// # Errors
    /// [`PortError`] when there is no such binding, or it is no D1 database.
    pub fn from_env(env: &Env) -> Result<Self, PortError> {
        Ok(Self { database: Database::from_env(env, PORT)? })
    }
}

#[async_trait]
impl SessionIndex for D1SessionIndex {
    async fn record(&self, tenant: &TenantId, summary: &SessionSummary) -> Result<(), PortError> {
        self.database.run(&statements::put(tenant, summary)?, LIMIT).await
    }

    async fn list<'a>(
        &self,
        tenant: &TenantId,
        user: Option<&'a UserId>,
        since: Timestamp,
        after: Option<(Timestamp, SessionId)>,
        limit: u32,
    ) -> Result<SessionPage, PortError> {
        let rows = self.database.rows(&statements::list(tenant, user, since, after, limit)?, LIMIT).await?;
        statements::page(rows, limit)
    }

    async fn remove(&self, tenant: &TenantId, session: &SessionId) -> Result<(), PortError> {
        self.database.run(&statements::delete(tenant, session), LIMIT).await
    }
}
