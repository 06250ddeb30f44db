//! How often a chat asks its facade ports. On some hosts every call is dear, so each is made once at most; and whoever got in
//! is closed once, on every ending.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use enigma_core::chat::{ChatError, ChatEvent, StreamFailure};
use enigma_core::idempotency::{Fingerprint, IdempotencyKey};
use enigma_core::model::ModelError;
use enigma_core::usage::Ending;
use enigma_memory::testing::{Script, Step};
use futures_util::{StreamExt, poll};

use crate::endings::Panicking;
use crate::harness::{World, done, finish, hello, passing, read, say, settings, tenant_json};

const WHOLE: [&str; 5] = ["enter", "begin", "reserve", "append", "close"];
const NOTHING_SAID: [&str; 5] = ["enter", "begin", "reserve", "end", "close"];

#[tokio::test]
async fn an_answer_in_a_session_takes_five_calls() {
    let world = World::new();
    world.main.push(hello());
    read(world.ask(world.question(Some(1)).await).await.unwrap().events).await;
    assert_eq!(world.calls.take(), WHOLE);
}

#[tokio::test]
async fn an_answer_without_a_session_takes_three() {
    let world = World::new();
    world.main.push(hello());
    read(world.ask(world.question(None).await).await.unwrap().events).await;
    assert_eq!(world.calls.take(), ["enter", "reserve", "close"]);
}

#[tokio::test]
async fn a_key_takes_one_look_at_the_windows_more_and_a_repeat_two_alone() {
    let world = World::new();
    let mut command = world.question(Some(1)).await;
    let key = IdempotencyKey::new(&command.caller.subject, "/chat", "once").unwrap();
    command.idempotency = Some((key, Fingerprint::of(&[b"same"])));
    world.main.push(hello());
    read(world.ask(command.clone()).await.unwrap().events).await;
    assert_eq!(world.calls.take(), ["peek", "enter", "begin", "reserve", "append", "close"]);
    world.background.idle().await;
    assert!(world.ask(command).await.unwrap().replayed);
    assert_eq!(world.calls.take(), ["peek", "peek"]);
}

#[tokio::test]
async fn who_does_not_get_in_is_not_closed() {
    let mut tenant = tenant_json();
    tenant["rateLimit"] = serde_json::json!({ "perMinute": 3 });
    let world = World::with(&tenant, settings());
    let mut open = Vec::new();
    for session in 1..=2 {
        world.main.push(Script::new([say("1"), Step::Hang]));
        open.push(world.ask(world.question(Some(session)).await).await.unwrap());
    }
    world.calls.take();
    for _ in 0..2 {
        // The first one lacks a stream, and the second, after that, a slot of the windows.
        world.ask(world.question(Some(3)).await).await.unwrap_err();
    }
    world.settle_down().await;
    assert_eq!(world.calls.take(), ["enter", "enter"]);
    drop(open);
    world.background.idle().await;

    world.calls.fail("enter");
    let rejected = world.ask(world.question(Some(3)).await).await.unwrap_err();
    assert!(matches!(rejected.error, ChatError::Admission(_)));
    assert_eq!(world.calls.count(&["close"]), 2, "those of the first two");
}

#[tokio::test]
async fn without_budget_the_turn_is_ended_and_the_request_closed() {
    let mut tenant = tenant_json();
    tenant["tokenBudget"] = serde_json::json!({ "daily": 59 });
    let world = World::with(&tenant, settings());
    world.ask(world.question(Some(1)).await).await.unwrap_err();
    assert_eq!(world.calls.take(), NOTHING_SAID);
    world.assert_nothing_is_held().await;
    world.ask(world.question(None).await).await.unwrap_err();
    assert_eq!(world.calls.take(), ["enter", "reserve", "close"]);
}

#[tokio::test]
async fn a_ledger_that_does_not_answer_ends_the_turn_and_the_request() {
    let world = World::new();
    world.calls.fail("reserve");
    world.ask(world.question(Some(1)).await).await.unwrap_err();
    assert_eq!(world.calls.take(), NOTHING_SAID);
    world.background.idle().await;
    world.assert_nothing_is_held().await;
}

#[tokio::test]
async fn what_a_lost_answer_of_the_ledger_has_set_aside_is_given_back() {
    let world = World::new();
    world.calls.lose("reserve");
    world.ask(world.question(Some(1)).await).await.unwrap_err();
    assert_eq!(world.calls.take(), NOTHING_SAID);
    world.background.idle().await;
    world.assert_nothing_is_held().await;
    assert_eq!(world.books().await, (0, 0));
}

#[tokio::test]
async fn a_session_that_cannot_be_read_ends_the_request() {
    let world = World::new();
    world.calls.fail("begin");
    let rejected = world.ask(world.question(Some(1)).await).await.unwrap_err();
    assert!(matches!(rejected.error, ChatError::Port(_)) && rejected.rate.is_some());
    assert_eq!(world.calls.take(), ["enter", "begin", "close"]);
    assert!(world.records().is_empty());
    world.background.idle().await;
    world.assert_nothing_is_held().await;
}

#[tokio::test]
async fn who_waits_for_a_turn_in_vain_is_closed() {
    let world = World::new();
    let talk = (0..60).flat_map(|_| [say("more"), Step::Wait(Duration::from_secs(4))]);
    world.main.push(Script::new(talk));
    let mut first = world.ask(world.question(Some(1)).await).await.unwrap();
    first.events.next().await.unwrap();
    world.calls.take();

    // One goes away while it waits.
    let command = world.question(Some(1)).await;
    let mut gone = Box::pin(world.ask(command));
    assert!(poll!(gone.as_mut()).is_pending());
    world.settle_down().await;
    drop(gone);
    world.settle_down().await;
    assert_eq!(world.calls.take(), ["enter", "begin", "close"]);

    // Of another one the host stops first.
    let command = world.question(Some(1)).await;
    let mut stopped = Box::pin(world.ask(command));
    assert!(poll!(stopped.as_mut()).is_pending());
    world.settle_down().await;
    world.background.stop();
    assert!(matches!(stopped.await.unwrap_err().error, ChatError::ShuttingDown));
    world.background.idle().await;
    let calls = world.calls.take();
    assert_eq!(calls.iter().filter(|call| **call == "close").count(), 2, "both ended: {calls:?}");
    assert_eq!(calls.iter().filter(|call| **call == "append").count(), 1, "the first one had something to keep");
    world.assert_nothing_is_held().await;
}

#[tokio::test]
async fn a_model_that_refuses_leaves_no_turn_and_closes_the_request() {
    let world = World::new();
    world.main.push(Script::refusing(ModelError::Unsupported { feature: "x" }));
    world.ask(world.question(Some(1)).await).await.unwrap_err();
    assert_eq!(world.calls.take(), NOTHING_SAID);
    assert_eq!((world.books().await, world.records().len()), ((0, 0), 1), "released before the client is told");
}

#[tokio::test]
async fn a_client_that_goes_away_before_the_model_answers_is_closed_once() {
    let world = World::new();
    world.main.push(Script::new([Step::Hang]));
    let command = world.question(Some(1)).await;
    let mut asking = Box::pin(world.ask(command));
    assert!(poll!(asking.as_mut()).is_pending());
    world.settle_down().await;
    drop(asking);
    world.background.idle().await;
    assert_eq!(world.calls.take(), NOTHING_SAID);
    assert_eq!(world.records()[0].charged, 10);
    world.assert_nothing_is_held().await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_or_is_abandoned_is_appended_and_closed_once() {
    let world = World::new();
    let broken = ModelError::Interrupted { message: "reset".into() };
    world.main.push(Script::new([say("12345678"), Step::Fail(broken)]));
    read(world.ask(world.question(Some(1)).await).await.unwrap().events).await;
    assert_eq!(world.calls.take(), WHOLE);

    world.main.push(Script::new([say("12345678"), Step::Hang]));
    let mut reply = world.ask(world.question(Some(1)).await).await.unwrap();
    reply.events.next().await.unwrap();
    drop(reply);
    world.background.idle().await;
    assert_eq!(world.calls.take(), WHOLE);

    let slow = (0..60).flat_map(|_| [say("1234"), Step::Wait(Duration::from_secs(4))]);
    world.main.push(Script::new(slow));
    let reply = world.ask(world.question(Some(1)).await).await.unwrap();
    passing(&world, read(reply.events)).await;
    assert_eq!(world.calls.take(), WHOLE, "it took too long");

    world.main.push(Script::new([say("1234"), Step::Hang]));
    let reply = world.ask(world.question(Some(1)).await).await.unwrap();
    world.background.stop();
    read(reply.events).await;
    assert_eq!(world.calls.take(), WHOLE, "the host stopped");
    let endings: Vec<_> = world.records().into_iter().map(|record| record.ending).collect();
    assert_eq!(endings, [Ending::Failed, Ending::ClientGone, Ending::TimedOut, Ending::ShutDown]);
    world.assert_nothing_is_held().await;
}

#[tokio::test]
async fn an_answer_without_a_word_leaves_no_turn() {
    let world = World::new();
    world.main.push(Script::new([finish()]));
    let events = read(world.ask(world.question(Some(1)).await).await.unwrap().events).await;
    assert_eq!(done(&events).ending, Ending::Finished);
    assert_eq!(world.calls.take(), NOTHING_SAID);
    assert!(world.history(1).await.is_empty());
}

#[tokio::test]
async fn a_turn_that_could_not_be_kept_is_known_when_the_request_is_closed() {
    let world = World::new();
    world.store.fails.store(true, Ordering::Relaxed);
    world.main.push(hello());
    let events = read(world.ask(world.question(Some(1)).await).await.unwrap().events).await;
    assert_eq!(events[2], ChatEvent::Failed(StreamFailure::NotKept));
    assert_eq!(world.calls.take(), WHOLE);
    let [record] = &world.records()[..] else { panic!("one record") };
    assert_eq!((record.ending, record.charged), (Ending::Failed, 15));

    // The next turn is let in all the same.
    world.store.fails.store(false, Ordering::Relaxed);
    world.main.push(hello());
    read(world.ask(world.question(Some(1)).await).await.unwrap().events).await;
    assert_eq!(world.history(1).await.len(), 2);
}

#[tokio::test]
async fn books_that_cannot_be_closed_do_not_take_the_answer_away() {
    let world = World::new();
    world.calls.fail("close");
    world.main.push(hello());
    let events = read(world.ask(world.question(Some(1)).await).await.unwrap().events).await;
    assert_eq!((done(&events).ending, world.history(1).await.len()), (Ending::Finished, 2));
    assert_eq!(world.calls.take(), WHOLE);
    assert_eq!(world.books().await, (0, 60), "until the reservation expires");
    world.clock.advance(settings().request_timeout * 2);
    assert_eq!(world.books().await, (60, 0));
}

#[tokio::test]
async fn a_panic_of_a_model_is_closed_once() {
    let world = World::with_main(Arc::new(Panicking));
    read(world.ask(world.question(Some(1)).await).await.unwrap().events).await;
    assert_eq!(world.calls.take(), WHOLE);
    assert_eq!(world.records()[0].ending, Ending::Failed);
}
