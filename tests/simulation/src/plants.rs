//! Bugs that are planted to see whether the simulation finds them: each is an adapter that breaks one promise.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use enigma_core::idempotency::{Begin, Fingerprint, IdempotencyKey};
use enigma_core::ledger::{BudgetExceeded, Settlement};
use enigma_core::limit::{Decision, LimitCheck, RateStatus, StreamsFull};
use enigma_core::ports::{
    IdempotencyStore, LedgerBalance, RateLimiter, SessionStore, StreamSlots, Telemetry, TokenLedger, TurnPermit,
    TurnQueue,
};
use enigma_core::session::{HistoryPage, RecentMessages, Retention, SessionSummary, Turn};
use enigma_core::tenant::TokenBudget;
use enigma_core::usage::UsageRecord;
use enigma_core::{PortError, RequestId, SessionId, TenantId, Timestamp};
use enigma_memory::MemoryRateLimiter;

use crate::sim::Sim;

/// A bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// A settlement is charged twice.
    DoubleSettlement,
    /// A settlement is acknowledged and not done.
    LostSettlement,
    /// A settlement is acknowledged before it is written down.
    VolatileSettlement,
    /// Reservations are not held to the budget.
    Overbooking,
    /// A session lets everybody in at once.
    OpenTurns,
    /// A turn that has ended lets nobody in.
    StuckTurns,
    /// A usage record is kept twice.
    DoubleRecord,
    /// A usage record is acknowledged and not kept.
    LostRecord,
    /// A turn is kept message by message.
    TornTurn,
    /// A turn is acknowledged and not kept.
    LostTurn,
    /// All tenants share their messages.
    SharedSessions,
    /// Keys are forgotten: a repeat is done again.
    ForgottenKeys,
    /// Keys are never freed.
    KeptKeys,
    /// A question for a key now and then is never answered.
    SilentKeys,
    /// There are as many streams as anybody likes.
    EndlessStreams,
    /// Streams that have ended are not free.
    LeakedStreams,
    /// The windows grant one more.
    GenerousLimiter,
    /// The process now and then drops work that it was given.
    DroppedWork,
}

impl Plant {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::DoubleSettlement,
        Self::LostSettlement,
        Self::VolatileSettlement,
        Self::Overbooking,
        Self::OpenTurns,
        Self::StuckTurns,
        Self::DoubleRecord,
        Self::LostRecord,
        Self::TornTurn,
        Self::LostTurn,
        Self::SharedSessions,
        Self::ForgottenKeys,
        Self::KeptKeys,
        Self::SilentKeys,
        Self::EndlessStreams,
        Self::LeakedStreams,
        Self::GenerousLimiter,
        Self::DroppedWork,
    ];
}

/// Wraps a port in the bug, when it is one of that port.
pub(crate) struct Planted<P: ?Sized> {
    inner: Arc<P>,
    plant: Option<Plant>,
    count: AtomicU64,
}

impl<P: ?Sized> Planted<P> {
    pub(crate) fn new(inner: Arc<P>, plant: Option<Plant>) -> Arc<Self> {
        Arc::new(Self { inner, plant, count: AtomicU64::new(0) })
    }

    fn is(&self, plant: Plant) -> bool {
        self.plant == Some(plant)
    }
}

#[async_trait]
impl TokenLedger for Planted<dyn TokenLedger> {
    async fn reserve(
        &self,
        tenant: &TenantId,
        request: RequestId,
        tokens: u64,
        budget: &TokenBudget,
        lifetime: Duration,
        now: Timestamp,
    ) -> Result<Result<(), BudgetExceeded>, PortError> {
        let unlimited = TokenBudget::default();
        let budget = if self.is(Plant::Overbooking) { &unlimited } else { budget };
        self.inner.reserve(tenant, request, tokens, budget, lifetime, now).await
    }

    async fn settle(
        &self,
        tenant: &TenantId,
        request: &RequestId,
        used: u64,
        budget: &TokenBudget,
        now: Timestamp,
    ) -> Result<Option<Settlement>, PortError> {
        if self.is(Plant::LostSettlement) {
            return Ok(Some(Settlement { charged: used, overrun: 0 }));
        }
        let settled = self.inner.settle(tenant, request, used, budget, now).await?;
        if self.is(Plant::DoubleSettlement) {
            let lifetime = Duration::from_secs(1);
            if self.inner.reserve(tenant, *request, used, budget, lifetime, now).await?.is_ok() {
                self.inner.settle(tenant, request, used, budget, now).await?;
            }
        }
        Ok(settled)
    }

    async fn release(&self, tenant: &TenantId, request: &RequestId) -> Result<bool, PortError> {
        self.inner.release(tenant, request).await
    }

    async fn balance(&self, tenant: &TenantId, now: Timestamp) -> Result<LedgerBalance, PortError> {
        self.inner.balance(tenant, now).await
    }
}

#[async_trait]
impl TurnQueue for Planted<dyn TurnQueue> {
    async fn enter(&self, tenant: &TenantId, session: &SessionId, request: RequestId) -> Result<TurnPermit, PortError> {
        if self.is(Plant::OpenTurns) {
            return Ok(Box::new(()));
        }
        let permit = self.inner.enter(tenant, session, request).await?;
        if self.is(Plant::StuckTurns) && self.count.fetch_add(1, Ordering::Relaxed) % 3 == 2 {
            std::mem::forget(permit);
            return Ok(Box::new(()));
        }
        Ok(permit)
    }
}

#[async_trait]
impl Telemetry for Planted<dyn Telemetry> {
    async fn record_usage(&self, tenant: &TenantId, record: &UsageRecord) -> Result<(), PortError> {
        if self.is(Plant::LostRecord) && self.count.fetch_add(1, Ordering::Relaxed) % 3 == 2 {
            return Ok(());
        }
        if self.is(Plant::DoubleRecord) {
            self.inner.record_usage(tenant, record).await?;
        }
        self.inner.record_usage(tenant, record).await
    }
}

impl Planted<dyn SessionStore> {
    fn whose(&self, tenant: &TenantId) -> TenantId {
        if self.is(Plant::SharedSessions) {
            TenantId::new("acme").expect("it is the name of a tenant")
        } else {
            tenant.clone()
        }
    }
}

#[async_trait]
impl SessionStore for Planted<dyn SessionStore> {
    async fn append_turn(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        turn: &Turn,
        retention: &Retention,
        now: Timestamp,
    ) -> Result<SessionSummary, PortError> {
        let tenant = &self.whose(tenant);
        if self.is(Plant::LostTurn) && self.count.fetch_add(1, Ordering::Relaxed) % 3 == 2 {
            let user = turn.user.clone();
            return Ok(SessionSummary {
                id: *session,
                user,
                created_at: now,
                updated_at: now,
                message_count: 2,
                token_count: 0,
            });
        }
        if self.is(Plant::TornTurn)
            && let [first, rest @ ..] = &turn.messages[..]
        {
            let first = Turn { user: turn.user.clone(), messages: vec![first.clone()] };
            self.inner.append_turn(tenant, session, &first, retention, now).await?;
            Sim::turns(2).await;
            let rest = Turn { user: turn.user.clone(), messages: rest.to_vec() };
            return self.inner.append_turn(tenant, session, &rest, retention, now).await;
        }
        self.inner.append_turn(tenant, session, turn, retention, now).await
    }

    async fn recent(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        limit: u32,
        retention: &Retention,
        now: Timestamp,
    ) -> Result<RecentMessages, PortError> {
        self.inner.recent(&self.whose(tenant), session, limit, retention, now).await
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
        self.inner.page(&self.whose(tenant), session, before, limit, retention, now).await
    }

    async fn delete(&self, tenant: &TenantId, session: &SessionId) -> Result<bool, PortError> {
        self.inner.delete(&self.whose(tenant), session).await
    }

    async fn sweep(&self, tenant: &TenantId, retention: &Retention, now: Timestamp) -> Result<u64, PortError> {
        self.inner.sweep(tenant, retention, now).await
    }
}

#[async_trait]
impl IdempotencyStore for Planted<dyn IdempotencyStore> {
    async fn begin(
        &self,
        tenant: &TenantId,
        key: &IdempotencyKey,
        fingerprint: &Fingerprint,
        holder: RequestId,
        lease_until: Timestamp,
        now: Timestamp,
    ) -> Result<Begin, PortError> {
        if self.is(Plant::ForgottenKeys) {
            return Ok(Begin::First);
        }
        if self.is(Plant::SilentKeys) && self.count.fetch_add(1, Ordering::Relaxed) % 3 == 2 {
            futures_util::future::pending::<()>().await;
        }
        self.inner.begin(tenant, key, fingerprint, holder, lease_until, now).await
    }

    async fn finish(
        &self,
        tenant: &TenantId,
        key: &IdempotencyKey,
        holder: &RequestId,
        answer: &str,
        keep_until: Timestamp,
    ) -> Result<(), PortError> {
        self.inner.finish(tenant, key, holder, answer, keep_until).await
    }

    async fn abandon(&self, tenant: &TenantId, key: &IdempotencyKey, holder: &RequestId) -> Result<(), PortError> {
        if self.is(Plant::KeptKeys) {
            return Ok(());
        }
        self.inner.abandon(tenant, key, holder).await
    }
}

#[async_trait]
impl StreamSlots for Planted<dyn StreamSlots> {
    async fn enter(
        &self,
        tenant: &TenantId,
        holder: RequestId,
        limit: u32,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<Result<(), StreamsFull>, PortError> {
        let limit = if self.is(Plant::EndlessStreams) { u32::MAX } else { limit };
        self.inner.enter(tenant, holder, limit, expires_at, now).await
    }

    async fn leave(&self, tenant: &TenantId, holder: &RequestId) -> Result<(), PortError> {
        if self.is(Plant::LeakedStreams) && self.count.fetch_add(1, Ordering::Relaxed) % 4 == 3 {
            return Ok(());
        }
        self.inner.leave(tenant, holder).await
    }
}

/// Asks a second limiter once the first one denies.
pub(crate) struct GenerousLimiter {
    first: MemoryRateLimiter,
    second: MemoryRateLimiter,
}

impl GenerousLimiter {
    pub(crate) fn limiter(plant: Option<Plant>) -> Arc<dyn RateLimiter> {
        if plant == Some(Plant::GenerousLimiter) {
            Arc::new(Self { first: MemoryRateLimiter::default(), second: MemoryRateLimiter::default() })
        } else {
            Arc::new(MemoryRateLimiter::default())
        }
    }
}

#[async_trait]
impl RateLimiter for GenerousLimiter {
    async fn acquire(
        &self,
        tenant: &TenantId,
        checks: &[LimitCheck<'_>],
        now: Timestamp,
    ) -> Result<Decision, PortError> {
        let decision = self.first.acquire(tenant, checks, now).await?;
        if decision.is_granted() { Ok(decision) } else { self.second.acquire(tenant, checks, now).await }
    }

    async fn peek(
        &self,
        tenant: &TenantId,
        checks: &[LimitCheck<'_>],
        now: Timestamp,
    ) -> Result<RateStatus, PortError> {
        self.second.peek(tenant, checks, now).await
    }
}
