//! When a failed call is tried again.

use std::time::Duration;

use super::ModelError;
use crate::time::Timestamp;

/// How often, and after what pause, a call is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Calls of one model in all, the first included.
    pub max_attempts: u32,
    /// The longest pause before the second attempt; it doubles with each one after.
    pub base_delay: Duration,
    /// The longest pause before any attempt.
    pub max_delay: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { max_attempts: 3, base_delay: Duration::from_millis(250), max_delay: Duration::from_secs(5) }
    }
}

impl RetryPolicy {
    /// The pause before the next attempt, after `attempts` have been made and the last one failed with `error`; `None` when
    /// there should be none.
    ///
    /// The pause is drawn evenly from zero to the exponential limit ("full jitter", M. Brooker, *Exponential Backoff And
    /// Jitter*, 2015), `random` being in [0, 1), and is never shorter than the provider's `Retry-After`. A pause that would
    /// reach `deadline` is not worth taking.
    pub fn next_delay(
        &self,
        attempts: u32,
        error: &ModelError,
        random: f64,
        now: Timestamp,
        deadline: Timestamp,
    ) -> Option<Duration> {
        if !error.is_retryable() || attempts >= self.max_attempts {
            return None;
        }
        let doublings = attempts.saturating_sub(1).min(16);
        let limit = self.base_delay.saturating_mul(1 << doublings).min(self.max_delay);
        let delay = limit.mul_f64(random.clamp(0.0, 1.0)).max(error.retry_after().unwrap_or_default());
        (now.saturating_add(delay) < deadline).then_some(delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Phase;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_pause_keeps_to_its_bounds(
            attempts in 1u32..40, random in 0.0f64..1.0, now in 0u64..1_000_000, left in 0u64..20_000,
            asked in proptest::option::of(0u64..10_000), down in proptest::bool::ANY,
        ) {
            let policy = RetryPolicy { max_attempts: 30, ..RetryPolicy::default() };
            let retry_after = asked.map(Duration::from_millis);
            let error = if down {
                ModelError::Unavailable { message: String::new(), source: None, retry_after }
            } else {
                ModelError::RateLimited { retry_after }
            };
            let (now, deadline) = (Timestamp::from_millis(now), Timestamp::from_millis(now + left));
            let delay = policy.next_delay(attempts, &error, random, now, deadline);
            if let Some(delay) = delay {
                prop_assert!(attempts < 30);
                prop_assert!(delay >= Duration::from_millis(asked.unwrap_or(0)));
                prop_assert!(delay <= policy.max_delay.max(Duration::from_millis(asked.unwrap_or(0))));
                prop_assert!(now.saturating_add(delay) < deadline);
            }
        }
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let policy = RetryPolicy::default();
        let far = Timestamp::from_millis(1_000_000);
        let tried = |error: &ModelError| policy.next_delay(1, error, 0.5, Timestamp::from_millis(0), far).is_some();
        assert!(tried(&ModelError::unavailable("503")));
        assert!(tried(&ModelError::Timeout(Phase::FirstToken)));
        assert!(!tried(&ModelError::Rejected { status: 400, message: String::new() }));
        assert!(!tried(&ModelError::Unsupported { feature: "tools" }));
        assert!(!tried(&ModelError::Busy));
    }
}
