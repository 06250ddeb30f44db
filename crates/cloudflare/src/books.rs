//! What a request passes: limits, streams, budget and records, each in one call of an object.

use std::time::Duration;

use async_trait::async_trait;
use enigma_core::ledger::{BudgetExceeded, Settlement};
use enigma_core::limit::{Decision, LimitCheck, Question, RateStatus, StreamsFull, Subject};
use enigma_core::ports::{
    Closing, Entered, Entrance, LedgerBalance, RateLimiter, RequestBooks, Spending, StreamSlots, Telemetry, TokenLedger,
};
use enigma_core::tenant::TokenBudget;
use enigma_core::usage::UsageRecord;
use enigma_core::{PortError, RequestId, TenantId, Timestamp};
use serde::de::DeserializeOwned;

use crate::analytics::UsageDataset;
use crate::call::{AT_ONCE, IN_LINE, Objects};
use crate::message::{
    Check, CloseAsk, EnteredStream, LedgerAsk, LineAnswer, LineAsk, LineQuestion, Reserved, Settled, SpendingAsk,
    StreamAsk,
};
use crate::names::{Class, ObjectName};

const LIMITER: &str = "rate limiter";
const SLOTS: &str = "stream slots";
const LEDGER: &str = "token ledger";
const TELEMETRY: &str = "telemetry";
const BOOKS: &str = "request books";

/// The books of tenants, in their Durable Objects: the windows of users in objects of their own, everything else in the
/// tenant's.
///
/// A request enters by one call, whatever it has to pass: the object of its user's window asks the tenant's, which has the
/// window of all users and the streams. The subjects of a request must come in the same order for all requests that share
/// some of them; the tenant as a whole is always asked last.
#[derive(Clone)]
pub struct ObjectBooks {
    objects: Objects,
    dataset: Option<UsageDataset>,
}

impl ObjectBooks {
    /// The books that `objects` keep.
    pub fn new(objects: Objects) -> Self {
        Self { objects, dataset: None }
    }

    /// Tells `dataset` too what requests have used, when there is one.
    #[must_use]
    pub fn with_dataset(self, dataset: Option<UsageDataset>) -> Self {
        Self { dataset, ..self }
    }

    /// The newest usage records of a tenant, at most `limit`, the newest first.
    ///
    /// # Errors
    /// [`PortError`].
    pub async fn records(&self, tenant: &TenantId, limit: u32) -> Result<Vec<UsageRecord>, PortError> {
        self.ledger(TELEMETRY, tenant, LedgerAsk::Records { limit }).await
    }

    async fn ledger<A: DeserializeOwned>(
        &self,
        port: &'static str,
        tenant: &TenantId,
        ask: LedgerAsk,
    ) -> Result<A, PortError> {
        let name = ObjectName::ledger(tenant);
        if ask.may_be_said_twice() {
            self.objects.ask_again(port, &name, tenant, ask, AT_ONCE).await
        } else {
            self.objects.ask(port, &name, tenant, ask, AT_ONCE).await
        }
    }

    /// Asks the line of a request's windows.
    async fn line(
        &self,
        port: &'static str,
        tenant: &TenantId,
        checks: &[LimitCheck<'_>],
        question: LineQuestion,
        stream: Option<StreamAsk>,
    ) -> Result<LineAnswer, PortError> {
        let everybody = Subject::whole_tenant();
        let mut checks: Vec<_> = checks.iter().collect();
        // The sort is stable: the others stay in their order.
        checks.sort_by_key(|check| *check.subject == everybody);
        let checks: Vec<Check> = checks.into_iter().map(Check::from).collect();
        let name = checks
            .first()
            .map_or_else(|| ObjectName::ledger(tenant), |check| ObjectName::limiter(tenant, &check.subject()));
        // Who only wants to know how full they are does not wait as long.
        let limit = if matches!(question, LineQuestion::Peek(_)) { AT_ONCE } else { IN_LINE };
        let line = LineAsk { question, checks, stream };
        match name.class() {
            Class::TenantLedger => self.objects.ask(port, &name, tenant, LedgerAsk::Line(line), limit).await,
            _ => self.objects.ask(port, &name, tenant, line, limit).await,
        }
    }

    async fn take(
        &self,
        port: &'static str,
        tenant: &TenantId,
        checks: &[LimitCheck<'_>],
        stream: Option<StreamAsk>,
        now: Timestamp,
    ) -> Result<(Decision, Option<StreamsFull>), PortError> {
        let question = LineQuestion::Slot(Question::Acquire(now));
        match self.line(port, tenant, checks, question, stream).await? {
            LineAnswer::Decided { decision, full } => Ok((decision, full)),
            _ => Err(unexpected(port)),
        }
    }
}

fn unexpected(port: &'static str) -> PortError {
    PortError::corrupt(port, "the object answered another question")
}

#[async_trait]
impl RateLimiter for ObjectBooks {
    async fn acquire(
        &self,
        tenant: &TenantId,
        checks: &[LimitCheck<'_>],
        now: Timestamp,
    ) -> Result<Decision, PortError> {
        Ok(self.take(LIMITER, tenant, checks, None, now).await?.0)
    }

    async fn peek(
        &self,
        tenant: &TenantId,
        checks: &[LimitCheck<'_>],
        now: Timestamp,
    ) -> Result<RateStatus, PortError> {
        match self.line(LIMITER, tenant, checks, LineQuestion::Peek(now), None).await? {
            LineAnswer::Peeked { status, .. } => Ok(status),
            _ => Err(unexpected(LIMITER)),
        }
    }
}

#[async_trait]
impl StreamSlots for ObjectBooks {
    async fn enter(
        &self,
        tenant: &TenantId,
        holder: RequestId,
        limit: u32,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<EnteredStream, PortError> {
        let stream = StreamAsk { request: holder, max_streams: limit, expires_at };
        self.ledger(SLOTS, tenant, LedgerAsk::EnterStream { stream, now }).await
    }

    async fn leave(&self, tenant: &TenantId, holder: &RequestId) -> Result<(), PortError> {
        self.ledger(SLOTS, tenant, LedgerAsk::LeaveStream { request: *holder }).await
    }
}

#[async_trait]
impl TokenLedger for ObjectBooks {
    async fn reserve(
        &self,
        tenant: &TenantId,
        request: RequestId,
        tokens: u64,
        budget: &TokenBudget,
        lifetime: Duration,
        now: Timestamp,
    ) -> Result<Reserved, PortError> {
        self.ledger(LEDGER, tenant, LedgerAsk::Reserve { request, tokens, budget: *budget, lifetime, now }).await
    }

    async fn settle(
        &self,
        tenant: &TenantId,
        request: &RequestId,
        used: u64,
        budget: &TokenBudget,
        now: Timestamp,
    ) -> Result<Settled, PortError> {
        self.ledger(LEDGER, tenant, LedgerAsk::Settle { request: *request, used, budget: *budget, now }).await
    }

    async fn release(&self, tenant: &TenantId, request: &RequestId) -> Result<bool, PortError> {
        self.ledger(LEDGER, tenant, LedgerAsk::Release { request: *request }).await
    }

    async fn balance(&self, tenant: &TenantId, now: Timestamp) -> Result<LedgerBalance, PortError> {
        self.ledger(LEDGER, tenant, LedgerAsk::Balance { now }).await
    }
}

#[async_trait]
impl Telemetry for ObjectBooks {
    async fn record_usage(&self, tenant: &TenantId, record: &UsageRecord) -> Result<(), PortError> {
        self.ledger(TELEMETRY, tenant, LedgerAsk::Record(Box::new(record.clone()))).await
    }
}

#[async_trait]
impl RequestBooks for ObjectBooks {
    async fn peek(
        &self,
        tenant: &TenantId,
        checks: &[LimitCheck<'_>],
        now: Timestamp,
    ) -> Result<RateStatus, PortError> {
        RateLimiter::peek(self, tenant, checks, now).await
    }

    async fn enter(&self, tenant: &TenantId, entrance: &Entrance<'_>, now: Timestamp) -> Result<Entered, PortError> {
        let Entrance { request, checks, max_streams, expires_at } = *entrance;
        let stream = StreamAsk { request, max_streams, expires_at };
        let (decision, full) = self.take(BOOKS, tenant, checks, Some(stream), now).await?;
        Ok(match (decision, full) {
            (Decision::Denied { status }, _) => Entered::RateLimited(status),
            (Decision::Granted { status, .. }, None) => Entered::In(status),
            (Decision::Granted { status, .. }, Some(full)) => Entered::StreamsFull { full, rate: status },
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
        TokenLedger::reserve(self, tenant, request, tokens, budget, lifetime, now).await
    }

    async fn close(&self, tenant: &TenantId, closing: Closing<'_>, now: Timestamp) -> Result<Settlement, PortError> {
        let spending = match closing.spending {
            Spending::None => SpendingAsk::None,
            Spending::Released => SpendingAsk::Released,
            Spending::Used { tokens, reserved, budget } => SpendingAsk::Used { tokens, reserved, budget: *budget },
        };
        let close = CloseAsk { request: closing.request, spending, record: closing.record.cloned(), now };
        let settlement = self.ledger(BOOKS, tenant, LedgerAsk::Close(Box::new(close))).await?;
        if let (Some(dataset), Some(record)) = (&self.dataset, closing.record) {
            dataset.write(tenant, record, settlement);
        }
        Ok(settlement)
    }
}
