use std::sync::atomic::Ordering;

use enigma_core::RequestId;
use enigma_core::chat::{ChatCommand, ChatError, ChatEvent};
use enigma_core::idempotency::{Fingerprint, IdempotencyKey};
use enigma_core::model::ModelError;
use enigma_memory::testing::{Script, Step};
use uuid::Uuid;

use crate::harness::{World, done, hello, read, say, text};

async fn keyed(world: &World, request: u128, body: &str) -> ChatCommand {
    let mut command = world.question(Some(1)).await;
    command.request = RequestId::new(Uuid::from_u128(request));
    let key = IdempotencyKey::new(&command.caller.subject, "/chat", "key").unwrap();
    command.idempotency = Some((key, Fingerprint::of(&[body.as_bytes()])));
    command
}

#[tokio::test]
async fn a_repeat_gets_the_first_answer_and_costs_nothing() {
    let world = World::new();
    world.main.push(hello());
    let first = world.ask(keyed(&world, 1, "a").await).await.unwrap();
    let (request, created, remaining) = (first.request, first.created, first.rate.remaining);
    let first = read(first.events).await;
    world.background.idle().await;

    let again = world.ask(keyed(&world, 2, "a").await).await.unwrap();
    assert!(again.replayed);
    assert_eq!((again.request, again.created, again.model.as_str()), (request, created, "main"));
    assert_eq!(again.rate.remaining, remaining, "it takes no slot");
    let again = read(again.events).await;
    assert_eq!((text(&again), done(&again)), (text(&first), done(&first)));
    assert_eq!(world.main.calls().len(), 1);
    assert_eq!(world.books().await, (15, 0));
    assert_eq!(world.history(1).await.len(), 2);
    assert_eq!(world.records().len(), 1);
}

#[tokio::test]
async fn another_request_under_the_same_key_is_refused() {
    let world = World::new();
    world.main.push(hello());
    read(world.ask(keyed(&world, 1, "a").await).await.unwrap().events).await;
    let rejected = world.ask(keyed(&world, 2, "b").await).await.unwrap_err();
    assert!(matches!(rejected.error, ChatError::IdempotencyMismatch));
    assert_eq!(world.main.calls().len(), 1);
}

#[tokio::test]
async fn a_repeat_while_the_first_one_runs_is_refused() {
    let world = World::new();
    world.main.push(Script::new([say("1234"), Step::Hang]));
    let first = world.ask(keyed(&world, 1, "a").await).await.unwrap();
    let rejected = world.ask(keyed(&world, 2, "a").await).await.unwrap_err();
    assert!(matches!(rejected.error, ChatError::IdempotencyInProgress));
    drop(first);
    world.background.idle().await;
    let again = read(world.ask(keyed(&world, 3, "a").await).await.unwrap().events).await;
    assert_eq!(text(&again), "1234", "what the first one got to say is its answer");
}

#[tokio::test]
async fn a_request_that_failed_before_its_answer_may_be_tried_again() {
    let world = World::new();
    world.main.push(Script::refusing(ModelError::Unsupported { feature: "x" }));
    // Whoever asks again as soon as it is told must not meet its own key.
    world.keys.is_slow.store(true, Ordering::Relaxed);
    world.ask(keyed(&world, 1, "a").await).await.unwrap_err();
    world.main.push(hello());
    let reply = world.ask(keyed(&world, 2, "a").await).await.unwrap();
    assert!(!reply.replayed);
    assert_eq!(text(&read(reply.events).await), "Hello");
}

#[tokio::test]
async fn a_reply_that_broke_off_is_told_again_as_it_was() {
    let world = World::new();
    let broken = ModelError::Interrupted { message: "reset".into() };
    world.main.push(Script::new([say("1234"), Step::Fail(broken)]));
    let first = read(world.ask(keyed(&world, 1, "a").await).await.unwrap().events).await;
    world.background.idle().await;
    let again = read(world.ask(keyed(&world, 2, "a").await).await.unwrap().events).await;
    assert_eq!(first, again);
    assert!(matches!(again[1], ChatEvent::Failed(_)));
    assert_eq!(world.history(1).await.len(), 2);
}

#[tokio::test]
async fn a_key_whose_answer_was_lost_does_not_keep_its_repeat_out() {
    let world = World::new();
    world.keys.loses_answers.store(true, Ordering::Relaxed);
    let rejected = world.ask(keyed(&world, 1, "a").await).await.unwrap_err();
    assert!(matches!(rejected.error, ChatError::Port(_)), "{rejected:?}");
    world.background.idle().await;

    world.keys.loses_answers.store(false, Ordering::Relaxed);
    world.main.push(hello());
    let again = world.ask(keyed(&world, 2, "a").await).await.unwrap();
    assert!(!again.replayed);
    assert_eq!(text(&read(again.events).await), "Hello");
}
