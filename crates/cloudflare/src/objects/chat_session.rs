//! The object of a session: its messages, and the order of its turns.

use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use enigma_core::ports::{Clock, SessionIndex};
use enigma_core::session::{Retention, SessionSummary, TurnHolder, TurnLine};
use enigma_core::{RequestId, SessionId, TenantId, Timestamp};
use futures_channel::oneshot;
use futures_util::future::{Either, select};
use serde_json::Value;
use worker::wasm_bindgen;
use worker::{DurableObject, Env, Request, Response, State, durable_object};

use super::rows::{Rows, RowsError};
use super::session_rows::{self, SessionRows};
use super::{ObjectError, answer, belongs};
use crate::message::{Begun, Message, SessionAsk, SessionVerb};
use crate::runtime::WorkerClock;
use crate::session_index::D1SessionIndex;

/// The shortest time to the next alarm.
const SHORTEST_PAUSE: Duration = Duration::from_secs(60);

/// The longest one, after which the alarm looks again.
const LONGEST_PAUSE: Duration = Duration::from_secs(30 * 86_400);

/// Names of what is kept besides the messages.
const SESSION: &str = "session_id";
const HOLDER: &str = "holder";
const RETENTION: &str = "retention";
/// That the list of sessions has not heard of the newest state.
const UNLISTED: &str = "unlisted";

/// Keeps the messages of one session of one tenant, one row each, and lets its turns happen one after the other. What retention
/// ends, the alarm removes, also when nobody comes back; of what was deleted nothing is left.
#[durable_object(alarm)]
pub struct ChatSession {
    env: Env,
    rows: AssertUnwindSafe<Rows>,
    memory: AssertUnwindSafe<RefCell<Option<Turns>>>,
}

/// Who has the turn, and how those who wait are told that it is theirs.
struct Turns {
    line: TurnLine,
    waiting: HashMap<RequestId, oneshot::Sender<()>>,
}

/// What becomes of a request that wants the turn.
enum Turn {
    Has,
    Waits(oneshot::Receiver<()>),
}

impl DurableObject for ChatSession {
    fn new(state: State, env: Env) -> Self {
        Self { env, rows: AssertUnwindSafe(Rows::new(&state)), memory: AssertUnwindSafe(RefCell::default()) }
    }

    async fn fetch(&self, request: Request) -> worker::Result<Response> {
        answer(request, async |Message { tenant, ask }: Message<SessionAsk>| {
            self.open(&tenant, ask.session)?;
            self.act(&tenant, ask).await
        })
        .await
    }

    async fn alarm(&self) -> worker::Result<Response> {
        self.rows.rang();
        self.tidy().await.map_err(|error| error.to_string())?;
        Response::empty()
    }
}

impl ChatSession {
    /// Makes the tables, and checks whose session this is.
    fn open(&self, tenant: &TenantId, session: SessionId) -> Result<(), ObjectError> {
        self.load()?;
        belongs(&self.rows, tenant)?;
        match self.rows.kept::<SessionId>(SESSION)? {
            Some(kept) if kept == session => Ok(()),
            Some(_) => Err(ObjectError::Question("it is about another session".to_owned())),
            None => Ok(self.rows.keep(SESSION, &session)?),
        }
    }

    fn load(&self) -> Result<(), RowsError> {
        let mut memory = self.memory.borrow_mut();
        if memory.is_none() {
            self.rows.create(session_rows::SCHEMA)?;
            let holder = self.rows.kept::<TurnHolder>(HOLDER)?;
            *memory = Some(Turns { line: TurnLine::restore(holder), waiting: HashMap::new() });
        }
        Ok(())
    }

    async fn act(&self, tenant: &TenantId, ask: SessionAsk) -> Result<Value, ObjectError> {
        let SessionAsk { session, verb } = ask;
        let rows = SessionRows { rows: &self.rows, session };
        match verb {
            SessionVerb::Enter { request, lease } => json(&self.enter(request, lease).await?),
            SessionVerb::Begin { request, lease, limit, retention, now, with_user } => {
                self.enter(request, lease).await?;
                let recent = rows.recent(limit, retention, now);
                if recent.is_err() {
                    self.leave(&request)?;
                }
                let recent = recent?;
                json(&if with_user { Begun::WithUser(recent) } else { Begun::Bare(recent.messages) })
            }
            SessionVerb::Leave { request } => {
                self.leave(&request)?;
                json(&self.forget_if_empty(&rows).await?)
            }
            SessionVerb::Append { turn, retention, now, request } => {
                let appended = self.rows.transaction(|| {
                    let summary = rows.append(&turn, retention, now)?;
                    self.rows.keep(RETENTION, &retention)?;
                    Ok(summary)
                });
                // Before the next turn: a deletion that waits for this one must find the session in the list.
                let listed = match &appended {
                    Ok(summary) => self.list(tenant, summary).await,
                    Err(_) => Ok(()),
                };
                // The next one is let in whatever became of this one.
                if let Some(request) = &request {
                    self.leave(request)?;
                }
                let summary = appended?;
                listed?;
                self.ring_for(rows.oldest_at()?, &retention, now).await?;
                json(&summary)
            }
            SessionVerb::Recent { limit, retention, now } => {
                let recent = rows.recent(limit, retention, now)?;
                self.forget_if_empty(&rows).await?;
                json(&recent)
            }
            SessionVerb::Page { before, limit, retention, now } => {
                let page = rows.page(before, limit, retention, now)?;
                // Who asks for sessions that do not exist leaves none behind.
                self.forget_if_empty(&rows).await?;
                json(&page)
            }
            SessionVerb::Delete => {
                let existed = self.rows.transaction(|| rows.delete())?;
                if existed {
                    self.unlist(tenant, &rows).await?;
                }
                self.forget_if_empty(&rows).await?;
                json(&existed)
            }
            SessionVerb::Prune { retention, now } => {
                let gone = self.rows.transaction(|| rows.prune(retention, now))?;
                if rows.current()?.is_none() {
                    self.unlist(tenant, &rows).await?;
                    self.forget_if_empty(&rows).await?;
                }
                json(&gone)
            }
        }
    }

    /// Waits until `request` has the turn.
    async fn enter(&self, request: RequestId, lease: Duration) -> Result<(), ObjectError> {
        let mut coming = match self.ask_for_turn(request, lease)? {
            Turn::Has => return Ok(()),
            Turn::Waits(coming) => coming,
        };
        loop {
            let now = WorkerClock.now();
            let left = self.with(|turns| turns.line.holder().map_or(Duration::ZERO, |it| it.expires_at.since(now)))?;
            // A holder that dies is not waited for longer than its lease.
            match select(coming, WorkerClock.sleep(left + Duration::from_millis(1))).await {
                Either::Left((Ok(()), _)) => return Ok(()),
                Either::Left((Err(_), _)) => return Err(ObjectError::Left),
                Either::Right(((), still)) => {
                    coming = still;
                    self.let_in()?;
                }
            }
        }
    }

    fn ask_for_turn(&self, request: RequestId, lease: Duration) -> Result<Turn, ObjectError> {
        let now = WorkerClock.now();
        let has = self.with(|turns| turns.line.enter(request, lease, now))?;
        if has {
            self.keep_holder()?;
            return Ok(Turn::Has);
        }
        let (tell, coming) = oneshot::channel();
        self.with(|turns| turns.waiting.insert(request, tell))?;
        // Whoever has died meanwhile does not keep the line waiting.
        self.let_in()?;
        Ok(Turn::Waits(coming))
    }

    /// Ends the turn, or the waiting, of `request`.
    fn leave(&self, request: &RequestId) -> Result<(), ObjectError> {
        let was_there = self.with(|turns| {
            turns.waiting.remove(request);
            turns.line.leave(request)
        })?;
        if was_there {
            self.let_in()?;
            self.keep_holder()?;
        }
        Ok(())
    }

    /// Lets the first who waits in, when there is room, and tells it.
    fn let_in(&self) -> Result<(), ObjectError> {
        loop {
            let now = WorkerClock.now();
            let told = self.with(|turns| {
                let next = turns.line.let_in(now)?;
                let heard = turns.waiting.remove(&next).is_some_and(|tell| tell.send(()).is_ok());
                if !heard {
                    turns.line.leave(&next);
                }
                Some(heard)
            })?;
            match told {
                None => return Ok(()),
                Some(true) => return self.keep_holder(),
                // It does not wait any more.
                Some(false) => {}
            }
        }
    }

    /// Writes down who has the turn: it outlives this instance, which is put away while an answer is generated.
    fn keep_holder(&self) -> Result<(), ObjectError> {
        let holder = self.with(|turns| turns.line.holder().copied())?;
        match holder {
            Some(holder) => self.rows.keep(HOLDER, &holder)?,
            None => self.rows.drop_kept(HOLDER)?,
        }
        Ok(())
    }

    fn with<T>(&self, act: impl FnOnce(&mut Turns) -> T) -> Result<T, ObjectError> {
        self.load()?;
        let mut memory = self.memory.borrow_mut();
        let turns = memory.as_mut().ok_or_else(|| ObjectError::Question("nothing is loaded".to_owned()))?;
        Ok(act(turns))
    }

    /// Tells the list of sessions what this one is now. When it does not listen, the alarm tries again.
    async fn list(&self, tenant: &TenantId, summary: &SessionSummary) -> Result<(), ObjectError> {
        if let Err(error) = self.index()?.record(tenant, summary).await {
            tracing::error!(%tenant, error = &error as &dyn std::error::Error, "session was not listed, and will be");
            self.list_later().await?;
        }
        Ok(())
    }

    /// Takes a session without messages from the list of sessions. When that does not listen, the alarm tries again.
    async fn unlist(&self, tenant: &TenantId, rows: &SessionRows<'_>) -> Result<(), ObjectError> {
        match self.index()?.remove(tenant, &rows.session).await {
            Ok(()) => self.rows.drop_kept(UNLISTED)?,
            Err(error) => {
                tracing::error!(%tenant, error = &error as &dyn std::error::Error, "session is still listed, and will not be");
                return self.list_later().await;
            }
        }
        // A turn that has come meanwhile may have been listed before.
        match rows.current()? {
            Some(summary) => self.list(tenant, &summary).await,
            None => Ok(()),
        }
    }

    /// Notes that the list of sessions has to be told, and sees to it.
    async fn list_later(&self) -> Result<(), ObjectError> {
        self.rows.keep(UNLISTED, &true)?;
        Ok(self.rows.ring_after(SHORTEST_PAUSE, WorkerClock.now()).await?)
    }

    fn index(&self) -> Result<D1SessionIndex, ObjectError> {
        Ok(D1SessionIndex::from_env(&self.env)?)
    }

    /// Rings the alarm when retention ends the oldest message.
    async fn ring_for(
        &self,
        oldest: Option<Timestamp>,
        retention: &Retention,
        now: Timestamp,
    ) -> Result<(), ObjectError> {
        let Some(oldest) = oldest else { return Ok(()) };
        let kept_for = Duration::from_secs(u64::from(retention.days) * 86_400);
        let pause = oldest.saturating_add(kept_for).since(now) + Duration::from_millis(1);
        Ok(self.rows.ring_after(pause.clamp(SHORTEST_PAUSE, LONGEST_PAUSE), WorkerClock.now()).await?)
    }

    /// Removes what retention has ended, and tells the list of sessions what it has not heard.
    async fn tidy(&self) -> Result<(), ObjectError> {
        self.load()?;
        let tenant = self.rows.kept::<TenantId>(super::OWNER)?;
        let (Some(tenant), Some(session)) = (tenant, self.rows.kept::<SessionId>(SESSION)?) else { return Ok(()) };
        let (rows, now) = (SessionRows { rows: &self.rows, session }, WorkerClock.now());
        let retention = self.rows.kept::<Retention>(RETENTION)?;
        if let Some(retention) = &retention {
            self.rows.transaction(|| rows.prune(*retention, now))?;
        }
        match rows.current()? {
            None => {
                self.unlist(&tenant, &rows).await?;
                self.forget_if_empty(&rows).await?;
            }
            Some(summary) => {
                if self.rows.kept::<bool>(UNLISTED)?.is_some() {
                    self.rows.drop_kept(UNLISTED)?;
                    self.list(&tenant, &summary).await?;
                }
                if let Some(retention) = &retention {
                    self.ring_for(rows.oldest_at()?, retention, now).await?;
                }
            }
        }
        Ok(())
    }

    /// Deletes the object's whole storage when there are no messages, nobody has the turn or waits for it, and there is nothing
    /// left to tell the list of sessions.
    async fn forget_if_empty(&self, rows: &SessionRows<'_>) -> Result<(), ObjectError> {
        if rows.current()?.is_some() {
            return Ok(());
        }
        // Who has died has left.
        self.let_in()?;
        let nobody = self.with(|turns| turns.line.is_empty())?;
        if nobody && self.rows.kept::<bool>(UNLISTED)?.is_none() {
            self.memory.borrow_mut().take();
            self.rows.delete_everything().await?;
        }
        Ok(())
    }
}

fn json<T: serde::Serialize>(answer: &T) -> Result<Value, ObjectError> {
    Ok(serde_json::to_value(answer).map_err(RowsError::from)?)
}
