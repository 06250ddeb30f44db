//! A time that does not run backwards, for windows that must neither forget nor freeze.

use std::time::Duration;

use super::RateStatus;
use crate::time::Timestamp;

/// A step back that windows just wait for.
const SHORT: Duration = Duration::from_secs(3600);

/// Follows a clock that may step.
///
/// Windows take a clock that steps back to stand still. That is right for a moment; but a clock that had run ahead by a day would
/// stand still for a day. So after a long step back this time goes on from where it was, as fast as the clock, until the clock
/// has come back to it: nothing is forgotten, and nobody waits for longer than the windows are long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SteadyTime {
    newest: Timestamp,
    ahead: Duration,
}

impl SteadyTime {
    /// This time when the clock says `now`.
    pub fn at(&mut self, now: Timestamp) -> Timestamp {
        if now >= self.newest {
            self.ahead = Duration::ZERO;
        } else if self.newest.since(now.saturating_add(self.ahead)) > SHORT {
            self.ahead = self.newest.since(now);
        }
        let steady = now.saturating_add(self.ahead);
        self.newest = self.newest.max(steady);
        steady
    }

    /// A status in this time, as the clock would say it.
    #[must_use]
    pub fn told(&self, status: RateStatus) -> RateStatus {
        RateStatus { reset_at: status.reset_at.saturating_sub(self.ahead), ..status }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::{SlidingWindow, Window, WindowPolicy};
    use proptest::prelude::*;

    const MINUTE: u64 = 60_000;
    const DAY: u64 = 1_440 * MINUTE;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn policy(limit: u32) -> WindowPolicy {
        let window = Window { limit, length: Duration::from_secs(60) };
        WindowPolicy { sustained: window, burst: window }
    }

    #[test]
    fn a_clock_that_had_run_ahead_freezes_nobody_when_it_is_put_right() {
        let (mut time, mut window, policy) = (SteadyTime::default(), SlidingWindow::default(), policy(2));
        let mut ask = |now: u64| {
            let decision = window.acquire(&policy, time.at(at(now)));
            (decision.is_granted(), time.told(*decision.status()).reset_at)
        };
        let noon = 100 * DAY;
        assert!(ask(noon).0);
        assert!(ask(noon + 40 * DAY).0 && ask(noon + 40 * DAY).0);
        let (granted, reset) = ask(noon + 1);
        assert!(!granted, "two in a minute");
        assert!(reset <= at(noon + 1 + MINUTE), "{reset}");
        assert!(ask(noon + 1 + MINUTE).0);
    }

    proptest! {
        /// A clock that steps back for a while, when somebody has just asked, never grants more than the limit in any true
        /// minute.
        #[test]
        fn a_clock_that_steps_back_and_is_put_right_grants_nothing(
            limit in 1u32..4,
            steps in proptest::collection::vec((0u64..30_000, proptest::option::of(70 * MINUTE..3 * DAY)), 1..200),
        ) {
            let (mut time, mut window, policy) = (SteadyTime::default(), SlidingWindow::default(), policy(limit));
            let (mut now, mut off, mut granted) = (100 * DAY, 0, Vec::new());
            for (pause, step) in steps {
                now += pause;
                time.at(at(now - off));
                if let Some(step) = step {
                    off = if off == 0 { step } else { 0 };
                }
                if window.acquire(&policy, time.at(at(now - off))).is_granted() {
                    granted.push(now);
                }
            }
            for (n, first) in granted.iter().enumerate() {
                let minute = granted[n..].iter().take_while(|at| **at < first + MINUTE).count();
                prop_assert!(minute <= limit as usize, "{minute} in one minute");
            }
        }
    }
}
