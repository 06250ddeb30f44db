//! The way in for everything that spends tokens: rate limit, concurrency, budget, in this order, whatever the route.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::id::RequestId;
use crate::ledger::{BudgetExceeded, Settlement};
use crate::limit::{Decision, LimitCheck, RateStatus, StreamsFull, Subject};
use crate::port_error::PortError;
use crate::ports::{RateLimiter, StreamSlots, TokenLedger};
use crate::tenant::{Caller, TenantContext};
use crate::time::Timestamp;

/// Why a request may not spend.
#[derive(Debug, Error)]
pub enum AdmissionError {
    /// Too many requests.
    #[error("rate limit reached")]
    RateLimited(RateStatus),
    /// Too many answers under way.
    #[error("too many streams: {full}")]
    TooManyStreams {
        /// How many are allowed.
        full: StreamsFull,
        /// The windows, for the headers.
        rate: RateStatus,
    },
    /// The budget does not cover it.
    #[error(transparent)]
    BudgetExceeded(#[from] BudgetExceeded),
    /// A backend failed; nobody gets in.
    #[error(transparent)]
    Port(#[from] PortError),
}

/// A request that has its slots. Ends by [`Admission::leave`].
#[derive(Debug)]
#[must_use = "an entry holds a slot until it leaves"]
pub struct Entry {
    request: RequestId,
    rate: RateStatus,
}

impl Entry {
    /// The windows after this request.
    pub const fn rate(&self) -> &RateStatus {
        &self.rate
    }
}

/// The right to call a model: the limiter has given a slot and the ledger has set tokens aside. Nothing else makes one, and a
/// model can't be called without. Ends by [`Admission::settle`] or [`Admission::release`]; one that is lost expires.
#[derive(Debug)]
#[must_use = "a permit holds tokens until it is settled or released"]
pub struct Permit {
    request: RequestId,
    tokens: u64,
}

/// The limiter, the slots and the ledger, in their order.
#[derive(Clone)]
pub struct Admission {
    limiter: Arc<dyn RateLimiter>,
    slots: Arc<dyn StreamSlots>,
    ledger: Arc<dyn TokenLedger>,
    lifetime: Duration,
}

impl Admission {
    /// An admission whose slots and reservations are taken for dead after `lifetime`; it must be longer than any request.
    pub fn new(
        limiter: Arc<dyn RateLimiter>,
        slots: Arc<dyn StreamSlots>,
        ledger: Arc<dyn TokenLedger>,
        lifetime: Duration,
    ) -> Self {
        Self { limiter, slots, ledger, lifetime }
    }

    /// How full the caller's windows are; takes nothing.
    ///
    /// # Errors
    /// [`PortError`] of the limiter.
    pub async fn peek(
        &self,
        context: &TenantContext,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<RateStatus, PortError> {
        let all = Subject::whole_tenant();
        self.limiter.peek(context.id(), &checks(context, caller, &all), now).await
    }

    /// Takes a slot of the user's and of the tenant's windows, and one of the tenant's streams.
    ///
    /// # Errors
    /// [`AdmissionError`]; a request that only lacks a free stream has used its slot of the windows.
    pub async fn enter(
        &self,
        context: &TenantContext,
        caller: &Caller,
        request: RequestId,
        now: Timestamp,
    ) -> Result<Entry, AdmissionError> {
        let all = Subject::whole_tenant();
        let rate = match self.limiter.acquire(context.id(), &checks(context, caller, &all), now).await? {
            Decision::Granted { status, .. } => status,
            Decision::Denied { status } => return Err(AdmissionError::RateLimited(status)),
        };
        let limit = context.tenant().concurrency().max_streams;
        let until = now.saturating_add(self.lifetime);
        match self.slots.enter(context.id(), request, limit, until, now).await? {
            Ok(()) => Ok(Entry { request, rate }),
            Err(full) => Err(AdmissionError::TooManyStreams { full, rate }),
        }
    }

    /// Sets `tokens` of the tenant's budget aside.
    ///
    /// # Errors
    /// [`AdmissionError`]; nothing is set aside then.
    pub async fn reserve(
        &self,
        context: &TenantContext,
        entry: &Entry,
        tokens: u64,
        now: Timestamp,
    ) -> Result<Permit, AdmissionError> {
        let budget = context.tenant().budget();
        self.ledger.reserve(context.id(), entry.request, tokens, budget, self.lifetime, now).await??;
        Ok(Permit { request: entry.request, tokens })
    }

    /// Charges what was used.
    ///
    /// # Errors
    /// [`PortError`] of the ledger; the reservation is charged in full when it expires.
    pub async fn settle(
        &self,
        context: &TenantContext,
        permit: Permit,
        used: u64,
        now: Timestamp,
    ) -> Result<Settlement, PortError> {
        let settled = self.ledger.settle(context.id(), &permit.request, used, context.tenant().budget(), now).await?;
        // A reservation that expired was charged in full already.
        Ok(settled.unwrap_or(Settlement { charged: permit.tokens, overrun: used.saturating_sub(permit.tokens) }))
    }

    /// Ends a permit of which nothing was used.
    ///
    /// # Errors
    /// [`PortError`] of the ledger; the reservation is charged in full when it expires.
    pub async fn release(&self, context: &TenantContext, permit: Permit) -> Result<(), PortError> {
        self.ledger.release(context.id(), &permit.request).await.map(drop)
    }

    /// Frees the request's stream.
    ///
    /// # Errors
    /// [`PortError`] of the slots; the stream is freed when its lease ends.
    pub async fn leave(&self, context: &TenantContext, entry: Entry) -> Result<(), PortError> {
        self.slots.leave(context.id(), &entry.request).await
    }
}

fn checks<'a>(context: &'a TenantContext, caller: &'a Caller, all: &'a Subject) -> [LimitCheck<'a>; 2] {
    [
        LimitCheck { subject: &caller.subject, policy: context.tenant().user_window() },
        LimitCheck { subject: all, policy: context.tenant().tenant_window() },
    ]
}
