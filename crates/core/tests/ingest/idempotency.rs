use enigma_core::chat::ChatError;
use enigma_core::model::ModelError;
use enigma_core::search::RetrievalError;
use enigma_memory::testing::EmbedderStep;

use crate::harness::{SECOND, World, ingested, keyed, passing, read_steps};
use crate::versions::{found, parts};

#[tokio::test]
async fn a_repeat_gets_the_first_answer_and_costs_nothing() {
    let world = World::new();
    let command = keyed(world.document("guide", &parts("one", 5)).await, "key", "a");
    let first = world.take_in(command.clone()).await.unwrap();
    let (chunks, remaining) = (first.chunks, first.rate.remaining);
    let first = ingested(&read_steps(first.events).await).clone();
    world.background.idle().await;
    let (spent, asked) = (world.spent().await, world.embedder.calls().len());

    world.clock.advance(SECOND);
    let again =
        world.take_in(enigma_core::ingest::IngestCommand { request: world.request(), ..command }).await.unwrap();
    assert!(again.replayed);
    assert_eq!((again.chunks, again.rate.remaining, again.model.as_str()), (chunks, remaining, "words"));
    assert_eq!(*ingested(&read_steps(again.events).await), first);
    assert_eq!((world.spent().await, world.embedder.calls().len()), (spent, asked));
    assert_eq!(world.records("/ingest").len(), 1);
    world.assert_closed().await;
}

#[tokio::test]
async fn another_request_under_the_same_key_is_refused() {
    let world = World::new();
    let first = world.take_in(keyed(world.document("guide", &parts("one", 5)).await, "key", "a")).await.unwrap();
    read_steps(first.events).await;
    world.background.idle().await;
    let other = keyed(world.document("guide", &parts("two", 5)).await, "key", "b");
    let rejected = world.take_in(other).await.unwrap_err();
    assert!(matches!(rejected.error, RetrievalError::Common(ChatError::IdempotencyMismatch)));
    world.assert_closed().await;
}

#[tokio::test]
async fn a_repeat_while_the_first_one_runs_is_refused_and_one_that_has_failed_frees_its_key() {
    let world = World::new();
    world.embedder.push(EmbedderStep::Wait(SECOND));
    world.embedder.push(EmbedderStep::Hang);
    let command = async || keyed(world.document("guide", &parts("one", 5)).await, "key", "a");
    let first = passing(&world, world.take_in(command().await)).await.unwrap();
    let rejected = world.take_in(command().await).await.unwrap_err();
    assert!(matches!(rejected.error, RetrievalError::Common(ChatError::IdempotencyInProgress)));
    // It leaves half-way, so nothing was done, and the next one has to do it.
    drop(first);
    world.background.idle().await;
    let again = world.take_in(command().await).await.unwrap();
    assert!(!again.replayed);
    read_steps(again.events).await;
    assert_eq!(found(&world, "acme").await.len(), 5);
    world.assert_closed().await;
}

#[tokio::test]
async fn a_failure_frees_the_key_before_it_is_told() {
    for failing in 0..3 {
        let world = World::new();
        for batch in 0..3 {
            let fails = EmbedderStep::Fail(ModelError::Unsupported { feature: "x" });
            world.embedder.push(if batch == failing { fails } else { EmbedderStep::Wait(SECOND) });
        }
        let command = async || keyed(world.document("guide", &parts("one", 5)).await, "key", "a");
        if let Ok(reply) = passing(&world, world.take_in(command().await)).await {
            passing(&world, read_steps(reply.events)).await;
        }
        let again = passing(&world, world.take_in(command().await)).await.unwrap();
        assert!(!again.replayed);
        passing(&world, read_steps(again.events)).await;
        assert_eq!(found(&world, "acme").await.len(), 5);
        world.assert_closed().await;
    }
}
