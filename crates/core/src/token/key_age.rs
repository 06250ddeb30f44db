//! How old an issuer's keys may be, and when they are fetched again.

use std::time::Duration;

use crate::time::Timestamp;

/// How old keys may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyAgePolicy {
    /// Until this age nothing is asked.
    pub fresh: Duration,
    /// Until this age they are used while they are fetched again. Older ones are used only where that fails.
    pub refreshing: Duration,
    /// From this age on they are used no more: nobody gets in until they can be fetched.
    pub usable: Duration,
    /// The least time from one fetch to the next while there are keys to use, whoever asks for it and why: a key that is not
    /// known, or keys that are old.
    pub pause: Duration,
    /// The same while there are none.
    pub retry: Duration,
}

impl Default for KeyAgePolicy {
    /// A key that was withdrawn is refused after a quarter of an hour, or after four hours where its issuer cannot be asked.
    fn default() -> Self {
        Self {
            fresh: Duration::from_secs(5 * 60),
            refreshing: Duration::from_secs(15 * 60),
            usable: Duration::from_secs(4 * 60 * 60),
            pause: Duration::from_secs(30),
            retry: Duration::from_secs(5),
        }
    }
}

/// What is known of an issuer's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeyAge {
    /// When the fetch began that brought those that there are.
    pub fetched_at: Option<Timestamp>,
    /// When the last fetch began, whatever became of it.
    pub tried_at: Option<Timestamp>,
}

/// What is done before a token is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyStep {
    /// The keys are used.
    Use,
    /// The keys are used, and fetched again meanwhile.
    UseAndRefresh,
    /// The keys are fetched first. Should that fail, [`KeyAgePolicy::are_usable`] tells what the old ones are worth.
    RefreshFirst,
    /// There are none that could be used, and it is too soon to ask for them again.
    Refuse,
}

impl KeyAgePolicy {
    /// What is done before a token is checked at `now`.
    pub fn step(&self, age: KeyAge, now: Timestamp) -> KeyStep {
        let may_fetch = self.may_fetch(age, now);
        match self.age(age, now) {
            Some(age) if age < self.fresh => KeyStep::Use,
            Some(age) if age < self.refreshing && may_fetch => KeyStep::UseAndRefresh,
            _ if may_fetch => KeyStep::RefreshFirst,
            Some(age) if age < self.usable => KeyStep::Use,
            _ => KeyStep::Refuse,
        }
    }

    /// Whether keys may be fetched, also for the sake of one that is not known.
    pub fn may_fetch(&self, age: KeyAge, now: Timestamp) -> bool {
        let pause = if self.are_usable(age, now) { self.pause } else { self.retry };
        // A time that is still to come was taken before the clock stepped back.
        age.tried_at.is_none_or(|tried_at| tried_at > now || now.since(tried_at) >= pause)
    }

    /// Whether there are keys that can be used at `now`.
    pub fn are_usable(&self, age: KeyAge, now: Timestamp) -> bool {
        self.age(age, now).is_some_and(|age| age < self.usable)
    }

    fn age(&self, age: KeyAge, now: Timestamp) -> Option<Duration> {
        let fetched_at = age.fetched_at?;
        // A clock that steps back must not make keys young again.
        Some(if fetched_at > now { self.refreshing } else { now.since(fetched_at) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: KeyAgePolicy = KeyAgePolicy {
        fresh: Duration::from_secs(300),
        refreshing: Duration::from_secs(900),
        usable: Duration::from_secs(14_400),
        pause: Duration::from_secs(30),
        retry: Duration::from_secs(5),
    };

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    fn step(fetched_at: Option<u64>, tried_at: Option<u64>, now: u64) -> KeyStep {
        POLICY.step(KeyAge { fetched_at: fetched_at.map(at), tried_at: tried_at.map(at) }, at(now))
    }

    #[test]
    fn the_defaults_are_the_documented_ones() {
        assert_eq!(KeyAgePolicy::default(), POLICY);
    }

    #[test]
    fn keys_grow_old_in_steps() {
        let fetched = |age: u64| step(Some(100_000), Some(100_000), 100_000 + age);
        assert_eq!(fetched(299), KeyStep::Use);
        assert_eq!(fetched(300), KeyStep::UseAndRefresh);
        assert_eq!(fetched(900), KeyStep::RefreshFirst);
        assert_eq!(fetched(14_400), KeyStep::RefreshFirst);
        assert_eq!(step(None, None, 5), KeyStep::RefreshFirst);
    }

    #[test]
    fn what_has_just_failed_is_not_tried_again_at_once() {
        let failed = |age: u64| step(Some(100_000), Some(100_000 + age - 1), 100_000 + age);
        assert_eq!(failed(301), KeyStep::Use);
        assert_eq!(failed(14_399), KeyStep::Use);
        assert_eq!(failed(14_400), KeyStep::Refuse);
        assert_eq!(step(None, Some(100), 104), KeyStep::Refuse);
        assert_eq!(step(None, Some(100), 105), KeyStep::RefreshFirst, "who has nothing asks sooner");
    }

    #[test]
    fn a_clock_that_steps_back_has_keys_fetched_again() {
        assert_eq!(step(Some(1000), Some(1000), 10), KeyStep::RefreshFirst);
        assert_eq!(step(Some(1000), Some(9), 10), KeyStep::Use);
    }

    proptest! {
        #[test]
        fn keys_past_their_bound_are_never_used(
            fetched in proptest::option::of(0u64..30_000), tried in proptest::option::of(0u64..30_000), now in 0u64..60_000,
        ) {
            let uses = matches!(step(fetched, tried, now), KeyStep::Use | KeyStep::UseAndRefresh);
            prop_assert!(!uses || fetched.is_some_and(|fetched| now < fetched + 14_400));
        }

        /// However many ask, and whatever they know.
        #[test]
        fn fetches_keep_their_distance(times in proptest::collection::vec(0u64..100, 1..200)) {
            let (mut now, mut age, mut fetches) = (1_000_000u64, KeyAge::default(), Vec::new());
            for passed in times {
                now += passed;
                if POLICY.may_fetch(age, at(now)) {
                    fetches.push(now);
                    age = KeyAge { fetched_at: Some(at(now)), tried_at: Some(at(now)) };
                }
            }
            prop_assert!(fetches.windows(2).all(|pair| pair[1] - pair[0] >= 30));
        }
    }
}
