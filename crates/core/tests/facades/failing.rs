//! Ports that work, or fail, as a test wants it.

use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use enigma_core::ledger::{BudgetExceeded, Settlement};
use enigma_core::limit::StreamsFull;
use enigma_core::ports::{LedgerBalance, SessionIndex, StreamSlots, Telemetry, TokenLedger};
use enigma_core::session::{SessionPage, SessionSummary};
use enigma_core::tenant::TokenBudget;
use enigma_core::usage::UsageRecord;
use enigma_core::{PortError, RequestId, SessionId, TenantId, Timestamp, UserId};

/// A port that does nothing but count its calls; it fails when it was made with `true`.
#[derive(Default)]
pub(crate) struct Part {
    fails: bool,
    calls: Mutex<Vec<UsageRecord>>,
    count: Mutex<usize>,
}

impl Part {
    pub(crate) fn new(fails: bool) -> Self {
        Self { fails, ..Self::default() }
    }

    pub(crate) fn count(&self) -> usize {
        *self.count.lock().unwrap()
    }

    pub(crate) fn records(&self) -> Vec<UsageRecord> {
        self.calls.lock().unwrap().clone()
    }

    fn note<T>(&self, port: &'static str, answer: T) -> Result<T, PortError> {
        *self.count.lock().unwrap() += 1;
        if self.fails { Err(PortError::unavailable(port, "told to fail")) } else { Ok(answer) }
    }
}

#[async_trait]
impl StreamSlots for Part {
    async fn enter(
        &self,
        _: &TenantId,
        _: RequestId,
        _: u32,
        _: Timestamp,
        _: Timestamp,
    ) -> Result<Result<(), StreamsFull>, PortError> {
        self.note("stream slots", Ok(()))
    }

    async fn leave(&self, _: &TenantId, _: &RequestId) -> Result<(), PortError> {
        self.note("stream slots", ())
    }
}

#[async_trait]
impl TokenLedger for Part {
    async fn reserve(
        &self,
        _: &TenantId,
        _: RequestId,
        _: u64,
        _: &TokenBudget,
        _: Duration,
        _: Timestamp,
    ) -> Result<Result<(), BudgetExceeded>, PortError> {
        self.note("token ledger", Ok(()))
    }

    async fn settle(
        &self,
        _: &TenantId,
        _: &RequestId,
        used: u64,
        _: &TokenBudget,
        _: Timestamp,
    ) -> Result<Option<Settlement>, PortError> {
        self.note("token ledger", Some(Settlement { charged: used, overrun: 0 }))
    }

    async fn release(&self, _: &TenantId, _: &RequestId) -> Result<bool, PortError> {
        self.note("token ledger", true)
    }

    async fn balance(&self, _: &TenantId, _: Timestamp) -> Result<LedgerBalance, PortError> {
        self.note("token ledger", LedgerBalance::default())
    }
}

#[async_trait]
impl Telemetry for Part {
    async fn record_usage(&self, _: &TenantId, record: &UsageRecord) -> Result<(), PortError> {
        self.calls.lock().unwrap().push(record.clone());
        self.note("telemetry", ())
    }
}

#[async_trait]
impl SessionIndex for Part {
    async fn record(&self, _: &TenantId, _: &SessionSummary) -> Result<(), PortError> {
        self.note("session index", ())
    }

    async fn list<'a>(
        &self,
        _: &TenantId,
        _: Option<&'a UserId>,
        _: Timestamp,
        _: Option<(Timestamp, SessionId)>,
        _: u32,
    ) -> Result<SessionPage, PortError> {
        self.note("session index", SessionPage::default())
    }

    async fn remove(&self, _: &TenantId, _: &SessionId) -> Result<(), PortError> {
        self.note("session index", ())
    }
}
