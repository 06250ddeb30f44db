//! How long messages are kept, and how many.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::StoredMessage;
use crate::time::Timestamp;

/// What a session may keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// Days.
    pub days: u32,
    /// Messages.
    pub max_messages: u32,
}

impl Retention {
    /// The first time that is still kept at `now`.
    pub fn cutoff(&self, now: Timestamp) -> Timestamp {
        now.saturating_sub(Duration::from_secs(u64::from(self.days) * 86_400))
    }
}

/// Leaves of a session's messages, oldest first, what may be kept at `now`: the newest ones, in their order.
///
/// This is the definition. Adapters that keep messages in a database say the same in its language, and the contract suite holds
/// them against it.
pub fn prune(mut messages: Vec<StoredMessage>, retention: &Retention, now: Timestamp) -> Vec<StoredMessage> {
    let cutoff = retention.cutoff(now);
    messages.retain(|message| message.at >= cutoff);
    let surplus = messages.len().saturating_sub(retention.max_messages as usize);
    messages.drain(..surplus);
    messages
}

/// The most that a clock may run ahead of a timer between two sweeps.
const STEP: Duration = Duration::from_secs(3600);
/// How long a program may have been away before its clock is doubted.
const ABSENCE: Duration = Duration::from_secs(7 * 86_400);
/// How long a doubted date must stand before it is believed.
const PROBATION: Duration = Duration::from_secs(86_400);

/// Tells whether the date can be trusted with what cannot be undone: to remove what has had its time.
///
/// A clock that has jumped ahead would have everything removed at once. So a date that cannot be explained by the time that has
/// passed, as a timer counts it, is doubted until it has stood for a day, or the clock is put right. Removing late does no
/// harm, as what is beyond its time is not shown either way.
#[derive(Debug, Clone, Copy)]
pub struct DateGuard {
    believed: Timestamp,
    doubted_for: Option<Duration>,
}

impl DateGuard {
    /// A guard that starts at `now`, with the last time at which the data is known to have been written.
    pub fn new(written: Option<Timestamp>, now: Timestamp) -> Self {
        match written.filter(|written| now > written.saturating_add(ABSENCE)) {
            Some(written) => Self { believed: written, doubted_for: Some(Duration::ZERO) },
            None => Self { believed: now, doubted_for: None },
        }
    }

    /// Whether `now` can be trusted, when a timer has counted `elapsed` since this was last asked.
    pub fn trusts(&mut self, now: Timestamp, elapsed: Duration) -> bool {
        let expected = self.believed.saturating_add(elapsed).saturating_add(STEP);
        let doubted_for = self.doubted_for.unwrap_or_default().saturating_add(elapsed);
        if now <= expected || self.doubted_for.is_some() && doubted_for >= PROBATION {
            *self = Self { believed: now, doubted_for: None };
            return true;
        }
        let doubted_for = if self.doubted_for.is_some() { doubted_for } else { Duration::ZERO };
        *self = Self { believed: self.believed.saturating_add(elapsed), doubted_for: Some(doubted_for) };
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::MessageId;
    use crate::model::Role;
    use proptest::prelude::*;
    use uuid::Uuid;

    const DAY: Duration = Duration::from_secs(86_400);
    const HOUR: Duration = Duration::from_secs(3600);

    fn day(n: u64) -> Timestamp {
        Timestamp::from_millis(n * 86_400_000)
    }

    #[test]
    fn a_clock_that_jumps_ahead_is_doubted_until_it_is_put_right() {
        let mut guard = DateGuard::new(None, day(100));
        assert!(guard.trusts(day(100).saturating_add(HOUR), HOUR));
        for hours in 2..10 {
            assert!(!guard.trusts(day(140).saturating_add(HOUR * hours), HOUR));
        }
        assert!(guard.trusts(day(100).saturating_add(HOUR * 10), HOUR));
        assert!(guard.trusts(day(100).saturating_add(HOUR * 11), HOUR));
    }

    #[test]
    fn a_date_that_stands_for_a_day_is_believed() {
        let mut guard = DateGuard::new(None, day(100));
        let start = day(140);
        let refused = (1..100).take_while(|hours| !guard.trusts(start.saturating_add(HOUR * *hours), HOUR)).count();
        assert_eq!(refused, 24);
        assert!(guard.trusts(start.saturating_add(HOUR * 26), HOUR));
    }

    #[test]
    fn a_short_absence_is_no_jump_and_a_long_one_waits_a_day() {
        assert!(DateGuard::new(Some(day(100)), day(106)).trusts(day(106), Duration::ZERO));
        let mut guard = DateGuard::new(Some(day(100)), day(108));
        assert!(!guard.trusts(day(108), Duration::ZERO));
        assert!(!guard.trusts(day(108).saturating_add(HOUR), HOUR));
        assert!(guard.trusts(day(109).saturating_add(HOUR), DAY));
        let mut guard = DateGuard::new(Some(day(100)), day(90));
        assert!(guard.trusts(day(90), Duration::ZERO), "what is early removes too little, not too much");
    }

    proptest! {
        #[test]
        fn no_clock_that_keeps_jumping_ahead_is_ever_trusted_with_more_than_has_passed(
            jumps in proptest::collection::vec((1u64..30, 0u64..200), 1..50),
        ) {
            // Each jump comes before the last one was believed: a day has not passed since.
            let (mut guard, mut truth, mut off) = (DateGuard::new(None, day(1000)), day(1000), Duration::ZERO);
            for (jump, minutes) in jumps {
                let elapsed = Duration::from_secs(minutes * 60);
                truth = truth.saturating_add(elapsed);
                off += DAY * u32::try_from(jump).unwrap();
                let trusted = guard.trusts(truth.saturating_add(off), elapsed);
                let passed = truth.since(day(1000));
                prop_assert!(!trusted || passed >= DAY);
            }
        }

        #[test]
        fn order_is_kept_and_nothing_old_or_surplus_stays(
            times in proptest::collection::vec(0u64..40, 0..60), days in 1u32..20, max_messages in 1u32..20, now in 0u64..60,
        ) {
            let day = |n: u64| Timestamp::from_millis(n * 86_400_000);
            let messages: Vec<StoredMessage> = times.iter().zip(0u128..).map(|(at, n)| StoredMessage {
                id: MessageId::new(Uuid::from_u128(n)), role: Role::User, content: String::new(), at: day(*at),
                tokens: None, truncated: false,
            }).collect();
            let retention = Retention { days, max_messages };
            let kept = prune(messages.clone(), &retention, day(now));

            prop_assert!(kept.len() <= max_messages as usize);
            prop_assert!(kept.iter().all(|m| day(now).since(m.at) <= Duration::from_secs(u64::from(days) * 86_400)));
            prop_assert!(kept.windows(2).all(|w| w[0].id < w[1].id), "order is kept");
            let young: Vec<_> = messages.iter().filter(|m| m.at >= retention.cutoff(day(now))).collect();
            let expected = &young[young.len().saturating_sub(max_messages as usize)..];
            prop_assert!(kept.iter().eq(expected.iter().copied()), "the newest stay");
        }
    }
}
