//! Budgets in memory.

use std::time::Duration;

use async_trait::async_trait;
use enigma_core::ledger::{BudgetExceeded, BudgetPeriod, Ledger, Settlement};
use enigma_core::ports::{LedgerBalance, TokenLedger};
use enigma_core::tenant::TokenBudget;
use enigma_core::{PortError, RequestId, TenantId, Timestamp};

use crate::sharded::Sharded;

/// Keeps the books of this process. They begin anew when it does, so a budget holds for one process's life only.
pub struct MemoryTokenLedger {
    tenants: Sharded<Ledger>,
}

impl Default for MemoryTokenLedger {
    fn default() -> Self {
        Self { tenants: Sharded::new("token ledger") }
    }
}

impl MemoryTokenLedger {
    fn with<R>(&self, tenant: &TenantId, act: impl FnOnce(&mut Ledger) -> R) -> Result<R, PortError> {
        self.tenants.with(tenant, |ledger| {
            let result = act(ledger);
            // They are for adapters that write them down.
            drop(ledger.take_changes());
            result
        })
    }
}

#[async_trait]
impl TokenLedger for MemoryTokenLedger {
    async fn reserve(
        &self,
        tenant: &TenantId,
        request: RequestId,
        tokens: u64,
        budget: &TokenBudget,
        lifetime: Duration,
        now: Timestamp,
    ) -> Result<Result<(), BudgetExceeded>, PortError> {
        self.with(tenant, |ledger| ledger.reserve(request, tokens, budget, lifetime, now))
    }

    async fn settle(
        &self,
        tenant: &TenantId,
        request: &RequestId,
        used: u64,
        budget: &TokenBudget,
        now: Timestamp,
    ) -> Result<Option<Settlement>, PortError> {
        self.with(tenant, |ledger| ledger.settle(request, used, budget, now))
    }

    async fn release(&self, tenant: &TenantId, request: &RequestId) -> Result<bool, PortError> {
        self.with(tenant, |ledger| ledger.release(request))
    }

    async fn balance(&self, tenant: &TenantId, now: Timestamp) -> Result<LedgerBalance, PortError> {
        self.with(tenant, |ledger| {
            ledger.expire(now);
            LedgerBalance {
                day: *ledger.day(),
                month: *ledger.month(),
                held_today: ledger.held(BudgetPeriod::Daily),
                held_this_month: ledger.held(BudgetPeriod::Monthly),
            }
        })
    }
}
