//! A circuit breaker per provider and model: a provider that keeps failing is left alone for a while.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::id::{ModelId, ProviderId};
use crate::time::Timestamp;

/// When a breaker opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerPolicy {
    /// Failures in a row that open it.
    pub failures: u32,
    /// How long it stays open before one call may probe.
    pub open_for: Duration,
    /// How long a probe may take before another one is let through.
    pub probe_for: Duration,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self { failures: 5, open_for: Duration::from_secs(20), probe_for: Duration::from_secs(60) }
    }
}

/// How a call that a breaker admitted ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The provider answered.
    Success,
    /// The provider failed.
    Failure,
    /// The call ended for reasons of our own, and says nothing about the provider.
    Abandoned,
}

/// What a breaker does with the next call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Calls pass; so many have failed in a row.
    Closed {
        /// Failures since the last success.
        failures: u32,
    },
    /// No call passes.
    Open {
        /// When a probe may pass.
        until: Timestamp,
    },
    /// One call is probing; no other passes until it ends, or takes too long.
    HalfOpen {
        /// When the next probe may pass although this one has not ended.
        until: Timestamp,
    },
}

/// The state machine, without a clock and without locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Breaker {
    state: BreakerState,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { state: BreakerState::Closed { failures: 0 } }
    }
}

impl Breaker {
    /// Its state.
    pub const fn state(&self) -> BreakerState {
        self.state
    }

    /// Whether a call may pass now. The call that ends an open period becomes the probe.
    pub fn admit(&mut self, policy: &BreakerPolicy, now: Timestamp) -> bool {
        // A clock that stepped back must not keep the breaker open for longer than the policy says.
        let due = |until: Timestamp, length: Duration| now >= until || until > now.saturating_add(length);
        match self.state {
            BreakerState::Closed { .. } => true,
            BreakerState::Open { until } if due(until, policy.open_for) => self.probe(policy, now),
            BreakerState::HalfOpen { until } if due(until, policy.probe_for) => self.probe(policy, now),
            BreakerState::Open { .. } | BreakerState::HalfOpen { .. } => false,
        }
    }

    fn probe(&mut self, policy: &BreakerPolicy, now: Timestamp) -> bool {
        self.state = BreakerState::HalfOpen { until: now.saturating_add(policy.probe_for) };
        true
    }

    /// Takes note of how an admitted call ended.
    pub fn record(&mut self, policy: &BreakerPolicy, outcome: Outcome, now: Timestamp) {
        let open = BreakerState::Open { until: now.saturating_add(policy.open_for) };
        self.state = match (self.state, outcome) {
            (BreakerState::Closed { .. } | BreakerState::HalfOpen { .. }, Outcome::Success) => {
                BreakerState::Closed { failures: 0 }
            }
            (BreakerState::Closed { failures }, Outcome::Failure) if failures + 1 < policy.failures => {
                BreakerState::Closed { failures: failures + 1 }
            }
            (BreakerState::Closed { .. } | BreakerState::HalfOpen { .. }, Outcome::Failure) => open,
            // The probe said nothing: let another one through at once.
            (BreakerState::HalfOpen { .. }, Outcome::Abandoned) => BreakerState::Open { until: now },
            // A call from before the opening came back late.
            (state @ BreakerState::Open { .. }, _) | (state @ BreakerState::Closed { .. }, Outcome::Abandoned) => state,
        };
    }

    fn is_idle(&self) -> bool {
        self.state == BreakerState::Closed { failures: 0 }
    }
}

type Key = (ProviderId, ModelId);

/// The breakers of a process. Only those that have something to remember take memory, and never more than
/// [`Breakers::CAPACITY`]: a client may name models that do not exist. When there are more, a closed one is forgotten.
#[derive(Debug, Clone)]
pub struct Breakers {
    policy: BreakerPolicy,
    breakers: Arc<Mutex<HashMap<Key, Breaker>>>,
}

impl Breakers {
    /// The most breakers that are remembered.
    pub const CAPACITY: usize = 1024;

    /// Breakers that all follow `policy`.
    pub fn new(policy: BreakerPolicy) -> Self {
        Self { policy, breakers: Arc::default() }
    }

    /// Asks to call `model` at `provider`; `None` when its breaker is open. Who got a call must end it by
    /// [`Admitted::record`]; one that is dropped counts as abandoned.
    pub fn admit(&self, provider: &ProviderId, model: &ModelId, now: Timestamp) -> Option<Admitted> {
        let key = (provider.clone(), model.clone());
        let admitted = self.with(|breakers| breakers.get_mut(&key).is_none_or(|b| b.admit(&self.policy, now)));
        admitted.then(|| Admitted { breakers: self.clone(), key: Some(key), at: now })
    }

    fn record(&self, key: Key, outcome: Outcome, now: Timestamp) {
        self.with(|breakers| {
            let mut breaker = breakers.get(&key).copied().unwrap_or_default();
            breaker.record(&self.policy, outcome, now);
            if breaker.is_idle() {
                breakers.remove(&key);
            } else {
                if breakers.len() >= Self::CAPACITY && !breakers.contains_key(&key) {
                    let is_closed = |breaker: &Breaker| matches!(breaker.state, BreakerState::Closed { .. });
                    let Some(closed) = breakers.iter().find(|(_, b)| is_closed(b)).map(|(key, _)| key.clone()) else {
                        return;
                    };
                    breakers.remove(&closed);
                }
                breakers.insert(key, breaker);
            }
        });
    }

    fn with<T>(&self, change: impl FnOnce(&mut HashMap<Key, Breaker>) -> T) -> T {
        // A breaker is a plain value, so a panic elsewhere cannot have left it half changed.
        change(&mut self.breakers.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A call that a breaker let pass.
#[derive(Debug)]
pub struct Admitted {
    breakers: Breakers,
    key: Option<Key>,
    at: Timestamp,
}

impl Admitted {
    /// Tells the breaker that the provider has begun to answer. A probe has shown by that what it was for; the call goes on.
    pub fn answered(&self) {
        if let Some(key) = &self.key {
            self.breakers.with(|breakers| {
                if breakers.get(key).is_some_and(|b| matches!(b.state, BreakerState::HalfOpen { .. })) {
                    breakers.remove(key);
                }
            });
        }
    }

    /// Tells the breaker how the call ended.
    pub fn record(mut self, outcome: Outcome, now: Timestamp) {
        if let Some(key) = self.key.take() {
            self.breakers.record(key, outcome, now);
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.breakers.record(key, Outcome::Abandoned, self.at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POLICY: BreakerPolicy =
        BreakerPolicy { failures: 3, open_for: Duration::from_secs(10), probe_for: Duration::from_secs(5) };

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    #[test]
    fn it_opens_half_opens_and_closes() {
        let mut breaker = Breaker::default();
        for second in 0..3 {
            assert!(breaker.admit(&POLICY, at(second)));
            breaker.record(&POLICY, Outcome::Failure, at(second));
        }
        assert!(!breaker.admit(&POLICY, at(11)), "open for ten seconds after the third failure");
        assert!(breaker.admit(&POLICY, at(12)), "then one call probes");
        assert!(!breaker.admit(&POLICY, at(12)), "and only one");
        breaker.record(&POLICY, Outcome::Failure, at(13));
        assert!(!breaker.admit(&POLICY, at(22)), "a failed probe opens it again");
        assert!(breaker.admit(&POLICY, at(23)));
        breaker.record(&POLICY, Outcome::Success, at(24));
        assert_eq!(breaker.state(), BreakerState::Closed { failures: 0 });
    }

    #[test]
    fn a_probe_that_never_ends_does_not_keep_it_half_open() {
        let mut breaker = Breaker { state: BreakerState::Open { until: at(1) } };
        assert!(breaker.admit(&POLICY, at(1)));
        assert!(!breaker.admit(&POLICY, at(5)));
        assert!(breaker.admit(&POLICY, at(6)));
    }

    #[test]
    fn a_dropped_call_frees_its_probe_and_names_cannot_fill_memory() {
        let breakers = Breakers::new(BreakerPolicy { failures: 1, ..POLICY });
        let (provider, model) = ("p".parse().unwrap(), "m".parse().unwrap());
        breakers.admit(&provider, &model, at(0)).unwrap().record(Outcome::Failure, at(0));
        assert!(breakers.admit(&provider, &model, at(1)).is_none());
        drop(breakers.admit(&provider, &model, at(10)).unwrap());
        assert!(breakers.admit(&provider, &model, at(10)).is_some());
        for n in 0..2 * Breakers::CAPACITY {
            let model = ModelId::new(&format!("m{n}")).unwrap();
            breakers.admit(&provider, &model, at(0)).unwrap().record(Outcome::Failure, at(0));
        }
        assert_eq!(breakers.with(|all| all.len()), Breakers::CAPACITY);
    }

    #[test]
    fn names_without_meaning_do_not_crowd_out_a_model_that_fails() {
        let breakers = Breakers::new(POLICY);
        let provider: ProviderId = "p".parse().unwrap();
        let fail = |name: &str| {
            let model = ModelId::new(name).unwrap();
            if let Some(call) = breakers.admit(&provider, &model, at(0)) {
                call.record(Outcome::Failure, at(0));
            }
        };
        for n in 0..2 * Breakers::CAPACITY {
            fail(&format!("m{n}"));
        }
        for _ in 0..POLICY.failures {
            fail("real");
        }
        assert!(breakers.admit(&provider, &"real".parse().unwrap(), at(1)).is_none());
    }

    #[test]
    fn a_probe_that_begins_to_answer_lets_the_others_in() {
        let breakers = Breakers::new(BreakerPolicy { failures: 1, ..POLICY });
        let (provider, model) = ("p".parse().unwrap(), "m".parse().unwrap());
        breakers.admit(&provider, &model, at(0)).unwrap().record(Outcome::Failure, at(0));
        let probe = breakers.admit(&provider, &model, at(10)).unwrap();
        assert!(breakers.admit(&provider, &model, at(10)).is_none());
        probe.answered();
        drop(breakers.admit(&provider, &model, at(10)).unwrap());
        probe.record(Outcome::Failure, at(11));
        assert!(breakers.admit(&provider, &model, at(12)).is_none(), "it broke off after all");
    }

    proptest! {
        #[test]
        fn it_passes_everything_below_the_threshold_and_never_stays_shut(
            steps in proptest::collection::vec((0u64..12, 0u8..3), 1..80)
        ) {
            let mut breaker = Breaker::default();
            let (mut now, mut in_a_row) = (0, 0);
            for (pause, outcome) in steps {
                now += pause;
                let admitted = breaker.admit(&POLICY, at(now));
                if in_a_row < POLICY.failures {
                    prop_assert!(admitted, "shut after {} failures", in_a_row);
                }
                if admitted {
                    let outcome = [Outcome::Success, Outcome::Failure, Outcome::Abandoned][usize::from(outcome)];
                    breaker.record(&POLICY, outcome, at(now));
                    match outcome {
                        Outcome::Success => in_a_row = 0,
                        Outcome::Failure => in_a_row += 1,
                        Outcome::Abandoned => {}
                    }
                }
                prop_assert!(breaker.clone().admit(&POLICY, at(now + 10)), "shut for longer than its policy");
            }
        }
    }
}
