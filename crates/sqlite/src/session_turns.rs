//! The turns of a session: a turn and its place in the list of sessions are written in one piece of work.

use std::sync::Arc;

use async_trait::async_trait;
use enigma_core::ports::{HeldTurn, OpenTurn, SessionStore, SessionTurns, TurnPermit, TurnQueue};
use enigma_core::session::{Retention, Turn};
use enigma_core::{PortError, RequestId, SessionId, TenantId, Timestamp};

use crate::database::Database;
use crate::session_rows::SessionRows;
use crate::session_store::SqliteSessionStore;
use crate::{session_index, sql};

const PORT: &str = "session turns";

/// [`SessionTurns`] that wait in a queue which somebody else keeps, and are kept in the database.
#[derive(Clone)]
pub struct SqliteSessionTurns {
    queue: Arc<dyn TurnQueue>,
    store: SqliteSessionStore,
    database: Database,
}

impl SqliteSessionTurns {
    /// The turns in `database`, in the order of `queue`.
    pub fn new(queue: Arc<dyn TurnQueue>, database: Database) -> Self {
        Self { queue, store: SqliteSessionStore::new(database.clone()), database }
    }
}

#[async_trait]
impl SessionTurns for SqliteSessionTurns {
    async fn begin(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        request: RequestId,
        limit: u32,
        retention: &Retention,
        now: Timestamp,
    ) -> Result<OpenTurn, PortError> {
        let permit = self.queue.enter(tenant, session, request).await?;
        let histories = self.database.histories();
        let recent = if let Some(recent) = histories.recent(tenant, session, limit, *retention, now) {
            recent
        } else {
            let recent = self.store.recent(tenant, session, limit, retention, now).await?;
            histories.read(tenant, session, &recent, limit.min(retention.max_messages));
            recent
        };
        let held = Held { permit, database: self.database.clone(), tenant: tenant.clone(), session: *session };
        Ok(OpenTurn { user: recent.user, history: recent.messages, held: Box::new(held) })
    }
}

struct Held {
    permit: TurnPermit,
    database: Database,
    tenant: TenantId,
    session: SessionId,
}

#[async_trait]
impl HeldTurn for Held {
    async fn append(self: Box<Self>, turn: &Turn, retention: &Retention, now: Timestamp) -> Result<(), PortError> {
        let Self { permit, database, tenant, session } = *self;
        let (turn, retention, of) = (turn.clone(), *retention, tenant.clone());
        let appended = database
            .write(move |work| {
                let rows = SessionRows { connection: work.connection, tenant: &of, session: &session };
                let summary = rows.append(&turn, retention, now)?;
                session_index::put(&mut work.connection.prepare_cached(sql::INDEX_PUT)?, &of, &summary)?;
                Ok((summary.user, turn.messages))
            })
            .await;
        match &appended {
            Ok((user, messages)) => {
                database.histories().append(&tenant, &session, user.clone(), messages, retention, now);
            }
            Err(_) => database.histories().forget(&tenant, &session),
        }
        // Only now: whoever comes next sees the turn.
        drop(permit);
        appended.map(drop).map_err(|error| error.into_port(PORT))
    }

    async fn end(self: Box<Self>) {
        drop(self.permit);
    }
}
