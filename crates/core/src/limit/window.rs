//! An exact sliding window of two lengths: a sustained one, and a short one against bursts.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// Whose requests are counted together, within one tenant.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subject(Arc<str>);

impl Subject {
    /// A subject of a kind, such as `user` or `address`; subjects of different kinds never meet.
    pub fn new(kind: &'static str, name: &str) -> Self {
        Self([kind, ":", name].concat().into())
    }

    /// The tenant as a whole.
    pub fn whole_tenant() -> Self {
        Self(Arc::from("tenant"))
    }

    /// The subject that `text` stands for, from what [`as_str`](Self::as_str) gave: for adapters that send subjects as text. To
    /// anything else it gives whatever subject that text happens to be.
    pub fn from_text(text: &str) -> Self {
        Self(Arc::from(text))
    }

    /// The subject as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// At most `limit` requests in any `length` of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Requests.
    pub limit: u32,
    /// Length of time.
    pub length: Duration,
}

/// The two windows that hold at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowPolicy {
    /// The long one.
    pub sustained: Window,
    /// The short one; never longer than the sustained one.
    pub burst: Window,
}

/// How full the tighter of the windows is; what the rate-limit headers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateStatus {
    /// The window's limit.
    pub limit: u32,
    /// Requests that it would still allow now.
    pub remaining: u32,
    /// When a slot frees. For a denied request: the first time at which it would be granted.
    pub reset_at: Timestamp,
    /// The window's length.
    pub length: Duration,
}

/// Whether a request may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decision {
    /// It took a slot.
    Granted {
        /// The windows after it.
        status: RateStatus,
        /// The time under which it was counted, by which the slot can be given back.
        at: Timestamp,
    },
    /// It took none.
    Denied {
        /// The windows as they are.
        status: RateStatus,
    },
}

impl Decision {
    /// Whether it took a slot.
    pub const fn is_granted(&self) -> bool {
        matches!(self, Self::Granted { .. })
    }

    /// The windows.
    pub const fn status(&self) -> &RateStatus {
        match self {
            Self::Granted { status, .. } | Self::Denied { status } => status,
        }
    }
}

/// One of the limits that a request must pass.
#[derive(Debug, Clone, Copy)]
pub struct LimitCheck<'a> {
    /// Whose.
    pub subject: &'a Subject,
    /// Which.
    pub policy: &'a WindowPolicy,
}

/// The times of the requests that were granted, oldest first, no more of them than the sustained limit.
///
/// A window holds the requests after `now - length`. To ask whether it is full takes one look at the request that lies `limit`
/// from the newest; times that have left the long window are dropped when a new one is added. So a decision costs O(1),
/// amortised, whatever the limit. Times never run backwards: a clock that steps back is taken to stand still.
///
/// ```
/// use std::time::Duration;
/// use enigma_core::Timestamp;
/// use enigma_core::limit::{SlidingWindow, Window, WindowPolicy};
///
/// let window = |limit, secs| Window { limit, length: Duration::from_secs(secs) };
/// let policy = WindowPolicy { sustained: window(3, 60), burst: window(2, 10) };
/// let mut requests = SlidingWindow::default();
/// let at = |seconds: u64| Timestamp::from_millis(seconds * 1000);
/// assert!(requests.acquire(&policy, at(0)).is_granted());
/// assert!(requests.acquire(&policy, at(1)).is_granted());
/// let denied = requests.acquire(&policy, at(2));
/// assert!(!denied.is_granted(), "two in ten seconds are enough");
/// assert_eq!(denied.status().reset_at, at(10));
/// assert!(requests.acquire(&policy, at(10)).is_granted());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SlidingWindow {
    granted: VecDeque<Timestamp>,
    /// How many of the newest lie in the burst window, counted for this length of it. Only a lower bound on what has left.
    burst_count: usize,
    burst_length: Duration,
}

impl SlidingWindow {
    /// Restores a window from the times it gave out, oldest first.
    pub fn from_granted(granted: impl IntoIterator<Item = Timestamp>) -> Self {
        Self { granted: granted.into_iter().collect(), burst_count: 0, burst_length: Duration::ZERO }
    }

    /// The times of the granted requests, oldest first.
    pub fn granted(&self) -> impl ExactSizeIterator<Item = Timestamp> + '_ {
        self.granted.iter().copied()
    }

    /// Whether nothing is left in it at `now`, so that it can be forgotten.
    pub fn is_idle(&self, policy: &WindowPolicy, now: Timestamp) -> bool {
        self.granted.back().is_none_or(|newest| has_left(*newest, &policy.sustained, now))
    }

    /// Takes a slot, or leaves everything as it is.
    pub fn acquire(&mut self, policy: &WindowPolicy, now: Timestamp) -> Decision {
        let now = self.forward(now);
        if !self.has_room(policy, now) {
            return Decision::Denied { status: self.status(policy, now) };
        }
        Decision::Granted { at: now, status: self.take(policy, now) }
    }

    /// How full the tighter window is, without taking a slot.
    pub fn peek(&self, policy: &WindowPolicy, now: Timestamp) -> RateStatus {
        self.status(policy, self.forward(now))
    }

    /// Gives a slot back that was taken at `at`, for a request that another limit then refused.
    pub fn give_back(&mut self, at: Timestamp) {
        if let Some(place) = self.granted.iter().rposition(|granted| *granted == at) {
            self.granted.remove(place);
            self.burst_length = Duration::ZERO;
        }
    }

    pub(super) fn forward(&self, now: Timestamp) -> Timestamp {
        self.granted.back().map_or(now, |newest| now.max(*newest))
    }

    pub(super) fn has_room(&self, policy: &WindowPolicy, now: Timestamp) -> bool {
        [&policy.sustained, &policy.burst]
            .into_iter()
            .all(|window| self.blocker(window).is_none_or(|at| has_left(at, window, now)))
    }

    /// The request that must have left `window` before another one fits.
    fn blocker(&self, window: &Window) -> Option<Timestamp> {
        let place = self.granted.len().checked_sub(window.limit as usize)?;
        self.granted.get(place).copied()
    }

    fn take(&mut self, policy: &WindowPolicy, now: Timestamp) -> RateStatus {
        while self.granted.front().is_some_and(|oldest| has_left(*oldest, &policy.sustained, now)) {
            self.granted.pop_front();
        }
        if self.burst_length != policy.burst.length {
            self.burst_length = policy.burst.length;
            self.burst_count = self.granted.len();
        }
        self.granted.push_back(now);
        self.burst_count = (self.burst_count + 1).min(self.granted.len());
        while has_left(self.granted[self.granted.len() - self.burst_count], &policy.burst, now) {
            self.burst_count -= 1;
        }
        self.tighter(policy, now, self.granted.len(), self.burst_count)
    }

    pub(super) fn status(&self, policy: &WindowPolicy, now: Timestamp) -> RateStatus {
        let blocked = [&policy.sustained, &policy.burst]
            .into_iter()
            .filter_map(|window| self.blocker(window).filter(|at| !has_left(*at, window, now)).map(|at| (window, at)))
            .map(|(window, at)| RateStatus {
                limit: window.limit,
                remaining: 0,
                reset_at: at.saturating_add(window.length),
                length: window.length,
            })
            .max_by_key(|status| status.reset_at);
        blocked.unwrap_or_else(|| {
            let count =
                |window: &Window| self.granted.len() - self.granted.partition_point(|at| has_left(*at, window, now));
            self.tighter(policy, now, count(&policy.sustained), count(&policy.burst))
        })
    }

    /// The window with fewer slots left, given how many requests each holds.
    fn tighter(&self, policy: &WindowPolicy, now: Timestamp, sustained: usize, burst: usize) -> RateStatus {
        let status = |window: &Window, count: usize| RateStatus {
            limit: window.limit,
            remaining: window.limit.saturating_sub(u32::try_from(count).unwrap_or(u32::MAX)),
            reset_at: match count {
                0 => now,
                _ => self.granted[self.granted.len() - count].saturating_add(window.length),
            },
            length: window.length,
        };
        let (sustained, burst) = (status(&policy.sustained, sustained), status(&policy.burst, burst));
        // Of two that are as full as each other, the one that frees later.
        let tightness = |status: &RateStatus| (status.remaining, Reverse(status.reset_at));
        if tightness(&burst) <= tightness(&sustained) { burst } else { sustained }
    }
}

fn has_left(granted: Timestamp, window: &Window, now: Timestamp) -> bool {
    granted.saturating_add(window.length) <= now
}

/// The status of the window with the fewest slots left, of several that a request must pass; of those that are as full as each
/// other, the one that frees last.
pub fn peek_all(windows: &[(&SlidingWindow, &WindowPolicy)], now: Timestamp) -> RateStatus {
    let now = windows.iter().fold(now, |now, (window, _)| window.forward(now));
    windows
        .iter()
        .map(|(window, policy)| window.status(policy, now))
        .min_by_key(|status| (status.remaining, Reverse(status.reset_at)))
        .unwrap_or_else(|| unlimited(now))
}

const fn unlimited(now: Timestamp) -> RateStatus {
    RateStatus { limit: u32::MAX, remaining: u32::MAX, reset_at: now, length: Duration::ZERO }
}

/// Takes a slot of every window, or of none. The status is that of the window with the fewest slots left; when the request is
/// denied, that of the window which frees last.
pub fn acquire_all(windows: &mut [(&mut SlidingWindow, &WindowPolicy)], now: Timestamp) -> Decision {
    // One time for all of them, so that a slot can be given back by it.
    let now = windows.iter().fold(now, |now, (window, _)| window.forward(now));
    let denied = windows
        .iter()
        .filter(|(window, policy)| !window.has_room(policy, now))
        .map(|(window, policy)| window.status(policy, now))
        .min_by_key(|status| Reverse(status.reset_at));
    if let Some(status) = denied {
        return Decision::Denied { status };
    }
    let status = windows
        .iter_mut()
        .map(|(window, policy)| window.take(policy, now))
        .min_by_key(|status| (status.remaining, Reverse(status.reset_at)))
        .unwrap_or_else(|| unlimited(now));
    Decision::Granted { status, at: now }
}

#[cfg(test)]
mod tests;
