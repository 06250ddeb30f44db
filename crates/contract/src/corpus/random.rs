//! Random ingestions by several clients at once, held against a simple model.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use enigma_core::ports::Corpus;
use enigma_core::retrieval::{
    CorpusGeneration, Document, DocumentSummary, EmbeddedChunk, EmbeddingSpace, MetadataFilter, Passage, PublishError,
    Staging, words,
};
use enigma_core::{Timestamp, VersionId};
use futures_util::FutureExt;
use proptest::prelude::*;
use serde_json::json;

use super::{Desk, chunk, described, document_id, filter, space, towards, version};
use crate::fixture::{NOON, tenant};
use crate::strategies::samples;

const DOCUMENTS: [&str; 4] = ["a", "b", "b/c", "ä"];
const CLIENTS: usize = 4;
const WORDS: [&str; 5] = ["apple", "banana", "кит", "世", "or"];

#[derive(Debug, Clone)]
enum Step {
    /// Starts to ingest a document of so many chunks; whatever the client did before, it leaves.
    Begin {
        document: usize,
        size: u32,
    },
    /// Stages the next chunks; perhaps the first time somebody goes away meanwhile.
    Stage {
        count: u32,
        is_cut: bool,
    },
    /// Stages a chunk that was staged before, with another text.
    StageAgain {
        nth: u32,
    },
    /// Publishes, be it complete or not.
    Publish {
        is_cut: bool,
    },
    /// Gives up in good order.
    Discard,
    Delete {
        document: usize,
        is_cut: bool,
    },
    Sweep {
        minutes: u64,
    },
}

fn steps() -> impl Strategy<Value = Vec<(usize, usize, u64, Step)>> {
    let document = 0..DOCUMENTS.len();
    let is_cut = || prop::bool::weighted(0.2);
    let step = prop_oneof![
        4 => (document.clone(), 1u32..7).prop_map(|(document, size)| Step::Begin { document, size }),
        8 => (1u32..4, is_cut()).prop_map(|(count, is_cut)| Step::Stage { count, is_cut }),
        1 => (0u32..7).prop_map(|nth| Step::StageAgain { nth }),
        5 => is_cut().prop_map(|is_cut| Step::Publish { is_cut }),
        1 => Just(Step::Discard),
        2 => (document, is_cut()).prop_map(|(document, is_cut)| Step::Delete { document, is_cut }),
        1 => (0u64..60).prop_map(|minutes| Step::Sweep { minutes }),
    ];
    prop::collection::vec((0usize..2, 0..CLIENTS, 0u64..600_000, step), 10..70)
}

/// A version on its way.
#[derive(Clone)]
struct Ingestion {
    version: VersionId,
    document: Document,
    size: u32,
    next: u32,
}

type Chunks = BTreeMap<u32, EmbeddedChunk>;

/// What a tenant's corpus has to be.
#[derive(Default)]
struct Model {
    published: BTreeMap<String, (VersionId, Document, Chunks, Timestamp)>,
    staged: HashMap<VersionId, (Chunks, Timestamp)>,
    /// Versions that were published at some time.
    ended: HashSet<VersionId>,
    generation: CorpusGeneration,
}

impl Model {
    fn has(&self, ingestion: &Ingestion) -> bool {
        self.published.get(ingestion.document.id.as_str()).is_some_and(|it| it.0 == ingestion.version)
    }

    /// Whether a version was found once, and another is now, or none. Nobody comes back to it.
    fn is_over(&self, ingestion: &Ingestion) -> bool {
        self.ended.contains(&ingestion.version) && !self.has(ingestion)
    }

    fn stage(&mut self, ingestion: &Ingestion, chunks: &[EmbeddedChunk], now: Timestamp) {
        if !self.has(ingestion) && !chunks.is_empty() {
            let (staged, at) = self.staged.entry(ingestion.version).or_insert_with(|| (Chunks::new(), now));
            *at = now;
            staged.extend(chunks.iter().map(|it| (it.chunk.ordinal, it.clone())));
        }
    }

    /// Whether it becomes the one that is found, or is already.
    fn publish(&mut self, ingestion: &Ingestion, now: Timestamp) -> bool {
        let is_whole = |(chunks, _): &(Chunks, Timestamp)| chunks.len() == ingestion.size as usize;
        if self.has(ingestion) {
            return true;
        }
        if !self.staged.get(&ingestion.version).is_some_and(is_whole) {
            return false;
        }
        let (chunks, _) = self.staged.remove(&ingestion.version).expect("it is there");
        let document = ingestion.document.clone();
        self.ended.insert(ingestion.version);
        self.published.insert(document.id.to_string(), (ingestion.version, document, chunks, now));
        true
    }

    fn sweep(&mut self, before: Timestamp) -> u64 {
        let swept = self.staged.extract_if(|_, (_, at)| *at < before);
        swept.map(|(_, (chunks, _))| chunks.len() as u64).sum()
    }

    /// Every chunk that a filter lets pass, in the order of document and chunk.
    fn chunks<'a>(&'a self, filter: &'a MetadataFilter) -> impl Iterator<Item = (&'a Document, &'a EmbeddedChunk)> {
        let documents = self.published.values().filter(|it| filter.allows(&it.1.metadata));
        documents.flat_map(|(_, document, chunks, _)| chunks.values().map(move |chunk| (document, chunk)))
    }
}

/// What a chunk says, and where it points: the same for the same numbers. Many point the same way.
fn content(ingestion: u128, ordinal: u32, again: u32) -> EmbeddedChunk {
    let seed = u32::try_from(ingestion % 1_000).expect("small") * 31 + ordinal * 7 + again * 13;
    let some = (0..=seed % 4).map(|nth| WORDS[((seed / 3 + nth * nth) % 5) as usize]);
    chunk(ordinal, &some.collect::<Vec<_>>().join(" "), f64::from(seed % 12) * 15.0)
}

/// Whether passages are what has to be found: the right ones of `expected`, which has them with their scores, if those are known.
fn check(found: &[Passage], expected: &[(&Document, &EmbeddedChunk, Option<f64>)], limit: u32) {
    const NEAR: f64 = 1e-5;
    assert_eq!(found.len(), expected.len().min(limit as usize));
    let places: Vec<usize> = found
        .iter()
        .map(|it| {
            let place = expected.iter().position(|(document, chunk, _)| {
                document.id == it.document.id && chunk.chunk.ordinal == it.chunk.ordinal
            });
            let place = place.expect("what is found is one of those that can be");
            let (document, chunk, score) = expected[place];
            assert_eq!((&it.document, &it.chunk), (document, &chunk.chunk));
            assert!(score.is_none_or(|score| (it.score - score).abs() < NEAR));
            place
        })
        .collect();
    for (one, other) in found.iter().zip(&places).zip(found.iter().zip(&places).skip(1)) {
        let is_in_order =
            one.0.score > other.0.score || one.0.score.to_bits() == other.0.score.to_bits() && one.1 < other.1;
        assert!(is_in_order, "{one:?} {other:?}");
    }
    let Some(last) = found.last() else { return };
    for (place, (_, chunk, score)) in expected.iter().enumerate().filter(|(place, _)| !places.contains(place)) {
        assert!(score.is_none_or(|score| score < last.score + NEAR), "a better one was left out");
        let twin = places.iter().find(|found| score.is_some() && expected[**found].1.vector == chunk.vector);
        assert!(twin.is_none_or(|found| *found < place), "one like it comes first");
    }
}

/// Everything that a tenant can see is what the model says.
async fn look(desk: &Desk<'_>, model: &Model, nth: usize) {
    let state = desk.state().await;
    assert_eq!(state.generation, model.generation);
    assert_eq!(state.space.is_some(), !model.published.is_empty());
    let summary = |(_, document, chunks, at): &(VersionId, Document, Chunks, Timestamp)| DocumentSummary {
        document: document.clone(),
        chunks: u32::try_from(chunks.len()).expect("a few"),
        updated_at: *at,
    };
    assert_eq!(desk.documents(3).await, model.published.values().map(summary).collect::<Vec<_>>());

    let filters = [json!({}), json!({ "parity": "even" }), json!({ "nested.number": { "$gte": 30 } })];
    let (filter, limit) = (filter(&filters[nth % 3]), [2, 5, 100][nth / 3 % 3]);
    let asked = towards(f64::from(u32::try_from(nth % 24).expect("small")) * 15.0);
    let cosine = |chunk: &EmbeddedChunk| -> f64 {
        chunk.vector.iter().zip(&asked).map(|(one, other)| f64::from(*one) * f64::from(*other)).sum()
    };
    let expected: Vec<_> =
        model.chunks(&filter).map(|(document, chunk)| (document, chunk, Some(cosine(chunk)))).collect();
    check(&desk.nearest_among(&filter, &asked, limit).await, &expected, limit);

    let question = [WORDS[nth % 5], WORDS[(nth / 5) % 5]].join(" ");
    let is_in = |text: &str| words(text).any(|word| words(&question).any(|asked| asked == word));
    let expected: Vec<_> = model
        .chunks(&filter)
        .filter(|(_, chunk)| is_in(&chunk.chunk.text))
        .map(|(document, chunk)| (document, chunk, None))
        .collect();
    check(&desk.matching_among(&filter, &question, limit).await, &expected, limit);
}

/// Several clients ingest, repeat, give up, vanish and delete in every order, for two tenants. Whoever looks sees of every document
/// the version that was published last, whole, and nothing else.
pub async fn random_interleavings_leave_what_was_published_last(corpus: &dyn Corpus) {
    for (run, steps) in samples(steps(), 40).enumerate() {
        let desks = [0, 1].map(|nth| Desk { corpus, tenant: tenant(&format!("run-{run}-{nth}")) });
        let mut models = [Model::default(), Model::default()];
        let mut clients: [[Option<Ingestion>; CLIENTS]; 2] = Default::default();
        let (mut now, mut numbers, space) = (NOON, [0u64; 2], space());
        for (nth, (whose, client, pause, step)) in steps.into_iter().enumerate() {
            now = now.saturating_add(Duration::from_millis(pause));
            // The same numbers for both tenants, so that versions of one would be seen by the other.
            numbers[whose] += 1;
            let number = numbers[whose];
            let (desk, model, client) = (&desks[whose], &mut models[whose], &mut clients[whose][client]);
            let changed = act(desk, model, client, &space, number, now, &step).await;
            let generation = desk.state().await.generation;
            assert_eq!(generation > model.generation, changed, "{step:?}");
            model.generation = generation;
            look(desk, model, nth).await;
        }
        for (desk, model) in desks.iter().zip(&mut models) {
            let end = now.saturating_add(Duration::from_millis(1));
            assert!(desk.sweep(end).await >= model.sweep(end));
            assert_eq!(desk.sweep(end).await, 0);
            for nth in 0..9 {
                look(desk, model, nth).await;
            }
        }
    }
}

/// Does a step, and says of the model whether its corpus has changed.
async fn act(
    desk: &Desk<'_>,
    model: &mut Model,
    client: &mut Option<Ingestion>,
    space: &EmbeddingSpace,
    number: u64,
    now: Timestamp,
    step: &Step,
) -> bool {
    let Desk { corpus, tenant } = desk;
    match step {
        Step::Begin { document, size } => {
            let parity = if number.is_multiple_of(2) { "even" } else { "odd" };
            let metadata = json!({ "parity": parity, "nested": { "number": number } });
            let document = described(DOCUMENTS[*document], &metadata);
            *client = Some(Ingestion { version: version(number.into()), document, size: *size, next: 0 });
        }
        Step::Stage { count, is_cut } => {
            let Some(ingestion) = client.as_mut().filter(|it| !model.is_over(it)) else { return false };
            let end = ingestion.size.min(ingestion.next + count);
            let batch: Vec<_> =
                (ingestion.next..end).map(|ordinal| content(ingestion.version.uuid().as_u128(), ordinal, 0)).collect();
            let staging = Staging { document: &ingestion.document.id, version: ingestion.version, space };
            if *is_cut {
                drop(corpus.stage(tenant, staging, &batch, now).now_or_never());
            }
            corpus.stage(tenant, staging, &batch, now).await.expect("the corpus takes them");
            model.stage(ingestion, &batch, now);
            ingestion.next = end;
        }
        Step::StageAgain { nth } => {
            let Some(ingestion) = client.as_mut().filter(|it| !model.is_over(it)) else { return false };
            if *nth < ingestion.next {
                let again = [content(ingestion.version.uuid().as_u128(), *nth, 1)];
                let staging = Staging { document: &ingestion.document.id, version: ingestion.version, space };
                corpus.stage(tenant, staging, &again, now).await.expect("the corpus takes it");
                model.stage(ingestion, &again, now);
            }
        }
        Step::Publish { is_cut } => {
            let Some(ingestion) = client else { return false };
            let Ingestion { version, document, size, .. } = &*ingestion;
            let was_there = model.has(ingestion);
            if *is_cut {
                drop(corpus.publish(tenant, *version, document, space, *size, now).now_or_never());
            }
            let told = corpus.publish(tenant, *version, document, space, *size, now).await;
            let told = told.expect("the corpus answers");
            let expected = model.publish(ingestion, now);
            assert_eq!(told.as_ref().err(), (!expected).then_some(&PublishError::NotStaged));
            return expected && !was_there;
        }
        Step::Discard => {
            let Some(ingestion) = client.take() else { return false };
            corpus.discard(tenant, ingestion.version).await.expect("the corpus answers");
            model.staged.remove(&ingestion.version);
        }
        Step::Delete { document, is_cut } => {
            let id = document_id(DOCUMENTS[*document]);
            let was_there = model.published.remove(id.as_str()).is_some();
            let first = if *is_cut { corpus.delete(tenant, &id).now_or_never() } else { None };
            let deleted = corpus.delete(tenant, &id).await.expect("the corpus answers");
            assert!(was_there || !deleted, "there was nothing to delete");
            if !is_cut {
                assert_eq!(deleted, was_there);
            }
            drop(first);
            return was_there;
        }
        Step::Sweep { minutes } => {
            let before = now.saturating_sub(Duration::from_secs(60 * minutes));
            let swept = desk.sweep(before).await;
            assert!(swept >= model.sweep(before));
        }
    }
    false
}
