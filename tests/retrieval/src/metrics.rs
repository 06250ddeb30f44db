//! How good one ranking is.
//!
//! A passage that stands in a ranking more than once counts at its first place; the others are lost. So no score exceeds 1, whatever
//! a search returns.

use std::collections::BTreeSet;

use crate::collection::{Grade, Relevant};

/// The normalised discounted cumulative gain of the first ten places: 1 for the best ranking that there is, 0 when none of the ten
/// helps.
///
/// A passage at place `n` counts its [gain](Grade::gain) divided by the binary logarithm of `n + 1`.
pub fn ndcg_at_10(ranking: &[impl AsRef<str>], relevant: &Relevant) -> f64 {
    const PLACES: usize = 10;
    let mut best: Vec<Grade> = relevant.values().copied().collect();
    best.sort_unstable_by(|one, other| other.cmp(one));
    let gained = discounted(grades(ranking, relevant).take(PLACES));
    let possible = discounted(best.into_iter().take(PLACES).map(Some));
    if possible > 0.0 { gained / possible } else { 0.0 }
}

/// Which part of the passages that answer or help is among the first five.
pub fn recall_at_5(ranking: &[impl AsRef<str>], relevant: &Relevant) -> f64 {
    const PLACES: usize = 5;
    let found: f64 = grades(ranking, relevant).take(PLACES).flatten().map(|_| 1.0).sum();
    let all: f64 = relevant.iter().map(|_| 1.0).sum();
    if all > 0.0 { found / all } else { 0.0 }
}

/// One divided by the place of the first passage that answers or helps, or 0 when there is none.
pub fn reciprocal_rank(ranking: &[impl AsRef<str>], relevant: &Relevant) -> f64 {
    let first = (1_u32..).zip(grades(ranking, relevant)).find(|(_, grade)| grade.is_some());
    first.map_or(0.0, |(place, _)| f64::from(place).recip())
}

/// The grade at each place, none where a passage does not help or has been named before.
fn grades<'a>(ranking: &'a [impl AsRef<str>], relevant: &'a Relevant) -> impl Iterator<Item = Option<Grade>> + 'a {
    let mut seen = BTreeSet::new();
    ranking.iter().map(AsRef::as_ref).map(move |id| relevant.get(id).copied().filter(|_| seen.insert(id)))
}

fn discounted(grades: impl Iterator<Item = Option<Grade>>) -> f64 {
    let at =
        |(place, grade): (u32, Option<Grade>)| grade.map_or(0.0, |grade| grade.gain() / f64::from(place + 1).log2());
    (1_u32..).zip(grades).map(at).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::{Index, select};

    use super::*;

    fn relevant(judged: &[(&str, Grade)]) -> Relevant {
        judged.iter().map(|&(id, grade)| (id.to_owned(), grade)).collect()
    }

    fn close(one: f64, other: f64) -> bool {
        (one - other).abs() < 1e-9
    }

    #[test]
    fn the_gain_of_a_place_is_divided_by_the_logarithm_of_the_next() {
        // Gained: 1 at place 2, and 3 at place 3. At best: 3 at place 1, and 1 at place 2.
        let judged = relevant(&[("a", Grade::Answers), ("b", Grade::Helps)]);
        let gained = 1.0 / 3_f64.log2() + 3.0 / 2.0;
        let possible = 3.0 + 1.0 / 3_f64.log2();
        assert!(close(gained / possible, 0.586_882_671_436));
        assert!(close(ndcg_at_10(&["x", "b", "a"], &judged), gained / possible));
    }

    #[test]
    fn one_answer_at_the_third_place() {
        let judged = relevant(&[("a", Grade::Answers)]);
        let ranking = ["x", "y", "a"];
        assert!(close(ndcg_at_10(&ranking, &judged), 0.5));
        assert!(close(recall_at_5(&ranking, &judged), 1.0));
        assert!(close(reciprocal_rank(&ranking, &judged), 1.0 / 3.0));
    }

    #[test]
    fn what_stands_after_the_places_that_count_is_not_found() {
        let judged = relevant(&[("a", Grade::Answers), ("b", Grade::Helps)]);
        let ranking = ["1", "2", "3", "4", "b", "a", "7", "8", "9", "10"];
        assert!(close(recall_at_5(&ranking, &judged), 0.5));
        let late = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "a"];
        assert!(close(ndcg_at_10(&late, &judged), 0.0));
        assert!(close(reciprocal_rank(&late, &judged), 1.0 / 11.0));
    }

    #[test]
    fn a_better_grade_first_scores_more_than_a_worse_one_first() {
        let judged = relevant(&[("a", Grade::Answers), ("b", Grade::Helps)]);
        assert!(close(ndcg_at_10(&["a", "b"], &judged), 1.0));
        // 1 + 3 / log2(3), of 3 + 1 / log2(3).
        assert!(close(ndcg_at_10(&["b", "a"], &judged), 0.796_707_580_991));
    }

    #[test]
    fn a_passage_counts_once() {
        let judged = relevant(&[("a", Grade::Answers), ("b", Grade::Answers)]);
        assert!(close(recall_at_5(&["a", "a", "a"], &judged), 0.5));
        assert!(close(ndcg_at_10(&["a", "a", "a"], &judged), ndcg_at_10(&["a"], &judged)));
    }

    #[test]
    fn nothing_found_scores_nothing() {
        let judged = relevant(&[("a", Grade::Answers)]);
        let scores = |ranking: &[&str]| {
            [ndcg_at_10(ranking, &judged), recall_at_5(ranking, &judged), reciprocal_rank(ranking, &judged)]
        };
        assert!(scores(&[]).iter().all(|&score| score < 1e-9));
        assert!(scores(&["x", "y"]).iter().all(|&score| score < 1e-9));
    }

    fn any_judgements() -> impl Strategy<Value = Relevant> {
        let grade = select(vec![Grade::Helps, Grade::Answers]);
        prop::collection::btree_map("[a-p]", grade, 0..12)
    }

    fn any_ranking() -> impl Strategy<Value = Vec<String>> {
        prop::collection::vec("[a-z]", 0..20)
    }

    proptest! {
        #[test]
        fn scores_are_between_zero_and_one(ranking in any_ranking(), judged in any_judgements()) {
            for score in [
                ndcg_at_10(&ranking, &judged),
                recall_at_5(&ranking, &judged),
                reciprocal_rank(&ranking, &judged),
            ] {
                prop_assert!((0.0..=1.0 + 1e-12).contains(&score), "{score}");
            }
        }

        #[test]
        fn the_order_of_the_grades_is_the_best_ranking(judged in any_judgements(), ranking in any_ranking()) {
            let mut best: Vec<&String> = judged.keys().collect();
            best.sort_by_key(|id| std::cmp::Reverse(judged[*id]));
            let score = ndcg_at_10(&best, &judged);
            prop_assert!(judged.is_empty() || close(score, 1.0), "{score}");
            prop_assert!(ndcg_at_10(&ranking, &judged) <= score + 1e-12);
        }

        #[test]
        fn nothing_gets_worse_when_a_passage_that_helps_moves_up(
            mut ranking in any_ranking(), judged in any_judgements(), at in any::<Index>()
        ) {
            ranking.sort();
            ranking.dedup();
            let found: Vec<usize> = (1..ranking.len())
                .filter(|&place| judged.contains_key(&ranking[place]) && !judged.contains_key(&ranking[place - 1]))
                .collect();
            prop_assume!(!found.is_empty());
            let place = found[at.index(found.len())];
            let mut better = ranking.clone();
            better.swap(place - 1, place);
            prop_assert!(ndcg_at_10(&better, &judged) >= ndcg_at_10(&ranking, &judged));
            prop_assert!(recall_at_5(&better, &judged) >= recall_at_5(&ranking, &judged));
            prop_assert!(reciprocal_rank(&better, &judged) >= reciprocal_rank(&ranking, &judged));
        }
    }
}
