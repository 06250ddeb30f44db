use std::time::Duration;

use enigma_core::chat::{ChatError, ChatEvent, SessionError};
use enigma_core::model::{ChatMessage, ModelError, Role};
use enigma_core::ports::{Clock, SessionStore};
use enigma_core::session::{StoredMessage, Turn};
use enigma_core::{MessageId, RequestId, Timestamp, UserId};
use enigma_memory::testing::{Script, Step};
use futures_util::StreamExt;
use uuid::Uuid;

use crate::harness::{World, acme, finish, hello, passing, read, say, session_id};

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
    let mut deleting = std::pin::pin!(world.sessions.delete(&context, &id, request, &world.background));
    assert!(futures_util::poll!(deleting.as_mut()).is_pending());
    world.settle_down().await;
    world.clock.advance(Duration::from_secs(2));
    read(reply.events).await;
    deleting.await.unwrap();
    world.background.idle().await;
    assert!(world.history(1).await.is_empty());
    let listed = world.sessions.list(&context, None, None, 10).await.unwrap();
    assert!(listed.sessions.is_empty());
    assert!(matches!(
        world.sessions.delete(&context, &id, request, &world.background).await,
        Err(SessionError::NotFound)
    ));
}

#[tokio::test]
async fn a_deletion_does_not_wait_for_ever() {
    let world = World::new();
    let talk = (0..8).flat_map(|_| [say("more"), Step::Wait(Duration::from_secs(4))]);
    world.main.push(Script::new(talk));
    let reply = world.ask(world.question(Some(1)).await).await.unwrap();
    let context = world.context().await;
    let (id, request) = (session_id(1), RequestId::new(Uuid::from_u128(5)));
    let deleting = world.sessions.delete(&context, &id, request, &world.background);
    assert!(matches!(passing(&world, deleting).await, Err(SessionError::Busy)));
    assert_eq!(world.background.running(), 1, "the turn goes on");
    drop(reply);
}

#[tokio::test]
async fn history_that_the_model_cannot_take_is_shortened_until_it_can() {
    let world = World::new();
    for _ in 0..4 {
        world.main.push(hello());
        read(world.ask(world.question(Some(1)).await).await.unwrap().events).await;
    }
    let too_long = || Script::refusing(ModelError::ContextLength { tokens: 9000, limit: 8000 });
    world.main.push(too_long());
    world.main.push(too_long());
    world.main.push(hello());
    read(world.ask(world.question(Some(1)).await).await.unwrap().events).await;
    let shown: Vec<usize> = world.main.calls()[4..].iter().map(|call| call.call.messages.len()).collect();
    assert_eq!(shown, [9, 5, 3], "half as much history each time");

    for _ in 0..6 {
        world.main.push(too_long());
    }
    world.ask(world.question(Some(1)).await).await.unwrap_err();
    let last = world.main.calls().pop().unwrap().call;
    assert_eq!(last.messages.len(), 1, "in the end the question alone is too long");
    world.settle_down().await;
    world.assert_nothing_is_held().await;
}

#[tokio::test]
async fn who_shows_no_credentials_sees_only_their_own_sessions() {
    let world = World::new();
    world.main.push(hello());
    let mut of_another = world.question(Some(1)).await;
    of_another.caller.user = "192.0.2.99".parse().unwrap();
    read(world.ask(of_another).await.unwrap().events).await;
    world.main.push(hello());
    read(world.ask(world.question(Some(2)).await).await.unwrap().events).await;
    let context = world.context().await;
    let other = "192.0.2.99".parse().unwrap();
    for asked in [None, Some(&other)] {
        let page = world.sessions.list(&context, asked, None, 10).await.unwrap();
        assert_eq!(page.sessions.iter().map(|s| s.id).collect::<Vec<_>>(), [session_id(2)]);
    }
}

#[tokio::test]
async fn another_users_session_is_as_good_as_none() {
    let world = World::new();
    let theirs: UserId = "192.0.2.99".parse().unwrap();
    let mut of_another = world.question(Some(1)).await;
    of_another.caller.user = theirs.clone();
    let context = world.context().await;
    // As another request would leave it, whose caller is not this one.
    let (turn, retention) = (turn_of(&theirs, world.clock.now()), *context.tenant().retention());
    world.store.inner.append_turn(&acme(), &session_id(1), &turn, &retention, world.clock.now()).await.unwrap();

    let read_it = world.sessions.history(&context, &session_id(1), None, 10).await;
    assert!(matches!(read_it, Err(SessionError::NotFound)));
    let request = RequestId::new(Uuid::from_u128(5));
    let deleted = world.sessions.delete(&context, &session_id(1), request, &world.background).await;
    assert!(matches!(deleted, Err(SessionError::NotFound)));
    let rejected = world.ask(world.question(Some(1)).await).await.unwrap_err();
    assert!(matches!(rejected.error, ChatError::SessionOfAnother));
    // Whatever name the request carries, it is the credentials that count.
    let rejected = world.ask(of_another).await.unwrap_err();
    assert!(matches!(rejected.error, ChatError::SessionOfAnother));
    assert!(world.main.calls().is_empty() && world.spare.calls().is_empty(), "no model hears of it");
    world.settle_down().await;
    world.assert_nothing_is_held().await;
    assert_eq!(world.books().await.0, 0, "and nothing is spent");

    let kept = world.store.inner.recent(&acme(), &session_id(1), 10, &retention, world.clock.now()).await.unwrap();
    assert_eq!(kept.messages, turn.messages, "it is as it was");
}

fn turn_of(user: &UserId, at: Timestamp) -> Turn {
    let message = StoredMessage {
        id: MessageId::new(Uuid::from_u128(1)),
        role: Role::User,
        content: "mine".to_owned(),
        at,
        tokens: None,
        truncated: false,
    };
    Turn { user: user.clone(), messages: vec![message] }
}

#[tokio::test]
async fn a_session_needs_a_question() {
    let world = World::new();
    let mut command = world.question(Some(1)).await;
    command.messages.push(ChatMessage::text(Role::Assistant, "Let me begin: "));
    let rejected = world.ask(command.clone()).await.unwrap_err();
    assert!(matches!(rejected.error, ChatError::SessionWithoutQuestion));
    command.session = None;
    world.main.push(hello());
    assert!(world.ask(command).await.is_ok(), "without a session it is the model's affair");
}
