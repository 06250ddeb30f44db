//! What the core needs of the world. Adapters keep these promises; the crate `enigma-contract` tests them.
//!
//! Every port that reaches data takes the tenant first, and never gives one tenant what is another's.
//!
//! [`RequestBooks`] and [`SessionTurns`] are facades: each does in one call what several of the other ports do in several, for
//! hosts on which every call is dear. [`ComposedBooks`](crate::books::ComposedBooks) and
//! [`QueuedTurns`](crate::turns::QueuedTurns) make them of those ports.

mod audit;
mod books;
mod retrieval;
mod turns;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use self::audit::AuditLog;
pub use self::books::{Closing, Entered, Entrance, RequestBooks, Spending};
pub use self::retrieval::{Cache, Corpus, KeywordQuery, VectorQuery};
pub use self::turns::{HeldTurn, OpenTurn, SessionTurns};
use crate::id::{RequestId, SessionId, TenantId, UserId};
use crate::idempotency::{Begin, Fingerprint, IdempotencyKey};
use crate::ledger::{Account, BudgetExceeded, Settlement};
use crate::limit::{Decision, LimitCheck, RateStatus, StreamsFull};
pub use crate::model::{ChatModel, Embedder, EmbedderCatalog, ModelCatalog, SpeechCatalog, SpeechSynthesizer};
use crate::port_error::PortError;
use crate::session::{HistoryPage, RecentMessages, Retention, SessionPage, SessionSummary, Turn};
use crate::tenant::{ScopeSet, Tenant, TenantClaim, TokenBudget};
use crate::time::Timestamp;
use crate::usage::UsageRecord;

/// The time.
pub trait Clock: Send + Sync {
    /// The time now. It may step back.
    fn now(&self) -> Timestamp;

    /// Waits. A step of the clock does not change how long.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}

/// Fresh names and chance.
pub trait IdSource: Send + Sync {
    /// 128 random bits.
    fn random(&self) -> u128;

    /// A random UUID (RFC 9562, version 4).
    fn uuid(&self) -> Uuid {
        uuid::Builder::from_random_bytes(self.random().to_le_bytes()).into_uuid()
    }

    /// A random number in [0, 1).
    fn unit(&self) -> f64 {
        f64::from((self.random() >> 96) as u32) / (f64::from(u32::MAX) + 1.0)
    }
}

/// Work that outlives the response.
pub trait Background: Send + Sync {
    /// Runs `work` to its end, even when the client has gone.
    fn spawn(&self, work: BoxFuture<'static, ()>);

    /// Resolves when the host is about to stop and running work should come to an end.
    fn stopping(&self) -> BoxFuture<'static, ()>;
}

/// The tenants of this deployment.
///
/// # Contract
/// - A tenant that is found by a claim really makes that claim.
/// - A change of a tenant, such as a revoked key, is seen within a time that the adapter documents.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait TenantDirectory: Send + Sync {
    /// The tenant that `claim` names.
    ///
    /// # Errors
    /// [`PortError`] when the directory cannot be asked; nobody gets in then.
    async fn find<'a>(&self, claim: &TenantClaim<'a>) -> Result<Option<Arc<Tenant>>, PortError>;

    /// Whether any tenant lets web pages of `origin` call.
    ///
    /// # Errors
    /// [`PortError`] when the directory cannot be asked.
    async fn allows_origin(&self, origin: &str) -> Result<bool, PortError>;
}

/// What a token that was verified says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedToken {
    /// Its subject.
    pub user: UserId,
    /// What it may be used for.
    pub scopes: ScopeSet,
}

/// Verifies JSON Web Tokens.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait TokenVerifier: Send + Sync {
    /// What `token` says, when it is a good token of `tenant` at `now`.
    ///
    /// # Errors
    /// [`PortError`] when the tenant's keys cannot be had; nobody gets in then.
    async fn verify(&self, tenant: &Tenant, token: &str, now: Timestamp) -> Result<Option<VerifiedToken>, PortError>;
}

/// Counts requests in sliding windows.
///
/// # Contract
/// - Atomic: concurrent calls never together take more than a window holds.
/// - All or none: a call that is denied by one check leaves every window unchanged.
/// - Memory for a subject is bounded by its limit, and idle subjects are forgotten.
/// - The same subject of two tenants is two subjects; no call names one subject twice.
#[async_trait]
pub trait RateLimiter: Send + Sync {
    /// Takes a slot of every check, or of none.
    ///
    /// # Errors
    /// [`PortError`]; the request is refused then.
    async fn acquire(
        &self,
        tenant: &TenantId,
        checks: &[LimitCheck<'_>],
        now: Timestamp,
    ) -> Result<Decision, PortError>;

    /// How full the tightest of the windows is; takes nothing.
    ///
    /// # Errors
    /// [`PortError`].
    async fn peek(&self, tenant: &TenantId, checks: &[LimitCheck<'_>], now: Timestamp)
    -> Result<RateStatus, PortError>;
}

/// Bounds how many answers a tenant has generated at once.
///
/// # Contract
/// - Atomic: never more than `limit` holders whose lease is running.
/// - A holder that does not leave is forgotten when its lease ends.
#[async_trait]
pub trait StreamSlots: Send + Sync {
    /// Lets `holder` in until `expires_at`.
    ///
    /// # Errors
    /// [`PortError`]; the request is refused then.
    async fn enter(
        &self,
        tenant: &TenantId,
        holder: RequestId,
        limit: u32,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<Result<(), StreamsFull>, PortError>;

    /// Ends a lease; one that has ended stays so.
    ///
    /// # Errors
    /// [`PortError`]; the lease ends by itself then.
    async fn leave(&self, tenant: &TenantId, holder: &RequestId) -> Result<(), PortError>;
}

/// A tenant's books at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LedgerBalance {
    /// The books of the day.
    pub day: Account,
    /// The books of the month.
    pub month: Account,
    /// Tokens set aside, by requests of this day.
    pub held_today: u64,
    /// Tokens set aside, by requests of this month.
    pub held_this_month: u64,
}

/// Keeps token budgets.
///
/// # Contract
/// - Atomic per tenant: at no interleaving does settled + held pass the budget.
/// - Every reservation ends exactly once: settled, released, or expired and then charged in full.
/// - A durable adapter forgets neither spending nor reservations when it is killed.
#[async_trait]
pub trait TokenLedger: Send + Sync {
    /// Sets tokens aside for `request`, for at most `lifetime`.
    ///
    /// # Errors
    /// [`PortError`]; the request is refused then.
    async fn reserve(
        &self,
        tenant: &TenantId,
        request: RequestId,
        tokens: u64,
        budget: &TokenBudget,
        lifetime: Duration,
        now: Timestamp,
    ) -> Result<Result<(), BudgetExceeded>, PortError>;

    /// Ends a reservation and charges what was used; `None` when there is none (any more).
    ///
    /// # Errors
    /// [`PortError`]; the reservation will expire then.
    async fn settle(
        &self,
        tenant: &TenantId,
        request: &RequestId,
        used: u64,
        budget: &TokenBudget,
        now: Timestamp,
    ) -> Result<Option<Settlement>, PortError>;

    /// Ends a reservation and charges nothing; whether there was one.
    ///
    /// # Errors
    /// [`PortError`]; the reservation will expire then.
    async fn release(&self, tenant: &TenantId, request: &RequestId) -> Result<bool, PortError>;

    /// The books, after what has expired was charged.
    ///
    /// # Errors
    /// [`PortError`].
    async fn balance(&self, tenant: &TenantId, now: Timestamp) -> Result<LedgerBalance, PortError>;
}

/// Keeps the messages of sessions.
///
/// # Contract
/// - A turn is appended whole or not at all, after every turn that was appended before it.
/// - An append that a durable adapter has acknowledged survives the death of the process.
/// - What retention ends is never returned, and is removed for good.
/// - What is deleted is gone; a session of the same id begins anew. So does one of which retention has left nothing.
/// - A session is the user's who began it, whoever appends to it later. Who may see it is decided by who asks the store.
#[async_trait]
pub trait SessionStore: Send + Sync {
    /// Appends a turn, drops what `retention` ends, and tells what the session then is.
    ///
    /// # Errors
    /// [`PortError`]; after [`PortError::Timeout`] the turn may have been appended, otherwise it was not.
    async fn append_turn(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        turn: &Turn,
        retention: &Retention,
        now: Timestamp,
    ) -> Result<SessionSummary, PortError>;

    /// The newest messages, at most `limit`, oldest first, and who began the session: also where `limit` is 0.
    ///
    /// # Errors
    /// [`PortError`].
    async fn recent(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        limit: u32,
        retention: &Retention,
        now: Timestamp,
    ) -> Result<RecentMessages, PortError>;

    /// The newest messages before `before`, at most `limit`; `None` when there is no such session.
    ///
    /// # Errors
    /// [`PortError`].
    async fn page(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        before: Option<u64>,
        limit: u32,
        retention: &Retention,
        now: Timestamp,
    ) -> Result<Option<HistoryPage>, PortError>;

    /// Deletes a session; whether there was one. Of one that has expired, and is not removed yet, either may be said.
    ///
    /// # Errors
    /// [`PortError`].
    async fn delete(&self, tenant: &TenantId, session: &SessionId) -> Result<bool, PortError>;

    /// Removes everything of `tenant` that `retention` ends at `now`, in sessions that nobody touches any more too; tells how
    /// many messages went.
    ///
    /// # Errors
    /// [`PortError`].
    async fn sweep(&self, tenant: &TenantId, retention: &Retention, now: Timestamp) -> Result<u64, PortError>;
}

/// Lists sessions. Metadata only: message text never gets here.
///
/// # Contract
/// - A summary replaces an older one of the same session; an older one never replaces a newer.
/// - The latest changed come first.
#[async_trait]
pub trait SessionIndex: Send + Sync {
    /// Takes note of a session.
    ///
    /// # Errors
    /// [`PortError`]; the session is then not listed until its next turn.
    async fn record(&self, tenant: &TenantId, summary: &SessionSummary) -> Result<(), PortError>;

    /// The sessions that `user` began, or everybody's, changed since `since`: those that come after `after`, which is the
    /// `next` of the page before.
    ///
    /// # Errors
    /// [`PortError`].
    async fn list<'a>(
        &self,
        tenant: &TenantId,
        user: Option<&'a UserId>,
        since: Timestamp,
        after: Option<(Timestamp, SessionId)>,
        limit: u32,
    ) -> Result<SessionPage, PortError>;

    /// Forgets a session.
    ///
    /// # Errors
    /// [`PortError`].
    async fn remove(&self, tenant: &TenantId, session: &SessionId) -> Result<(), PortError>;
}

/// The right to take a session's next turn; dropping it lets the next one in.
pub type TurnPermit = Box<dyn Send + Sync>;

/// Lets the turns of a session happen one after the other.
///
/// # Contract
/// - At most one permit per session is out at a time, and they are given in the order in which they were asked for.
/// - Who stops waiting does not keep the others waiting; a holder that dies does not for ever.
#[async_trait]
pub trait TurnQueue: Send + Sync {
    /// Waits for the turn of `request`.
    ///
    /// # Errors
    /// [`PortError`].
    async fn enter(&self, tenant: &TenantId, session: &SessionId, request: RequestId) -> Result<TurnPermit, PortError>;
}

/// Keeps the answers of requests that may be repeated.
///
/// # Contract
/// - Atomic: of concurrent calls with one key, one is [`Begin::First`].
/// - Only the holder of a key can finish or abandon it.
/// - Expired entries take no room for ever.
#[async_trait]
pub trait IdempotencyStore: Send + Sync {
    /// Asks for `key`; as the first, `holder` has it until `lease_until`.
    ///
    /// # Errors
    /// [`PortError`]; the request is refused then.
    async fn begin(
        &self,
        tenant: &TenantId,
        key: &IdempotencyKey,
        fingerprint: &Fingerprint,
        holder: RequestId,
        lease_until: Timestamp,
        now: Timestamp,
    ) -> Result<Begin, PortError>;

    /// Keeps the answer until `keep_until`, if `holder` still has the key.
    ///
    /// # Errors
    /// [`PortError`]; the key is free again when its lease ends.
    async fn finish(
        &self,
        tenant: &TenantId,
        key: &IdempotencyKey,
        holder: &RequestId,
        answer: &str,
        keep_until: Timestamp,
    ) -> Result<(), PortError>;

    /// Frees the key, if `holder` still has it and there is no answer.
    ///
    /// # Errors
    /// [`PortError`]; the key is free again when its lease ends.
    async fn abandon(&self, tenant: &TenantId, key: &IdempotencyKey, holder: &RequestId) -> Result<(), PortError>;
}

/// Keeps records for operators and bills.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait Telemetry: Send + Sync {
    /// Records a request that has ended. Cheap: it may queue. A second record of one request, which says the same of when it
    /// came, changes nothing.
    ///
    /// # Errors
    /// [`PortError`]; the request is answered all the same.
    async fn record_usage(&self, tenant: &TenantId, record: &UsageRecord) -> Result<(), PortError>;
}
