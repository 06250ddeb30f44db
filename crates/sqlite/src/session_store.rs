//! The session store.

use async_trait::async_trait;
use enigma_core::ports::SessionStore;
use enigma_core::session::{HistoryPage, RecentMessages, Retention, SessionSummary, Turn};
use enigma_core::{PortError, SessionId, TenantId, Timestamp};

use crate::database::Database;
use crate::error::StoreError;
use crate::session_rows::{SessionRows, to_sweep};

const PORT: &str = "session store";

/// Sessions that one search of a sweep finds.
const SESSIONS_AT_ONCE: u32 = 64;

/// Messages after which one job of a sweep ends, so that other writers wait no longer than that takes.
const MESSAGES_AT_ONCE: u64 = 1_000;

/// Keeps sessions in the database, one row a message.
#[derive(Debug, Clone)]
pub struct SqliteSessionStore {
    database: Database,
}

impl SqliteSessionStore {
    /// The store in `database`.
    pub fn new(database: Database) -> Self {
        Self { database }
    }

    /// Prunes the sessions, or the first of them; tells how many messages went, and which sessions are left to do.
    async fn prune(
        &self,
        tenant: &TenantId,
        sessions: Vec<SessionId>,
        retention: Retention,
        now: Timestamp,
    ) -> Result<(u64, Vec<SessionId>), StoreError> {
        let (tenant, touched) = (tenant.clone(), sessions.clone());
        let forget =
            |tenant: &TenantId| touched.iter().for_each(|session| self.database.histories().forget(tenant, session));
        let of = tenant.clone();
        let pruned = self
            .database
            .write(move |work| {
                let (mut removed, mut left) = (0, sessions.into_iter());
                for session in left.by_ref() {
                    let rows = SessionRows { connection: work.connection, tenant: &tenant, session: &session };
                    removed += u64::from(rows.prune(retention, now)?);
                    if removed >= MESSAGES_AT_ONCE {
                        break;
                    }
                }
                Ok((removed, left.collect()))
            })
            .await;
        forget(&of);
        pruned
    }

    async fn sweep_all(&self, tenant: &TenantId, retention: Retention, now: Timestamp) -> Result<u64, StoreError> {
        let (mut total, mut after) = (0, None);
        loop {
            let asked = tenant.clone();
            let found = self
                .database
                .read(move |rows| to_sweep(rows, &asked, after.as_ref(), retention, now, SESSIONS_AT_ONCE))
                .await?;
            let Some(last) = found.last() else { return Ok(total) };
            after = Some(*last);
            let mut left = found;
            while !left.is_empty() {
                let removed;
                (removed, left) = self.prune(tenant, left, retention, now).await?;
                total += removed;
            }
        }
    }
}

#[async_trait]
impl SessionStore for SqliteSessionStore {
    async fn append_turn(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        turn: &Turn,
        retention: &Retention,
        now: Timestamp,
    ) -> Result<SessionSummary, PortError> {
        self.database.histories().forget(tenant, session);
        let (tenant, session, turn, retention) = (tenant.clone(), *session, turn.clone(), *retention);
        self.database
            .write(move |work| {
                SessionRows { connection: work.connection, tenant: &tenant, session: &session }
                    .append(&turn, retention, now)
            })
            .await
            .map_err(|error| error.into_port(PORT))
    }

    async fn recent(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        limit: u32,
        retention: &Retention,
        now: Timestamp,
    ) -> Result<RecentMessages, PortError> {
        let (tenant, session, retention) = (tenant.clone(), *session, *retention);
        self.database
            .read(move |rows| {
                SessionRows { connection: rows, tenant: &tenant, session: &session }.recent(limit, retention, now)
            })
            .await
            .map_err(|error| error.into_port(PORT))
    }

    async fn page(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        before: Option<u64>,
        limit: u32,
        retention: &Retention,
        now: Timestamp,
    ) -> Result<Option<HistoryPage>, PortError> {
        let (tenant, session, retention) = (tenant.clone(), *session, *retention);
        self.database
            .read(move |rows| {
                SessionRows { connection: rows, tenant: &tenant, session: &session }.page(before, limit, retention, now)
            })
            .await
            .map_err(|error| error.into_port(PORT))
    }

    async fn delete(&self, tenant: &TenantId, session: &SessionId) -> Result<bool, PortError> {
        self.database.histories().forget(tenant, session);
        let (tenant, session) = (tenant.clone(), *session);
        self.database
            .write(move |work| SessionRows { connection: work.connection, tenant: &tenant, session: &session }.delete())
            .await
            .map_err(|error| error.into_port(PORT))
    }

    async fn sweep(&self, tenant: &TenantId, retention: &Retention, now: Timestamp) -> Result<u64, PortError> {
        self.sweep_all(tenant, *retention, now).await.map_err(|error| error.into_port(PORT))
    }
}
