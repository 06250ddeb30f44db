//! How well a chunk fits the words of a question.

use std::collections::HashMap;

use super::words;

/// How soon more of the same word counts no more.
const K1: f64 = 1.2;
/// How much a long chunk has to make up for.
const B: f64 = 0.75;

/// The most that is told apart of how often a word occurs: what comes after adds next to nothing.
const MOST_TIMES: u16 = 8;
/// So many steps of length; the last is for texts of 7,168 words and more.
const LENGTHS: u16 = 48;

/// How a word occurs in a text: how often, and among how many. The length is known in steps of a fifth on average, as Lucene does
/// it, so that both fit into a small number, which an index keeps with the word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Occurrence(u16);

impl Occurrence {
    /// So many different ones there are.
    pub const KINDS: u16 = MOST_TIMES * LENGTHS;

    /// Of a word that occurs so often in a text of so many words.
    pub fn new(times: u32, length: u32) -> Self {
        let times = u16::try_from(times).unwrap_or(u16::MAX).clamp(1, MOST_TIMES);
        Self((times - 1) * LENGTHS + step(length))
    }

    /// Its number, less than [`KINDS`](Self::KINDS).
    pub fn kind(self) -> u16 {
        self.0
    }

    /// The one of this number.
    pub fn of_kind(kind: u16) -> Option<Self> {
        (kind < Self::KINDS).then_some(Self(kind))
    }

    fn times(self) -> f64 {
        f64::from(self.0 / LENGTHS + 1)
    }

    /// The least length of its step.
    fn length(self) -> f64 {
        let step = u32::from(self.0 % LENGTHS);
        f64::from(if step < 8 { step } else { (4 + step % 4) << (step / 4 - 1) })
    }
}

/// The step of a length: each below 8 is one, and then there are four to each doubling.
fn step(length: u32) -> u16 {
    let doublings = length.max(1).ilog2();
    let step = if length < 8 { length } else { 4 * (doublings - 1) + (length >> (doublings - 2)) % 4 };
    u16::try_from(step).unwrap_or(u16::MAX).min(LENGTHS - 1)
}

/// The words of a text, counted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CountedWords {
    /// Each word once, and how it occurs.
    pub words: HashMap<String, Occurrence>,
    /// How many words the text has.
    pub length: u32,
}

impl CountedWords {
    /// Counts the words of `text`.
    pub fn of(text: &str) -> Self {
        let mut times: HashMap<String, u32> = HashMap::new();
        let mut length = 0;
        for word in words(text) {
            *times.entry(word).or_default() += 1;
            length += 1;
        }
        let words = times.into_iter().map(|(word, times)| (word, Occurrence::new(times, length))).collect();
        Self { words, length }
    }
}

/// Okapi BM25 over the chunks of one tenant. Its weights are positive, as Lucene's are: a word that nearly every chunk has counts
/// little, and never against a chunk.
///
/// ```
/// use enigma_core::retrieval::{Bm25, Occurrence};
/// let all = Bm25::new(1_000, 100_000);
/// let (rare, common) = (all.weight(3), all.weight(900));
/// assert!(all.score(rare, Occurrence::new(1, 100)) > all.score(common, Occurrence::new(5, 100)));
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bm25 {
    chunks: f64,
    average_length: f64,
}

impl Bm25 {
    /// For a corpus of so many chunks, with so many words in all.
    pub fn new(chunks: u64, words: u64) -> Self {
        let chunks = to_f64(chunks);
        Self { chunks, average_length: (to_f64(words) / chunks.max(1.0)).max(1.0) }
    }

    /// What a word is worth that so many chunks have.
    pub fn weight(&self, containing: u64) -> f64 {
        let containing = to_f64(containing);
        (1.0 + ((self.chunks - containing).max(0.0) + 0.5) / (containing + 0.5)).ln()
    }

    /// What a word of this weight adds to the score of a chunk in which it occurs like this.
    pub fn score(&self, weight: f64, occurrence: Occurrence) -> f64 {
        let (times, length) = (occurrence.times(), occurrence.length());
        let long = 1.0 - B + B * length / self.average_length;
        weight * times * (K1 + 1.0) / (times + K1 * long)
    }
}

#[expect(clippy::cast_precision_loss, reason = "statistics of more than 2^53 words need no last digit")]
fn to_f64(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_empty_corpus_divides_by_nothing() {
        let none = Bm25::new(0, 0);
        assert!(none.score(none.weight(0), Occurrence::new(0, 0)).is_finite());
    }

    #[test]
    fn words_are_counted() {
        let counted = CountedWords::of("The cat and the dog, the end");
        assert_eq!(counted.length, 7);
        assert_eq!(counted.words["the"], Occurrence::new(3, 7));
        assert_eq!(counted.words["dog"], Occurrence::new(1, 7));
        assert_eq!(counted.words.len(), 5);
    }

    #[test]
    fn steps_of_length_leave_no_gap_and_are_narrow() {
        let mut last = 0;
        for length in 1..=7_168u32 {
            let (step, shortest) = (step(length), Occurrence::new(1, length).length());
            assert!(step == last || step == last + 1, "{length}");
            assert!(shortest <= f64::from(length) && f64::from(length) <= shortest * 1.25, "{length} is no {shortest}");
            last = step;
        }
        assert_eq!(last, LENGTHS - 1);
        assert_eq!(step(u32::MAX), last);
    }

    proptest! {
        #[test]
        fn an_occurrence_is_its_kind(times in 0u32..20, length: u32) {
            let occurrence = Occurrence::new(times, length);
            prop_assert_eq!(Occurrence::of_kind(occurrence.kind()), Some(occurrence));
            prop_assert_eq!(Occurrence::of_kind(Occurrence::KINDS), None);
        }

        #[test]
        fn rarer_words_more_of_them_and_shorter_chunks_score_higher(
            chunks in 1u64..100_000, average in 1u64..500, one in 1u64..100_000, other in 1u64..100_000,
            times in 1u32..8, length in 1u32..2_000,
        ) {
            let all = Bm25::new(chunks, chunks * average);
            let (rare, common) = (one.min(other).min(chunks), one.max(other).min(chunks));
            prop_assert!(all.weight(common) > 0.0);
            prop_assert!(all.weight(rare) >= all.weight(common));
            let weight = all.weight(rare);
            let score = all.score(weight, Occurrence::new(times, length));
            prop_assert!(score > 0.0 && score < weight * 2.2);
            prop_assert!(all.score(weight, Occurrence::new(times + 1, length)) > score);
            prop_assert!(all.score(weight, Occurrence::new(times, length + length / 4 + 1)) < score);
        }
    }
}
