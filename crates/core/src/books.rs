//! A request's books where each part is at hand: several ports behind one.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::id::{RequestId, TenantId};
use crate::ledger::{BudgetExceeded, Settlement};
use crate::limit::{Decision, LimitCheck, RateStatus};
use crate::port_error::{PortError, degrade};
use crate::ports::{
    Closing, Entered, Entrance, RateLimiter, RequestBooks, Spending, StreamSlots, Telemetry, TokenLedger,
};
use crate::tenant::TokenBudget;
use crate::time::Timestamp;
use crate::usage::UsageRecord;

/// [`RequestBooks`] that are kept by four ports, each of which is asked in its turn.
#[derive(Clone)]
pub struct ComposedBooks {
    limiter: Arc<dyn RateLimiter>,
    slots: Arc<dyn StreamSlots>,
    ledger: Arc<dyn TokenLedger>,
    telemetry: Arc<dyn Telemetry>,
}

impl ComposedBooks {
    /// The books that these ports keep together.
    pub fn new(
        limiter: Arc<dyn RateLimiter>,
        slots: Arc<dyn StreamSlots>,
        ledger: Arc<dyn TokenLedger>,
        telemetry: Arc<dyn Telemetry>,
    ) -> Self {
        Self { limiter, slots, ledger, telemetry }
    }

    async fn settle(
        &self,
        tenant: &TenantId,
        request: &RequestId,
        spending: Spending<'_>,
        now: Timestamp,
    ) -> Result<Settlement, PortError> {
        match spending {
            Spending::None => Ok(Settlement::NOTHING),
            Spending::Released => self.ledger.release(tenant, request).await.map(|_| Settlement::NOTHING),
            Spending::Used { tokens, reserved, budget } => {
                let settled = self.ledger.settle(tenant, request, tokens, budget, now).await?;
                // A reservation that expired was charged in full already.
                Ok(settled.unwrap_or(Settlement { charged: reserved, overrun: tokens.saturating_sub(reserved) }))
            }
        }
    }

    async fn record(
        &self,
        tenant: &TenantId,
        record: Option<&UsageRecord>,
        settlement: Settlement,
    ) -> Result<(), PortError> {
        let Some(record) = record else { return Ok(()) };
        let Settlement { charged, overrun } = settlement;
        self.telemetry.record_usage(tenant, &UsageRecord { charged, overrun, ..record.clone() }).await
    }
}

#[async_trait]
impl RequestBooks for ComposedBooks {
    async fn peek(
        &self,
        tenant: &TenantId,
        checks: &[LimitCheck<'_>],
        now: Timestamp,
    ) -> Result<RateStatus, PortError> {
        self.limiter.peek(tenant, checks, now).await
    }

    async fn enter(&self, tenant: &TenantId, entrance: &Entrance<'_>, now: Timestamp) -> Result<Entered, PortError> {
        let Entrance { request, checks, max_streams, expires_at } = *entrance;
        let rate = match self.limiter.acquire(tenant, checks, now).await? {
            Decision::Granted { status, .. } => status,
            Decision::Denied { status } => return Ok(Entered::RateLimited(status)),
        };
        Ok(match self.slots.enter(tenant, request, max_streams, expires_at, now).await? {
            Ok(()) => Entered::In(rate),
            Err(full) => Entered::StreamsFull { full, rate },
        })
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
        self.ledger.reserve(tenant, request, tokens, budget, lifetime, now).await
    }

    async fn close(&self, tenant: &TenantId, closing: Closing<'_>, now: Timestamp) -> Result<Settlement, PortError> {
        let Closing { request, spending, record } = closing;
        let settled = self.settle(tenant, &request, spending, now).await;
        let settlement = *settled.as_ref().unwrap_or(&Settlement::NOTHING);
        let recorded = self.record(tenant, record, settlement).await;
        let left = self.slots.leave(tenant, &request).await;
        let mut outcome = settled;
        for part in [recorded, left] {
            if outcome.is_ok() {
                outcome = part.map(|()| settlement);
            } else {
                // The caller hears of the first error only.
                degrade(part);
            }
        }
        outcome
    }
}
