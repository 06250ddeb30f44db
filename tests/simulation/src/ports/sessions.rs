//! The messages of all lives of the process, and a second account of what they must be.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use enigma_core::ports::SessionStore;
use enigma_core::session::{HistoryPage, RecentMessages, Retention, SessionSummary, StoredMessage, Turn, prune};
use enigma_core::{PortError, SessionId, TenantId, Timestamp};

use crate::witness::{Witness, marker, request_of};

type Kept = BTreeMap<(TenantId, SessionId), Vec<StoredMessage>>;

/// Watches the store of messages.
pub(crate) struct SeenStore {
    witness: Witness,
    inner: Arc<dyn SessionStore>,
    /// What was appended since the last deletion, and retention has left.
    kept: Mutex<Kept>,
}

impl SeenStore {
    pub(crate) fn new(witness: Witness, inner: Arc<dyn SessionStore>) -> Self {
        Self { witness, inner, kept: Mutex::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a session holds now, oldest first.
    pub(crate) fn messages(&self, tenant: &TenantId, session: &SessionId) -> Vec<StoredMessage> {
        self.kept().get(&(tenant.clone(), *session)).cloned().unwrap_or_default()
    }

    /// Whether `shown` is the newest part of what is kept, as far as the clock's steps let one say.
    fn judge(&self, tenant: &TenantId, session: &SessionId, shown: &[StoredMessage], whole: bool, cutoff: Timestamp) {
        let sim = &self.witness.sim;
        let kept: Vec<_> = self.messages(tenant, session).into_iter().filter(|message| message.at >= cutoff).collect();
        let is_right = kept.ends_with(shown) && (!whole || kept.len() == shown.len());
        sim.check(is_right, || format!("{tenant} is shown {} messages of {}: {shown:?}", shown.len(), kept.len()));
    }
}

#[async_trait]
impl SessionStore for SeenStore {
    async fn append_turn(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        turn: &Turn,
        retention: &Retention,
        now: Timestamp,
    ) -> Result<SessionSummary, PortError> {
        let sim = &self.witness.sim;
        let summary = self.inner.append_turn(tenant, session, turn, retention, now).await?;
        let request = turn.messages.first().and_then(|message| request_of(&message.content));
        match request {
            Some(request) => {
                let own = marker(tenant, Some(session), &request);
                let is_own = turn.messages.iter().all(|message| message.content.starts_with(&own));
                sim.check(is_own, || format!("a turn of {own} keeps another's text: {turn:?}"));
                self.witness.about(&request, |facts| facts.turns.push(turn.messages.clone()));
            }
            None => sim.violate(format!("a turn belongs to nobody: {turn:?}")),
        }
        let mut kept = self.kept();
        let all = kept.entry((tenant.clone(), *session)).or_default();
        all.extend(turn.messages.iter().cloned());
        *all = prune(std::mem::take(all), retention, now);
        Ok(summary)
    }

    async fn recent(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        limit: u32,
        retention: &Retention,
        now: Timestamp,
    ) -> Result<RecentMessages, PortError> {
        let recent = self.inner.recent(tenant, session, limit, retention, now).await?;
        self.judge(tenant, session, &recent.messages, recent.messages.len() < limit as usize, retention.cutoff(now));
        Ok(recent)
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
        let page = self.inner.page(tenant, session, before, limit, retention, now).await?;
        if before.is_none() {
            let shown = page.as_ref().map_or(&[][..], |page| &page.messages);
            self.judge(tenant, session, shown, shown.len() < limit as usize, retention.cutoff(now));
        }
        Ok(page)
    }

    async fn delete(&self, tenant: &TenantId, session: &SessionId) -> Result<bool, PortError> {
        let existed = self.inner.delete(tenant, session).await?;
        self.kept().remove(&(tenant.clone(), *session));
        Ok(existed)
    }

    async fn sweep(&self, tenant: &TenantId, retention: &Retention, now: Timestamp) -> Result<u64, PortError> {
        let swept = self.inner.sweep(tenant, retention, now).await?;
        for ((owner, _), messages) in self.kept().iter_mut().filter(|((owner, _), _)| owner == tenant) {
            debug_assert_eq!(owner, tenant, "only the tenant's own sessions are swept");
            *messages = prune(std::mem::take(messages), retention, now);
        }
        Ok(swept)
    }
}
