//! The facade ports as a chat uses them: every call is counted, and each can be told to fail.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use enigma_core::books::ComposedBooks;
use enigma_core::ledger::{BudgetExceeded, Settlement};
use enigma_core::limit::{LimitCheck, RateStatus};
use enigma_core::ports::{Closing, Entered, Entrance, HeldTurn, OpenTurn, RequestBooks, SessionTurns};
use enigma_core::session::{Retention, Turn};
use enigma_core::tenant::TokenBudget;
use enigma_core::turns::QueuedTurns;
use enigma_core::{PortError, RequestId, SessionId, TenantId, Timestamp};

/// The calls so far, which of them fail, and of which the answer is lost.
#[derive(Clone, Default)]
pub(crate) struct Calls(Arc<Mutex<[Vec<&'static str>; 3]>>);

impl Calls {
    /// Forgets the calls so far, and tells them.
    pub(crate) fn take(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.0.lock().unwrap()[0])
    }

    /// From now on, calls of this name fail without doing anything.
    pub(crate) fn fail(&self, name: &'static str) {
        self.0.lock().unwrap()[1].push(name);
    }

    /// From now on, what calls of this name have done is not told.
    pub(crate) fn lose(&self, name: &'static str) {
        self.0.lock().unwrap()[2].push(name);
    }

    /// How many calls had one of these names, and were not taken yet.
    pub(crate) fn count(&self, names: &[&str]) -> usize {
        self.0.lock().unwrap()[0].iter().filter(|call| names.contains(*call)).count()
    }

    fn note(&self, name: &'static str) -> Result<(), PortError> {
        let [calls, failing, _] = &mut *self.0.lock().unwrap();
        calls.push(name);
        if failing.contains(&name) { Err(PortError::unavailable("watched port", "told to fail")) } else { Ok(()) }
    }

    fn answer<T>(&self, name: &'static str, answer: Result<T, PortError>) -> Result<T, PortError> {
        if self.0.lock().unwrap()[2].contains(&name) {
            return Err(PortError::Timeout { port: "watched port" });
        }
        answer
    }
}

pub(crate) struct WatchedBooks {
    pub(crate) inner: ComposedBooks,
    pub(crate) calls: Calls,
}

#[async_trait]
impl RequestBooks for WatchedBooks {
    async fn peek(
        &self,
        tenant: &TenantId,
        checks: &[LimitCheck<'_>],
        now: Timestamp,
    ) -> Result<RateStatus, PortError> {
        self.calls.note("peek")?;
        self.inner.peek(tenant, checks, now).await
    }

    async fn enter(&self, tenant: &TenantId, entrance: &Entrance<'_>, now: Timestamp) -> Result<Entered, PortError> {
        self.calls.note("enter")?;
        self.inner.enter(tenant, entrance, now).await
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
        self.calls.note("reserve")?;
        let reserved = self.inner.reserve(tenant, request, tokens, budget, lifetime, now).await;
        self.calls.answer("reserve", reserved)
    }

    async fn close(&self, tenant: &TenantId, closing: Closing<'_>, now: Timestamp) -> Result<Settlement, PortError> {
        self.calls.note("close")?;
        self.inner.close(tenant, closing, now).await
    }
}

pub(crate) struct WatchedTurns {
    pub(crate) inner: QueuedTurns,
    pub(crate) calls: Calls,
}

#[async_trait]
impl SessionTurns for WatchedTurns {
    async fn begin(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        request: RequestId,
        limit: u32,
        retention: &Retention,
        now: Timestamp,
    ) -> Result<OpenTurn, PortError> {
        self.calls.note("begin")?;
        let OpenTurn { user, history, held } =
            self.inner.begin(tenant, session, request, limit, retention, now).await?;
        Ok(OpenTurn { user, history, held: Box::new(WatchedTurn { held, calls: self.calls.clone() }) })
    }
}

struct WatchedTurn {
    held: Box<dyn HeldTurn>,
    calls: Calls,
}

#[async_trait]
impl HeldTurn for WatchedTurn {
    async fn append(self: Box<Self>, turn: &Turn, retention: &Retention, now: Timestamp) -> Result<(), PortError> {
        self.calls.note("append")?;
        self.held.append(turn, retention, now).await
    }

    async fn end(self: Box<Self>) {
        // To end cannot fail.
        let _ = self.calls.note("end");
        self.held.end().await;
    }
}
