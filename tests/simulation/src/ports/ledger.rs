//! Budgets that survive the process, as a journal: what a reservation does is known from memory and written down behind it, in
//! order; what ends one is written down, and all before it, when it is acknowledged.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use enigma_core::ledger::{BudgetExceeded, BudgetPeriod, Hold, HoldChange, Ledger, Settlement};
use enigma_core::ports::{LedgerBalance, TokenLedger};
use enigma_core::tenant::TokenBudget;
use enigma_core::{PortError, RequestId, TenantId, Timestamp};

use crate::plan::Plan;
use crate::plants::Plant;
use crate::sim::Sim;
use crate::witness::number;

/// How a reservation has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Settled(Settlement),
    Released,
    Expired,
}

/// A reservation, as an onlooker keeps it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reservation {
    pub(crate) hold: Hold,
    pub(crate) end: Option<End>,
}

impl Reservation {
    fn charged(&self) -> u64 {
        match self.end {
            None | Some(End::Released) => 0,
            Some(End::Settled(settlement)) => settlement.charged,
            Some(End::Expired) => self.hold.tokens,
        }
    }

    fn has_overrun(&self) -> bool {
        matches!(self.end, Some(End::Settled(settlement)) if settlement.overrun > 0)
    }
}

#[derive(Clone)]
enum Entry {
    Reserve { request: RequestId, tokens: u64, budget: TokenBudget, lifetime: Duration, now: Timestamp },
    Settle { request: RequestId, used: u64, budget: TokenBudget, now: Timestamp },
    Release { request: RequestId },
    Expire { now: Timestamp },
}

enum Reply {
    Reserved(Result<(), BudgetExceeded>),
    Settled(Option<Settlement>),
    Released(bool),
    Balance(LedgerBalance),
}

#[derive(Default)]
struct Books {
    ledger: Ledger,
    reservations: BTreeMap<RequestId, Reservation>,
    /// How often the clock has stepped back into an earlier day, and into an earlier month; twice at once when dates with books of
    /// their own lie between.
    steps_back: [u32; 2],
}

impl Books {
    fn starts(&self) -> [Timestamp; 2] {
        [self.ledger.day().start, self.ledger.month().start]
    }
}

#[derive(Default)]
struct State {
    journal: Vec<(TenantId, Entry)>,
    /// So many entries a crash cannot take back.
    durable: usize,
    books: BTreeMap<TenantId, Books>,
}

/// The ledger of all lives of the process, which also looks at each step whether the books are right.
#[derive(Clone)]
pub(crate) struct JournaledLedger {
    sim: Sim,
    plan: Arc<Plan>,
    plant: Option<Plant>,
    state: Arc<Mutex<State>>,
}

impl JournaledLedger {
    pub(crate) fn new(sim: Sim, plan: Arc<Plan>, plant: Option<Plant>) -> Self {
        Self { sim, plan, plant, state: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What became of the reservation of `request`; `None` when it has none, or a crash took it.
    pub(crate) fn reservation(&self, tenant: &TenantId, request: &RequestId) -> Option<Reservation> {
        self.lock().books.get(tenant)?.reservations.get(request).copied()
    }

    /// The process dies. What was not written down is lost from some point on.
    pub(crate) fn crash(&self) {
        let mut state = self.lock();
        let unsafe_entries = (state.journal.len() - state.durable) as u64;
        let survive =
            state.durable + usize::try_from(self.sim.below(unsafe_entries + 1)).expect("it is below a length");
        let lost = state.journal.len() - survive;
        self.sim.note(|| format!("the ledger loses {lost} entries"));
        state.journal.truncate(survive);
        state.durable = survive;
        state.books.clear();
        let journal = state.journal.clone();
        for (tenant, entry) in journal {
            self.apply(&mut state, &tenant, &entry);
        }
    }

    /// Ends what has died, and looks whether anything is still set aside.
    pub(crate) fn expire_all(&self, now: Timestamp) {
        for tenant in &self.plan.tenants {
            if let Reply::Balance(balance) = self.write(&tenant.id, Entry::Expire { now }) {
                let held = balance.held_today + balance.held_this_month;
                self.sim.check(held == 0, || format!("{} has {held} tokens set aside at the end", tenant.id));
            }
            let state = self.lock();
            let left = state.books.get(&tenant.id).into_iter().flat_map(|books| &books.reservations);
            for (request, reservation) in left.filter(|(_, reservation)| reservation.end.is_none()) {
                self.sim.violate(format!("the reservation {reservation:?} of r{} never ended", number(request)));
            }
        }
    }

    fn write(&self, tenant: &TenantId, entry: Entry) -> Reply {
        let mut state = self.lock();
        // Now and then the writer catches up.
        if self.sim.chance(300) {
            state.durable = state.journal.len();
        }
        let reply = self.apply(&mut state, tenant, &entry);
        let is_awaited = matches!(entry, Entry::Settle { .. } | Entry::Release { .. })
            && self.plant != Some(Plant::VolatileSettlement);
        state.journal.push((tenant.clone(), entry));
        if is_awaited {
            state.durable = state.journal.len();
        }
        reply
    }

    fn apply(&self, state: &mut State, tenant: &TenantId, entry: &Entry) -> Reply {
        let books = state.books.entry(tenant.clone()).or_default();
        let before = books.starts();
        let (request, end, reply) = match entry {
            Entry::Reserve { request, tokens, budget, lifetime, now } => {
                (Some(request), None, Reply::Reserved(books.ledger.reserve(*request, *tokens, budget, *lifetime, *now)))
            }
            Entry::Settle { request, used, budget, now } => {
                let settled = books.ledger.settle(request, *used, budget, *now);
                (Some(request), settled.map(End::Settled), Reply::Settled(settled))
            }
            Entry::Release { request } => {
                let was_there = books.ledger.release(request);
                (Some(request), was_there.then_some(End::Released), Reply::Released(was_there))
            }
            Entry::Expire { now } => {
                books.ledger.expire(*now);
                let (day, month) = (*books.ledger.day(), *books.ledger.month());
                let [held_today, held_this_month] =
                    [BudgetPeriod::Daily, BudgetPeriod::Monthly].map(|period| books.ledger.held(period));
                (None, None, Reply::Balance(LedgerBalance { day, month, held_today, held_this_month }))
            }
        };
        for change in books.ledger.take_changes() {
            match change {
                HoldChange::Made(id, hold) => {
                    let again = books.reservations.insert(id, Reservation { hold, end: None });
                    self.sim.check(again.is_none(), || format!("r{} has reserved twice", number(&id)));
                }
                HoldChange::Ended(id) => {
                    let end = end.filter(|_| request == Some(&id)).unwrap_or(End::Expired);
                    let known = books.reservations.get_mut(&id).map(|known| known.end.replace(end));
                    self.sim.check(known == Some(None), || {
                        format!("the reservation of r{} ended as {end:?} after {known:?}", number(&id))
                    });
                }
            }
        }
        let after = books.starts();
        for (place, (after, before)) in after.iter().zip(&before).enumerate() {
            if after < before {
                // The books of dates between the two are closed for good: only the later date is opened again.
                let start = |it: &Reservation| [it.hold.day, it.hold.month][place];
                let is_between = |it: &Reservation| *after < start(it) && start(it) < *before;
                books.steps_back[place] += 1 + u32::from(books.reservations.values().any(is_between));
            }
        }
        self.judge(tenant, books, matches!(reply, Reply::Reserved(Ok(()))));
        reply
    }

    /// Settled and held never pass the budget, and the books say what the reservations say. When the clock has stepped back, what
    /// was spent under the later date counts for the earlier one, too: then books may say more, and only what is granted must fit.
    fn judge(&self, tenant: &TenantId, books: &Books, has_granted: bool) {
        let Some(plan) = self.plan.tenant(tenant) else {
            return self.sim.violate(format!("there is no tenant {tenant}"));
        };
        let [steps_of_days, steps_of_months] = books.steps_back;
        let (day, month) = (books.ledger.day(), books.ledger.month());
        let periods = [
            ("day", day, books.ledger.held(BudgetPeriod::Daily), plan.budget.daily, steps_of_days),
            ("month", month, books.ledger.held(BudgetPeriod::Monthly), plan.budget.monthly, steps_of_months),
        ];
        for (name, account, held, limit, steps_back) in periods {
            let taken = account.settled + held;
            let fits = limit.is_none_or(|limit| taken <= limit);
            self.sim.check(fits || steps_back > 0 && !has_granted, || {
                format!("{tenant} has {taken} tokens of {limit:?} for the {name} settled or held")
            });
            let start = |reservation: &Reservation| match name {
                "day" => reservation.hold.day,
                _ => reservation.hold.month,
            };
            let all = || books.reservations.values();
            let open: u64 =
                all().filter(|it| it.end.is_none() && start(it) >= account.start).map(|it| it.hold.tokens).sum();
            self.sim.check(open == held, || format!("{tenant} holds {held} for the {name}, not {open}"));
            let of_period = || all().filter(|it| start(it) == account.start);
            let charged: u64 = of_period().map(Reservation::charged).sum();
            // What is charged is the less of what day and month could cover.
            let agrees = match steps_back {
                0 => {
                    charged == account.settled || charged < account.settled && of_period().any(Reservation::has_overrun)
                }
                1 => charged <= account.settled,
                // Dates that were left for others twice were mistakes, and their books are closed.
                _ => true,
            };
            self.sim
                .check(agrees, || format!("{tenant} has settled {} for the {name}, not {charged}", account.settled));
        }
    }
}

#[async_trait]
impl TokenLedger for JournaledLedger {
    async fn reserve(
        &self,
        tenant: &TenantId,
        request: RequestId,
        tokens: u64,
        budget: &TokenBudget,
        lifetime: Duration,
        now: Timestamp,
    ) -> Result<Result<(), BudgetExceeded>, PortError> {
        match self.write(tenant, Entry::Reserve { request, tokens, budget: *budget, lifetime, now }) {
            Reply::Reserved(reserved) => Ok(reserved),
            _ => unreachable!("a reservation is answered as one"),
        }
    }

    async fn settle(
        &self,
        tenant: &TenantId,
        request: &RequestId,
        used: u64,
        budget: &TokenBudget,
        now: Timestamp,
    ) -> Result<Option<Settlement>, PortError> {
        match self.write(tenant, Entry::Settle { request: *request, used, budget: *budget, now }) {
            Reply::Settled(settled) => Ok(settled),
            _ => unreachable!("a settlement is answered as one"),
        }
    }

    async fn release(&self, tenant: &TenantId, request: &RequestId) -> Result<bool, PortError> {
        match self.write(tenant, Entry::Release { request: *request }) {
            Reply::Released(was_there) => Ok(was_there),
            _ => unreachable!("a release is answered as one"),
        }
    }

    async fn balance(&self, tenant: &TenantId, now: Timestamp) -> Result<LedgerBalance, PortError> {
        match self.write(tenant, Entry::Expire { now }) {
            Reply::Balance(balance) => Ok(balance),
            _ => unreachable!("a question for the books is answered as one"),
        }
    }
}
