//! The way in for everything that spends tokens, and out again: rate limit, concurrency, budget, in this order, whatever the
//! route.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::id::RequestId;
use crate::ledger::{BudgetExceeded, Settlement};
use crate::limit::{LimitCheck, RateStatus, StreamsFull, Subject};
use crate::port_error::{PortError, degrade};
use crate::ports::{Closing, Entered, Entrance, RequestBooks, Spending};
use crate::tenant::{Caller, TenantContext};
use crate::time::Timestamp;
use crate::usage::UsageRecord;

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

/// A request that has its slots. Ends by [`Admission::close`].
#[derive(Debug)]
#[must_use = "an entry holds a slot until it is closed"]
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
/// model can't be called without. Ends by [`Admission::close`], as what was [`Spent`]; one that is lost expires.
#[derive(Debug)]
#[must_use = "a permit holds tokens until it is closed"]
pub struct Permit {
    request: RequestId,
    tokens: u64,
}

/// What has become of the tokens that a request set aside.
#[derive(Debug)]
pub enum Spent {
    /// It set none aside.
    Nothing,
    /// Nobody has said whether it set some aside. It used nothing of them, and pays nothing.
    Unknown,
    /// It used nothing of them, and pays nothing.
    Unused(Permit),
    /// It used so many tokens, and pays for them.
    Used(Permit, u64),
}

/// The books, asked in their order.
#[derive(Clone)]
pub struct Admission {
    books: Arc<dyn RequestBooks>,
    lifetime: Duration,
}

impl Admission {
    /// An admission whose slots and reservations are taken for dead after `lifetime`; it must be longer than any request.
    pub fn new(books: Arc<dyn RequestBooks>, lifetime: Duration) -> Self {
        Self { books, lifetime }
    }

    /// How full the caller's windows are; takes nothing.
    ///
    /// # Errors
    /// [`PortError`] of the books.
    pub async fn peek(
        &self,
        context: &TenantContext,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<RateStatus, PortError> {
        let all = Subject::whole_tenant();
        self.books.peek(context.id(), &checks(context, caller, &all), now).await
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
        let max_streams = context.tenant().concurrency().max_streams;
        self.enter_among(context, caller, request, max_streams, now).await
    }

    async fn enter_among(
        &self,
        context: &TenantContext,
        caller: &Caller,
        request: RequestId,
        max_streams: u32,
        now: Timestamp,
    ) -> Result<Entry, AdmissionError> {
        let all = Subject::whole_tenant();
        let entrance = Entrance {
            request,
            checks: &checks(context, caller, &all),
            max_streams,
            expires_at: now.saturating_add(self.lifetime),
        };
        match self.books.enter(context.id(), &entrance, now).await? {
            Entered::In(rate) => Ok(Entry { request, rate }),
            Entered::RateLimited(rate) => Err(AdmissionError::RateLimited(rate)),
            Entered::StreamsFull { full, rate } => Err(AdmissionError::TooManyStreams { full, rate }),
        }
    }

    /// Takes a slot of the windows for a request that spends nothing.
    ///
    /// # Errors
    /// [`AdmissionError`].
    pub async fn pass(
        &self,
        context: &TenantContext,
        caller: &Caller,
        request: RequestId,
        now: Timestamp,
    ) -> Result<RateStatus, AdmissionError> {
        // It is no answer under way, and is not refused for others that are.
        let entry = self.enter_among(context, caller, request, u32::MAX, now).await?;
        let rate = *entry.rate();
        degrade(self.close(context, entry, Spent::Nothing, None, now).await);
        Ok(rate)
    }

    /// Sets `tokens` of the tenant's budget aside.
    ///
    /// # Errors
    /// [`AdmissionError`]; nothing is set aside then, but that after [`AdmissionError::Port`] nobody knows.
    pub async fn reserve(
        &self,
        context: &TenantContext,
        entry: &Entry,
        tokens: u64,
        now: Timestamp,
    ) -> Result<Permit, AdmissionError> {
        let budget = context.tenant().budget();
        self.books.reserve(context.id(), entry.request, tokens, budget, self.lifetime, now).await??;
        Ok(Permit { request: entry.request, tokens })
    }

    /// Ends a request: charges it what it has spent, keeps its `record` together with that, and frees its stream.
    ///
    /// # Errors
    /// The first [`PortError`] of the books; what could be done is done all the same. A reservation that was not ended is
    /// charged in full when it expires, and a stream that was not freed is when its lease ends.
    pub async fn close(
        &self,
        context: &TenantContext,
        entry: Entry,
        spent: Spent,
        record: Option<&UsageRecord>,
        now: Timestamp,
    ) -> Result<Settlement, PortError> {
        let (of, spending) = match spent {
            Spent::Nothing => (entry.request, Spending::None),
            Spent::Unknown => (entry.request, Spending::Released),
            Spent::Unused(permit) => (permit.request, Spending::Released),
            Spent::Used(Permit { request, tokens: reserved }, tokens) => {
                (request, Spending::Used { tokens, reserved, budget: context.tenant().budget() })
            }
        };
        debug_assert_eq!(of, entry.request, "a request is closed with its own permit");
        let closing = Closing { request: entry.request, spending, record };
        self.books.close(context.id(), closing, now).await
    }
}

fn checks<'a>(context: &'a TenantContext, caller: &'a Caller, all: &'a Subject) -> [LimitCheck<'a>; 2] {
    [
        LimitCheck { subject: &caller.subject, policy: context.tenant().user_window() },
        LimitCheck { subject: all, policy: context.tenant().tenant_window() },
    ]
}
