use std::time::Duration;

use enigma_core::chat::ChatError;
use enigma_core::model::{GatewayError, ModelError};
use enigma_memory::testing::{CallState, Script, Step};

use crate::harness::{World, done, hello, passing, read, text};

fn unavailable() -> Script {
    Script::refusing(ModelError::unavailable("503"))
}

#[tokio::test]
async fn a_failure_that_may_pass_is_tried_again() {
    let world = World::new();
    world.main.push(unavailable());
    world.main.push(hello());
    let reply = passing(&world, world.ask(world.question(None).await)).await.unwrap();
    assert_eq!(reply.model.as_str(), "main");
    assert_eq!(text(&read(reply.events).await), "Hello");
    assert_eq!(world.main.calls().len(), 2);
}

#[tokio::test]
async fn then_the_fallback_is_asked() {
    let world = World::new();
    world.main.push(unavailable());
    world.main.push(unavailable());
    world.spare.push(hello());
    let reply = passing(&world, world.ask(world.question(None).await)).await.unwrap();
    assert_eq!(reply.model.as_str(), "spare");
    let call = &world.spare.calls()[0].call;
    assert_eq!((call.model.as_str(), call.messages.len()), ("spare", 1));
    let events = read(reply.events).await;
    assert_eq!(done(&events).model.as_str(), "spare");
    assert_eq!(world.records()[0].model.as_str(), "spare");
}

#[tokio::test]
async fn a_request_at_fault_is_neither_tried_again_nor_elsewhere() {
    let world = World::new();
    world.main.push(Script::refusing(ModelError::Rejected { status: 400, message: String::new() }));
    world.ask(world.question(None).await).await.unwrap_err();
    assert_eq!((world.main.calls().len(), world.spare.calls().len()), (1, 0));
}

#[tokio::test]
async fn a_provider_that_keeps_failing_is_left_alone_and_asked_again_later() {
    let world = World::new();
    for _ in 0..2 {
        world.main.push(unavailable());
        world.main.push(unavailable());
        world.spare.push(hello());
        read(passing(&world, world.ask(world.question(None).await)).await.unwrap().events).await;
    }
    world.spare.push(hello());
    read(world.ask(world.question(None).await).await.unwrap().events).await;
    assert_eq!(world.main.calls().len(), 4, "the breaker is open after four failures");
    world.clock.advance(Duration::from_secs(20));
    world.main.push(hello());
    let reply = world.ask(world.question(None).await).await.unwrap();
    assert_eq!(reply.model.as_str(), "main", "a probe got through");
}

#[tokio::test]
async fn a_model_that_says_nothing_is_given_up() {
    let world = World::new();
    world.main.push(Script::new([Step::Hang]));
    world.main.push(Script::new([Step::Hang]).first(Step::Hang));
    world.spare.push(Script::new([Step::Hang]));
    world.spare.push(Script::new([Step::Hang]));
    let rejected = passing(&world, world.ask(world.question(Some(1)).await)).await.unwrap_err();
    let ChatError::Gateway(GatewayError::Failed { source: ModelError::Timeout(_), .. }) = rejected.error else {
        panic!("{rejected:?}")
    };
    assert!(world.main.states().iter().all(|state| *state == CallState::Dropped));
    world.settle_down().await;
    assert_eq!(world.books().await, (0, 0));
    world.assert_nothing_is_held().await;
}

#[tokio::test]
async fn a_model_that_nobody_serves_takes_no_slot() {
    let world = World::new();
    let mut command = world.question(None).await;
    command.model = Some("ghost".parse().unwrap());
    let rejected = world.ask(command).await.unwrap_err();
    assert!(matches!(rejected.error, ChatError::Gateway(GatewayError::UnknownModel(_))) && rejected.rate.is_none());
}
