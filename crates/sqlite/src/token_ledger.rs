//! The token ledger.

use std::time::Duration;

use async_trait::async_trait;
use enigma_core::ledger::{BudgetExceeded, BudgetPeriod, Ledger, Settlement};
use enigma_core::ports::{LedgerBalance, TokenLedger};
use enigma_core::tenant::TokenBudget;
use enigma_core::usage::UsageRecord;
use enigma_core::{PortError, RequestId, TenantId, Timestamp};

use crate::database::{Database, Room};
use crate::error::StoreError;
use crate::ledgers::{Beside, Written};

const PORT: &str = "token ledger";

/// Keeps token budgets. What it decides is the core's [`Ledger`], in memory; what changes is written behind it, in order.
///
/// A reservation is not waited for: by the time that its request spends anything it is on its way to the disk, and what a
/// request has spent is told only after its settlement is there, and the reservation with it. While the disk cannot be written,
/// though, every reservation waits until it is, and is refused when it cannot be.
#[derive(Debug, Clone)]
pub struct SqliteTokenLedger {
    database: Database,
}

impl SqliteTokenLedger {
    /// The ledger in `database`.
    pub fn new(database: Database) -> Self {
        Self { database }
    }

    pub(crate) async fn reserve_tokens(
        &self,
        tenant: &TenantId,
        request: RequestId,
        tokens: u64,
        budget: &TokenBudget,
        lifetime: Duration,
        now: Timestamp,
    ) -> Result<Result<(), BudgetExceeded>, StoreError> {
        let is_awaited = self.database.is_failing();
        let reserve = |ledger: &mut Ledger| {
            (ledger.reserve(request, tokens, budget, lifetime, now), Beside { usage: None, is_awaited })
        };
        let (reserved, written) = self.database.change(tenant, Room::Soon, reserve).await?;
        if let Err(error) = until(written).await {
            self.database.change(tenant, Room::Awaited, |ledger| (ledger.release(&request), Beside::default())).await?;
            return Err(error);
        }
        Ok(reserved)
    }

    /// Ends a reservation as `end` says, and waits until that is written, with the record that `end` makes of it.
    pub(crate) async fn end<T>(
        &self,
        tenant: &TenantId,
        end: impl FnOnce(&mut Ledger) -> (T, Option<UsageRecord>),
    ) -> Result<T, StoreError> {
        let end = |ledger: &mut Ledger| {
            let (outcome, usage) = end(ledger);
            (outcome, Beside { usage, is_awaited: true })
        };
        let (outcome, written) = self.database.change(tenant, Room::Awaited, end).await?;
        until(written).await?;
        Ok(outcome)
    }
}

/// Waits until a change is written, if it has to be.
async fn until(written: Option<Written>) -> Result<(), StoreError> {
    match written {
        Some(written) => written.await.unwrap_or(Err(StoreError::Closed)),
        None => Ok(()),
    }
}

#[async_trait]
impl TokenLedger for SqliteTokenLedger {
    async fn reserve(
        &self,
        tenant: &TenantId,
        request: RequestId,
        tokens: u64,
        budget: &TokenBudget,
        lifetime: Duration,
        now: Timestamp,
    ) -> Result<Result<(), BudgetExceeded>, PortError> {
        let reserved = self.reserve_tokens(tenant, request, tokens, budget, lifetime, now).await;
        reserved.map_err(|error| error.into_port(PORT))
    }

    async fn settle(
        &self,
        tenant: &TenantId,
        request: &RequestId,
        used: u64,
        budget: &TokenBudget,
        now: Timestamp,
    ) -> Result<Option<Settlement>, PortError> {
        let settled = self.end(tenant, |ledger| (ledger.settle(request, used, budget, now), None)).await;
        settled.map_err(|error| error.into_port(PORT))
    }

    async fn release(&self, tenant: &TenantId, request: &RequestId) -> Result<bool, PortError> {
        let released = self.end(tenant, |ledger| (ledger.release(request), None)).await;
        released.map_err(|error| error.into_port(PORT))
    }

    async fn balance(&self, tenant: &TenantId, now: Timestamp) -> Result<LedgerBalance, PortError> {
        let balance = self.end(tenant, |ledger| {
            ledger.expire(now);
            let balance = LedgerBalance {
                day: *ledger.day(),
                month: *ledger.month(),
                held_today: ledger.held(BudgetPeriod::Daily),
                held_this_month: ledger.held(BudgetPeriod::Monthly),
            };
            (balance, None)
        });
        balance.await.map_err(|error| error.into_port(PORT))
    }
}
