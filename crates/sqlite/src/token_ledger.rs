//! The token ledger.

use std::time::Duration;

use async_trait::async_trait;
use enigma_core::ledger::{BudgetExceeded, BudgetPeriod, Ledger, Settlement};
use enigma_core::ports::{LedgerBalance, TokenLedger};
use enigma_core::tenant::TokenBudget;
use enigma_core::{PortError, RequestId, TenantId, Timestamp};

use crate::database::Database;

const PORT: &str = "token ledger";

/// Keeps token budgets. What it decides is the core's [`Ledger`]; here it is kept in memory by the writer and in rows.
#[derive(Debug, Clone)]
pub struct SqliteTokenLedger {
    database: Database,
}

impl SqliteTokenLedger {
    /// The ledger in `database`.
    pub fn new(database: Database) -> Self {
        Self { database }
    }

    async fn with<T: Send + 'static>(
        &self,
        tenant: &TenantId,
        operation: impl FnOnce(&mut Ledger) -> T + Send + 'static,
    ) -> Result<T, PortError> {
        let tenant = tenant.clone();
        self.database
            .write(move |work| work.ledgers.apply(work.connection, &tenant, operation))
            .await
            .map_err(|error| error.into_port(PORT))
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
        let budget = *budget;
        self.with(tenant, move |ledger| ledger.reserve(request, tokens, &budget, lifetime, now)).await
    }

    async fn settle(
        &self,
        tenant: &TenantId,
        request: &RequestId,
        used: u64,
        budget: &TokenBudget,
        now: Timestamp,
    ) -> Result<Option<Settlement>, PortError> {
        let (request, budget) = (*request, *budget);
        self.with(tenant, move |ledger| ledger.settle(&request, used, &budget, now)).await
    }

    async fn release(&self, tenant: &TenantId, request: &RequestId) -> Result<bool, PortError> {
        let request = *request;
        self.with(tenant, move |ledger| ledger.release(&request)).await
    }

    async fn balance(&self, tenant: &TenantId, now: Timestamp) -> Result<LedgerBalance, PortError> {
        self.with(tenant, move |ledger| {
            ledger.expire(now);
            LedgerBalance {
                day: *ledger.day(),
                month: *ledger.month(),
                held_today: ledger.held(BudgetPeriod::Daily),
                held_this_month: ledger.held(BudgetPeriod::Monthly),
            }
        })
        .await
    }
}
