//! The object of a tenant: what concerns all of its requests together.

use std::cell::RefCell;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use enigma_core::ledger::{BudgetPeriod, Ledger, Settlement};
use enigma_core::limit::{Decision, LeaseSet, Question, acquire_all, peek_all};
use enigma_core::ports::{Clock, LedgerBalance};
use enigma_core::usage::UsageRecord;
use serde_json::Value;
use worker::wasm_bindgen;
use worker::{DurableObject, Env, Request, Response, State, durable_object};

use super::rows::{Rows, RowsError};
use super::window_rows::{self, KeptWindow};
use super::{ObjectError, answer, belongs, idempotency_rows, lease_rows, ledger_rows, usage_rows};
use crate::message::{CloseAsk, LedgerAsk, LineAnswer, LineAsk, LineQuestion, Message, Settled, SpendingAsk};
use crate::runtime::WorkerClock;

/// How long usage records are kept: a month, and what a bill may be late.
const USAGE_FOR: Duration = Duration::from_secs(40 * 86_400);

/// Rows of a kind that one alarm deletes; the next one goes on.
const DELETED_AT_ONCE: u32 = 1_000;

/// Old usage records that go when a new one comes: more than one, so that they become fewer however many requests there are.
const OLD_FOR_NEW: u32 = 2;

/// The shortest time to the next alarm, so that a wrong clock does not make it ring all the time.
const SHORTEST_PAUSE: Duration = Duration::from_secs(60);

/// Keeps a tenant's books: the window of all its users together, its streams, its token budget, what its requests were charged,
/// and the answers that may be asked for again. Budgets and records survive everything; what a dead request had set aside is
/// charged by the alarm.
#[durable_object(alarm)]
pub struct TenantLedger {
    rows: AssertUnwindSafe<Rows>,
    memory: AssertUnwindSafe<RefCell<Option<Memory>>>,
}

/// What is decided on, as the rows have it.
struct Memory {
    window: KeptWindow,
    leases: LeaseSet,
    ledger: Ledger,
}

impl Memory {
    fn load(rows: &Rows) -> Result<Self, RowsError> {
        for schema in
            [window_rows::SCHEMA, lease_rows::SCHEMA, ledger_rows::SCHEMA, usage_rows::SCHEMA, idempotency_rows::SCHEMA]
        {
            rows.create(schema)?;
        }
        Ok(Self { window: KeptWindow::load(rows)?, leases: lease_rows::load(rows)?, ledger: ledger_rows::load(rows)? })
    }
}

impl DurableObject for TenantLedger {
    fn new(state: State, _: Env) -> Self {
        Self { rows: AssertUnwindSafe(Rows::new(&state)), memory: AssertUnwindSafe(RefCell::default()) }
    }

    async fn fetch(&self, request: Request) -> worker::Result<Response> {
        answer(request, async |Message { tenant, ask }: Message<LedgerAsk>| {
            let alarm_after = alarm_after(&ask);
            let answered = self.with(|memory, rows| {
                belongs(rows, &tenant)?;
                memory.decide(rows, ask)
            })?;
            if let Some(pause) = alarm_after {
                self.rows.ring_after(pause.max(SHORTEST_PAUSE), WorkerClock.now()).await?;
            }
            Ok(answered)
        })
        .await
    }

    async fn alarm(&self) -> worker::Result<Response> {
        self.rows.rang();
        let now = WorkerClock.now();
        let next = self
            .with(|memory, rows| {
                ledger_rows::change(&mut memory.ledger, rows, |ledger| ledger.expire(now))?;
                idempotency_rows::delete_expired(rows, now, DELETED_AT_ONCE)?;
                usage_rows::delete_old(rows, now.saturating_sub(USAGE_FOR), DELETED_AT_ONCE)?;
                let usage = usage_rows::oldest(rows)?.map(|oldest| oldest.saturating_add(USAGE_FOR));
                let next = [memory.ledger.next_expiry(), idempotency_rows::next_expiry(rows)?, usage];
                Ok(next.into_iter().flatten().min())
            })
            .map_err(|error| error.to_string())?;
        if let Some(due) = next {
            let pause = due.since(now).max(SHORTEST_PAUSE);
            self.rows.ring_after(pause, now).await.map_err(|error| error.to_string())?;
        }
        Response::empty()
    }
}

impl TenantLedger {
    /// Decides and writes, all or nothing, without a pause in between.
    fn with<T>(&self, act: impl FnOnce(&mut Memory, &Rows) -> Result<T, ObjectError>) -> Result<T, ObjectError> {
        let mut kept = self.memory.borrow_mut();
        // Taken out: what a failure, or a panic, leaves half changed is read anew from the rows, which are as before.
        let mut memory = match kept.take() {
            Some(memory) => memory,
            None => Memory::load(&self.rows)?,
        };
        let mut refused = None;
        let done = self.rows.transaction(|| match act(&mut memory, &self.rows) {
            Ok(done) => Ok(Some(done)),
            Err(ObjectError::Rows(error)) => Err(error),
            Err(other) => {
                refused = Some(other);
                Ok(None)
            }
        })?;
        *kept = Some(memory);
        match (done, refused) {
            (Some(done), _) => Ok(done),
            (None, Some(error)) => Err(error),
            (None, None) => Err(ObjectError::Question("it was not answered".to_owned())),
        }
    }
}

/// When what a question leaves has to be looked at again.
fn alarm_after(ask: &LedgerAsk) -> Option<Duration> {
    match ask {
        LedgerAsk::Reserve { lifetime, .. } => Some(*lifetime),
        LedgerAsk::BeginKey { lease_until, now, .. } => Some(lease_until.since(*now)),
        LedgerAsk::Record(_) => Some(USAGE_FOR),
        LedgerAsk::Close(close) if close.record.is_some() => Some(USAGE_FOR),
        _ => None,
    }
}

impl Memory {
    fn decide(&mut self, rows: &Rows, ask: LedgerAsk) -> Result<Value, ObjectError> {
        let Self { leases, ledger, .. } = self;
        match ask {
            LedgerAsk::Line(line) => json(&self.line(rows, &line)?),
            LedgerAsk::EnterStream { stream, now } => json(&lease_rows::enter(leases, rows, &stream, now)?),
            LedgerAsk::LeaveStream { request } => json(&lease_rows::leave(leases, rows, &request)?),
            LedgerAsk::Reserve { request, tokens, budget, lifetime, now } => {
                json(&ledger_rows::change(ledger, rows, |it| it.reserve(request, tokens, &budget, lifetime, now))?)
            }
            LedgerAsk::Settle { request, used, budget, now } => {
                let settled: Settled = ledger_rows::change(ledger, rows, |it| it.settle(&request, used, &budget, now))?;
                json(&settled)
            }
            LedgerAsk::Release { request } => json(&ledger_rows::change(ledger, rows, |it| it.release(&request))?),
            LedgerAsk::Balance { now } => json(&ledger_rows::change(ledger, rows, |it| {
                it.expire(now);
                LedgerBalance {
                    day: *it.day(),
                    month: *it.month(),
                    held_today: it.held(BudgetPeriod::Daily),
                    held_this_month: it.held(BudgetPeriod::Monthly),
                }
            })?),
            LedgerAsk::Close(close) => json(&self.close(rows, *close)?),
            LedgerAsk::Record(record) => json(&keep_record(rows, &record)?),
            LedgerAsk::Records { limit } => json(&usage_rows::newest(rows, limit)?),
            LedgerAsk::BeginKey { key, fingerprint, holder, lease_until, now } => {
                json(&idempotency_rows::begin(rows, &key, &fingerprint, &holder, lease_until, now)?)
            }
            LedgerAsk::FinishKey { key, holder, answer, keep_until } => {
                json(&idempotency_rows::finish(rows, &key, &holder, answer, keep_until)?)
            }
            LedgerAsk::AbandonKey { key, holder } => json(&idempotency_rows::abandon(rows, &key, &holder)?),
        }
    }

    /// The last place in the line of a request's windows: that of all users together, and the tenant's streams.
    fn line(&mut self, rows: &Rows, line: &LineAsk) -> Result<LineAnswer, ObjectError> {
        let own = match &line.checks[..] {
            [] => None,
            [own] => Some(&own.policy),
            _ => return Err(ObjectError::Question("the tenant's window is the last one".to_owned())),
        };
        let window = &mut self.window;
        Ok(match line.question {
            LineQuestion::Peek(now) => {
                let at = window.window.time_of(now);
                let status = own.map_or_else(|| peek_all(&[], at), |policy| window.window.peek(policy, at));
                LineAnswer::Peeked { status, at }
            }
            LineQuestion::Slot(Question::Consult(now)) => {
                let policy = own.ok_or_else(|| ObjectError::Question("it is about no window".to_owned()))?;
                LineAnswer::Thinks(window.window.consult(policy, now))
            }
            LineQuestion::Slot(Question::Acquire(now)) => {
                let decision = match own {
                    Some(policy) => window.decide(rows, policy, |it| it.acquire(policy, now))?,
                    None => acquire_all(&mut [], now),
                };
                let full = match (&line.stream, decision) {
                    (Some(stream), Decision::Granted { .. }) => {
                        lease_rows::enter(&mut self.leases, rows, stream, now)?.err()
                    }
                    _ => None,
                };
                LineAnswer::Decided { decision, full }
            }
        })
    }

    /// Ends a request: charges or releases, records, and frees its stream.
    fn close(&mut self, rows: &Rows, close: CloseAsk) -> Result<Settlement, ObjectError> {
        let CloseAsk { request, spending, record, now } = close;
        let settlement = match spending {
            SpendingAsk::None => Settlement::NOTHING,
            SpendingAsk::Released => {
                ledger_rows::change(&mut self.ledger, rows, |it| it.release(&request))?;
                Settlement::NOTHING
            }
            SpendingAsk::Used { tokens, reserved, budget } => {
                let settled =
                    ledger_rows::change(&mut self.ledger, rows, |it| it.settle(&request, tokens, &budget, now))?;
                // A reservation that expired was charged in full already.
                settled.unwrap_or(Settlement { charged: reserved, overrun: tokens.saturating_sub(reserved) })
            }
        };
        if let Some(record) = record {
            let Settlement { charged, overrun } = settlement;
            keep_record(rows, &UsageRecord { charged, overrun, ..record })?;
        }
        lease_rows::leave(&mut self.leases, rows, &request)?;
        Ok(settlement)
    }
}

fn keep_record(rows: &Rows, record: &UsageRecord) -> Result<(), RowsError> {
    usage_rows::delete_old(rows, record.at.saturating_sub(USAGE_FOR), OLD_FOR_NEW)?;
    usage_rows::add(rows, record)
}

fn json<T: serde::Serialize>(answer: &T) -> Result<Value, ObjectError> {
    Ok(serde_json::to_value(answer).map_err(RowsError::from)?)
}
