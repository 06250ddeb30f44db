//! Sliding windows in memory.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use enigma_core::limit::{Decision, LimitCheck, RateStatus, SlidingWindow, Subject, WindowPolicy, acquire_all};
use enigma_core::ports::RateLimiter;
use enigma_core::{PortError, TenantId, Timestamp};

use crate::sharded::Sharded;

/// A tenant's subjects that are remembered at most. Whoever comes then is refused until others are forgotten: to forget somebody
/// sooner would grant them more than their limit.
const MAX_SUBJECTS: usize = 1_000_000;

/// Counts requests in this process.
///
/// A subject takes room from its first granted request on: one that is denied leaves no trace. It is forgotten when it was
/// silent for two to four times the longest window that its tenant was asked about.
pub struct MemoryRateLimiter {
    tenants: Sharded<Subjects>,
}

impl Default for MemoryRateLimiter {
    fn default() -> Self {
        Self { tenants: Sharded::new("rate limiter") }
    }
}

/// The windows of one tenant's subjects, in two generations. A subject that is asked about moves to the younger one; now and
/// then the older one is dropped as a whole and the younger one takes its place. So nothing has to look for the idle.
#[derive(Default)]
struct Subjects {
    young: HashMap<Subject, SlidingWindow>,
    old: HashMap<Subject, SlidingWindow>,
    rotated_at: Timestamp,
    longest: Duration,
}

impl Subjects {
    fn acquire(&mut self, checks: &[LimitCheck<'_>], now: Timestamp) -> Result<Decision, &'static str> {
        let twice = |(place, check): (usize, &LimitCheck<'_>)| checks[..place].iter().any(|it| it.subject == check.subject);
        if checks.iter().enumerate().any(twice) {
            return Err("a request checks one subject twice");
        }
        self.rotate(checks, now);
        let mut windows: Vec<_> = checks.iter().map(|check| self.take(check.subject)).collect();
        let newcomers = windows.iter().filter(|window| window.is_none()).count();
        let decision = if self.len() + checks.len() > MAX_SUBJECTS && newcomers > 0 {
            Err("too many subjects")
        } else {
            let mut both: Vec<(SlidingWindow, &WindowPolicy)> =
                windows.iter_mut().zip(checks).map(|(window, check)| (window.clone().unwrap_or_default(), check.policy)).collect();
            let mut slots: Vec<_> = both.iter_mut().map(|(window, policy)| (window, *policy)).collect();
            let decision = acquire_all(&mut slots, now);
            if decision.is_granted() {
                windows = both.into_iter().map(|(window, _)| Some(window)).collect();
            }
            Ok(decision)
        };
        for (check, window) in checks.iter().zip(windows) {
            if let Some(window) = window {
                self.young.insert(check.subject.clone(), window);
            }
        }
        decision
    }

    /// The windows as they are, those of strangers empty. As in a decision, the tightest is the one with the fewest slots left,
    /// and of those that are full the one that frees last.
    fn peek(&self, checks: &[LimitCheck<'_>], now: Timestamp) -> Option<RateStatus> {
        let window = |subject| self.young.get(subject).or_else(|| self.old.get(subject));
        let stranger = SlidingWindow::default();
        checks
            .iter()
            .map(|check| window(check.subject).unwrap_or(&stranger).peek(check.policy, now))
            .min_by_key(|status| (status.remaining, (status.remaining == 0).then_some(Reverse(status.reset_at))))
    }

    fn take(&mut self, subject: &Subject) -> Option<SlidingWindow> {
        self.young.remove(subject).or_else(|| self.old.remove(subject))
    }

    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}
