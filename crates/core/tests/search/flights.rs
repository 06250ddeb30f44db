use enigma_core::chat::ChatError;
use enigma_core::model::ModelError;
use enigma_core::search::{CacheStatus, RetrievalError, SearchEvent};
use enigma_core::usage::Ending;
use enigma_memory::testing::{EmbedderStep, Script, Step};
use futures_util::future::join_all;
use futures_util::poll;

use crate::doubles::Fault;
use crate::harness::{SECOND, Setup, World, brewed, done, names, passing, read, say, text};

const QUERY: &str = "How does tea steep?";

async fn ask(world: &World, tenant: &str) -> (CacheStatus, Vec<SearchEvent>) {
    let reply = world.ask_as(tenant, world.question(QUERY).await).await.unwrap();
    (reply.cache, read(reply.events).await)
}

/// What takes a second to be answered.
fn slow() -> Script {
    brewed().first(Step::Wait(SECOND))
}

#[tokio::test]
async fn equal_questions_at_the_same_time_are_answered_once() {
    let (world, before) = World::stocked(Setup::following_up()).await;
    world.model.answers.push(slow());
    world.model.follow_ups.push(Script::saying(["How long?"], crate::harness::usage(60, 6)));
    let all = passing(&world, join_all((0..8).map(|_| ask(&world, "acme")))).await;
    assert_eq!(world.model.answers.calls().len(), 1);
    assert_eq!(all.iter().filter(|(status, _)| *status == CacheStatus::Miss).count(), 1);
    for (_, events) in &all {
        assert_eq!((text(events), names(events)), (text(&all[0].1), names(&all[0].1)));
        let (one, other) = (done(events), done(&all[0].1));
        assert_eq!((&one.follow_ups, one.ending, &one.model), (&other.follow_ups, other.ending, &other.model));
        assert!((one.confidence - other.confidence).abs() < f64::EPSILON);
    }
    world.assert_closed().await;
    assert_eq!((world.records("/search").len(), world.spent().await - before), (1, 114 + 66));
}

#[tokio::test]
async fn equal_questions_of_two_tenants_are_answered_twice() {
    let (world, _) = World::stocked(Setup::default()).await;
    world.add("other", "tea", "Here the tea is cold.").await;
    world.add("other", "milk", "Pour the milk first.").await;
    world.model.answers.push(slow());
    world.model.answers.push(slow());
    let tenants = ["acme", "other", "acme", "other"];
    let all = passing(&world, join_all(tenants.map(|name| ask(&world, name)))).await;
    assert_eq!(world.model.answers.calls().len(), 2);
    for (name, (_, events)) in tenants.iter().zip(&all) {
        assert_eq!(names(events).contains(&"milk"), *name == "other");
    }
    world.assert_closed().await;
}

#[tokio::test]
async fn who_waits_takes_over_when_the_first_one_fails_or_leaves() {
    for how in ["fails", "breaks off", "leaves", "leaves early", "loses its reservation"] {
        let (world, _) = World::stocked(Setup::default()).await;
        match how {
            "fails" => {
                let fails = Script::refusing(ModelError::Unsupported { feature: "x" }).first(Step::Wait(SECOND));
                world.model.answers.push(fails);
            }
            "breaks off" => {
                let broken = ModelError::Interrupted { message: "reset".into() };
                world.model.answers.push(Script::new([say("1"), Step::Wait(SECOND), Step::Fail(broken)]));
            }
            "leaves" => world.model.answers.push(Script::new([say("1"), Step::Hang])),
            "leaves early" => world.embedder.push(EmbedderStep::Hang),
            _ => world.books.plan("reserve", [Fault::Fail]),
        }
        world.model.answers.push(slow());
        let all = if how.starts_with("leaves") {
            let mut first = Box::pin(ask_or_fail(&world));
            assert!(poll!(first.as_mut()).is_pending());
            world.settle_down().await;
            let mut others = Box::pin(join_all((0..4).map(|_| ask_or_fail(&world))));
            assert!(poll!(others.as_mut()).is_pending());
            world.settle_down().await;
            assert!(poll!(first.as_mut()).is_pending() && poll!(others.as_mut()).is_pending());
            drop(first);
            passing(&world, others).await
        } else {
            // Whoever is first fails, and no other.
            let mut all = passing(&world, join_all((0..5).map(|_| ask_or_fail(&world)))).await;
            let is_whole = |told: &Told| told.as_ref().is_some_and(|(_, it)| done(it).ending == Ending::Finished);
            all.retain(is_whole);
            all
        };
        assert_eq!(all.len(), 4, "{how}");
        let all: Vec<_> = all.into_iter().flatten().collect();
        assert!(all.iter().all(|(_, events)| text(events) == "Let it steep [source:tea#0]."), "{how}");
        assert!(all.iter().all(|(_, events)| done(events).ending == Ending::Finished));
        assert_eq!(all.iter().filter(|(status, _)| *status == CacheStatus::Miss).count(), 1, "{how}");
        world.assert_closed().await;
    }
}

type Told = Option<(CacheStatus, Vec<SearchEvent>)>;

async fn ask_or_fail(world: &World) -> Told {
    let reply = world.ask(world.question(QUERY).await).await.ok()?;
    Some((reply.cache, read(reply.events).await))
}

#[tokio::test]
async fn half_a_search_is_shared_with_those_who_wait_and_kept_for_nobody() {
    let (world, _) = World::stocked(Setup::default()).await;
    world.corpus.faults.plan("nearest", [Fault::Fail]);
    world.model.answers.push(slow());
    let all = passing(&world, join_all((0..5).map(|_| ask(&world, "acme")))).await;
    assert!(all.iter().all(|(_, events)| names(events) == ["tea"]));
    assert_eq!((world.model.answers.calls().len(), world.cache.puts.lock().unwrap().len()), (1, 0));
    world.assert_closed().await;
}

#[tokio::test]
async fn who_waits_ends_in_its_own_time_or_leaves() {
    let (world, _) = World::stocked(Setup::default()).await;
    world.model.answers.push(Script::new((0..50).flat_map(|_| [say("1"), Step::Wait(SECOND * 3)])));
    let first = world.ask(world.question(QUERY).await).await.unwrap();
    // One leaves while it waits, and one is stopped.
    let mut gone = Box::pin(ask_or_fail(&world));
    assert!(poll!(gone.as_mut()).is_pending());
    world.settle_down().await;
    drop(gone);
    world.settle_down().await;
    assert_eq!(world.background.running(), 1);
    let mut stopped = Box::pin(world.ask(world.question(QUERY).await));
    assert!(poll!(stopped.as_mut()).is_pending());
    world.settle_down().await;
    world.background.stop();
    let rejected = stopped.await.unwrap_err();
    assert!(matches!(rejected.error, RetrievalError::Common(ChatError::ShuttingDown)), "{rejected:?}");
    drop(first);
    world.assert_closed().await;
    assert_eq!(world.records("/search").len(), 1);
}

#[tokio::test]
async fn a_panic_of_the_first_one_holds_up_nobody() {
    let (world, _) = World::stocked(Setup::default()).await;
    world.corpus.faults.plan("matching", [Fault::Panic]);
    world.corpus.faults.plan("nearest", [Fault::Panic]);
    world.model.answers.push(slow());
    let all = passing(&world, join_all((0..4).map(|_| ask_or_fail(&world)))).await;
    assert_eq!(all.iter().flatten().filter(|(_, it)| done(it).ending == Ending::Finished).count(), 3);
    assert_eq!(world.model.answers.calls().len(), 1);
    world.assert_closed().await;
}

#[tokio::test]
async fn who_reads_slowly_holds_up_nobody_else_and_hears_all_of_it() {
    let (world, _) = World::stocked(Setup::default()).await;
    let pieces = (0..40).map(|n| say(&format!("{n} ")));
    world
        .model
        .answers
        .push(Script::new([Step::Wait(SECOND)].into_iter().chain(pieces).chain([crate::harness::finish()])));
    let mut first = Box::pin(world.ask(world.question(QUERY).await));
    assert!(poll!(first.as_mut()).is_pending());
    world.settle_down().await;
    let second = Box::pin(ask(&world, "acme"));
    let (first, (status, events)) = futures_util::future::join(first, async { passing(&world, second).await }).await;
    assert_eq!((status, done(&events).ending), (CacheStatus::Hit, Ending::Finished));
    assert!(done(&events).latency < SECOND * 2);
    let slow = read(first.unwrap().events).await;
    assert_eq!((text(&slow), done(&slow).ending), (text(&events), Ending::Finished));
    world.assert_closed().await;
    assert_eq!(world.model.answers.calls().len(), 1);
}
