//! The list of sessions.

use async_trait::async_trait;
use enigma_core::ports::SessionIndex;
use enigma_core::session::{SessionPage, SessionSummary};
use enigma_core::{PortError, SessionId, TenantId, Timestamp, UserId};
use rusqlite::{CachedStatement, Row, Transaction, params};

use crate::columns::{After, Col, get};
use crate::database::Database;
use crate::error::StoreError;
use crate::sql;

const PORT: &str = "session index";

/// Lists sessions, from rows that hold no text of theirs.
#[derive(Debug, Clone)]
pub struct SqliteSessionIndex {
    database: Database,
}

impl SqliteSessionIndex {
    /// The index in `database`.
    pub fn new(database: Database) -> Self {
        Self { database }
    }

    /// Lists those no more that have not changed since `before`, at most `limit` of them; tells how many they were.
    pub(crate) async fn remove_old(&self, tenant: &TenantId, before: Timestamp, limit: u32) -> Result<u64, PortError> {
        let tenant = tenant.clone();
        self.database
            .write(move |work| {
                let mut delete = work.connection.prepare_cached(sql::INDEX_DELETE_OLD)?;
                Ok(delete.execute(params![Col(&tenant), Col(before), limit])? as u64)
            })
            .await
            .map_err(|error| error.into_port(PORT))
    }
}

#[async_trait]
impl SessionIndex for SqliteSessionIndex {
    async fn record(&self, tenant: &TenantId, summary: &SessionSummary) -> Result<(), PortError> {
        let (tenant, summary) = (tenant.clone(), summary.clone());
        self.database
            .write(move |work| Ok(put(&mut work.connection.prepare_cached(sql::INDEX_PUT)?, &tenant, &summary)?))
            .await
            .map_err(|error| error.into_port(PORT))
    }

    async fn list<'a>(
        &self,
        tenant: &TenantId,
        user: Option<&'a UserId>,
        since: Timestamp,
        after: Option<(Timestamp, SessionId)>,
        limit: u32,
    ) -> Result<SessionPage, PortError> {
        let (tenant, user) = (tenant.clone(), user.cloned());
        self.database
            .read(move |rows| list(rows, &tenant, user.as_ref(), since, after, limit))
            .await
            .map_err(|error| error.into_port(PORT))
    }

    async fn remove(&self, tenant: &TenantId, session: &SessionId) -> Result<(), PortError> {
        let (tenant, session) = (tenant.clone(), *session);
        self.database
            .write(move |work| {
                work.connection.prepare_cached(sql::INDEX_DELETE)?.execute((Col(&tenant), Col(&session)))?;
                Ok(())
            })
            .await
            .map_err(|error| error.into_port(PORT))
    }
}

/// Lists a session with [`sql::INDEX_PUT`].
pub(crate) fn put(
    statement: &mut CachedStatement<'_>,
    tenant: &TenantId,
    summary: &SessionSummary,
) -> rusqlite::Result<()> {
    statement.execute(params![
        Col(tenant),
        Col(&summary.id),
        Col(&summary.user),
        Col(summary.created_at),
        Col(summary.updated_at),
        summary.message_count,
        Col(summary.token_count)
    ])?;
    Ok(())
}

fn list(
    connection: &Transaction<'_>,
    tenant: &TenantId,
    user: Option<&UserId>,
    since: Timestamp,
    after: Option<(Timestamp, SessionId)>,
    limit: u32,
) -> Result<SessionPage, StoreError> {
    let session = After(after.as_ref().map(|(_, session)| session));
    let until = Col(after.map_or(Timestamp::from_millis(u64::MAX), |(at, _)| at));
    // One more than asked for, to see whether there is another page.
    let (tenant, since, limit_and_one) = (Col(tenant), Col(since), Col(u64::from(limit) + 1));
    let mut sessions: Vec<SessionSummary> = match user {
        None => connection
            .prepare_cached(sql::INDEX_LIST)?
            .query_map(params![tenant, since, until, session, limit_and_one], summary)?
            .collect::<rusqlite::Result<_>>()?,
        Some(user) => connection
            .prepare_cached(sql::INDEX_LIST_OF_USER)?
            .query_map(params![tenant, since, until, session, limit_and_one, Col(user)], summary)?
            .collect::<rusqlite::Result<_>>()?,
    };
    let goes_on = sessions.len() > limit as usize;
    sessions.truncate(limit as usize);
    let next = sessions.last().filter(|_| goes_on).map(|last| (last.updated_at, last.id));
    Ok(SessionPage { sessions, next })
}

fn summary(row: &Row<'_>) -> rusqlite::Result<SessionSummary> {
    Ok(SessionSummary {
        id: get(row, 0)?,
        user: get(row, 1)?,
        created_at: get(row, 2)?,
        updated_at: get(row, 3)?,
        message_count: row.get(4)?,
        token_count: get(row, 5)?,
    })
}
