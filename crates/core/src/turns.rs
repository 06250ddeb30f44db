//! A session's turns where the queue, the messages and the list of sessions are at hand: three ports behind one.

use std::sync::Arc;

use async_trait::async_trait;

use crate::id::{RequestId, SessionId, TenantId};
use crate::port_error::{PortError, degrade};
use crate::ports::{HeldTurn, OpenTurn, SessionIndex, SessionStore, SessionTurns, TurnPermit, TurnQueue};
use crate::session::{RecentMessages, Retention, Turn};
use crate::time::Timestamp;

/// [`SessionTurns`] that wait in a queue, keep messages in a store, and list sessions in an index.
#[derive(Clone)]
pub struct QueuedTurns {
    turns: Arc<dyn TurnQueue>,
    store: Arc<dyn SessionStore>,
    index: Arc<dyn SessionIndex>,
}

impl QueuedTurns {
    /// The turns that these ports make together.
    pub fn new(turns: Arc<dyn TurnQueue>, store: Arc<dyn SessionStore>, index: Arc<dyn SessionIndex>) -> Self {
        Self { turns, store, index }
    }
}

#[async_trait]
impl SessionTurns for QueuedTurns {
    async fn begin(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        request: RequestId,
        limit: u32,
        retention: &Retention,
        now: Timestamp,
    ) -> Result<OpenTurn, PortError> {
        let permit = self.turns.enter(tenant, session, request).await?;
        let RecentMessages { user, messages } = self.store.recent(tenant, session, limit, retention, now).await?;
        let (store, index) = (Arc::clone(&self.store), Arc::clone(&self.index));
        let held = HeldPermit { permit, store, index, tenant: tenant.clone(), session: *session };
        Ok(OpenTurn { user, history: messages, held: Box::new(held) })
    }
}

struct HeldPermit {
    permit: TurnPermit,
    store: Arc<dyn SessionStore>,
    index: Arc<dyn SessionIndex>,
    tenant: TenantId,
    session: SessionId,
}

#[async_trait]
impl HeldTurn for HeldPermit {
    async fn append(self: Box<Self>, turn: &Turn, retention: &Retention, now: Timestamp) -> Result<(), PortError> {
        let summary = self.store.append_turn(&self.tenant, &self.session, turn, retention, now).await?;
        // Before the next one is let in: a deletion that waits for this turn must find the session in the list.
        degrade(self.index.record(&self.tenant, &summary).await);
        drop(self.permit);
        Ok(())
    }

    async fn end(self: Box<Self>) {
        drop(self.permit);
    }
}
