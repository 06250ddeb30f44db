//! What README.md says of the committed collection.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use enigma_retrieval_eval::{Grade, Passage, TestCollection, evaluate};

/// As in extract.py.
const ALIKE: f64 = 0.4;

fn collection() -> TestCollection {
    TestCollection::committed().expect("the committed collection is sound")
}

fn words(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    lower.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

#[test]
fn it_is_as_large_as_it_is_said_to_be() {
    let TestCollection { passages, questions } = collection();
    assert_eq!((passages.len(), questions.len()), (446, 130));
    let judgements = || questions.iter().flat_map(|question| question.relevant.values());
    assert_eq!(judgements().count(), 276);
    assert_eq!(judgements().filter(|&&grade| grade == Grade::Answers).count(), 174);
    assert_eq!(questions.iter().filter(|question| question.relevant.len() > 1).count(), 76);
}

#[test]
fn each_source_has_passages_and_questions() {
    let TestCollection { passages, questions } = collection();
    for (source, texts, asked) in [("rust-", 213, 66), ("django-", 92, 33), ("factbook-", 141, 31)] {
        assert_eq!(passages.iter().filter(|passage| passage.id.starts_with(source)).count(), texts, "{source}");
        let about = questions.iter().filter(|question| question.relevant.keys().all(|id| id.starts_with(source)));
        assert_eq!(about.count(), asked, "{source}");
    }
}

#[test]
fn passages_are_of_one_length() {
    for Passage { id, title, text } in collection().passages {
        let count = text.split_whitespace().count();
        assert!((40..=150).contains(&count), "{id} has {count} words");
        assert!(!title.is_empty() && text == text.trim(), "{id}");
    }
}

#[test]
fn no_question_is_asked_twice() {
    let mut seen = BTreeSet::new();
    for question in collection().questions {
        assert!(!question.question.is_empty() && seen.insert(question.question.to_lowercase()), "{}", question.id);
    }
}

#[test]
fn no_passage_is_nearly_another() {
    let passages = collection().passages;
    let triples: Vec<BTreeSet<Vec<String>>> =
        passages.iter().map(|passage| words(&passage.text).windows(3).map(<[String]>::to_vec).collect()).collect();
    let mut holders: HashMap<&[String], Vec<usize>> = HashMap::new();
    for (index, set) in triples.iter().enumerate() {
        for triple in set {
            holders.entry(triple).or_default().push(index);
        }
    }
    let mut shared: BTreeMap<(usize, usize), f64> = BTreeMap::new();
    for indexes in holders.values() {
        for (at, &one) in indexes.iter().enumerate() {
            for &other in &indexes[..at] {
                *shared.entry((other, one)).or_default() += 1.0;
            }
        }
    }
    for ((one, other), count) in shared {
        let shorter = u32::try_from(triples[one].len().min(triples[other].len())).unwrap();
        assert!(count / f64::from(shorter) <= ALIKE, "{} and {}", passages[one].id, passages[other].id);
    }
}

#[test]
fn the_judgements_themselves_are_a_perfect_search() {
    let questions = collection().questions;
    let rankings: BTreeMap<&str, Vec<&str>> = questions
        .iter()
        .map(|question| {
            let mut best: Vec<_> = question.relevant.iter().collect();
            best.sort_by_key(|&(_, grade)| std::cmp::Reverse(grade));
            (question.id.as_str(), best.into_iter().map(|(id, _)| id.as_str()).collect())
        })
        .collect();
    let scores = evaluate(&questions, &rankings).unwrap();
    assert!((scores.ndcg_at_10 - 1.0).abs() < 1e-9 && (scores.mrr - 1.0).abs() < 1e-9, "{scores}");
    // Two questions have six passages that answer or help, and five places.
    assert!(scores.recall_at_5 > 0.997, "{scores}");
}
