//! The token ledger: what a tenant has spent of its budget, and what running requests may still spend.

mod pages;

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use self::pages::Pages;
use crate::id::RequestId;
use crate::tenant::TokenBudget;
use crate::time::Timestamp;

/// The most tokens that one request may set aside; far beyond any model, and far below where sums would overflow.
pub const MAX_HOLD: u64 = 1 << 40;

/// The stretch of time that a budget is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BudgetPeriod {
    /// A UTC day.
    Daily,
    /// A UTC month.
    Monthly,
}

impl BudgetPeriod {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Daily => "daily",
            Self::Monthly => "monthly",
        }
    }
}

/// The budget does not cover what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error, Serialize, Deserialize)]
#[error("the {} token budget is used up", period.as_str())]
pub struct BudgetExceeded {
    /// Which budget; where both are short, the one that takes longer to renew.
    pub period: BudgetPeriod,
    /// When it starts anew.
    pub resets_at: Timestamp,
}

/// Tokens set aside for one request. It belongs to the day and the month in which it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// How many.
    pub tokens: u64,
    /// When the request is taken for dead.
    pub expires_at: Timestamp,
    /// Start of its day.
    pub day: Timestamp,
    /// Start of its month.
    pub month: Timestamp,
}

/// The books of one day or month.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Account {
    /// When the period started.
    pub start: Timestamp,
    /// Tokens spent.
    pub settled: u64,
    /// Tokens that were used beyond what the budget could still cover; they are no part of `settled`.
    pub overrun: u64,
}

/// What a request was charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settlement {
    /// Tokens charged to the budget.
    pub charged: u64,
    /// Tokens used beyond what the budget could cover.
    pub overrun: u64,
}

impl Settlement {
    /// Nothing was charged.
    pub const NOTHING: Self = Self { charged: 0, overrun: 0 };
}

/// A change of the holds, for adapters that keep them in rows of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldChange {
    /// The hold was made.
    Made(RequestId, Hold),
    /// The hold has ended.
    Ended(RequestId),
}

/// The ledger of one tenant: `reserve`, then exactly one of `settle`, `release` and `expire`.
///
/// At every step, in each period: settled + held ≤ budget, as long as the budget itself is not lowered and the clock goes on. A
/// request that dies without an ending is charged all that it had set aside: it may have spent it.
///
/// A clock that jumped ahead and is put right again finds the books of the day that it really is, and in them what was spent
/// under the wrong date: for that moment they may hold more than the budget, and nothing is granted from them then. A clock that
/// steps back grants nothing that the later books would not grant.
///
/// ```
/// use std::time::Duration;
/// use enigma_core::{RequestId, Timestamp};
/// use enigma_core::ledger::Ledger;
/// use enigma_core::tenant::TokenBudget;
///
/// let budget = TokenBudget { daily: Some(100), monthly: None };
/// let (mut ledger, now, minute) = (Ledger::default(), Timestamp::from_millis(0), Duration::from_secs(60));
/// let [first, second] = [1, 2].map(|n| RequestId::new(uuid::Uuid::from_u128(n)));
/// ledger.reserve(first, 80, &budget, minute, now)?;
/// assert!(ledger.reserve(second, 40, &budget, minute, now).is_err(), "80 of 100 are set aside");
/// ledger.settle(&first, 50, &budget, now);
/// assert!(ledger.reserve(second, 40, &budget, minute, now).is_ok());
/// # Ok::<(), enigma_core::ledger::BudgetExceeded>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    day: Pages,
    month: Pages,
    holds: HashMap<RequestId, Hold>,
    by_expiry: BTreeSet<(Timestamp, RequestId)>,
    held_today: u64,
    held_this_month: u64,
    changes: Vec<HoldChange>,
}

impl Ledger {
    /// Restores a ledger from what was kept of it.
    pub fn restore(day: Account, month: Account, holds: impl IntoIterator<Item = (RequestId, Hold)>) -> Self {
        let mut ledger = Self { day: Pages::new(day), month: Pages::new(month), ..Self::default() };
        for (id, hold) in holds {
            ledger.insert(id, hold);
        }
        ledger
    }

    /// The books of the day.
    pub fn day(&self) -> &Account {
        self.day.open()
    }

    /// The books of the month.
    pub fn month(&self) -> &Account {
        self.month.open()
    }

    /// Tokens set aside in the period at hand.
    pub fn held(&self, period: BudgetPeriod) -> u64 {
        match period {
            BudgetPeriod::Daily => self.held_today,
            BudgetPeriod::Monthly => self.held_this_month,
        }
    }

    /// When the next hold expires.
    pub fn next_expiry(&self) -> Option<Timestamp> {
        self.by_expiry.first().map(|(expiry, _)| *expiry)
    }

    /// What happened to holds since this was last asked. An adapter asks after every call: what it does not take stays.
    pub fn take_changes(&mut self) -> Vec<HoldChange> {
        std::mem::take(&mut self.changes)
    }

    /// Sets `tokens` aside for the request `id`, for at most `lifetime`. Asked again for the same request, it leaves the first
    /// answer as it is.
    ///
    /// # Errors
    /// [`BudgetExceeded`], and nothing is set aside. A request for more than [`MAX_HOLD`] never fits.
    pub fn reserve(
        &mut self,
        id: RequestId,
        tokens: u64,
        budget: &TokenBudget,
        lifetime: Duration,
        now: Timestamp,
    ) -> Result<(), BudgetExceeded> {
        self.expire(now);
        if self.holds.contains_key(&id) {
            return Ok(());
        }
        let lacks = |limit: Option<u64>, settled: u64, held: u64| {
            tokens > MAX_HOLD || limit.is_some_and(|limit| settled.saturating_add(held).saturating_add(tokens) > limit)
        };
        if lacks(budget.monthly, self.month().settled, self.held_this_month) {
            return Err(BudgetExceeded {
                period: BudgetPeriod::Monthly,
                resets_at: self.month().start.next_month_start(),
            });
        }
        if lacks(budget.daily, self.day().settled, self.held_today) {
            return Err(BudgetExceeded { period: BudgetPeriod::Daily, resets_at: self.day().start.next_day_start() });
        }
        let expires_at = now.saturating_add(lifetime);
        let hold = Hold { tokens, expires_at, day: self.day.period(), month: self.month.period() };
        self.insert(id, hold);
        self.changes.push(HoldChange::Made(id, hold));
        Ok(())
    }

    /// Ends a request's hold and charges what it really used. What it used beyond its hold is charged as far as the budget
    /// covers it. `None` when the request has no hold (any more), and nothing is charged then.
    pub fn settle(&mut self, id: &RequestId, used: u64, budget: &TokenBudget, now: Timestamp) -> Option<Settlement> {
        self.expire(now);
        let hold = self.remove(id)?;
        Some(self.charge(&hold, used, budget))
    }

    /// Ends a request's hold and charges nothing. Whether there was one.
    pub fn release(&mut self, id: &RequestId) -> bool {
        self.remove(id).is_some()
    }

    /// Charges the requests that have died all that they had set aside, and opens the books of `now`; tells how many died.
    pub fn expire(&mut self, now: Timestamp) -> usize {
        self.turn_page(now);
        let mut expired = 0;
        while let Some((_, id)) = self.by_expiry.first().copied().filter(|(expiry, _)| *expiry <= now) {
            if let Some(hold) = self.remove(&id) {
                let unlimited = TokenBudget::default();
                self.charge(&hold, hold.tokens, &unlimited);
            }
            expired += 1;
        }
        expired
    }

    fn charge(&mut self, hold: &Hold, used: u64, budget: &TokenBudget) -> Settlement {
        let kept = used.min(hold.tokens);
        let beyond = used - kept;
        let mut overrun = 0;
        for (pages, held, start, limit) in [
            (&mut self.day, self.held_today, hold.day, budget.daily),
            (&mut self.month, self.held_this_month, hold.month, budget.monthly),
        ] {
            // Books that are closed have no room to look for.
            let room = limit.filter(|_| pages.counts(start)).map_or(beyond, |limit| {
                limit.saturating_sub(pages.open().settled.saturating_add(kept).saturating_add(held))
            });
            let more = beyond.min(room);
            pages.add(start, kept.saturating_add(more), beyond - more);
            overrun = overrun.max(beyond - more);
        }
        Settlement { charged: used - overrun, overrun }
    }

    /// Opens the books of `now`.
    fn turn_page(&mut self, now: Timestamp) {
        if self.day.turn(now.day_start()) {
            self.held_today = self.sum(|hold| self.day.counts(hold.day));
        }
        if self.month.turn(now.month_start()) {
            self.held_this_month = self.sum(|hold| self.month.counts(hold.month));
        }
    }

    fn sum(&self, counts: impl Fn(&Hold) -> bool) -> u64 {
        self.holds.values().filter(|hold| counts(hold)).fold(0, |sum, hold| sum.saturating_add(hold.tokens))
    }

    fn insert(&mut self, id: RequestId, hold: Hold) {
        if self.day.counts(hold.day) {
            self.held_today = self.held_today.saturating_add(hold.tokens);
        }
        if self.month.counts(hold.month) {
            self.held_this_month = self.held_this_month.saturating_add(hold.tokens);
        }
        self.by_expiry.insert((hold.expires_at, id));
        self.holds.insert(id, hold);
    }

    fn remove(&mut self, id: &RequestId) -> Option<Hold> {
        let hold = self.holds.remove(id)?;
        self.by_expiry.remove(&(hold.expires_at, *id));
        if self.day.counts(hold.day) {
            self.held_today = self.held_today.saturating_sub(hold.tokens);
        }
        if self.month.counts(hold.month) {
            self.held_this_month = self.held_this_month.saturating_sub(hold.tokens);
        }
        self.changes.push(HoldChange::Ended(*id));
        Some(hold)
    }
}

#[cfg(test)]
mod tests;
