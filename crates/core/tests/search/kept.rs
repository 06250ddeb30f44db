use std::sync::atomic::Ordering;
use std::time::Duration;

use enigma_core::retrieval::{MetadataFilter, SearchMode};
use enigma_core::search::{CacheStatus, SearchCommand, SearchEvent};
use enigma_memory::testing::Script;
use serde_json::json;

use crate::doubles::Fault;
use crate::harness::{SECOND, Setup, World, brewed, done, names, passing, read, tenant_json, text, usage};

type Change = Box<dyn Fn(&mut SearchCommand)>;

/// Asks as `acme`, and tells whether the answer was there.
async fn asked(world: &World, change: impl FnOnce(&mut SearchCommand)) -> (CacheStatus, Vec<SearchEvent>) {
    let mut command = world.question("How does tea steep?").await;
    change(&mut command);
    let reply = passing(world, world.ask(command)).await.unwrap();
    (reply.cache, passing(world, read(reply.events)).await)
}

#[tokio::test]
async fn an_answer_that_is_there_spends_nothing_and_is_the_same() {
    let (world, _) = World::stocked(Setup::default()).await;
    world.model.answers.push(brewed());
    let (status, first) = asked(&world, |_| {}).await;
    assert_eq!(status, CacheStatus::Miss);
    let (spent, calls) = (world.spent().await, world.embedder.calls().len());
    world.books.take();
    world.clock.advance(SECOND * 60);
    let (status, again) = asked(&world, |_| {}).await;
    assert_eq!((status, text(&again), names(&again)), (CacheStatus::Hit, text(&first), names(&first)));
    assert_eq!((done(&again).tokens_in, done(&again).tokens_out, done(&again).latency), (0, 0, Duration::ZERO));
    assert_eq!((world.spent().await, world.embedder.calls().len()), (spent, calls));
    assert_eq!((world.model.answers.calls().len(), world.records("/search").len()), (1, 1));
    assert_eq!(world.books.take(), ["enter", "close"], "it takes a slot of the windows, and no tokens");
    world.assert_closed().await;
    world.clock.advance(SECOND * 3600);
    world.model.answers.push(brewed());
    assert_eq!(asked(&world, |_| {}).await.0, CacheStatus::Miss, "it is kept for an hour");
}

#[tokio::test]
async fn whatever_changes_the_answer_is_asked_anew() {
    let (world, _) = World::stocked(Setup::default()).await;
    for _ in 0..20 {
        world.model.answers.push(brewed());
    }
    let filter = |value| MetadataFilter::from_json(&value).unwrap();
    let changes: [(&str, Change); 8] = [
        ("nothing", Box::new(|_| {})),
        ("query", Box::new(|it| it.query = "How does tea steep".into())),
        ("topK", Box::new(|it| it.top_k = 4)),
        ("filter", Box::new(move |it| it.filter = filter(json!({ "name": "tea" })))),
        ("another filter", Box::new(move |it| it.filter = filter(json!({ "name": { "$ne": "coffee" } })))),
        ("type in a filter", Box::new(move |it| it.filter = filter(json!({ "name": { "$in": ["tea", 1] } })))),
        ("mode", Box::new(|it| it.mode = SearchMode::Vector)),
        ("another mode", Box::new(|it| it.mode = SearchMode::Keyword)),
    ];
    for expected in [CacheStatus::Miss, CacheStatus::Hit] {
        for (name, change) in &changes {
            assert_eq!(asked(&world, change).await.0, expected, "{name}");
        }
    }
    for (field, value) in [
        ("aiModels", json!({ "chat": "spare", "embeddings": "words" })),
        ("featureFlags", json!({ "query_rewriting": false })),
    ] {
        world.configure(|name| {
            let mut tenant = tenant_json(name);
            tenant[field] = value.clone();
            tenant
        });
        let expected = if field == "aiModels" { CacheStatus::Miss } else { CacheStatus::Hit };
        assert_eq!(asked(&world, |_| {}).await.0, expected, "rewriting was off before");
    }
    world.assert_closed().await;
}

#[tokio::test]
async fn two_tenants_never_share() {
    let (world, _) = World::stocked(Setup::default()).await;
    world.add("other", "tea", "Here the tea is cold.").await;
    world.add("other", "milk", "Pour the milk first.").await;
    world.model.answers.push(brewed());
    world.model.answers.push(Script::saying(["Cold [source:tea#0]."], usage(1, 1)));
    let generation = async |name| {
        use enigma_core::ports::Corpus;
        world.corpus.inner.state(&crate::harness::tenant(name)).await.unwrap().generation
    };
    assert_eq!(generation("acme").await, generation("other").await, "the same key in all but the tenant");
    let question = async || world.question("How does tea steep?").await;
    let first = read(world.ask(question().await).await.unwrap().events).await;
    let other = world.ask_as("other", question().await).await.unwrap();
    assert_eq!(other.cache, CacheStatus::Miss);
    let other = read(other.events).await;
    assert_eq!(
        (text(&first).as_str(), text(&other).as_str()),
        ("Let it steep [source:tea#0].", "Cold [source:tea#0].")
    );
    assert!(names(&other).contains(&"milk"));
    let keys: Vec<_> = world.cache.puts.lock().unwrap().iter().map(|(key, _)| key.clone()).collect();
    assert_eq!(keys[0], keys[1]);
    world.assert_closed().await;
}

#[tokio::test]
async fn an_answer_from_a_corpus_that_is_settling_is_not_kept() {
    let (world, _) = World::stocked(Setup::default()).await;
    for _ in 0..3 {
        world.model.answers.push(brewed());
    }
    world.corpus.is_settling.store(true, Ordering::Relaxed);
    assert_eq!(asked(&world, |_| {}).await.0, CacheStatus::Miss);
    assert_eq!(asked(&world, |_| {}).await.0, CacheStatus::Miss);
    world.corpus.is_settling.store(false, Ordering::Relaxed);
    assert_eq!(asked(&world, |_| {}).await.0, CacheStatus::Miss);
    assert_eq!(asked(&world, |_| {}).await.0, CacheStatus::Hit);
    world.assert_closed().await;
}

#[tokio::test]
async fn a_change_of_the_corpus_makes_older_answers_unreachable() {
    let (world, _) = World::stocked(Setup::default()).await;
    for _ in 0..5 {
        world.model.answers.push(brewed());
    }
    asked(&world, |_| {}).await;
    world.add("acme", "cocoa", "Tea is not cocoa.").await;
    let (status, events) = asked(&world, |_| {}).await;
    assert_eq!((status, names(&events).len()), (CacheStatus::Miss, 3));
    let context = world.context("acme").await;
    assert!(world.documents.delete(&context, &"cocoa".to_owned().try_into().unwrap()).await.unwrap());
    let (status, events) = asked(&world, |_| {}).await;
    assert_eq!((status, names(&events).len()), (CacheStatus::Miss, 2), "nor is that of before the ingestion");
    world.add("acme", "tea", "Tea is cold.").await;
    assert_eq!(asked(&world, |_| {}).await.0, CacheStatus::Miss);
    assert_eq!(asked(&world, |_| {}).await.0, CacheStatus::Hit);
    world.assert_closed().await;
}

#[tokio::test]
async fn a_cache_that_fails_or_holds_nonsense_costs_an_answer_and_no_more() {
    for (name, fault) in
        ["get", "put"].into_iter().flat_map(|it| [Fault::Fail, Fault::Lose, Fault::Panic, Fault::Hang].map(|f| (it, f)))
    {
        let (world, _) = World::stocked(Setup::default()).await;
        world.cache.faults.plan(name, [fault; 9]);
        for _ in 0..2 {
            world.model.answers.push(brewed());
            let (status, events) = asked(&world, |_| {}).await;
            let is_there = name == "put" && fault == Fault::Lose && world.model.answers.calls().len() == 1;
            assert!(status == CacheStatus::Miss || is_there, "{name} {fault:?}");
            assert_eq!(text(&events), "Let it steep [source:tea#0].");
            assert!(done(&events).latency < SECOND * 2, "{name} {fault:?}: {:?}", done(&events).latency);
        }
        world.assert_closed().await;
    }
    let (world, _) = World::stocked(Setup::default()).await;
    world.cache.is_broken.store(true, Ordering::Relaxed);
    for _ in 0..2 {
        world.model.answers.push(brewed());
        assert_eq!(asked(&world, |_| {}).await.0, CacheStatus::Miss);
    }
    world.cache.is_broken.store(false, Ordering::Relaxed);
    assert_eq!(asked(&world, |_| {}).await.0, CacheStatus::Hit, "the broken one was replaced");
    world.assert_closed().await;
}
