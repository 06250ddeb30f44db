//! Passages, questions and judgements, and how they are read.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde::de::DeserializeOwned;

const PASSAGES: &str = include_str!("../data/passages.jsonl");
const QUESTIONS: &str = include_str!("../data/questions.jsonl");

/// A text that can be found.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Passage {
    /// Its name, unique among the passages.
    pub id: String,
    /// What it is about, as its source names it.
    pub title: String,
    /// The text.
    pub text: String,
}

/// How well a passage answers a question. One that does not help has no grade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "u8")]
pub enum Grade {
    /// It helps, but leaves part of the answer open.
    Helps,
    /// It answers the question by itself.
    Answers,
}

impl Grade {
    /// What finding such a passage is worth: 2 to the power of the grade, less 1.
    pub fn gain(self) -> f64 {
        match self {
            Self::Helps => 1.0,
            Self::Answers => 3.0,
        }
    }
}

impl TryFrom<u8> for Grade {
    type Error = String;

    fn try_from(number: u8) -> Result<Self, Self::Error> {
        match number {
            1 => Ok(Self::Helps),
            2 => Ok(Self::Answers),
            _ => Err(format!("grade {number} is neither 1 nor 2")),
        }
    }
}

/// The passages that answer a question, or help to.
pub type Relevant = BTreeMap<String, Grade>;

/// A question with its judgements.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// Its name, unique among the questions.
    pub id: String,
    /// The question, as somebody asks it.
    pub question: String,
    /// What should be found.
    pub relevant: Relevant,
}

/// Passages, and questions about them.
///
/// Names are unique, every passage that a question names is there, and for every question there is one that answers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestCollection {
    /// What can be found.
    pub passages: Vec<Passage>,
    /// What is asked.
    pub questions: Vec<Question>,
}

/// Why a collection cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CollectionError {
    /// A line is not of the form that it should have.
    #[error("line {line} of the {file} cannot be read")]
    Malformed {
        /// Which lines: passages or questions.
        file: &'static str,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Two passages, or two questions, have one name.
    #[error("{0:?} is there twice")]
    Twice(String),
    /// A judgement is about a passage that is not there.
    #[error("question {question:?} names passage {passage:?}, which is not there")]
    NoSuchPassage {
        /// The question.
        question: String,
        /// The passage that it names.
        passage: String,
    },
    /// A question without a passage that answers it measures nothing.
    #[error("no passage answers question {0:?}")]
    Unanswered(String),
}

impl TestCollection {
    /// The collection of this repository.
    ///
    /// # Errors
    /// When its files have been damaged.
    pub fn committed() -> Result<Self, CollectionError> {
        Self::parse(PASSAGES, QUESTIONS)
    }

    /// Reads passages and questions, one JSON object a line.
    ///
    /// # Errors
    /// [`CollectionError`] tells the first thing that is wrong.
    pub fn parse(passages: &str, questions: &str) -> Result<Self, CollectionError> {
        let passages: Vec<Passage> = lines("passages", passages)?;
        let questions: Vec<Question> = lines("questions", questions)?;
        let known = unique(passages.iter().map(|passage| passage.id.as_str()))?;
        unique(questions.iter().map(|question| question.id.as_str()))?;
        for Question { id, relevant, .. } in &questions {
            if let Some(passage) = relevant.keys().find(|passage| !known.contains(passage.as_str())) {
                return Err(CollectionError::NoSuchPassage { question: id.clone(), passage: passage.clone() });
            }
            if !relevant.values().any(|&grade| grade == Grade::Answers) {
                return Err(CollectionError::Unanswered(id.clone()));
            }
        }
        Ok(Self { passages, questions })
    }
}

fn lines<T: DeserializeOwned>(file: &'static str, text: &str) -> Result<Vec<T>, CollectionError> {
    let parse = |(index, line)| {
        serde_json::from_str(line).map_err(|source| CollectionError::Malformed { file, line: index + 1, source })
    };
    text.lines().enumerate().map(parse).collect()
}

fn unique<'a>(names: impl Iterator<Item = &'a str>) -> Result<BTreeSet<&'a str>, CollectionError> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(CollectionError::Twice(name.to_owned()));
        }
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSAGE: &str = r#"{"id":"a","title":"A","text":"About a."}"#;
    const QUESTION: &str = r#"{"id":"q","question":"What of a?","relevant":{"a":2}}"#;

    #[test]
    fn grades_are_worth_more_than_their_number() {
        assert_eq!((Grade::Helps.gain(), Grade::Answers.gain()), (1.0, 3.0));
    }

    #[test]
    fn passages_and_questions_are_read_line_by_line() {
        let collection = TestCollection::parse(PASSAGE, QUESTION).unwrap();
        assert_eq!(collection.passages[0].text, "About a.");
        assert_eq!(collection.questions[0].relevant["a"], Grade::Answers);
    }

    #[test]
    fn a_line_that_is_wrong_is_named() {
        let error = TestCollection::parse(&format!("{PASSAGE}\n{{}}"), QUESTION).unwrap_err();
        assert!(matches!(error, CollectionError::Malformed { file: "passages", line: 2, .. }), "{error:?}");
    }

    #[test]
    fn grades_other_than_one_and_two_are_refused() {
        for grade in ["0", "3", "\"2\""] {
            let question = QUESTION.replace("\"a\":2", &format!("\"a\":{grade}"));
            let error = TestCollection::parse(PASSAGE, &question).unwrap_err();
            assert!(matches!(error, CollectionError::Malformed { file: "questions", line: 1, .. }), "{error:?}");
        }
    }

    #[test]
    fn names_are_unique() {
        let twice = format!("{PASSAGE}\n{PASSAGE}");
        assert!(matches!(TestCollection::parse(&twice, QUESTION), Err(CollectionError::Twice(id)) if id == "a"));
        let twice = format!("{QUESTION}\n{QUESTION}");
        assert!(matches!(TestCollection::parse(PASSAGE, &twice), Err(CollectionError::Twice(id)) if id == "q"));
    }

    #[test]
    fn judgements_are_about_passages_that_are_there() {
        let question = QUESTION.replace("\"a\":2", "\"a\":2,\"b\":1");
        let error = TestCollection::parse(PASSAGE, &question).unwrap_err();
        assert!(matches!(error, CollectionError::NoSuchPassage { passage, .. } if passage == "b"));
    }

    #[test]
    fn every_question_has_an_answer() {
        let question = QUESTION.replace("\"a\":2", "\"a\":1");
        assert!(matches!(TestCollection::parse(PASSAGE, &question), Err(CollectionError::Unanswered(id)) if id == "q"));
    }
}
