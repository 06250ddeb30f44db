//! Messages in memory.

use std::collections::{HashMap, VecDeque};

use async_trait::async_trait;
use enigma_core::ports::SessionStore;
use enigma_core::session::{HistoryPage, RecentMessages, Retention, SessionSummary, StoredMessage, Turn};
use enigma_core::{PortError, SessionId, TenantId, Timestamp, UserId};

use crate::sharded::Sharded;

/// A tenant's sessions that are kept at most. It is no substitute for sweeping: a session that would be one more is refused.
const MAX_SESSIONS: usize = 100_000;

/// Keeps messages in this process, until retention ends them.
pub struct MemorySessionStore {
    tenants: Sharded<HashMap<SessionId, Session>>,
}

impl Default for MemorySessionStore {
    fn default() -> Self {
        Self { tenants: Sharded::new("session store") }
    }
}

/// A session that keeps at least one message.
struct Session {
    user: UserId,
    created_at: Timestamp,
    updated_at: Timestamp,
    /// Oldest first, numbered without ever using a number twice.
    messages: VecDeque<(u64, StoredMessage)>,
    next_number: u64,
}

impl Session {
    fn new(user: UserId, now: Timestamp) -> Self {
        Self { user, created_at: now, updated_at: now, messages: VecDeque::new(), next_number: 1 }
    }

    /// What [`enigma_core::session::prune`] would leave, newest first, without touching anything.
    fn kept(&self, retention: Retention, now: Timestamp) -> impl Iterator<Item = &(u64, StoredMessage)> {
        let cutoff = retention.cutoff(now);
        self.messages
            .iter()
            .rev()
            .filter(move |(_, message)| message.at >= cutoff)
            .take(retention.max_messages as usize)
    }

    /// Removes the rest; tells how many messages went.
    fn prune(&mut self, retention: Retention, now: Timestamp) -> u64 {
        let (before, cutoff) = (self.messages.len(), retention.cutoff(now));
        self.messages.retain(|(_, message)| message.at >= cutoff);
        let surplus = self.messages.len().saturating_sub(retention.max_messages as usize);
        self.messages.drain(..surplus);
        (before - self.messages.len()) as u64
    }

    fn append(&mut self, turn: &Turn, retention: Retention, now: Timestamp) {
        self.messages.extend((self.next_number..).zip(turn.messages.iter().cloned()));
        self.next_number += turn.messages.len() as u64;
        self.updated_at = now;
        self.prune(retention, now);
    }

    fn recent(&self, limit: u32, retention: Retention, now: Timestamp) -> RecentMessages {
        let user = self.kept(retention, now).next().map(|_| self.user.clone());
        RecentMessages { user, messages: oldest_first(self.kept(retention, now).take(limit as usize)) }
    }

    /// `None` when retention has ended all of it.
    fn page(&self, before: Option<u64>, limit: u32, retention: Retention, now: Timestamp) -> Option<HistoryPage> {
        self.kept(retention, now).next()?;
        let older = self.kept(retention, now).filter(|(number, _)| before.is_none_or(|before| *number < before));
        let mut older = older.peekable();
        let page: Vec<_> = older.by_ref().take(limit as usize).collect();
        let next_before = older.peek().and(page.last()).map(|(number, _)| *number);
        Some(HistoryPage { user: Some(self.user.clone()), messages: oldest_first(page.into_iter()), next_before })
    }

    fn summary(&self, id: SessionId) -> SessionSummary {
        SessionSummary {
            id,
            user: self.user.clone(),
            created_at: self.created_at,
            updated_at: self.updated_at,
            message_count: u32::try_from(self.messages.len()).unwrap_or(u32::MAX),
            token_count: self.messages.iter().filter_map(|(_, message)| message.tokens).map(u64::from).sum(),
        }
    }
}

fn oldest_first<'a>(newest_first: impl Iterator<Item = &'a (u64, StoredMessage)>) -> Vec<StoredMessage> {
    let mut messages: Vec<_> = newest_first.map(|(_, message)| message.clone()).collect();
    messages.reverse();
    messages
}

#[async_trait]
impl SessionStore for MemorySessionStore {
    async fn append_turn(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        turn: &Turn,
        retention: &Retention,
        now: Timestamp,
    ) -> Result<SessionSummary, PortError> {
        let appended = self.tenants.with(tenant, |sessions| {
            // A session of which nothing is kept any more is another one from here on.
            let old = sessions.remove(session).filter(|old| old.kept(*retention, now).next().is_some());
            if old.is_none() && sessions.len() >= MAX_SESSIONS {
                return None;
            }
            let mut current = old.unwrap_or_else(|| Session::new(turn.user.clone(), now));
            current.append(turn, *retention, now);
            let summary = current.summary(*session);
            if !current.messages.is_empty() {
                sessions.insert(*session, current);
            }
            Some(summary)
        })?;
        appended.ok_or_else(|| self.tenants.unavailable("the tenant has as many sessions as fit"))
    }

    async fn recent(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        limit: u32,
        retention: &Retention,
        now: Timestamp,
    ) -> Result<RecentMessages, PortError> {
        self.tenants.with(tenant, |sessions| {
            sessions.get(session).map_or_else(RecentMessages::default, |session| session.recent(limit, *retention, now))
        })
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
        self.tenants.with(tenant, |sessions| sessions.get(session)?.page(before, limit, *retention, now))
    }

    async fn delete(&self, tenant: &TenantId, session: &SessionId) -> Result<bool, PortError> {
        self.tenants.with(tenant, |sessions| sessions.remove(session).is_some())
    }

    async fn sweep(&self, tenant: &TenantId, retention: &Retention, now: Timestamp) -> Result<u64, PortError> {
        self.tenants.with(tenant, |sessions| {
            let mut swept = 0;
            sessions.retain(|_, session| {
                swept += session.prune(*retention, now);
                !session.messages.is_empty()
            });
            swept
        })
    }
}
