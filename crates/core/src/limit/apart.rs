//! One decision on windows that live in different places, each of which sees its own only.
//!
//! The places stand in a line. Each is asked by the one before it, and asks the one after it; while it waits for that answer it
//! takes no other request. So together they decide as [`acquire_all`](super::acquire_all) does on windows that lie side by
//! side: every window gives a slot, or none does, at one time for all of them.

use std::cmp::Reverse;

use serde::{Deserialize, Serialize};

use super::{Decision, RateStatus, SlidingWindow, WindowPolicy};
use crate::time::Timestamp;

/// What a place asks the one after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// Take a slot of every window from there on, counted at this time or later. Answered by a [`Decision`].
    Acquire(Timestamp),
    /// Would a request at this time be denied? Answered by an [`Opinion`].
    Consult(Timestamp),
}

/// What the windows from a place on say of a request, without taking a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opinion {
    /// The time under which they would count it.
    pub at: Timestamp,
    /// The status of the window that frees last, of those without room.
    pub denial: Option<RateStatus>,
}

/// What a place does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It asks the place after it.
    Ask(Question),
    /// It answers.
    Answer(Decision),
}

impl SlidingWindow {
    /// What this window alone says of a request at `now`.
    pub fn consult(&self, policy: &WindowPolicy, now: Timestamp) -> Opinion {
        let at = self.forward(now);
        let denial = (!self.has_room(policy, at)).then(|| self.status(policy, at));
        Opinion { at, denial }
    }

    /// What this window and those after it say, given what they say of a request at [`consult`](Self::consult)'s time.
    pub fn consult_with(&self, policy: &WindowPolicy, rest: &Opinion) -> Opinion {
        let own = self.consult(policy, rest.at);
        Opinion { at: own.at, denial: last_to_free([own.denial, rest.denial]) }
    }

    /// The first step of a place that is asked to take a slot at `now`, and has others after it.
    pub fn begin(&self, policy: &WindowPolicy, now: Timestamp) -> Step {
        let Opinion { at, denial } = self.consult(policy, now);
        Step::Ask(if denial.is_none() { Question::Acquire(at) } else { Question::Consult(at) })
    }

    /// The step after the places behind have said whether they would deny.
    pub fn after_opinion(&self, policy: &WindowPolicy, rest: &Opinion) -> Step {
        let Opinion { at, denial } = self.consult(policy, rest.at);
        match denial {
            // By the time of those behind there is room.
            None => Step::Ask(Question::Acquire(at)),
            Some(own) => Step::Answer(Decision::Denied {
                status: last_to_free([Some(own), rest.denial]).expect("one of the two is there"),
            }),
        }
    }

    /// Takes this window's slot, or not, as the places behind have decided.
    pub fn after_decision(&mut self, policy: &WindowPolicy, rest: Decision) -> Decision {
        let Decision::Granted { status: theirs, at } = rest else { return rest };
        match self.acquire(policy, at) {
            Decision::Granted { status, at } => Decision::Granted { status: tightest([status, theirs]), at },
            // Not in a place that takes one request at a time: time only frees what had room when it asked.
            denied @ Decision::Denied { .. } => denied,
        }
    }

    /// How full this window and those behind it are, given their status and their time.
    pub fn peek_with(&self, policy: &WindowPolicy, rest: RateStatus, at: Timestamp) -> RateStatus {
        tightest([self.status(policy, self.forward(at)), rest])
    }

    /// The time under which this window would count a request at `now`.
    pub fn time_of(&self, now: Timestamp) -> Timestamp {
        self.forward(now)
    }
}

/// The status with the fewest slots left; of those with as many, the one that frees last.
fn tightest(statuses: [RateStatus; 2]) -> RateStatus {
    let [first, second] = statuses;
    let tightness = |status: &RateStatus| (status.remaining, Reverse(status.reset_at));
    if tightness(&second) < tightness(&first) { second } else { first }
}

fn last_to_free(denials: [Option<RateStatus>; 2]) -> Option<RateStatus> {
    denials.into_iter().flatten().min_by_key(|status| Reverse(status.reset_at))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::limit::{Window, acquire_all, peek_all};

    type Place = (SlidingWindow, WindowPolicy);

    fn acquire(line: &mut [Place], now: Timestamp) -> Decision {
        let ([(window, policy)], rest) = line.split_at_mut(1) else { unreachable!("a line has a first place") };
        if rest.is_empty() {
            return window.acquire(policy, now);
        }
        let mut step = window.begin(policy, now);
        loop {
            match step {
                Step::Answer(decision) => return decision,
                Step::Ask(Question::Acquire(at)) => return window.after_decision(policy, acquire(rest, at)),
                Step::Ask(Question::Consult(at)) => step = window.after_opinion(policy, &consult(rest, at)),
            }
        }
    }

    fn consult(line: &[Place], now: Timestamp) -> Opinion {
        let [(window, policy), rest @ ..] = line else { unreachable!("a line has a first place") };
        let own = window.consult(policy, now);
        if rest.is_empty() { own } else { window.consult_with(policy, &consult(rest, own.at)) }
    }

    fn peek(line: &[Place], now: Timestamp) -> (RateStatus, Timestamp) {
        let [(window, policy), rest @ ..] = line else { unreachable!("a line has a first place") };
        let at = window.time_of(now);
        if rest.is_empty() {
            return (window.peek(policy, at), at);
        }
        let (theirs, at) = peek(rest, at);
        (window.peek_with(policy, theirs, at), at)
    }

    fn policies() -> impl Strategy<Value = WindowPolicy> {
        (1u32..4, 1u64..30, 1u32..4, 1u64..30).prop_map(|(limit, length, burst, burst_length)| {
            let window = |limit, seconds| Window { limit, length: Duration::from_secs(seconds) };
            WindowPolicy { sustained: window(limit, length.max(burst_length)), burst: window(burst, burst_length) }
        })
    }

    proptest! {
        #[test]
        fn places_in_a_line_decide_as_windows_side_by_side(
            policies in proptest::collection::vec(policies(), 1..4),
            // A request asks a tail of the line, at a time that may step back.
            requests in proptest::collection::vec((0usize..3, 0u64..60), 1..80),
        ) {
            let mut line: Vec<Place> = policies.into_iter().map(|policy| (SlidingWindow::default(), policy)).collect();
            let mut beside = line.clone();
            for (skipped, at) in requests {
                let (skipped, now) = (skipped.min(line.len() - 1), Timestamp::from_millis(at * 1000));
                let windows: Vec<_> = beside[skipped..].iter().map(|(window, policy)| (window, policy)).collect();
                prop_assert_eq!(peek(&line[skipped..], now).0, peek_all(&windows, now));
                let mut windows: Vec<_> =
                    beside[skipped..].iter_mut().map(|(window, policy)| (window, &*policy)).collect();
                prop_assert_eq!(acquire(&mut line[skipped..], now), acquire_all(&mut windows, now));
                for ((window, _), (expected, _)) in line.iter().zip(&beside) {
                    prop_assert!(window.granted().eq(expected.granted()));
                }
            }
        }
    }
}
