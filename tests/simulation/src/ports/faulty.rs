//! The small ports, each call of which may go wrong.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use enigma_core::idempotency::{Begin, Fingerprint, IdempotencyKey};
use enigma_core::ledger::{BudgetExceeded, Settlement};
use enigma_core::limit::{Decision, LimitCheck, RateStatus, StreamsFull};
use enigma_core::ports::{
    IdempotencyStore, LedgerBalance, RateLimiter, SessionIndex, SessionStore, StreamSlots, Telemetry, TenantDirectory,
    TokenLedger, TurnPermit, TurnQueue,
};
use enigma_core::session::{HistoryPage, RecentMessages, Retention, SessionPage, SessionSummary, Turn};
use enigma_core::tenant::{Tenant, TenantClaim, TokenBudget};
use enigma_core::usage::UsageRecord;
use enigma_core::{PortError, RequestId, SessionId, TenantId, Timestamp, UserId};

use crate::chaos::Chaos;
use crate::witness::{Call, request_of};

/// A port behind faults.
pub(crate) struct Faulty<P: ?Sized> {
    pub(crate) inner: Arc<P>,
    pub(crate) chaos: Chaos,
}

impl<P: ?Sized> Faulty<P> {
    pub(crate) fn new(inner: Arc<P>, chaos: &Chaos) -> Arc<Self> {
        Arc::new(Self { inner, chaos: chaos.clone() })
    }
}

#[async_trait]
impl TenantDirectory for Faulty<dyn TenantDirectory> {
    async fn find<'a>(&self, claim: &TenantClaim<'a>) -> Result<Option<Arc<Tenant>>, PortError> {
        self.chaos.strike(Call::Find, None, self.inner.find(claim)).await
    }

    async fn allows_origin(&self, origin: &str) -> Result<bool, PortError> {
        self.inner.allows_origin(origin).await
    }
}

#[async_trait]
impl RateLimiter for Faulty<dyn RateLimiter> {
    async fn acquire(
        &self,
        tenant: &TenantId,
        checks: &[LimitCheck<'_>],
        now: Timestamp,
    ) -> Result<Decision, PortError> {
        self.chaos.strike(Call::Acquire, None, self.inner.acquire(tenant, checks, now)).await
    }

    async fn peek(
        &self,
        tenant: &TenantId,
        checks: &[LimitCheck<'_>],
        now: Timestamp,
    ) -> Result<RateStatus, PortError> {
        self.chaos.strike(Call::Peek, None, self.inner.peek(tenant, checks, now)).await
    }
}

#[async_trait]
impl StreamSlots for Faulty<dyn StreamSlots> {
    async fn enter(
        &self,
        tenant: &TenantId,
        holder: RequestId,
        limit: u32,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<Result<(), StreamsFull>, PortError> {
        let entered = self.inner.enter(tenant, holder, limit, expires_at, now);
        self.chaos.strike(Call::SlotEnter, Some(&holder), entered).await
    }

    async fn leave(&self, tenant: &TenantId, holder: &RequestId) -> Result<(), PortError> {
        self.chaos.strike(Call::SlotLeave, Some(holder), self.inner.leave(tenant, holder)).await
    }
}

#[async_trait]
impl TokenLedger for Faulty<dyn TokenLedger> {
    async fn reserve(
        &self,
        tenant: &TenantId,
        request: RequestId,
        tokens: u64,
        budget: &TokenBudget,
        lifetime: Duration,
        now: Timestamp,
    ) -> Result<Result<(), BudgetExceeded>, PortError> {
        let reserved = self.inner.reserve(tenant, request, tokens, budget, lifetime, now);
        self.chaos.strike(Call::Reserve, Some(&request), reserved).await
    }

    async fn settle(
        &self,
        tenant: &TenantId,
        request: &RequestId,
        used: u64,
        budget: &TokenBudget,
        now: Timestamp,
    ) -> Result<Option<Settlement>, PortError> {
        let settled = self.inner.settle(tenant, request, used, budget, now);
        self.chaos.strike(Call::Settle, Some(request), settled).await
    }

    async fn release(&self, tenant: &TenantId, request: &RequestId) -> Result<bool, PortError> {
        self.chaos.strike(Call::Release, Some(request), self.inner.release(tenant, request)).await
    }

    async fn balance(&self, tenant: &TenantId, now: Timestamp) -> Result<LedgerBalance, PortError> {
        self.inner.balance(tenant, now).await
    }
}

#[async_trait]
impl Telemetry for Faulty<dyn Telemetry> {
    async fn record_usage(&self, tenant: &TenantId, record: &UsageRecord) -> Result<(), PortError> {
        self.chaos.strike(Call::Record, Some(&record.request), self.inner.record_usage(tenant, record)).await
    }
}

#[async_trait]
impl TurnQueue for Faulty<dyn TurnQueue> {
    async fn enter(&self, tenant: &TenantId, session: &SessionId, request: RequestId) -> Result<TurnPermit, PortError> {
        let entered = self.inner.enter(tenant, session, request);
        self.chaos.strike(Call::QueueEnter, Some(&request), entered).await
    }
}

#[async_trait]
impl SessionStore for Faulty<dyn SessionStore> {
    async fn append_turn(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        turn: &Turn,
        retention: &Retention,
        now: Timestamp,
    ) -> Result<SessionSummary, PortError> {
        let request = turn.messages.first().and_then(|message| request_of(&message.content));
        let appended = self.inner.append_turn(tenant, session, turn, retention, now);
        self.chaos.strike(Call::Append, request.as_ref(), appended).await
    }

    async fn recent(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        limit: u32,
        retention: &Retention,
        now: Timestamp,
    ) -> Result<RecentMessages, PortError> {
        self.chaos.strike(Call::Recent, None, self.inner.recent(tenant, session, limit, retention, now)).await
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
        self.chaos.strike(Call::Page, None, self.inner.page(tenant, session, before, limit, retention, now)).await
    }

    async fn delete(&self, tenant: &TenantId, session: &SessionId) -> Result<bool, PortError> {
        self.chaos.strike(Call::Delete, None, self.inner.delete(tenant, session)).await
    }

    async fn sweep(&self, tenant: &TenantId, retention: &Retention, now: Timestamp) -> Result<u64, PortError> {
        self.inner.sweep(tenant, retention, now).await
    }
}

#[async_trait]
impl SessionIndex for Faulty<dyn SessionIndex> {
    async fn record(&self, tenant: &TenantId, summary: &SessionSummary) -> Result<(), PortError> {
        self.chaos.strike(Call::IndexRecord, None, self.inner.record(tenant, summary)).await
    }

    async fn list<'a>(
        &self,
        tenant: &TenantId,
        user: Option<&'a UserId>,
        since: Timestamp,
        after: Option<(Timestamp, SessionId)>,
        limit: u32,
    ) -> Result<SessionPage, PortError> {
        self.chaos.strike(Call::List, None, self.inner.list(tenant, user, since, after, limit)).await
    }

    async fn remove(&self, tenant: &TenantId, session: &SessionId) -> Result<(), PortError> {
        self.chaos.strike(Call::IndexRemove, None, self.inner.remove(tenant, session)).await
    }
}

#[async_trait]
impl IdempotencyStore for Faulty<dyn IdempotencyStore> {
    async fn begin(
        &self,
        tenant: &TenantId,
        key: &IdempotencyKey,
        fingerprint: &Fingerprint,
        holder: RequestId,
        lease_until: Timestamp,
        now: Timestamp,
    ) -> Result<Begin, PortError> {
        let begun = self.inner.begin(tenant, key, fingerprint, holder, lease_until, now);
        self.chaos.strike(Call::KeyBegin, Some(&holder), begun).await
    }

    async fn finish(
        &self,
        tenant: &TenantId,
        key: &IdempotencyKey,
        holder: &RequestId,
        answer: &str,
        keep_until: Timestamp,
    ) -> Result<(), PortError> {
        let finished = self.inner.finish(tenant, key, holder, answer, keep_until);
        self.chaos.strike(Call::KeyFinish, Some(holder), finished).await
    }

    async fn abandon(&self, tenant: &TenantId, key: &IdempotencyKey, holder: &RequestId) -> Result<(), PortError> {
        self.chaos.strike(Call::KeyAbandon, Some(holder), self.inner.abandon(tenant, key, holder)).await
    }
}
