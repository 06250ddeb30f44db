//! The question in other words, and what might be asked next: neither may harm or delay an answer, and both are charged.

use std::time::Duration;

use enigma_core::model::ModelError;
use enigma_core::ports::Clock;
use enigma_core::search::SearchEvent;
use enigma_core::usage::Ending;
use enigma_memory::testing::{CallState, Script, Step};
use futures_util::StreamExt;
use serde_json::json;

use crate::harness::{
    NOW, SECOND, Setup, World, brewed, done, finish, names, passing, read, say, tenant_json, text, usage,
};

fn embedded(world: &World, before: usize) -> Vec<String> {
    world.embedder.calls()[before..].iter().flat_map(|call| call.call.inputs.clone()).collect()
}

/// What a model does beside an answer: its name, its script, and the least that it costs.
type Side = (&'static str, fn() -> Script, u64);

fn reset() -> ModelError {
    ModelError::Interrupted { message: "reset".into() }
}

#[tokio::test]
async fn other_words_are_searched_for_and_charged() {
    let (world, before) = World::stocked(Setup::rewriting()).await;
    let calls = world.embedder.calls().len();
    world.model.rewrites.push(Script::saying(["grind ", "beans\nThat is it."], usage(50, 5)));
    world.model.answers.push(brewed());
    let events = world.answer("What about a hot drink?").await;
    assert_eq!(names(&events)[0], "coffee");
    assert_eq!(embedded(&world, calls), ["grind beans"]);
    let asked = &world.model.answers.calls()[0].call.messages[1].content;
    assert!(asked.ends_with("Question: What about a hot drink?"), "the model answers what was asked");
    assert_eq!((done(&events).tokens_in, done(&events).tokens_out), (100 + 50 + 2, 10 + 5));
    world.assert_closed().await;
    let [record] = &world.records("/search")[..] else { panic!("one record") };
    assert_eq!((record.charged, record.estimated, world.spent().await - before), (167, false, 167));
}

#[tokio::test]
async fn without_other_words_the_question_is_searched_for_as_it_is() {
    let scripts: [Side; 6] = [
        ("refused", || Script::refusing(ModelError::Unsupported { feature: "x" }), 0),
        ("nonsense", || Script::saying(["…\n"], usage(50, 5)), 55),
        ("a story", || Script::saying(["x".repeat(600).as_str()], usage(50, 5)), 55),
        ("too much", || Script::new((0..100).map(|_| say(&"tea ".repeat(20)))), 1000),
        ("broken", || Script::new([say("grind beans"), Step::Fail(reset())]), 3),
        ("silent", || Script::new([Step::Hang]), 1),
    ];
    for (name, script, least) in scripts {
        let (world, before) = World::stocked(Setup::rewriting()).await;
        let calls = world.embedder.calls().len();
        world.model.rewrites.push(script());
        world.model.answers.push(brewed());
        let reply = passing(&world, world.ask(world.question("How does tea steep?").await)).await.unwrap();
        let events = passing(&world, read(reply.events)).await;
        assert_eq!(done(&events).ending, Ending::Finished, "{name}");
        assert_eq!(embedded(&world, calls), ["How does tea steep?"], "{name}");
        assert!(done(&events).latency <= SECOND * 3, "{name}: {:?}", done(&events).latency);
        world.assert_closed().await;
        let spent = world.spent().await - before - 114;
        assert!(spent >= least && (least > 0 || spent == 0), "{name}: {spent}");
        assert_eq!(world.records("/search").len(), 1);
    }
}

#[tokio::test]
async fn what_was_said_before_the_time_was_up_is_charged() {
    let (world, before) = World::stocked(Setup::rewriting()).await;
    world.model.rewrites.push(Script::new([say("1234567890123456"), Step::Hang]));
    world.model.answers.push(brewed());
    let reply = passing(&world, world.ask(world.question("How does tea steep?").await)).await.unwrap();
    let events = passing(&world, read(reply.events)).await;
    assert_eq!(done(&events).tokens_out, 10 + 4);
    assert_eq!(world.model.rewrites.states(), [CallState::Dropped]);
    world.assert_closed().await;
    assert_eq!(world.spent().await - before, done(&events).tokens_in + 14);
    assert!(world.records("/search")[0].estimated);
}

#[tokio::test]
async fn follow_ups_come_with_the_end_and_are_charged() {
    let (world, before) = World::stocked(Setup::following_up()).await;
    world.model.answers.push(brewed());
    world.model.follow_ups.push(Script::saying(["1. How long?\nHow hot?\nSo.\n"], usage(60, 6)));
    let events = world.answer("How does tea steep?").await;
    assert_eq!(done(&events).follow_ups, ["How long?", "How hot?"]);
    world.assert_closed().await;
    assert_eq!(world.spent().await - before, 114 + 66);
    // And who asks again is told the same.
    let again = world.answer("How does tea steep?").await;
    assert_eq!(done(&again).follow_ups, ["How long?", "How hot?"]);
    assert_eq!(world.spent().await - before, 180);
}

#[tokio::test]
async fn follow_ups_that_take_too_long_hold_up_nothing_but_the_end_and_that_for_the_bound_alone() {
    let (world, before) = World::stocked(Setup::following_up()).await;
    world.model.answers.push(brewed());
    world.model.follow_ups.push(Script::new([say("How long?\nHow"), Step::Hang]));
    let mut reply = world.ask(world.question("How does tea steep?").await).await.unwrap();
    let mut pieces = String::new();
    // All of the answer is there before any time passes.
    while pieces != "Let it steep [source:tea#0]." {
        if let Some(SearchEvent::Content(piece)) = reply.events.next().await {
            pieces.push_str(&piece);
        }
    }
    world.settle_down().await;
    world.clock.advance(Duration::from_millis(999));
    world.settle_down().await;
    assert_eq!(world.background.running(), 1);
    world.clock.advance(Duration::from_millis(1));
    let rest = read(reply.events).await;
    let [SearchEvent::Done(done)] = &rest[..] else { panic!("{rest:?}") };
    assert_eq!((done.latency, done.follow_ups.len(), done.ending), (SECOND, 0, Ending::Finished));
    assert_eq!(world.model.follow_ups.states(), [CallState::Dropped]);
    world.assert_closed().await;
    assert!(world.spent().await - before > 114 + 4, "what was asked and answered beside it");
    assert!(world.clock.now() > NOW);
}

#[tokio::test]
async fn follow_ups_are_let_go_when_the_answer_fails() {
    let (world, _) = World::stocked(Setup::following_up()).await;
    let broken = reset();
    world.model.answers.push(Script::new([say("1234"), Step::Wait(SECOND), Step::Fail(broken)]));
    world.model.follow_ups.push(Script::new([Step::Hang]));
    let reply = world.ask(world.question("How does tea steep?").await).await.unwrap();
    let events = passing(&world, read(reply.events)).await;
    assert_eq!((done(&events).ending, text(&events).as_str()), (Ending::Failed, "1234"));
    assert_eq!(world.model.follow_ups.states(), [CallState::Dropped]);
    assert!(done(&events).latency < SECOND * 2);
    world.assert_closed().await;
}

#[tokio::test]
async fn a_tenant_can_do_without_both() {
    let mut setup = Setup::rewriting();
    setup.settings.follow_up_wait = Some(SECOND);
    let (world, _) = World::stocked(setup).await;
    world.configure(|name| {
        let mut tenant = tenant_json(name);
        tenant["featureFlags"] = json!({ "query_rewriting": false, "follow_ups": false });
        tenant
    });
    world.model.answers.push(Script::new([say("So it is."), finish()]));
    assert_eq!(text(&world.answer("tea?").await), "So it is.");
    assert!(world.model.rewrites.calls().is_empty() && world.model.follow_ups.calls().is_empty());
    world.assert_closed().await;
}
