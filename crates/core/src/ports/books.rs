//! The limits and the books that a request passes, as one port.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::id::{RequestId, TenantId};
use crate::ledger::{BudgetExceeded, Settlement};
use crate::limit::{LimitCheck, RateStatus, StreamsFull};
use crate::port_error::PortError;
use crate::tenant::TokenBudget;
use crate::time::Timestamp;
use crate::usage::UsageRecord;

/// What a request asks for when it comes in.
#[derive(Debug, Clone, Copy)]
pub struct Entrance<'a> {
    /// The request.
    pub request: RequestId,
    /// The windows that it must pass; no two of one subject.
    pub checks: &'a [LimitCheck<'a>],
    /// How many answers the tenant may have generated at once.
    pub max_streams: u32,
    /// When the request is taken for dead, and its stream is free again.
    pub expires_at: Timestamp,
}

/// Whether a request is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entered {
    /// It has a slot of every window, which are so full after it, and one of the streams.
    In(RateStatus),
    /// A window is full; it has taken nothing.
    RateLimited(RateStatus),
    /// It only lacked a stream, and has used its slot of the windows.
    StreamsFull {
        /// How many streams there are.
        full: StreamsFull,
        /// The windows after it.
        rate: RateStatus,
    },
}

/// What becomes of the tokens that a request has set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spending<'a> {
    /// Nothing was set aside.
    None,
    /// Nothing of it was used, and nothing is charged; whether there was anything need not be known.
    Released,
    /// What was used is charged.
    Used {
        /// How many tokens were used.
        tokens: u64,
        /// How many had been set aside.
        reserved: u64,
        /// The budget that bounds what is charged beyond them.
        budget: &'a TokenBudget,
    },
}

/// The end of a request that got in.
#[derive(Debug, Clone, Copy)]
pub struct Closing<'a> {
    /// The request.
    pub request: RequestId,
    /// What becomes of its reservation.
    pub spending: Spending<'a>,
    /// What to record of it. Its `charged` and `overrun` are not read: those of the settlement are kept.
    pub record: Option<&'a UsageRecord>,
}

/// How a request passes its tenant's limits and books, from its first slot to its last record.
///
/// # Contract
/// - Atomic per tenant: concurrent requests never together take more than a window, the streams or the budget hold.
/// - A request whom a window keeps out has taken nothing: no slot of another window, and no stream.
/// - A request that got in has its stream until it is closed, or until [`Entrance::expires_at`].
/// - Every reservation ends exactly once: charged, released, or expired and then charged in full.
/// - A close is idempotent per request: a second one charges nothing, and its record changes nothing. What it says was charged
///   may be what is said of a reservation that had expired.
/// - A durable adapter forgets neither spending nor reservations nor records when it is killed.
#[async_trait]
pub trait RequestBooks: Send + Sync {
    /// How full the tightest of the windows is; takes nothing.
    ///
    /// # Errors
    /// [`PortError`].
    async fn peek(&self, tenant: &TenantId, checks: &[LimitCheck<'_>], now: Timestamp)
    -> Result<RateStatus, PortError>;

    /// Takes a slot of every window, and then one of the tenant's streams. Only a request that is [`Entered::In`] is closed.
    ///
    /// # Errors
    /// [`PortError`]; the request is refused then. What it may have taken of the windows stays taken, and a stream that it may
    /// have is free again when its lease ends.
    async fn enter(&self, tenant: &TenantId, entrance: &Entrance<'_>, now: Timestamp) -> Result<Entered, PortError>;

    /// Sets tokens aside for `request`, for at most `lifetime`. Asked again for the same request, it leaves the first answer as
    /// it is.
    ///
    /// # Errors
    /// [`PortError`]; the request is refused then. What it may have set aside is charged when it expires, unless the request is
    /// closed before, as [`Spending::Released`].
    async fn reserve(
        &self,
        tenant: &TenantId,
        request: RequestId,
        tokens: u64,
        budget: &TokenBudget,
        lifetime: Duration,
        now: Timestamp,
    ) -> Result<Result<(), BudgetExceeded>, PortError>;

    /// Ends a request: charges or releases what it has set aside, records it, and frees its stream, in this order. Returns what
    /// was charged; for a reservation that had expired, which was charged in full, all that it had set aside.
    ///
    /// Every part is tried, whatever becomes of those before it. Where the charge failed, what is recorded says that nothing was
    /// charged.
    ///
    /// # Errors
    /// The first [`PortError`] of a part, for the caller to log; the adapter logs the others. A reservation that was not ended
    /// is charged in full when it expires, and a stream that was not freed is when its lease ends.
    async fn close(&self, tenant: &TenantId, closing: Closing<'_>, now: Timestamp) -> Result<Settlement, PortError>;
}
