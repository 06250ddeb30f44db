//! Sessions as their owners see them: history, list, deletion.

use std::sync::Arc;
use std::time::Duration;

use futures_channel::oneshot;
use futures_util::future::{Either, select};
use thiserror::Error;

use crate::id::{RequestId, SessionId, UserId};
use crate::port_error::PortError;
use crate::ports::{Background, Clock, SessionIndex, SessionStore, TurnQueue};
use crate::session::{HistoryPage, SessionPage};
use crate::tenant::TenantContext;
use crate::time::Timestamp;

/// Why a session cannot be shown or deleted.
#[derive(Debug, Error)]
pub enum SessionError {
    /// There is no such session.
    #[error("no such session")]
    NotFound,
    /// A turn of it is under way and did not end in time.
    #[error("a turn of the session is under way")]
    Busy,
    /// A backend failed.
    #[error(transparent)]
    Port(#[from] PortError),
}

/// Shows and deletes sessions. Cheap to clone.
#[derive(Clone)]
pub struct SessionService {
    store: Arc<dyn SessionStore>,
    index: Arc<dyn SessionIndex>,
    turns: Arc<dyn TurnQueue>,
    clock: Arc<dyn Clock>,
    patience: Duration,
}

impl SessionService {
    /// A service over its ports. A deletion waits up to `patience` for a turn that is under way.
    pub fn new(
        store: Arc<dyn SessionStore>,
        index: Arc<dyn SessionIndex>,
        turns: Arc<dyn TurnQueue>,
        clock: Arc<dyn Clock>,
        patience: Duration,
    ) -> Self {
        Self { store, index, turns, clock, patience }
    }

    /// The newest `limit` messages before `before`, oldest first. The holder of a key may read every session of the tenant;
    /// everybody else their own.
    ///
    /// # Errors
    /// [`SessionError::NotFound`], or a backend's failure.
    pub async fn history(
        &self,
        context: &TenantContext,
        session: &SessionId,
        before: Option<u64>,
        limit: u32,
    ) -> Result<HistoryPage, SessionError> {
        let retention = context.tenant().retention();
        let page = self.store.page(context.id(), session, before, limit, retention, self.clock.now()).await?;
        // Of what is another user's, no more is said than of what does not exist.
        page.filter(|page| is_open_to(context.confined_to().as_ref(), page.user.as_ref())).ok_or(SessionError::NotFound)
    }

    /// The sessions that `user` began, or everybody's, the latest changed first. The holder of a key speaks for all users of
    /// the tenant; everybody else sees their own sessions only.
    ///
    /// # Errors
    /// A backend's failure.
    pub async fn list(
        &self,
        context: &TenantContext,
        user: Option<&UserId>,
        after: Option<(Timestamp, SessionId)>,
        limit: u32,
    ) -> Result<SessionPage, SessionError> {
        let own = context.confined_to();
        // What was last changed before the retention has no messages left.
        let since = context.tenant().retention().cutoff(self.clock.now());
        Ok(self.index.list(context.id(), own.as_ref().or(user), since, after, limit).await?)
    }

    /// Deletes a session that the caller may read, after the turn that may be under way: else that turn would bring it back. It runs to its end in
    /// `background`, whether or not somebody waits for it.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn delete(
        &self,
        context: &TenantContext,
        session: &SessionId,
        request: RequestId,
        background: &dyn Background,
    ) -> Result<(), SessionError> {
        let (service, context, session) = (self.clone(), context.clone(), *session);
        let (done, deleted) = oneshot::channel();
        background.spawn(Box::pin(async move {
            // Who asked may have gone.
            let _ = done.send(service.delete_in_turn(&context, &session, request).await);
        }));
        deleted.await.unwrap_or_else(|gone| Err(PortError::unavailable("session store", gone).into()))
    }

    async fn delete_in_turn(
        &self,
        context: &TenantContext,
        session: &SessionId,
        request: RequestId,
    ) -> Result<(), SessionError> {
        let tenant = context.id();
        let turn = self.turns.enter(tenant, session, request);
        let _turn = match select(turn, self.clock.sleep(self.patience)).await {
            Either::Left((turn, _)) => turn?,
            Either::Right(((), _)) => return Err(SessionError::Busy),
        };
        if context.confined_to().is_some() {
            // In the turn, so that the session cannot become another user's before it is deleted.
            self.history(context, session, None, 1).await?;
        }
        let existed = self.store.delete(tenant, session).await?;
        self.index.remove(tenant, session).await?;
        if existed { Ok(()) } else { Err(SessionError::NotFound) }
    }
}

/// Whether who speaks for `own` only, or for everybody, may touch a session that `user` began.
pub(super) fn is_open_to(own: Option<&UserId>, user: Option<&UserId>) -> bool {
    own.is_none_or(|own| user == Some(own))
}
