use std::time::Duration;

use enigma_core::RequestId;
use enigma_core::chat::{ChatEvent, SessionError};
use enigma_core::model::Role;
use enigma_memory::testing::{Script, Step};
use futures_util::StreamExt;
use uuid::Uuid;

use crate::harness::{World, finish, hello, read, say, session_id};

#[tokio::test]
async fn turns_of_one_session_wait_for_each_other_and_see_each_other() {
    let world = World::new();
    world.main.push(Script::new([say("first"), Step::Wait(Duration::from_secs(2)), finish()]));
    world.main.push(hello());
    let mut one = world.ask(world.question(Some(1)).await).await.unwrap();
    assert_eq!(one.events.next().await, Some(ChatEvent::Content("first".into())));
    let command = world.question(Some(1)).await;
    let mut two = std::pin::pin!(world.ask(command));
    assert!(futures_util::poll!(two.as_mut()).is_pending());
    world.settle_down().await;
    assert_eq!(world.main.calls().len(), 1, "the second turn waits");
    world.clock.advance(Duration::from_secs(2));
    read(one.events).await;
    read(two.await.unwrap().events).await;
    let shown: Vec<_> = world.main.calls()[1].call.messages.iter().map(|m| (m.role, m.content.clone())).collect();
    assert_eq!(shown.len(), 3, "the second call is shown the first turn");
    assert_eq!(shown[1], (Role::Assistant, "first".into()));
    let said: Vec<_> = world.history(1).await.into_iter().map(|m| m.content).collect();
    assert_eq!(said.iter().skip(1).step_by(2).collect::<Vec<_>>(), ["first", "Hello"]);
}

#[tokio::test]
async fn another_session_does_not_wait() {
    let world = World::new();
    world.main.push(Script::new([say("first"), Step::Hang]));
    world.main.push(hello());
    let one = world.ask(world.question(Some(1)).await).await.unwrap();
    read(world.ask(world.question(Some(2)).await).await.unwrap().events).await;
    drop(one);
}

#[tokio::test]
async fn a_deletion_waits_for_the_turn_under_way_and_is_final() {
    let world = World::new();
    world.main.push(Script::new([say("first"), Step::Wait(Duration::from_secs(2)), finish()]));
    let reply = world.ask(world.question(Some(1)).await).await.unwrap();
    let context = world.context().await;
    let (id, request) = (session_id(1), RequestId::new(Uuid::from_u128(5)));
    let mut deleting = std::pin::pin!(world.sessions.delete(&context, &id, request));
    assert!(futures_util::poll!(deleting.as_mut()).is_pending());
    world.settle_down().await;
    world.clock.advance(Duration::from_secs(2));
    read(reply.events).await;
    deleting.await.unwrap();
    world.background.idle().await;
    assert!(world.history(1).await.is_empty());
    let listed = world.sessions.list(&context, None, None, 10).await.unwrap();
    assert!(listed.sessions.is_empty());
    assert!(matches!(world.sessions.delete(&context, &id, request).await, Err(SessionError::NotFound)));
}

#[tokio::test]
async fn a_deletion_does_not_wait_for_ever() {
    let world = World::new();
    world.main.push(Script::new([say("first"), Step::Hang]));
    let reply = world.ask(world.question(Some(1)).await).await.unwrap();
    let context = world.context().await;
    let (id, request) = (session_id(1), RequestId::new(Uuid::from_u128(5)));
    let mut deleting = std::pin::pin!(world.sessions.delete(&context, &id, request));
    assert!(futures_util::poll!(deleting.as_mut()).is_pending());
    world.clock.advance(Duration::from_secs(30));
    assert!(matches!(deleting.await, Err(SessionError::Busy)));
    drop(reply);
}
