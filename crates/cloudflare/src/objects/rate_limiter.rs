//! The object of a subject whose requests are counted.

use std::cell::RefCell;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use enigma_core::TenantId;
use enigma_core::limit::{Question, Step};
use enigma_core::ports::Clock;
use futures_util::lock::Mutex;
use worker::wasm_bindgen;
use worker::{DurableObject, Env, Request, Response, State, durable_object};

use super::rows::Rows;
use super::window_rows::{self, KeptWindow};
use super::{ObjectError, answer, belongs};
use crate::call::{AT_ONCE, Objects};
use crate::message::{LedgerAsk, LineAnswer, LineAsk, LineQuestion, Message};
use crate::names::{Class, ObjectName};
use crate::runtime::WorkerClock;

const PORT: &str = "rate limiter";

/// How long the next object may take: less than the one who asked waits for this one.
const NEXT: Duration = AT_ONCE.saturating_sub(Duration::from_secs(1));

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
        // Whoever waits for an answer from behind has the window for itself.
        let _alone = self.line.lock().await;
        let policy = &own.policy;
        self.with(|_| belongs(&self.rows, tenant))?;
        let ends_here = rest.is_empty() && ask.stream.is_none();
        let now = match ask.question {
            LineQuestion::Peek(now) => {
                let at = self.with(|it| Ok(it.window.time_of(now)))?;
                if rest.is_empty() {
                    let status = self.with(|it| Ok(it.window.peek(policy, at)))?;
                    return Ok(LineAnswer::Peeked { status, at });
                }
                let LineAnswer::Peeked { status, at } = self.next(tenant, ask, LineQuestion::Peek(at)).await? else {
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
                let LineAnswer::Thinks(theirs) = self.next(tenant, ask, question).await? else {
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
            self.forget_later().await?;
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
                    let LineAnswer::Thinks(theirs) = self.next(tenant, ask, LineQuestion::Slot(question)).await? else {
                        return Err(unexpected());
                    };
                    step = self.with(|it| Ok(it.window.after_opinion(policy, &theirs)))?;
                }
                Step::Ask(question @ Question::Acquire(_)) => {
                    let answered = self.next(tenant, ask, LineQuestion::Slot(question)).await?;
                    let LineAnswer::Decided { decision, full } = answered else { return Err(unexpected()) };
                    let decision = self.with(|it| {
                        Ok(self.rows.transaction(|| {
                            it.decide(&self.rows, policy, |window| window.after_decision(policy, decision))
                        })?)
                    })?;
                    self.forget_later().await?;
                    return Ok(LineAnswer::Decided { decision, full });
                }
            }
        }
    }

    /// Asks the object behind this one in the line.
    async fn next(&self, tenant: &TenantId, ask: &LineAsk, question: LineQuestion) -> Result<LineAnswer, ObjectError> {
        let objects = Objects::from_env(&self.env).map_err(|missing| ObjectError::Question(missing.to_string()))?;
        let checks = ask.checks[1..].to_vec();
        let name = checks
            .first()
            .map_or_else(|| ObjectName::ledger(tenant), |check| ObjectName::limiter(tenant, &check.subject()));
        let line = LineAsk { question, checks, stream: ask.stream };
        Ok(match name.class() {
            Class::TenantLedger => objects.ask(PORT, &name, tenant, LedgerAsk::Line(line), NEXT).await?,
            _ => objects.ask(PORT, &name, tenant, line, NEXT).await?,
        })
    }

    /// Sees to it that a subject that falls silent is forgotten.
    async fn forget_later(&self) -> Result<(), ObjectError> {
        let pause = self.with(|it| Ok(it.longest()))?;
        Ok(self.rows.ring_after(pause, WorkerClock.now()).await?)
    }
}

fn unexpected() -> ObjectError {
    ObjectError::Question("the object behind answered another question".to_owned())
}
