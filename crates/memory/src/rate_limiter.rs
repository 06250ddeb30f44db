//! Sliding windows in memory.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use enigma_core::limit::{Decision, LimitCheck, RateStatus, SlidingWindow, SteadyTime, Subject, acquire_all, peek_all};
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
    time: SteadyTime,
}

impl Subjects {
    fn acquire(&mut self, checks: &[LimitCheck<'_>], now: Timestamp) -> Result<Decision, &'static str> {
        let is_repeated =
            |(place, check): (usize, &LimitCheck<'_>)| checks[..place].iter().any(|it| it.subject == check.subject);
        if checks.iter().enumerate().any(is_repeated) {
            return Err("a request checks one subject twice");
        }
        let now = self.time.at(now);
        self.rotate(checks, now);
        if self.young.len() + self.old.len() + checks.len() > MAX_SUBJECTS
            && checks.iter().any(|it| self.find(it.subject).is_none())
        {
            return Err("too many subjects");
        }
        let (known, mut windows): (Vec<bool>, Vec<SlidingWindow>) = checks
            .iter()
            .map(|check| self.young.remove(check.subject).or_else(|| self.old.remove(check.subject)))
            .map(|window| (window.is_some(), window.unwrap_or_default()))
            .unzip();
        let mut slots: Vec<_> = windows.iter_mut().zip(checks).map(|(window, check)| (window, check.policy)).collect();
        let decision = acquire_all(&mut slots, now);
        for ((check, window), known) in checks.iter().zip(windows).zip(known) {
            if known || decision.is_granted() {
                self.young.insert(check.subject.clone(), window);
            }
        }
        Ok(match decision {
            Decision::Granted { status, at } => Decision::Granted { status: self.time.told(status), at },
            Decision::Denied { status } => Decision::Denied { status: self.time.told(status) },
        })
    }

    fn peek(&mut self, checks: &[LimitCheck<'_>], now: Timestamp) -> RateStatus {
        let now = self.time.at(now);
        let stranger = SlidingWindow::default();
        let windows: Vec<_> =
            checks.iter().map(|check| (self.find(check.subject).unwrap_or(&stranger), check.policy)).collect();
        self.time.told(peek_all(&windows, now))
    }

    fn find(&self, subject: &Subject) -> Option<&SlidingWindow> {
        self.young.get(subject).or_else(|| self.old.get(subject))
    }

    /// Starts a new generation when this one has lasted for two of the longest windows. Whoever is dropped was silent for at
    /// least as long, so that even a clock that then steps back by one window finds nothing missing.
    fn rotate(&mut self, checks: &[LimitCheck<'_>], now: Timestamp) {
        let lengths = checks.iter().map(|check| check.policy.sustained.length.max(check.policy.burst.length));
        self.longest = lengths.fold(self.longest, Duration::max);
        let generation = self.longest.saturating_mul(2);
        if now < self.rotated_at.saturating_add(generation) {
            return;
        }
        // Nobody was asked about since this generation's end, or it would have been ended then.
        let both_are_over = now >= self.rotated_at.saturating_add(generation.saturating_mul(2));
        self.old = std::mem::take(&mut self.young);
        if both_are_over {
            self.old = HashMap::new();
        }
        self.rotated_at = now;
    }
}

#[async_trait]
impl RateLimiter for MemoryRateLimiter {
    async fn acquire(
        &self,
        tenant: &TenantId,
        checks: &[LimitCheck<'_>],
        now: Timestamp,
    ) -> Result<Decision, PortError> {
        self.tenants
            .with(tenant, |subjects| subjects.acquire(checks, now))?
            .map_err(|reason| self.tenants.unavailable(reason))
    }

    async fn peek(
        &self,
        tenant: &TenantId,
        checks: &[LimitCheck<'_>],
        now: Timestamp,
    ) -> Result<RateStatus, PortError> {
        self.tenants.with(tenant, |subjects| subjects.peek(checks, now))
    }
}

#[cfg(test)]
mod tests {
    use enigma_core::limit::{Window, WindowPolicy};

    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    fn policy(limit: u32) -> WindowPolicy {
        let window = Window { limit, length: MINUTE };
        WindowPolicy { sustained: window, burst: window }
    }

    fn minute(number: u64) -> Timestamp {
        Timestamp::from_millis(number * 60_000)
    }

    fn ask(subjects: &mut Subjects, name: &str, policy: &WindowPolicy, now: Timestamp) -> bool {
        let subject = Subject::new("user", name);
        subjects.acquire(&[LimitCheck { subject: &subject, policy }], now).unwrap().is_granted()
    }

    #[test]
    fn idle_subjects_are_forgotten_and_busy_ones_are_not() {
        let (mut subjects, policy) = (Subjects::default(), policy(2));
        for n in 0..1000 {
            assert!(ask(&mut subjects, &n.to_string(), &policy, minute(10)));
        }
        for at in 11..30 {
            assert!(ask(&mut subjects, "busy", &policy, minute(at)));
        }
        let left: Vec<_> = subjects.young.keys().chain(subjects.old.keys()).collect();
        assert_eq!(left, [&Subject::new("user", "busy")]);
    }

    #[test]
    fn nobody_is_forgotten_while_a_window_still_counts_them() {
        let (mut subjects, policy) = (Subjects::default(), policy(1));
        for at in 0..200u64 {
            let now = Timestamp::from_millis(at * 7_000);
            let name = at.to_string();
            assert!(ask(&mut subjects, &name, &policy, now));
            for earlier in at.saturating_sub(8)..=at {
                assert!(!ask(&mut subjects, &earlier.to_string(), &policy, now), "{earlier} at {at}");
            }
        }
        assert!(subjects.young.len() + subjects.old.len() < 60);
    }

    #[test]
    fn who_is_denied_for_the_first_time_takes_no_room() {
        let (mut subjects, one, everybody) = (Subjects::default(), policy(1), Subject::whole_tenant());
        for n in 0..100 {
            let user = Subject::new("user", &n.to_string());
            let checks = [&user, &everybody].map(|subject| LimitCheck { subject, policy: &one });
            assert_eq!(subjects.acquire(&checks, minute(0)).unwrap().is_granted(), n == 0);
        }
        assert_eq!(subjects.young.len(), 2);
    }

    #[test]
    fn a_subject_cannot_be_checked_twice_in_one_call() {
        let (one, two) = (policy(1), policy(2));
        let everybody = Subject::whole_tenant();
        let checks = [&one, &two].map(|policy| LimitCheck { subject: &everybody, policy });
        assert!(Subjects::default().acquire(&checks, minute(0)).is_err());
    }
}
