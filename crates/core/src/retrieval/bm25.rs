//! How well a chunk fits the words of a question.

/// How soon more of the same word counts no more.
const K1: f64 = 1.2;
/// How much a long chunk has to make up for.
const B: f64 = 0.75;

/// Okapi BM25 over the chunks of one tenant. Its weights are positive, as Lucene's are: a word that nearly every chunk has counts
/// little, and never against a chunk.
///
/// ```
/// use enigma_core::retrieval::Bm25;
/// let all = Bm25::new(1_000, 100_000);
/// let (rare, common) = (all.weight(3), all.weight(900));
/// assert!(all.score(rare, 1, 100) > all.score(common, 5, 100));
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

    /// What a word of this weight adds to the score of a chunk of so many words, in which it occurs so often.
    pub fn score(&self, weight: f64, occurrences: u32, length: u32) -> f64 {
        let occurrences = f64::from(occurrences);
        let long = 1.0 - B + B * f64::from(length) / self.average_length;
        weight * occurrences * (K1 + 1.0) / (occurrences + K1 * long)
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
        assert!(none.score(none.weight(0), 1, 1).is_finite());
    }

    proptest! {
        #[test]
        fn rarer_words_more_of_them_and_shorter_chunks_score_higher(
            chunks in 1u64..100_000, average in 1u64..500, one in 1u64..100_000, other in 1u64..100_000,
            occurrences in 1u32..50, length in 1u32..2_000,
        ) {
            let all = Bm25::new(chunks, chunks * average);
            let (rare, common) = (one.min(other).min(chunks), one.max(other).min(chunks));
            prop_assert!(all.weight(common) > 0.0);
            prop_assert!(all.weight(rare) >= all.weight(common));
            let (weight, score) = (all.weight(rare), all.score(all.weight(rare), occurrences, length));
            prop_assert!(score > 0.0 && score < weight * 2.2);
            prop_assert!(all.score(weight, occurrences + 1, length) > score);
            prop_assert!(all.score(weight, occurrences, length + 1) < score);
        }
    }
}
