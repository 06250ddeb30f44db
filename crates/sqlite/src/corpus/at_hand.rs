//! Codes of versions that were looked through lately.
//!
//! What is published never changes, and its number is never used again, not even after it was the last one (`AUTOINCREMENT`). So
//! what was read of a published version is true for as long as it is kept. Which versions count for a search is read from the
//! database each time; nothing here says so.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a version takes beside its rows, about.
const VERSION_BYTES: usize = 128;
/// What a row takes beside its codes, about.
const ROW_BYTES: usize = 32;
/// After so many searches in which it was not looked at, a version makes room for others.
const IDLE: u64 = 64;

/// All codes of a version, in rows.
pub(crate) type Codes = Arc<[Box<[u8]>]>;

/// Codes of versions, up to so many bytes.
pub(crate) struct CodesAtHand {
    most: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    by_number: HashMap<i64, (Codes, u64)>,
    bytes: usize,
    /// Counts the searches.
    searches: u64,
    /// When idle versions were looked for last.
    tidied: u64,
}

fn bytes(codes: &Codes) -> usize {
    VERSION_BYTES + codes.iter().map(|row| ROW_BYTES + row.len()).sum::<usize>()
}

impl CodesAtHand {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, kept: Mutex::default() }
    }

    /// What is at hand of these versions, and which are missing.
    pub(crate) fn find(&self, numbers: &[i64]) -> (Vec<(i64, Codes)>, Vec<i64>) {
        let mut kept = self.kept();
        kept.searches += 1;
        let now = kept.searches;
        let (mut found, mut missing) = (Vec::with_capacity(numbers.len()), Vec::new());
        for number in numbers {
            match kept.by_number.get_mut(number) {
                Some((codes, used)) => {
                    *used = now;
                    found.push((*number, Arc::clone(codes)));
                }
                None => missing.push(*number),
            }
        }
        (found, missing)
    }

    /// Keeps codes that were read, while there is room: a corpus that is too large as a whole has always the same part of it at hand.
    pub(crate) fn keep(&self, number: i64, codes: Codes) {
        let mut kept = self.kept();
        let more = bytes(&codes);
        if kept.bytes + more > self.most {
            kept.tidy();
        }
        if kept.bytes + more <= self.most {
            let now = kept.searches;
            kept.bytes += more;
            // Another search may have read the same meanwhile.
            if let Some((old, _)) = kept.by_number.insert(number, (codes, now)) {
                kept.bytes -= bytes(&old);
            }
        }
    }

    /// Forgets what is being removed: it makes room, and what was deleted stays in memory no longer than in the file. A search
    /// that began before may bring it back; that is never asked for again, and goes as what is idle does.
    pub(crate) fn forget(&self, number: i64) {
        let mut kept = self.kept();
        if let Some((codes, _)) = kept.by_number.remove(&number) {
            kept.bytes -= bytes(&codes);
        }
    }

    /// Nothing is left half done where this could panic.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Forgets what was not looked at for long, unless that was tried a short while ago.
    fn tidy(&mut self) {
        if self.searches < self.tidied + IDLE {
            return;
        }
        self.tidied = self.searches;
        let (since, mut freed) = (self.searches - IDLE, 0);
        self.by_number.retain(|_, (codes, used)| {
            let stays = *used > since;
            freed += if stays { 0 } else { bytes(codes) };
            stays
        });
        self.bytes -= freed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(length: usize) -> Codes {
        Arc::new([vec![7; length].into_boxed_slice()])
    }

    /// Asks for versions, and keeps those that were missing; how many were at hand.
    fn search(at_hand: &CodesAtHand, numbers: std::ops::Range<i64>) -> usize {
        let (found, missing) = at_hand.find(&numbers.collect::<Vec<_>>());
        for number in missing {
            at_hand.keep(number, codes(1_000 - VERSION_BYTES - ROW_BYTES));
        }
        let kept = at_hand.kept();
        assert!(kept.bytes <= at_hand.most);
        assert_eq!(kept.bytes, kept.by_number.values().map(|(codes, _)| bytes(codes)).sum::<usize>());
        found.len()
    }

    #[test]
    fn what_was_looked_through_is_at_hand_as_far_as_there_is_room() {
        let at_hand = CodesAtHand::new(10_000);
        assert_eq!(search(&at_hand, 0..4), 0);
        assert_eq!(search(&at_hand, 0..6), 4);
        for _ in 0..3 * IDLE {
            search(&at_hand, 0..20);
        }
        assert_eq!(search(&at_hand, 0..20), 10, "a part of what is too much");
    }

    #[test]
    fn what_is_not_asked_for_any_more_makes_room() {
        let at_hand = CodesAtHand::new(10_000);
        search(&at_hand, 0..10);
        assert_eq!(search(&at_hand, 100..108), 0);
        for _ in 0..2 * IDLE {
            search(&at_hand, 100..108);
            search(&at_hand, 0..2);
        }
        assert_eq!(search(&at_hand, 100..108), 8);
        assert_eq!(search(&at_hand, 0..2), 2, "it was asked for");
        assert_eq!(at_hand.kept().by_number.len(), 10);
    }

    #[test]
    fn what_is_forgotten_makes_room_at_once() {
        let at_hand = CodesAtHand::new(10_000);
        search(&at_hand, 0..10);
        for number in [3, 7, 7, 100] {
            at_hand.forget(number);
        }
        assert_eq!(search(&at_hand, 0..12), 8);
        assert_eq!(search(&at_hand, 0..12), 10);
    }

    #[test]
    fn two_who_have_read_the_same_keep_it_once() {
        let at_hand = CodesAtHand::new(3_000);
        for _ in 0..5 {
            at_hand.keep(1, codes(1_000));
        }
        at_hand.keep(2, codes(1_000));
        assert_eq!(at_hand.kept().bytes, 2 * bytes(&codes(1_000)));
        assert_eq!(at_hand.find(&[1, 2]).0.len(), 2);
    }

    #[test]
    fn without_room_nothing_is_kept() {
        let at_hand = CodesAtHand::new(0);
        for _ in 0..3 * IDLE {
            assert_eq!(search(&at_hand, 0..3), 0);
        }
    }
}
