//! Whose turn of a session it is, and who waits.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::RequestId;
use crate::time::Timestamp;

/// The request that has the turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnHolder {
    /// The request.
    pub request: RequestId,
    /// When it is taken for dead, and the next one is let in.
    pub expires_at: Timestamp,
}

/// The line of those who want a session's turn: one has it, the others wait in the order in which they came.
///
/// It only says who has the turn. An adapter keeps the holder where it survives, and tells those whose turn it has become.
///
/// ```
/// use enigma_core::session::TurnLine;
/// use enigma_core::{RequestId, Timestamp};
///
/// let [first, second] = [1, 2].map(|n| RequestId::new(uuid::Uuid::from_u128(n)));
/// let (now, lease) = (Timestamp::from_millis(0), std::time::Duration::from_secs(60));
/// let mut line = TurnLine::default();
/// assert!(line.enter(first, lease, now));
/// assert!(!line.enter(second, lease, now), "it has to wait");
/// line.leave(&first);
/// assert_eq!(line.let_in(now), Some(second));
/// ```
#[derive(Debug, Clone, Default)]
pub struct TurnLine {
    holder: Option<TurnHolder>,
    /// With how long each may have it.
    waiting: VecDeque<(RequestId, Duration)>,
}

impl TurnLine {
    /// A line in which nobody waits.
    pub fn restore(holder: Option<TurnHolder>) -> Self {
        Self { holder, waiting: VecDeque::new() }
    }

    /// Who has the turn.
    pub fn holder(&self) -> Option<&TurnHolder> {
        self.holder.as_ref()
    }

    /// Whether nobody has the turn, and nobody waits for it.
    pub fn is_empty(&self) -> bool {
        self.holder.is_none() && self.waiting.is_empty()
    }

    /// Gives `request` the turn for at most `lease`, when it is free and nobody waits; puts it at the end of the line
    /// otherwise. Whether it has the turn. To enter twice changes nothing.
    pub fn enter(&mut self, request: RequestId, lease: Duration, now: Timestamp) -> bool {
        if self.holder.is_some_and(|holder| holder.request == request) {
            return true;
        }
        if !self.waiting.iter().any(|(waiting, _)| *waiting == request) {
            self.waiting.push_back((request, lease));
        }
        // Those before it are let in one by one, and told so; it may only take what is left to it.
        self.waiting.len() == 1 && self.let_in(now) == Some(request)
    }

    /// Takes `request` out, whether it has the turn or waits; whether it was there.
    pub fn leave(&mut self, request: &RequestId) -> bool {
        if self.holder.is_some_and(|holder| holder.request == *request) {
            self.holder = None;
            return true;
        }
        let before = self.waiting.len();
        self.waiting.retain(|(waiting, _)| waiting != request);
        self.waiting.len() < before
    }

    /// Gives the turn to the first who waits, when its holder has left or is taken for dead at `now`; tells who has it then.
    pub fn let_in(&mut self, now: Timestamp) -> Option<RequestId> {
        if self.holder.is_some_and(|holder| now < holder.expires_at) {
            return None;
        }
        let next = self.waiting.pop_front();
        self.holder = next.map(|(request, lease)| TurnHolder { request, expires_at: now.saturating_add(lease) });
        self.holder.map(|holder| holder.request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn request(number: u128) -> RequestId {
        RequestId::new(Uuid::from_u128(number))
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    const LEASE: Duration = Duration::from_millis(100);

    #[test]
    fn a_dead_holder_makes_room_for_the_first_who_waits() {
        let mut line = TurnLine::default();
        assert!(line.enter(request(1), LEASE, at(0)));
        assert!(!line.enter(request(2), LEASE, at(50)));
        assert!(!line.enter(request(3), LEASE, at(50)));
        assert_eq!(line.let_in(at(99)), None);
        assert_eq!(line.let_in(at(100)), Some(request(2)));
        assert!(!line.leave(&request(1)), "its turn was over");
        assert_eq!(line.holder(), Some(&TurnHolder { request: request(2), expires_at: at(200) }));
    }

    #[test]
    fn a_restored_holder_keeps_the_others_waiting_until_it_expires() {
        let mut line = TurnLine::restore(Some(TurnHolder { request: request(1), expires_at: at(100) }));
        assert!(line.enter(request(1), LEASE, at(0)), "it has the turn already");
        assert!(!line.enter(request(2), LEASE, at(0)));
        assert_eq!(line.let_in(at(100)), Some(request(2)));
    }

    proptest! {
        #[test]
        fn one_at_a_time_in_the_order_in_which_they_came(
            steps in proptest::collection::vec((0u128..6, 0u8..3), 1..100),
        ) {
            let mut line = TurnLine::default();
            let mut oracle: VecDeque<u128> = VecDeque::new();
            for (who, step) in steps {
                if step == 0 {
                    line.leave(&request(who));
                    oracle.retain(|other| *other != who);
                    line.let_in(at(0));
                } else {
                    let has_it = line.enter(request(who), LEASE, at(0));
                    if !oracle.contains(&who) {
                        oracle.push_back(who);
                    }
                    prop_assert_eq!(has_it, oracle.front() == Some(&who));
                }
                prop_assert_eq!(line.holder().map(|holder| holder.request), oracle.front().copied().map(request));
                prop_assert_eq!(line.is_empty(), oracle.is_empty());
            }
        }
    }
}
