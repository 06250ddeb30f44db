//! The turns of sessions, as one port.

use async_trait::async_trait;

use crate::id::{RequestId, SessionId, TenantId, UserId};
use crate::port_error::PortError;
use crate::session::{Retention, StoredMessage, Turn};
use crate::time::Timestamp;

/// A turn that has begun.
pub struct OpenTurn {
    /// Who began the session; `None` where this turn begins it.
    pub user: Option<UserId>,
    /// The newest messages before it, oldest first.
    pub history: Vec<StoredMessage>,
    /// The session, which nobody else changes meanwhile.
    pub held: Box<dyn HeldTurn>,
}

/// A session's turns, from waiting for one to what it leaves.
///
/// # Contract
/// - At most one turn of a session is held at a time, and they come in the order in which they were asked for.
/// - A turn sees what the turns before it have appended, also when it began to wait before they did.
/// - Who stops waiting does not keep the others waiting; a holder that dies does not for ever.
/// - Turns are kept as [`SessionStore`](super::SessionStore) promises it.
#[async_trait]
pub trait SessionTurns: Send + Sync {
    /// Waits for the turn of `request`, and then reads the newest messages, at most `limit`, that `retention` leaves at `now`, the
    /// time at which it was asked for.
    ///
    /// # Errors
    /// [`PortError`]; the next one is let in then.
    async fn begin(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        request: RequestId,
        limit: u32,
        retention: &Retention,
        now: Timestamp,
    ) -> Result<OpenTurn, PortError>;
}

/// The right to make a session's next turn. Dropping it lets the next one in as well, at the latest when its lease ends; to say
/// how it ended is quicker where the session is far away.
#[async_trait]
pub trait HeldTurn: Send + Sync {
    /// Appends the turn, takes note of the session in the list of sessions, and lets the next one in. A list that fails lags
    /// behind, which is logged; the turn is safe then.
    ///
    /// # Errors
    /// [`PortError`]; the next one is let in all the same. After [`PortError::Timeout`] the turn may have been appended,
    /// otherwise it was not.
    async fn append(self: Box<Self>, turn: &Turn, retention: &Retention, now: Timestamp) -> Result<(), PortError>;

    /// Lets the next one in, and leaves nothing.
    async fn end(self: Box<Self>);
}
