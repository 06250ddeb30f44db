//! The books of one kind of period, and how they turn with a clock that may be wrong.

use super::Account;
use crate::time::Timestamp;

/// Periods that are remembered after they ended: as many midnights as a clock that ran ahead may pass before it is put right.
const REMEMBERED: usize = 4;

/// The books that are open, and those that a clock which is put right may open again.
///
/// Nobody can tell a clock that has jumped ahead from one that was right all the time, until it comes back. So nothing is
/// forgotten at once:
///
/// - When time goes on, the books of the period that ended are remembered.
/// - When it steps back, the books of that earlier period are opened again, and whatever was spent under later dates counts for
///   it: it was spent in the meantime. The later books are kept aside, and what is spent from now on counts for them, too; for
///   it may be the step back that was wrong.
/// - When time then reaches exactly those later books, they are opened again. Any other period starts with empty ones: the dates
///   ahead were a mistake.
///
/// Whichever of the two was wrong, nobody gets more than one budget for what really was one period once the clock is right.
#[derive(Debug, Clone, Default)]
pub(super) struct Pages {
    open: Account,
    /// Earlier periods, the latest last.
    behind: Vec<Account>,
    /// The later period that was left when the clock stepped back.
    ahead: Option<Account>,
}

impl Pages {
    pub(super) fn new(open: Account) -> Self {
        Self { open, ..Self::default() }
    }

    pub(super) fn open(&self) -> &Account {
        &self.open
    }

    /// Whether what was set aside in the period that starts at `start` counts for the books that are open.
    pub(super) fn counts(&self, start: Timestamp) -> bool {
        start >= self.open.start
    }

    /// The period that a hold made now belongs to. While it is not known which of two it really is, the later one: so it counts
    /// for both.
    pub(super) fn period(&self) -> Timestamp {
        self.ahead.map_or(self.open.start, |ahead| ahead.start)
    }

    /// Opens the books of the period that starts at `start`; whether those are others than before.
    pub(super) fn turn(&mut self, start: Timestamp) -> bool {
        if start == self.open.start {
            return false;
        }
        if start > self.open.start {
            self.go_on(start);
        } else {
            self.step_back(start);
        }
        true
    }

    fn go_on(&mut self, start: Timestamp) {
        let fresh = Account { start, ..Account::default() };
        let opened = match self.ahead.take().filter(|ahead| ahead.start == start) {
            Some(again) => {
                // It was counted for both.
                self.open.settled = self.open.settled.saturating_sub(again.settled);
                self.open.overrun = self.open.overrun.saturating_sub(again.overrun);
                again
            }
            None => fresh,
        };
        let ended = std::mem::replace(&mut self.open, opened);
        // The books of nobody have no date, and need no memory.
        if ended.start > Timestamp::default() {
            if self.behind.len() == REMEMBERED {
                self.behind.remove(0);
            }
            self.behind.push(ended);
        }
    }

    fn step_back(&mut self, start: Timestamp) {
        let left = self.open;
        let mut total = Account { start, ..left };
        while let Some(later) = self.behind.pop_if(|earlier| earlier.start >= start) {
            total.settled = total.settled.saturating_add(later.settled);
            total.overrun = total.overrun.saturating_add(later.overrun);
        }
        self.open = total;
        self.ahead = Some(left);
    }

    /// Adds what a request of the period that started at `start` has used.
    pub(super) fn add(&mut self, start: Timestamp, settled: u64, overrun: u64) {
        let charge = |account: &mut Account| {
            account.settled = account.settled.saturating_add(settled);
            account.overrun = account.overrun.saturating_add(overrun);
        };
        if self.counts(start) {
            charge(&mut self.open);
            self.ahead.iter_mut().for_each(charge);
        } else if let Some(ended) = self.behind.iter_mut().rfind(|ended| ended.start <= start) {
            // A request that outlived its period is charged to that period, or to the one whose books were open then.
            charge(ended);
        }
    }
}
