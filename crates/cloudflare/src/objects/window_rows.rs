//! A sliding window as rows: the times that it gave out, no more of them than its limit.

use std::time::Duration;

use enigma_core::Timestamp;
use enigma_core::limit::{Decision, SlidingWindow, WindowPolicy};
use serde::Deserialize;

use super::rows::{Rows, RowsError, number};

/// Made in every class that has a window.
pub(super) const SCHEMA: &str =
    "CREATE TABLE IF NOT EXISTS granted (number INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL);";

/// The longest window that was asked for, in milliseconds, as this object knows it.
const LONGEST: &str = "longest_window";

#[derive(Deserialize)]
struct Granted {
    at: u64,
}

/// A window that is kept.
#[derive(Debug, Default)]
pub(super) struct KeptWindow {
    pub(super) window: SlidingWindow,
    longest: Duration,
}

impl KeptWindow {
    pub(super) fn load(rows: &Rows) -> Result<Self, RowsError> {
        let granted = rows.query::<Granted>("SELECT at FROM granted ORDER BY number", vec![])?;
        let window = SlidingWindow::from_granted(granted.into_iter().map(|row| Timestamp::from_millis(row.at)));
        let longest = Duration::from_millis(rows.kept(LONGEST)?.unwrap_or(0));
        Ok(Self { window, longest })
    }

    /// Decides by `decide`, and writes down what it changed.
    pub(super) fn decide(
        &mut self,
        rows: &Rows,
        policy: &WindowPolicy,
        decide: impl FnOnce(&mut SlidingWindow) -> Decision,
    ) -> Result<Decision, RowsError> {
        let before = self.window.granted().len();
        let decision = decide(&mut self.window);
        if let Decision::Granted { at, .. } = decision {
            rows.run("INSERT INTO granted (at) VALUES (?)", vec![number(at.as_millis())])?;
            let gone = (before + 1).saturating_sub(self.window.granted().len());
            if gone > 0 {
                rows.run(
                    "DELETE FROM granted WHERE number IN (SELECT number FROM granted ORDER BY number LIMIT ?)",
                    vec![number(gone as u64)],
                )?;
            }
            if self.longest < policy.sustained.length {
                self.longest = policy.sustained.length;
                rows.keep(LONGEST, &self.longest.as_millis())?;
            }
        }
        Ok(decision)
    }

    /// How long it takes until nothing in it counts any more; `None` when that is so at `now`.
    pub(super) fn busy_for(&self, now: Timestamp) -> Option<Duration> {
        let newest = self.window.granted().last()?;
        let left = newest.saturating_add(self.longest).since(now);
        (!left.is_zero()).then_some(left)
    }

    /// The longest window.
    pub(super) const fn longest(&self) -> Duration {
        self.longest
    }
}
