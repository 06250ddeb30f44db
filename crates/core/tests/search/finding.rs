use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use enigma_core::admission::Permit;
use enigma_core::model::ModelError;
use enigma_core::retrieval::{MetadataFilter, Ranked, SearchMode};
use enigma_core::search::{CacheStatus, Reranker, RetrievalError, SearchCommand, SearchEvent};
use enigma_core::{PortError, TenantId};
use enigma_memory::testing::EmbedderStep;
use futures_util::future::pending;
use serde_json::json;

use crate::doubles::Fault;
use crate::harness::{SECOND, Setup, World, brewed, done, names, passing, read, sources};

async fn asked(world: &World, change: impl FnOnce(&mut SearchCommand)) -> Vec<SearchEvent> {
    world.model.answers.push(brewed());
    let mut command = world.question("How does tea steep?").await;
    change(&mut command);
    let reply = passing(world, world.ask(command)).await.unwrap();
    passing(world, read(reply.events)).await
}

#[tokio::test]
async fn the_filter_and_the_number_of_sources_are_kept_to_in_every_mode() {
    let (world, _) = World::stocked(Setup::default()).await;
    for mode in [SearchMode::Hybrid, SearchMode::Vector, SearchMode::Keyword] {
        let events = asked(&world, |it| {
            it.mode = mode;
            it.query = "water".into();
            it.filter = MetadataFilter::from_json(&json!({ "name": "coffee" })).unwrap();
        });
        assert_eq!(names(&events.await), ["coffee"]);
        let events = asked(&world, |it| {
            it.mode = mode;
            it.query = "water beans".into();
            it.top_k = 1;
        });
        assert_eq!(names(&events.await), ["coffee"]);
    }
    world.assert_closed().await;
}

#[tokio::test]
async fn words_alone_need_no_vector_and_vectors_alone_no_words() {
    let (world, _) = World::stocked(Setup::default()).await;
    let before = world.embedder.calls().len();
    asked(&world, |it| it.mode = SearchMode::Keyword).await;
    assert_eq!(world.embedder.calls().len(), before);
    assert_eq!(world.corpus.faults.take(), ["state", "matching"]);
    asked(&world, |it| it.mode = SearchMode::Vector).await;
    assert_eq!(world.corpus.faults.take(), ["state", "nearest"]);
}

#[tokio::test]
async fn hybrid_search_goes_on_with_one_index_and_does_not_keep_that() {
    for fault in [Fault::Fail, Fault::Lose, Fault::Panic] {
        for broken in ["nearest", "matching", "embedder"] {
            let (world, _) = World::stocked(Setup::default()).await;
            if broken == "embedder" {
                world.embedder.push(EmbedderStep::Fail(ModelError::Unauthorized { status: 401 }));
            } else {
                world.corpus.faults.plan(broken, [fault]);
            }
            let events = asked(&world, |_| {}).await;
            assert_eq!(names(&events)[0], "tea", "{broken}");
            assert!(world.cache.puts.lock().unwrap().is_empty(), "{broken}");
            world.assert_closed().await;
            // It is whole the next time.
            let events = asked(&world, |_| {}).await;
            assert_eq!((names(&events), world.cache.puts.lock().unwrap().len()), (vec!["tea", "coffee"], 1));
        }
    }
}

#[tokio::test]
async fn half_a_search_that_finds_nothing_does_not_say_that_there_is_nothing() {
    let (world, before) = World::stocked(Setup::default()).await;
    world.embedder.push(EmbedderStep::Fail(ModelError::Unauthorized { status: 401 }));
    let rejected = world.ask(world.question("chocolate").await).await.unwrap_err();
    assert!(matches!(rejected.error, RetrievalError::Common(_)), "{rejected:?}");
    world.assert_closed().await;
    assert_eq!((world.spent().await, world.records("/search").len()), (before, 1));
}

#[tokio::test]
async fn a_search_by_one_index_fails_with_it() {
    for (mode, broken) in [(SearchMode::Vector, "nearest"), (SearchMode::Keyword, "matching")] {
        let (world, _) = World::stocked(Setup::default()).await;
        world.corpus.faults.plan(broken, [Fault::Fail]);
        let mut command = world.question("tea").await;
        command.mode = mode;
        let rejected = world.ask(command).await.unwrap_err();
        assert!(matches!(rejected.error, RetrievalError::Common(_)) && rejected.rate.is_some());
        world.assert_closed().await;
    }
}

/// Gives scores, or does not.
struct Judge(Mutex<Vec<Verdict>>);

enum Verdict {
    /// The later, the better.
    Backwards,
    /// As many as it likes.
    Scores(Vec<f64>),
    Fail,
    Panic,
    Hang,
}

#[async_trait]
impl Reranker for Judge {
    async fn rerank(&self, _: &Permit, _: &TenantId, _: &str, passages: &[Ranked]) -> Result<Vec<f64>, PortError> {
        let verdict = self.0.lock().unwrap().pop().unwrap();
        match verdict {
            #[expect(clippy::cast_precision_loss, reason = "there are few")]
            Verdict::Backwards => Ok((0..passages.len()).map(|n| n as f64 / passages.len() as f64).collect()),
            Verdict::Scores(scores) => Ok(scores),
            Verdict::Fail => Err(PortError::Timeout { port: "reranker" }),
            Verdict::Panic => panic!("this judge panics"),
            Verdict::Hang => pending().await,
        }
    }
}

#[tokio::test]
async fn a_reranker_reorders_and_what_goes_wrong_with_it_does_no_harm() {
    let harmless = [
        Verdict::Fail,
        Verdict::Panic,
        Verdict::Hang,
        Verdict::Scores(Vec::new()),
        Verdict::Scores(vec![1.0; 9]),
        Verdict::Scores(vec![f64::NAN, f64::NAN]),
    ];
    for verdict in harmless {
        let reranker: Arc<dyn Reranker> = Arc::new(Judge(Mutex::new(vec![verdict])));
        let (world, _) = World::stocked(Setup { reranker: Some(reranker), ..Setup::default() }).await;
        let events = asked(&world, |_| {}).await;
        assert_eq!(names(&events), ["tea", "coffee"]);
        assert!(sources(&events).iter().all(|source| (0.0..=1.0).contains(&source.score)));
        assert!(done(&events).latency <= SECOND + Duration::from_millis(250));
        world.assert_closed().await;
    }
    let reranker: Arc<dyn Reranker> = Arc::new(Judge(Mutex::new(vec![Verdict::Backwards, Verdict::Backwards])));
    let (world, _) = World::stocked(Setup { reranker: Some(reranker), ..Setup::default() }).await;
    assert_eq!(names(&asked(&world, |_| {}).await), ["coffee", "tea"]);
    // It sees more than are wanted.
    assert_eq!(names(&asked(&world, |it| it.top_k = 1).await), ["coffee"]);
    world.assert_closed().await;
}

#[tokio::test]
async fn an_answer_is_kept_with_all_that_was_found() {
    let (world, _) = World::stocked(Setup::default()).await;
    let first = asked(&world, |_| {}).await;
    let command = world.question("How does tea steep?").await;
    let again = world.ask(command).await.unwrap();
    assert_eq!(again.cache, CacheStatus::Hit);
    let again = read(again.events).await;
    assert_eq!(sources(&first), sources(&again));
    assert!((done(&first).confidence - done(&again).confidence).abs() < f64::EPSILON);
}

#[tokio::test]
async fn both_indexes_are_asked_about_one_generation() {
    let (world, _) = World::stocked(Setup::default()).await;
    world.model.answers.push(brewed());
    // The words are found, and then the document changes before the vectors are.
    world.corpus.faults.plan("nearest", [Fault::Slow]);
    let mut asking = Box::pin(world.ask(world.question("How does tea steep?").await));
    assert!(futures_util::poll!(asking.as_mut()).is_pending());
    world.settle_down().await;
    assert_eq!(world.corpus.faults.count("matching"), 1);
    world
        .add("acme", "tea", "# Of ice\n\nThe tea is cold here, all of it.\n\n# Of steam\n\nThe tea is hot here, very.")
        .await;
    let events = read(asking.await.unwrap().events).await;
    let texts: Vec<_> = sources(&events).iter().map(|source| source.text.as_str()).collect();
    assert!(!texts.contains(&"Boil the water, then let the tea steep."), "{texts:?}");
    assert_eq!(texts.len(), 3);
    world.assert_closed().await;
}
