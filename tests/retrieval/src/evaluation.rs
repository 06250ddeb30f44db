//! How good a search is: the mean over all questions.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::collection::Question;
use crate::metrics::{ndcg_at_10, recall_at_5, reciprocal_rank};

/// How good a ranking is, or how good rankings are in the mean; each number is between 0 and 1, and more is better.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Scores {
    /// Whether what answers stands first, and what helps next; see [`ndcg_at_10`].
    pub ndcg_at_10: f64,
    /// How much of what answers or helps is found; see [`recall_at_5`].
    pub recall_at_5: f64,
    /// How far down the first passage stands that answers or helps; see [`reciprocal_rank`].
    pub mrr: f64,
}

/// Why rankings cannot be scored.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvaluationError {
    /// There are no questions.
    #[error("there are no questions")]
    NoQuestions,
    /// A question was not asked. One to which nothing was found has an empty ranking.
    #[error("question {0:?} has no ranking")]
    Missing(String),
    /// A ranking answers no question.
    #[error("there is no question {0:?}")]
    Unknown(String),
}

impl Scores {
    /// The scores of one ranking, of names of passages with the best first.
    pub fn of(question: &Question, ranking: &[impl AsRef<str>]) -> Self {
        Self {
            ndcg_at_10: ndcg_at_10(ranking, &question.relevant),
            recall_at_5: recall_at_5(ranking, &question.relevant),
            mrr: reciprocal_rank(ranking, &question.relevant),
        }
    }
}

impl fmt::Display for Scores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ndcg_at_10, recall_at_5, mrr } = self;
        write!(f, "nDCG@10 {ndcg_at_10:.4}, recall@5 {recall_at_5:.4}, MRR {mrr:.4}")
    }
}

/// The mean scores of `rankings`: for each question, by its name, the names of the passages that were found, with the best first.
///
/// # Errors
/// [`EvaluationError`], unless there is exactly one ranking for each question.
pub fn evaluate<Q, P>(questions: &[Question], rankings: &BTreeMap<Q, Vec<P>>) -> Result<Scores, EvaluationError>
where
    Q: Borrow<str> + Ord,
    P: AsRef<str>,
{
    if questions.is_empty() {
        return Err(EvaluationError::NoQuestions);
    }
    let asked: BTreeSet<&str> = questions.iter().map(|question| question.id.as_str()).collect();
    if let Some(unknown) = rankings.keys().map(Borrow::borrow).find(|&id: &&str| !asked.contains(id)) {
        return Err(EvaluationError::Unknown(unknown.to_owned()));
    }
    let mut sum = Scores::default();
    let mut count = 0.0;
    for question in questions {
        let ranking =
            rankings.get(question.id.as_str()).ok_or_else(|| EvaluationError::Missing(question.id.clone()))?;
        let scores = Scores::of(question, ranking);
        sum.ndcg_at_10 += scores.ndcg_at_10;
        sum.recall_at_5 += scores.recall_at_5;
        sum.mrr += scores.mrr;
        count += 1.0;
    }
    Ok(Scores { ndcg_at_10: sum.ndcg_at_10 / count, recall_at_5: sum.recall_at_5 / count, mrr: sum.mrr / count })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collection::TestCollection;

    fn questions() -> Vec<Question> {
        let passages = r#"{"id":"a","title":"","text":""}"#;
        let questions = r#"{"id":"one","question":"?","relevant":{"a":2}}
{"id":"two","question":"?","relevant":{"a":2}}"#;
        TestCollection::parse(passages, questions).unwrap().questions
    }

    #[test]
    fn the_scores_of_a_search_are_the_mean_over_the_questions() {
        let rankings = BTreeMap::from([("one", vec!["a"]), ("two", vec!["x", "y", "a"])]);
        let scores = evaluate(&questions(), &rankings).unwrap();
        assert_eq!(scores.to_string(), "nDCG@10 0.7500, recall@5 1.0000, MRR 0.6667");
    }

    #[test]
    fn a_question_to_which_nothing_was_found_counts() {
        let rankings = BTreeMap::from([("one", vec!["a"]), ("two", vec![])]);
        let scores = evaluate(&questions(), &rankings).unwrap();
        assert_eq!(scores.to_string(), "nDCG@10 0.5000, recall@5 0.5000, MRR 0.5000");
    }

    #[test]
    fn each_question_needs_a_ranking_and_each_ranking_a_question() {
        let mut rankings = BTreeMap::from([("one".to_owned(), vec!["a"])]);
        let missing = evaluate(&questions(), &rankings);
        assert_eq!(missing, Err(EvaluationError::Missing("two".to_owned())));
        rankings.insert("two".to_owned(), vec![]);
        rankings.insert("three".to_owned(), vec![]);
        let unknown = evaluate(&questions(), &rankings);
        assert_eq!(unknown, Err(EvaluationError::Unknown("three".to_owned())));
    }

    #[test]
    fn no_questions_have_no_mean() {
        assert_eq!(evaluate::<&str, &str>(&[], &BTreeMap::new()), Err(EvaluationError::NoQuestions));
    }
}
