//! The facade ports as a host answers them itself: a fault strikes the call as a whole.

use std::time::Duration;

use async_trait::async_trait;
use enigma_core::books::ComposedBooks;
use enigma_core::ledger::{BudgetExceeded, Settlement};
use enigma_core::limit::{LimitCheck, RateStatus};
use enigma_core::ports::{Closing, Entered, Entrance, HeldTurn, OpenTurn, RequestBooks, SessionTurns};
use enigma_core::session::{Retention, Turn};
use enigma_core::tenant::TokenBudget;
use enigma_core::turns::QueuedTurns;
use enigma_core::{PortError, RequestId, SessionId, TenantId, Timestamp};

use crate::chaos::Chaos;
use crate::witness::Call;

pub(crate) struct FaultyBooks {
    pub(crate) inner: ComposedBooks,
    pub(crate) chaos: Chaos,
}

#[async_trait]
impl RequestBooks for FaultyBooks {
    async fn peek(
        &self,
        tenant: &TenantId,
        checks: &[LimitCheck<'_>],
        now: Timestamp,
    ) -> Result<RateStatus, PortError> {
        self.chaos.strike(Call::Peek, None, self.inner.peek(tenant, checks, now)).await
    }

    async fn enter(&self, tenant: &TenantId, entrance: &Entrance<'_>, now: Timestamp) -> Result<Entered, PortError> {
        self.chaos.strike(Call::Enter, Some(&entrance.request), self.inner.enter(tenant, entrance, now)).await
    }

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

    async fn close(&self, tenant: &TenantId, closing: Closing<'_>, now: Timestamp) -> Result<Settlement, PortError> {
        let request = closing.request;
        self.chaos.strike(Call::Close, Some(&request), self.inner.close(tenant, closing, now)).await
    }
}

pub(crate) struct FaultyTurns {
    pub(crate) inner: QueuedTurns,
    pub(crate) chaos: Chaos,
}

#[async_trait]
impl SessionTurns for FaultyTurns {
    async fn begin(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        request: RequestId,
        limit: u32,
        retention: &Retention,
        now: Timestamp,
    ) -> Result<OpenTurn, PortError> {
        let begun = self.inner.begin(tenant, session, request, limit, retention, now);
        let OpenTurn { user, history, held } = self.chaos.strike(Call::BeginTurn, Some(&request), begun).await?;
        Ok(OpenTurn { user, history, held: Box::new(FaultyTurn { held, request, chaos: self.chaos.clone() }) })
    }
}

struct FaultyTurn {
    held: Box<dyn HeldTurn>,
    request: RequestId,
    chaos: Chaos,
}

#[async_trait]
impl HeldTurn for FaultyTurn {
    async fn append(self: Box<Self>, turn: &Turn, retention: &Retention, now: Timestamp) -> Result<(), PortError> {
        let Self { held, request, chaos } = *self;
        chaos.strike(Call::Append, Some(&request), held.append(turn, retention, now)).await
    }

    async fn end(self: Box<Self>) {
        let Self { held, chaos, .. } = *self;
        chaos.delay().await;
        held.end().await;
    }
}
