//! The list of sessions in memory.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;

use async_trait::async_trait;
use enigma_core::ports::SessionIndex;
use enigma_core::session::{SessionPage, SessionSummary};
use enigma_core::{PortError, SessionId, TenantId, Timestamp, UserId};

use crate::sharded::Sharded;

/// A tenant's sessions that are listed at most. One more pushes the one out that has not changed for longest.
const MAX_SESSIONS: usize = 100_000;

/// Lists the sessions of this process.
pub struct MemorySessionIndex {
    tenants: Sharded<Sessions>,
}

impl Default for MemorySessionIndex {
    fn default() -> Self {
        Self { tenants: Sharded::new("session index") }
    }
}

/// A place in the list: the latest changed first, and those of one time by their id.
type Place = (Reverse<Timestamp>, SessionId);

#[derive(Default)]
struct Sessions {
    summaries: HashMap<SessionId, SessionSummary>,
    order: BTreeSet<Place>,
}

impl Sessions {
    fn record(&mut self, summary: &SessionSummary) {
        if self.summaries.get(&summary.id).is_some_and(|known| known.updated_at > summary.updated_at) {
            return;
        }
        self.remove(&summary.id);
        if self.summaries.len() >= MAX_SESSIONS
            && let Some((_, oldest)) = self.order.pop_last()
        {
            self.summaries.remove(&oldest);
        }
        self.order.insert((Reverse(summary.updated_at), summary.id));
        self.summaries.insert(summary.id, summary.clone());
    }

    /// A page ends with the session whose place its `next` tells.
    fn list(&self, user: Option<&UserId>, since: Timestamp, after: Option<Place>, limit: u32) -> SessionPage {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self
            .order
            .range((start, Bound::Unbounded))
            .take_while(|(Reverse(changed), _)| *changed >= since)
            .filter_map(|(_, id)| self.summaries.get(id))
            .filter(|summary| user.is_none_or(|user| summary.user == *user))
            .peekable();
        let sessions: Vec<_> = rest.by_ref().take(limit as usize).cloned().collect();
        let next = rest.peek().and(sessions.last()).map(|last| (last.updated_at, last.id));
        SessionPage { sessions, next }
    }

    fn remove(&mut self, id: &SessionId) {
        if let Some(known) = self.summaries.remove(id) {
            self.order.remove(&(Reverse(known.updated_at), known.id));
        }
    }
}

#[async_trait]
impl SessionIndex for MemorySessionIndex {
    async fn record(&self, tenant: &TenantId, summary: &SessionSummary) -> Result<(), PortError> {
        self.tenants.with(tenant, |sessions| sessions.record(summary))
    }

    async fn list<'a>(
        &self,
        tenant: &TenantId,
        user: Option<&'a UserId>,
        since: Timestamp,
        after: Option<(Timestamp, SessionId)>,
        limit: u32,
    ) -> Result<SessionPage, PortError> {
        let after = after.map(|(changed, id)| (Reverse(changed), id));
        self.tenants.with(tenant, |sessions| sessions.list(user, since, after, limit))
    }

    async fn remove(&self, tenant: &TenantId, session: &SessionId) -> Result<(), PortError> {
        self.tenants.with(tenant, |sessions| sessions.remove(session))
    }
}
