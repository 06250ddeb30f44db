//! How well retrieval finds what it should.
//!
//! A [`TestCollection`] holds passages, questions, and judgements of which passage answers which question; the committed one is
//! described in README.md. [`evaluate`] takes what a search has ranked for each question, and tells how good that is. Nothing here
//! searches: whoever measures an index puts the passages into it, asks the questions, and hands over the rankings.
//!
//! ```
//! use std::collections::BTreeMap;
//!
//! use enigma_retrieval_eval::{TestCollection, evaluate};
//!
//! let collection = TestCollection::committed()?;
//! // A search that always finds the same two passages.
//! let found: Vec<&str> = collection.passages.iter().take(2).map(|passage| passage.id.as_str()).collect();
//! let rankings: BTreeMap<&str, Vec<&str>> =
//!     collection.questions.iter().map(|question| (question.id.as_str(), found.clone())).collect();
//! let scores = evaluate(&collection.questions, &rankings)?;
//! assert!(scores.ndcg_at_10 < 0.1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod collection;
mod evaluation;
mod metrics;

pub use self::collection::{CollectionError, Grade, Passage, Question, Relevant, TestCollection};
pub use self::evaluation::{EvaluationError, Scores, evaluate};
pub use self::metrics::{ndcg_at_10, recall_at_5, reciprocal_rank};
