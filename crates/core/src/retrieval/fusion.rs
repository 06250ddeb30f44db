//! Two lists of passages, put together.

use super::{DocumentId, Passage};

/// Reciprocal rank fusion's constant (Cormack, Clarke and Büttcher, SIGIR 2009): how little the first places differ. Their 60 is for
/// many rankings of a thousand places; of two short ones the first places have to tell more. Measured, see
/// docs/architecture/retrieval-quality.md.
const RANK_CONSTANT: f64 = 10.0;
/// What a place among the words counts, beside one by meaning. Measured too.
const KEYWORD_SHARE: f64 = 0.7;
/// Half of the score that a keyword match can have is reached here: what BM25 gives for about two rare words.
const KEYWORD_HALF: f64 = 8.0;

/// How passages are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SearchMode {
    /// By meaning and by words.
    #[default]
    Hybrid,
    /// By meaning.
    Vector,
    /// By words.
    Keyword,
}

impl SearchMode {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hybrid => "hybrid",
            Self::Vector => "vector",
            Self::Keyword => "keyword",
        }
    }

    /// The mode of that name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Hybrid, Self::Vector, Self::Keyword].into_iter().find(|mode| mode.as_str() == text)
    }
}

/// A passage in its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranked {
    /// The passage, with the score that its index gave it.
    pub passage: Passage,
    /// How well it fits, in [0, 1].
    pub score: f64,
    /// How near its meaning is, in [0, 1], if that is known.
    pub similarity: Option<f64>,
}

/// The score of one index, in [0, 1]: a cosine below 0 counts as 0, and what keywords give comes nearer to 1 the more it is.
fn bounded(mode: SearchMode, score: f64) -> f64 {
    match mode {
        SearchMode::Keyword => (score.max(0.0) / (score.max(0.0) + KEYWORD_HALF)).min(1.0),
        SearchMode::Vector | SearchMode::Hybrid => score.clamp(0.0, 1.0),
    }
}

/// The best `limit` of what two indexes have found, best first.
///
/// In hybrid mode each list gives its passages the reciprocal of 10 plus their place, that of words 0.7 of it, and what both give is
/// added up; the score is its share of what the first place in both would have. In the other modes the list of the other index does not count. Passages
/// with the same score are in the order of document and chunk, so that nothing depends on chance.
pub fn fuse(mode: SearchMode, by_meaning: Vec<Passage>, by_words: Vec<Passage>, limit: usize) -> Vec<Ranked> {
    let mut ranked: Vec<Ranked> = Vec::new();
    let best = (1.0 + KEYWORD_SHARE) / (RANK_CONSTANT + 1.0);
    let lists = [(SearchMode::Vector, by_meaning), (SearchMode::Keyword, by_words)];
    for (index, list) in lists.into_iter().filter(|(index, _)| mode == SearchMode::Hybrid || mode == *index) {
        let share = if index == SearchMode::Keyword { KEYWORD_SHARE } else { 1.0 };
        for (place, passage) in list.into_iter().enumerate() {
            let score = match mode {
                #[expect(clippy::cast_precision_loss, reason = "there are few places")]
                SearchMode::Hybrid => share / (RANK_CONSTANT + 1.0 + place as f64) / best,
                SearchMode::Vector | SearchMode::Keyword => bounded(index, passage.score),
            };
            let similarity = (index == SearchMode::Vector).then(|| bounded(index, passage.score));
            match ranked.iter_mut().find(|known| key(&known.passage) == key(&passage)) {
                Some(known) => known.score = (known.score + score).min(1.0),
                None => ranked.push(Ranked { passage, score, similarity }),
            }
        }
    }
    ranked.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| key(&a.passage).cmp(&key(&b.passage))));
    ranked.truncate(limit);
    ranked
}

fn key(passage: &Passage) -> (&DocumentId, u32) {
    (&passage.document.id, passage.chunk.ordinal)
}

/// How sure an answer can be, in [0, 1]: how near the best source is to the question, as far as that is known, else its score; and
/// half of that if the answer names none of its sources. 0 without sources.
///
/// It says how well the corpus covers the question. It does not say that the answer is true.
pub fn confidence(sources: &[Ranked], cites: bool) -> f64 {
    let nearest = sources.iter().map(|source| source.similarity.unwrap_or(source.score)).fold(0.0, f64::max);
    (if cites { nearest } else { nearest / 2.0 }).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::super::{Chunk, Document, Metadata};
    use super::*;
    use proptest::prelude::*;

    fn passage(document: &str, ordinal: u32, score: f64) -> Passage {
        let id = DocumentId::new(document).unwrap();
        let document = Document { id, source: None, title: None, url: None, metadata: Metadata::default() };
        Passage { document, chunk: Chunk { ordinal, start: 0, text: "text".to_owned() }, score }
    }

    fn names(ranked: &[Ranked]) -> Vec<String> {
        ranked.iter().map(|it| format!("{}#{}", it.passage.document.id, it.passage.chunk.ordinal)).collect()
    }

    #[test]
    fn what_both_find_comes_first() {
        let vectors = vec![passage("a", 0, 0.9), passage("b", 0, 0.8)];
        let words = vec![passage("b", 0, 12.0), passage("c", 0, 3.0)];
        let fused = fuse(SearchMode::Hybrid, vectors.clone(), words.clone(), 5);
        assert_eq!(names(&fused), ["b#0", "a#0", "c#0"]);
        assert_eq!(fused[0].similarity, Some(0.8));
        assert_eq!(names(&fuse(SearchMode::Vector, vectors.clone(), words.clone(), 5)), ["a#0", "b#0"]);
        assert_eq!(names(&fuse(SearchMode::Keyword, vectors, words, 1)), ["b#0"]);
        let both = || vec![passage("a", 0, 1.0)];
        let [best] = &fuse(SearchMode::Hybrid, both(), both(), 5)[..] else { panic!("there is one") };
        assert!((best.score - 1.0).abs() < 1e-9);
    }

    fn list() -> impl Strategy<Value = Vec<Passage>> {
        proptest::collection::btree_set(("[a-c]", 0u32..6), 0..15).prop_flat_map(|keys| {
            let keys: Vec<_> = keys.into_iter().collect();
            (Just(keys.clone()).prop_shuffle(), proptest::collection::vec(-1.0f64..40.0, keys.len()))
                .prop_map(|(keys, scores)| keys.iter().zip(scores).map(|((d, n), s)| passage(d, *n, s)).collect())
        })
    }

    proptest! {
        #[test]
        fn fusion_is_bounded_ordered_and_invents_nothing(
            vectors in list(), words in list(), limit in 0usize..20,
            mode in prop_oneof![Just(SearchMode::Hybrid), Just(SearchMode::Vector), Just(SearchMode::Keyword)],
        ) {
            let fused = fuse(mode, vectors.clone(), words.clone(), limit);
            prop_assert!(fused.len() <= limit);
            prop_assert!(fused.iter().all(|it| (0.0..=1.0).contains(&it.score)));
            prop_assert!(fused.windows(2).all(|two| two[0].score >= two[1].score));
            let mut seen = names(&fused);
            seen.sort_unstable();
            seen.dedup();
            prop_assert_eq!(seen.len(), fused.len(), "a passage is there twice");
            let known: Vec<_> = vectors.iter().chain(&words).map(key).collect();
            prop_assert!(fused.iter().all(|it| known.contains(&key(&it.passage))));
            prop_assert_eq!(&fused, &fuse(mode, vectors, words, limit));
            for cites in [true, false] {
                prop_assert!((0.0..=1.0).contains(&confidence(&fused, cites)));
            }
        }
    }
}
