//! The books of a request: windows and streams as they are given, budget and record in the database.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use enigma_core::ledger::{BudgetExceeded, Settlement};
use enigma_core::limit::{Decision, LimitCheck, RateStatus};
use enigma_core::ports::{Closing, Entered, Entrance, RateLimiter, RequestBooks, Spending, StreamSlots};
use enigma_core::tenant::TokenBudget;
use enigma_core::usage::UsageRecord;
use enigma_core::{PortError, RequestId, TenantId, Timestamp};

use crate::database::Database;
use crate::error::StoreError;
use crate::token_ledger::SqliteTokenLedger;

const PORT: &str = "request books";

/// [`RequestBooks`] that settle a request and keep its record in one piece of work: both are written, or neither.
#[derive(Clone)]
pub struct SqliteRequestBooks {
    limiter: Arc<dyn RateLimiter>,
    slots: Arc<dyn StreamSlots>,
    ledger: SqliteTokenLedger,
}

impl SqliteRequestBooks {
    /// Books in `database`, beside the windows and the streams that others keep.
    pub fn new(limiter: Arc<dyn RateLimiter>, slots: Arc<dyn StreamSlots>, database: Database) -> Self {
        Self { limiter, slots, ledger: SqliteTokenLedger::new(database) }
    }

    async fn settle(&self, tenant: &TenantId, closing: &Closing<'_>, now: Timestamp) -> Result<Settlement, StoreError> {
        let Closing { request, spending, record } = *closing;
        if matches!(spending, Spending::None) && record.is_none() {
            return Ok(Settlement::NOTHING);
        }
        self.ledger
            .end(tenant, |ledger| {
                let settlement = match spending {
                    Spending::None => Settlement::NOTHING,
                    Spending::Released => {
                        ledger.release(&request);
                        Settlement::NOTHING
                    }
                    // A reservation that expired was charged in full already.
                    Spending::Used { tokens, reserved, budget } => ledger
                        .settle(&request, tokens, budget, now)
                        .unwrap_or(Settlement { charged: reserved, overrun: tokens.saturating_sub(reserved) }),
                };
                let Settlement { charged, overrun } = settlement;
                (settlement, record.map(|record| UsageRecord { charged, overrun, ..record.clone() }))
            })
            .await
    }
}

#[async_trait]
impl RequestBooks for SqliteRequestBooks {
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
        let reserved = self.ledger.reserve_tokens(tenant, request, tokens, budget, lifetime, now).await;
        reserved.map_err(|error| error.into_port(PORT))
    }

    async fn close(&self, tenant: &TenantId, closing: Closing<'_>, now: Timestamp) -> Result<Settlement, PortError> {
        let settled = self.settle(tenant, &closing, now).await.map_err(|error| error.into_port(PORT));
        let left = self.slots.leave(tenant, &closing.request).await;
        let settlement = settled?;
        left.map(|()| settlement)
    }
}
