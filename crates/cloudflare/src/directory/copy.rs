//! An isolate's copy of the tenants: when it is used, when it is read again, and when neither helps. No clock and no KV of its
//! own.

use std::sync::Arc;
use std::time::Duration;

use enigma_core::Timestamp;
use enigma_core::tenant::TenantIndex;

use super::Freshness;
use super::document::Problem;

/// How long KV is left alone when it could not be read, while there is a copy to use.
const PAUSE: Duration = Duration::from_secs(5);

/// What a request does now.
#[derive(Debug)]
pub(super) enum Next {
    /// It uses the copy.
    Use(Arc<TenantIndex>),
    /// It reads KV, and tells what it has seen.
    Read,
}

/// What a document turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// One that was seen before, or is older than what is known.
    Known,
    /// A new one, which counts from now on.
    Accepted,
    /// A new one that cannot be accepted. Nothing changes.
    Refused(Vec<Problem>),
}

/// What KV has under its key: a document or nothing.
type Text = Option<String>;

#[derive(Debug)]
struct Accepted {
    text: Text,
    index: Arc<TenantIndex>,
    /// When the reading began that has last shown it to be as good as it can be had.
    at: Timestamp,
}

/// The copy.
#[derive(Debug)]
pub(super) struct Copy {
    freshness: Freshness,
    reading_takes: Duration,
    accepted: Option<Accepted>,
    refused: Option<Text>,
    /// While somebody reads, or KV is left alone. It ends by itself, as requests can end without a word.
    quiet_until: Option<Timestamp>,
}

impl Copy {
    /// There is no copy yet. A reading takes at most `reading_takes`.
    pub(super) fn new(freshness: Freshness, reading_takes: Duration) -> Self {
        Self { freshness, reading_takes, accepted: None, refused: None, quiet_until: None }
    }

    /// What a request does that comes at `now`.
    pub(super) fn next(&mut self, now: Timestamp) -> Next {
        if let Some(accepted) = &self.accepted {
            let age = self.age(accepted, now);
            let quiet = self.quiet_until.is_some_and(|until| now < until && until.since(now) <= self.longest_quiet());
            if age < self.freshness.refresh_after || (quiet && age < self.freshness.refuse_after) {
                return Next::Use(Arc::clone(&accepted.index));
            }
        }
        self.quiet_until = Some(now.saturating_add(self.reading_takes));
        Next::Read
    }

    /// A reading that began at `begun` has found `text`; `merge` says what it means.
    pub(super) fn seen(
        &mut self,
        begun: Timestamp,
        text: Text,
        merge: impl FnOnce(Option<&str>) -> Result<TenantIndex, Vec<Problem>>,
    ) -> Seen {
        self.quiet_until = None;
        if let Some(accepted) = &mut self.accepted {
            if accepted.at > begun && accepted.at.since(begun) <= self.reading_takes {
                return Seen::Known;
            }
            // Also where the document is refused below: as it is, there is nothing better than this.
            accepted.at = begun;
            if accepted.text == text {
                return Seen::Known;
            }
        }
        if self.refused.as_ref() == Some(&text) {
            return Seen::Known;
        }
        match merge(text.as_deref()) {
            Ok(index) => {
                self.accepted = Some(Accepted { text, index: Arc::new(index), at: begun });
                Seen::Accepted
            }
            Err(problems) => {
                self.refused = Some(text);
                Seen::Refused(problems)
            }
        }
    }

    /// KV could not be read; the copy, if it still counts.
    pub(super) fn failed(&mut self, now: Timestamp) -> Option<Arc<TenantIndex>> {
        self.quiet_until = Some(now.saturating_add(PAUSE));
        self.usable(now)
    }

    /// The copy, if it still counts.
    pub(super) fn usable(&self, now: Timestamp) -> Option<Arc<TenantIndex>> {
        let accepted = self.accepted.as_ref()?;
        (self.age(accepted, now) < self.freshness.refuse_after).then(|| Arc::clone(&accepted.index))
    }

    /// Requests of one isolate see times that differ a little, so that a copy may come from the near future. One from a far
    /// future was made before the clock stepped back, nobody knows how long ago.
    fn age(&self, accepted: &Accepted, now: Timestamp) -> Duration {
        if accepted.at.since(now) > self.freshness.refresh_after { Duration::MAX } else { now.since(accepted.at) }
    }

    fn longest_quiet(&self) -> Duration {
        self.reading_takes.max(PAUSE)
    }
}

#[cfg(test)]
mod tests;
