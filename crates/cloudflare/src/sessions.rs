//! Sessions and their turns, each session in an object of its own.

use std::time::Duration;

use async_trait::async_trait;
use enigma_core::ports::{HeldTurn, OpenTurn, SessionIndex, SessionStore, SessionTurns, TurnPermit, TurnQueue};
use enigma_core::session::{HistoryPage, RecentMessages, Retention, SessionSummary, Turn};
use enigma_core::{PortError, RequestId, SessionId, TenantId, Timestamp};
use serde::de::DeserializeOwned;
use worker::wasm_bindgen_futures::spawn_local;

use crate::call::{AT_ONCE, Objects};
use crate::message::{Begun, SessionAsk, SessionVerb};
use crate::names::ObjectName;
use crate::session_index::D1SessionIndex;

const STORE: &str = "session store";
const TURNS: &str = "turn queue";

/// Sessions that one search of a sweep finds.
const SESSIONS_AT_ONCE: u32 = 64;

/// What appending and deleting may take: they write to D1 as well.
const WITH_THE_LIST: Duration = Duration::from_secs(10);

/// The sessions of tenants, in their Durable Objects. A turn is begun by one call and ended by one.
#[derive(Clone)]
pub struct ObjectSessions {
    objects: Objects,
    index: D1SessionIndex,
    lease: Duration,
    patience: Duration,
}

impl ObjectSessions {
    /// The sessions in `objects`, which are listed in `index`. Who has a turn is taken for dead after `lease`, which must be
    /// longer than any request; nobody waits for a turn longer than `patience`.
    pub fn new(objects: Objects, index: D1SessionIndex, lease: Duration, patience: Duration) -> Self {
        Self { objects, index, lease, patience }
    }

    async fn ask<A: DeserializeOwned>(
        &self,
        port: &'static str,
        tenant: &TenantId,
        session: &SessionId,
        verb: SessionVerb,
        limit: Duration,
    ) -> Result<A, PortError> {
        let name = ObjectName::session(tenant, session);
        let again = verb.may_be_said_twice();
        let ask = SessionAsk { session: *session, verb };
        if again {
            self.objects.ask_again(port, &name, tenant, ask, limit).await
        } else {
            self.objects.ask(port, &name, tenant, ask, limit).await
        }
    }

    fn place(&self, tenant: &TenantId, session: &SessionId, request: RequestId) -> Place {
        let inner = Some((self.clone(), tenant.clone(), *session, request));
        Place { inner }
    }
}

/// A place in the line for a session's turn, or the turn itself. Dropped, it tells the session so.
struct Place {
    inner: Option<(ObjectSessions, TenantId, SessionId, RequestId)>,
}

impl Place {
    /// The session has been told, or need not be.
    fn forget(mut self) {
        self.inner = None;
    }

    async fn leave(mut self) {
        if let Some((sessions, tenant, session, request)) = self.inner.take() {
            leave(&sessions, &tenant, &session, request).await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Nobody waits for it: should it not arrive, the lease ends.
        if let Some((sessions, tenant, session, request)) = self.inner.take() {
            spawn_local(async move { leave(&sessions, &tenant, &session, request).await });
        }
    }
}

async fn leave(sessions: &ObjectSessions, tenant: &TenantId, session: &SessionId, request: RequestId) {
    let left: Result<(), _> = sessions.ask(TURNS, tenant, session, SessionVerb::Leave { request }, AT_ONCE).await;
    if let Err(error) = left {
        tracing::error!(%tenant, error = &error as &dyn std::error::Error, "a turn was not ended, and ends with its lease");
    }
}

#[async_trait]
impl TurnQueue for ObjectSessions {
    async fn enter(&self, tenant: &TenantId, session: &SessionId, request: RequestId) -> Result<TurnPermit, PortError> {
        let place = self.place(tenant, session, request);
        let verb = SessionVerb::Enter { request, lease: self.lease };
        let () = self.ask(TURNS, tenant, session, verb, self.patience).await?;
        Ok(Box::new(place))
    }
}

#[async_trait]
impl SessionTurns for ObjectSessions {
    async fn begin(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        request: RequestId,
        limit: u32,
        retention: &Retention,
        now: Timestamp,
    ) -> Result<OpenTurn, PortError> {
        let place = self.place(tenant, session, request);
        let verb =
            SessionVerb::Begin { request, lease: self.lease, limit, retention: *retention, now, with_user: true };
        let begun = self.ask(TURNS, tenant, session, verb, self.patience).await?;
        let RecentMessages { user, messages } = match begun {
            Begun::WithUser(recent) => recent,
            Begun::Bare(messages) => RecentMessages { user: None, messages },
        };
        Ok(OpenTurn { user, history: messages, held: Box::new(Held(place)) })
    }
}

struct Held(Place);

#[async_trait]
impl HeldTurn for Held {
    async fn append(self: Box<Self>, turn: &Turn, retention: &Retention, now: Timestamp) -> Result<(), PortError> {
        let Some((sessions, tenant, session, request)) = self.0.inner.clone() else { return Ok(()) };
        let verb = SessionVerb::Append { turn: turn.clone(), retention: *retention, now, request: Some(request) };
        let _: SessionSummary = sessions.ask(STORE, &tenant, &session, verb, WITH_THE_LIST).await?;
        self.0.forget();
        Ok(())
    }

    async fn end(self: Box<Self>) {
        self.0.leave().await;
    }
}

#[async_trait]
impl SessionStore for ObjectSessions {
    async fn append_turn(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        turn: &Turn,
        retention: &Retention,
        now: Timestamp,
    ) -> Result<SessionSummary, PortError> {
        let verb = SessionVerb::Append { turn: turn.clone(), retention: *retention, now, request: None };
        self.ask(STORE, tenant, session, verb, WITH_THE_LIST).await
    }

    async fn recent(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        limit: u32,
        retention: &Retention,
        now: Timestamp,
    ) -> Result<RecentMessages, PortError> {
        self.ask(STORE, tenant, session, SessionVerb::Recent { limit, retention: *retention, now }, AT_ONCE).await
    }

    async fn page(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        before: Option<u64>,
        limit: u32,
        retention: &Retention,
        now: Timestamp,
    ) -> Result<Option<HistoryPage>, PortError> {
        let verb = SessionVerb::Page { before, limit, retention: *retention, now };
        self.ask(STORE, tenant, session, verb, AT_ONCE).await
    }

    async fn delete(&self, tenant: &TenantId, session: &SessionId) -> Result<bool, PortError> {
        self.ask(STORE, tenant, session, SessionVerb::Delete, WITH_THE_LIST).await
    }

    /// Goes through the sessions that are listed. Each removes by itself what is over; this does it at once.
    async fn sweep(&self, tenant: &TenantId, retention: &Retention, now: Timestamp) -> Result<u64, PortError> {
        let (mut total, mut after) = (0, None);
        loop {
            let since = Timestamp::from_millis(0);
            let page = self.index.list(tenant, None, since, after, SESSIONS_AT_ONCE).await?;
            for session in &page.sessions {
                let verb = SessionVerb::Prune { retention: *retention, now };
                let gone: u32 = self.ask(STORE, tenant, &session.id, verb, WITH_THE_LIST).await?;
                total += u64::from(gone);
            }
            after = page.next;
            if after.is_none() {
                return Ok(total);
            }
        }
    }
}
