//! Ingestions, deletions and searches of several clients at once, while ports fail, held against what each of them was told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use enigma_core::TenantId;
use enigma_core::ingest::IngestEvent;
use enigma_core::model::{ChatModel, Delta, DeltaStream, FinishReason, ModelCall, ModelError};
use enigma_core::ports::IdSource;
use enigma_core::retrieval::SearchMode;
use enigma_core::usage::Ending;
use enigma_memory::testing::{EmbedderStep, SeededIds};
use futures_util::StreamExt;
use futures_util::future::join_all;

use crate::doubles::Fault;
use crate::harness::{Setup, World, names, passing, read, sources};
use crate::versions::{found, parts};

const DOCUMENTS: [&str; 2] = ["a", "b"];
const CLIENTS: usize = 5;
const OPERATIONS: usize = 6;

struct Answering;

#[async_trait]
impl ChatModel for Answering {
    async fn stream(&self, _: &TenantId, _: &ModelCall) -> Result<DeltaStream, ModelError> {
        let pieces = [Delta::Content("So it is.".into()), Delta::Finish(FinishReason::Stop)];
        Ok(futures_util::stream::iter(pieces.map(Ok)).boxed())
    }
}

/// What somebody did to a document.
#[derive(Debug, Clone)]
struct Change {
    document: &'static str,
    /// `None` for a deletion.
    version: Option<(String, u32)>,
    began: u64,
    ended: u64,
    /// Whether it was done; `None` when nobody knows.
    done: Option<bool>,
}

/// What somebody saw of the corpus.
#[derive(Debug)]
struct Look {
    began: u64,
    ended: u64,
    chunks: BTreeSet<(String, u32, String)>,
}

struct Run {
    world: World,
    dice: SeededIds,
    time: AtomicU64,
    changes: Mutex<Vec<Change>>,
    looks: Mutex<Vec<Look>>,
}

impl Run {
    fn below(&self, limit: usize) -> usize {
        usize::try_from(self.dice.random() % limit as u128).unwrap()
    }

    fn tick(&self) -> u64 {
        self.time.fetch_add(1, Ordering::Relaxed) + 1
    }

    async fn pause(&self) {
        for _ in 0..self.below(12) {
            tokio::task::yield_now().await;
        }
    }

    async fn client(&self) {
        for _ in 0..OPERATIONS {
            self.pause().await;
            match self.below(10) {
                0..5 => self.ingest().await,
                5..7 => self.delete().await,
                _ => self.search().await,
            }
        }
    }

    async fn ingest(&self) {
        let began = self.tick();
        let (document, chunks) = (DOCUMENTS[self.below(2)], 1 + self.below(6));
        let version = format!("v{began}");
        let command = self.world.document(document, &parts(&version, chunks)).await;
        let leaves_after = self.below(12);
        let taking = async {
            let mut events = self.world.take_in(command).await.ok()?.events;
            let mut ending = None;
            for seen in 0.. {
                if seen == leaves_after {
                    return None;
                }
                match events.next().await {
                    Some(IngestEvent::Done(done)) => ending = Some(done.ending),
                    Some(_) => {}
                    None => break,
                }
            }
            ending
        };
        let ending = taking.await;
        // Who leaves, or is refused by a publication whose answers were lost, knows nothing.
        let done = (ending == Some(Ending::Finished)).then_some(true);
        if done.is_none() {
            // Until its task has ended, it may yet be published.
            self.pause().await;
            self.world.settle_down().await;
        }
        let version = Some((version, u32::try_from(chunks).unwrap()));
        self.changes.lock().unwrap().push(Change { document, version, began, ended: self.tick(), done });
    }

    async fn delete(&self) {
        let (began, document) = (self.tick(), DOCUMENTS[self.below(2)]);
        let context = self.world.context("acme").await;
        let deleted = self.world.documents.delete(&context, &document.to_owned().try_into().unwrap()).await;
        let done = deleted.is_ok().then_some(true);
        self.changes.lock().unwrap().push(Change { document, version: None, began, ended: self.tick(), done });
    }

    async fn search(&self) {
        let began = self.tick();
        let mut command = self.world.question("version").await;
        command.top_k = 20;
        command.mode = [SearchMode::Keyword, SearchMode::Hybrid][self.below(2)];
        let Ok(reply) = self.world.ask(command).await else { return };
        let events = read(reply.events).await;
        let version = |text: &str| text.split_once("version ").unwrap().1.split(' ').next().unwrap().to_owned();
        let chunks = sources(&events).iter();
        let chunks = chunks.map(|it| (it.doc_id.as_str().to_owned(), it.chunk_id.parse().unwrap(), version(&it.text)));
        let chunks = chunks.collect();
        assert!(names(&events).iter().all(|name| DOCUMENTS.contains(name)));
        self.looks.lock().unwrap().push(Look { began, ended: self.tick(), chunks });
    }

    /// What was seen of each document is nothing or one whole version, that could be the newest one at the time.
    fn judge(&self, seed: u64, look: &Look) {
        let changes = self.changes.lock().unwrap();
        for document in DOCUMENTS {
            let mut versions: BTreeMap<&str, u32> = BTreeMap::new();
            for (_, _, version) in look.chunks.iter().filter(|it| it.0 == document) {
                *versions.entry(version).or_default() += 1;
            }
            assert!(versions.len() <= 1, "seed {seed}: a mixture of {versions:?}");
            let shown = versions.into_iter().next();
            let all = || changes.iter().filter(|change| change.document == document);
            let beginning = Change { document, version: None, began: 0, ended: 0, done: Some(true) };
            let candidates: Vec<_> = all().chain([&beginning]).collect();
            let explains = |change: &&&Change| {
                let is_it = match (&change.version, shown) {
                    (None, None) => true,
                    (Some((name, count)), Some((shown, chunks))) => name == shown && *count == chunks,
                    _ => false,
                };
                let is_over = all()
                    .any(|later| later.done == Some(true) && later.began > change.ended && later.ended < look.began);
                is_it && change.began <= look.ended && change.done != Some(false) && !is_over
            };
            assert!(
                candidates.iter().any(|it| explains(&it)),
                "seed {seed}: {document} is seen as {shown:?} from {} to {}, after {candidates:?}",
                look.began,
                look.ended
            );
        }
    }
}

async fn run(seed: u64) -> (usize, usize, usize) {
    let world = World::with(Setup { model: Some(Arc::new(Answering)), ..Setup::default() });
    let dice = SeededIds::new(seed);
    let below = |limit: u128| dice.random() % limit;
    for name in ["state", "stage", "publish", "discard", "delete", "nearest", "matching"] {
        let faults = (0..200).map(|_| match below(40) {
            0 => Fault::Fail,
            1 => Fault::Lose,
            2 if name != "delete" => Fault::Panic,
            _ => Fault::None,
        });
        world.corpus.faults.plan(name, faults.collect::<Vec<_>>());
    }
    for name in ["get", "put"] {
        let faults = (0..200).map(|_| if below(20) == 0 { Fault::Fail } else { Fault::None });
        world.cache.faults.plan(name, faults.collect::<Vec<_>>());
    }
    for _ in 0..100 {
        world.embedder.push(match below(30) {
            0 => EmbedderStep::Fail(ModelError::Unsupported { feature: "x" }),
            _ => EmbedderStep::Wait(std::time::Duration::from_millis(u64::try_from(below(600)).unwrap())),
        });
    }
    let run = Run { world, dice, time: AtomicU64::new(0), changes: Mutex::default(), looks: Mutex::default() };
    passing(&run.world, join_all((0..CLIENTS).map(|_| run.client()))).await;
    run.world.assert_closed().await;
    let at = run.tick();
    let chunks = found(&run.world, "acme").await;
    run.looks.lock().unwrap().push(Look { began: at, ended: at, chunks });
    for look in run.looks.lock().unwrap().iter() {
        run.judge(seed, look);
    }
    run.world.corpus.inner_rest("acme").await;
    assert_eq!(run.world.corpus.inner_rest("acme").await, 0);
    let changes = run.changes.lock().unwrap();
    let done = changes.iter().filter(|change| change.done == Some(true)).count();
    (done, changes.len() - done, run.looks.lock().unwrap().len())
}

#[tokio::test]
async fn whatever_fails_and_in_whatever_order_one_whole_version_is_found() {
    let (mut done, mut unknown, mut looks) = (0, 0, 0);
    for seed in 0..30 {
        let (more, other, seen) = run(seed).await;
        done += more;
        unknown += other;
        looks += seen;
    }
    assert!(done > 200 && unknown > 50 && looks > 100, "{done} {unknown} {looks}");
}
