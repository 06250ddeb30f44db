//! The object of a subject whose requests are counted.

use std::cell::RefCell;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use enigma_core::limit::{Question, Step};
use enigma_core::ports::Clock;
use enigma_core::{PortError, TenantId, Timestamp};
use futures_util::lock::Mutex;
use worker::wasm_bindgen;
use worker::{DurableObject, Env, Request, Response, State, durable_object};

use super::rows::Rows;
use super::window_rows::{self, KeptWindow};
use super::{ObjectError, answer, belongs};
use crate::call::{IN_LINE, Objects};
use crate::message::{LedgerAsk, LineAnswer, LineAsk, LineQuestion, Message};
use crate::names::{Class, ObjectName};
use crate::runtime::WorkerClock;

const PORT: &str = "rate limiter";

/// How long a question may take in all, with its wait for its turn and the objects behind this one: less than the one who asked
/// waits. What is decided for somebody who has gone would take slots, and one of the tenant's streams, for nobody.
const PATIENCE: Duration = IN_LINE.saturating_sub(Duration::from_secs(1));

/// The shortest time to the alarm that forgets a subject of whom nothing was counted yet.
const SHORTEST_PAUSE: Duration = Duration::from_secs(60);

/// Counts the requests of one subject of one tenant, and asks the objects behind it in the line of a request's windows.
#[durable_object(alarm)]
pub struct RateLimiter {
    env: Env,
    rows: AssertUnwindSafe<Rows>,
    memory: AssertUnwindSafe<RefCell<Option<KeptWindow>>>,
    /// Held by the request that is asking the objects behind this one, so that no other decides meanwhile.
    line: AssertUnwindSafe<Mutex<()>>,
}

impl DurableObject for RateLimiter {
    fn new(state: State, env: Env) -> Self {
        Self {
            env,
            rows: AssertUnwindSafe(Rows::new(&state)),
            memory: AssertUnwindSafe(RefCell::default()),
            line: AssertUnwindSafe(Mutex::default()),
        }
    }

    async fn fetch(&self, request: Request) -> worker::Result<Response> {
        answer(request, async |message: Message<LineAsk>| {
            let answered = self.decide(&message).await;
            if answered.is_err() {
                // What is in memory may be half of a change.
                self.memory.borrow_mut().take();
            }
            answered
        })
        .await
    }

    async fn alarm(&self) -> worker::Result<Response> {
        let _alone = self.line.lock().await;
        self.rows.rang();
        let now = WorkerClock.now();
        let busy = self.with(|window| Ok(window.busy_for(now))).map_err(|error| error.to_string())?;
        let done = if let Some(left) = busy {
            self.rows.ring_after(left, now).await
        } else {
            self.memory.borrow_mut().take();
            self.rows.delete_everything().await
        };
        done.map_err(|error| error.to_string())?;
        Response::empty()
    }
}

impl RateLimiter {
    /// Does something with the window, at once.
    fn with<T>(&self, act: impl FnOnce(&mut KeptWindow) -> Result<T, ObjectError>) -> Result<T, ObjectError> {
        let mut memory = self.memory.borrow_mut();
        let window = match &mut *memory {
            Some(window) => window,
            empty => {
                self.rows.create(window_rows::SCHEMA)?;
                empty.insert(KeptWindow::load(&self.rows)?)
            }
        };
        act(window)
    }

    async fn decide(&self, message: &Message<LineAsk>) -> Result<LineAnswer, ObjectError> {
        let Message { tenant, ask } = message;
        let Some((own, rest)) = ask.checks.split_first() else {
            return Err(ObjectError::Question("it is about no window".to_owned()));
        };
        let until = WorkerClock.now().saturating_add(PATIENCE);
        // Whoever waits for an answer from behind has the window for itself.
        let _alone = self.line.lock().await;
        left(until)?;
        let policy = &own.policy;
        self.with(|_| belongs(&self.rows, tenant))?;
        // Before anything is counted: what is written down will be looked at again.
        self.forget_later(policy.sustained.length).await?;
        let ends_here = rest.is_empty() && ask.stream.is_none();
        let now = match ask.question {
            LineQuestion::Peek(now) => {
                let at = self.with(|it| Ok(it.window.time_of(now)))?;
                if rest.is_empty() {
                    let status = self.with(|it| Ok(it.window.peek(policy, at)))?;
                    return Ok(LineAnswer::Peeked { status, at });
                }
                let LineAnswer::Peeked { status, at } = self.next(tenant, ask, LineQuestion::Peek(at), until).await?
                else {
                    return Err(unexpected());
                };
                let status = self.with(|it| Ok(it.window.peek_with(policy, status, at)))?;
                return Ok(LineAnswer::Peeked { status, at });
            }
            LineQuestion::Slot(Question::Consult(now)) => {
                let own = self.with(|it| Ok(it.window.consult(policy, now)))?;
                if rest.is_empty() {
                    return Ok(LineAnswer::Thinks(own));
                }
                let question = LineQuestion::Slot(Question::Consult(own.at));
                let LineAnswer::Thinks(theirs) = self.next(tenant, ask, question, until).await? else {
                    return Err(unexpected());
                };
                return Ok(LineAnswer::Thinks(self.with(|it| Ok(it.window.consult_with(policy, &theirs)))?));
            }
            LineQuestion::Slot(Question::Acquire(now)) => now,
        };
        if ends_here {
            let decision = self.with(|it| {
                Ok(self.rows.transaction(|| it.decide(&self.rows, policy, |window| window.acquire(policy, now)))?)
            })?;
            return Ok(LineAnswer::Decided { decision, full: None });
        }
        let mut step = self.with(|it| Ok(it.window.begin(policy, now)))?;
        loop {
            match step {
                Step::Answer(decision) => return Ok(LineAnswer::Decided { decision, full: None }),
                Step::Ask(Question::Consult(_)) if rest.is_empty() => {
                    let alone = self.with(|it| Ok(it.window.consult(policy, now)))?;
                    step = self.with(|it| Ok(it.window.after_opinion(policy, &alone)))?;
                }
                Step::Ask(question @ Question::Consult(_)) => {
                    let answered = self.next(tenant, ask, LineQuestion::Slot(question), until).await?;
                    let LineAnswer::Thinks(theirs) = answered else { return Err(unexpected()) };
                    step = self.with(|it| Ok(it.window.after_opinion(policy, &theirs)))?;
                }
                Step::Ask(question @ Question::Acquire(_)) => {
                    let answered = self.next(tenant, ask, LineQuestion::Slot(question), until).await?;
                    let LineAnswer::Decided { decision, full } = answered else { return Err(unexpected()) };
                    let decision = self.with(|it| {
                        Ok(self.rows.transaction(|| {
                            it.decide(&self.rows, policy, |window| window.after_decision(policy, decision))
                        })?)
                    })?;
                    return Ok(LineAnswer::Decided { decision, full });
                }
            }
        }
    }

    /// Asks the object behind this one in the line, which must answer before `until`.
    async fn next(
        &self,
        tenant: &TenantId,
        ask: &LineAsk,
        question: LineQuestion,
        until: Timestamp,
    ) -> Result<LineAnswer, ObjectError> {
        let limit = left(until)?;
        let objects = Objects::from_env(&self.env).map_err(|missing| ObjectError::Question(missing.to_string()))?;
        let checks = ask.checks[1..].to_vec();
        let name = checks
            .first()
            .map_or_else(|| ObjectName::ledger(tenant), |check| ObjectName::limiter(tenant, &check.subject()));
        let line = LineAsk { question, checks, stream: ask.stream };
        Ok(match name.class() {
            Class::TenantLedger => objects.ask(PORT, &name, tenant, LedgerAsk::Line(line), limit).await?,
            _ => objects.ask(PORT, &name, tenant, line, limit).await?,
        })
    }

    /// Sees to it that a subject that falls silent is forgotten, at the earliest after a window of `length`.
    async fn forget_later(&self, length: Duration) -> Result<(), ObjectError> {
        let pause = self.with(|it| Ok(it.longest()))?.max(length).max(SHORTEST_PAUSE);
        Ok(self.rows.ring_after(pause, WorkerClock.now()).await?)
    }
}

/// How long it is until then; an error when the time has come.
fn left(until: Timestamp) -> Result<Duration, ObjectError> {
    let left = until.since(WorkerClock.now());
    if left.is_zero() { Err(PortError::Timeout { port: PORT }.into()) } else { Ok(left) }
}

fn unexpected() -> ObjectError {
    ObjectError::Question("the object behind answered another question".to_owned())
}
