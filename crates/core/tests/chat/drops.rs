//! A caller may stop waiting at any point. Wherever that is, nothing stays half done.

use std::time::Duration;

use enigma_core::idempotency::{Fingerprint, IdempotencyKey};
use enigma_memory::testing::{Script, Step};
use futures_util::{StreamExt, poll};

use crate::harness::{World, finish, hello, passing, read, say};

/// Runs a request for `steps` turns of the scheduler, drops it, and looks at what is left.
async fn dropped_after(steps: usize) -> bool {
    let world = World::new();
    let pause = || Step::Wait(Duration::from_secs(1));
    world.main.push(Script::new([pause(), say("12345678"), pause(), say("12345678"), finish()]).first(pause()));
    let mut command = world.question(Some(1)).await;
    let key = IdempotencyKey::new(&command.caller.subject, "/chat", "once").unwrap();
    command.idempotency = Some((key, Fingerprint::of(&[b"same"])));
    let again = command.clone();

    let mut ended = false;
    {
        let mut request = std::pin::pin!(async {
            let mut events = world.ask(command).await.unwrap().events;
            while events.next().await.is_some() {}
        });
        for step in 0..steps {
            if poll!(request.as_mut()).is_ready() {
                ended = true;
                break;
            }
            tokio::task::yield_now().await;
            if step % 5 == 4 {
                world.clock.advance(Duration::from_secs(1));
            }
        }
    }
    while world.background.running() > 0 {
        world.settle_down().await;
        world.clock.advance(Duration::from_secs(1));
    }
    world.assert_nothing_is_held().await;
    let (entered, closed) = (world.calls.count(&["enter"]), world.calls.count(&["close"]));
    assert_eq!(entered, closed, "after {steps}: closed as often as entered");
    let (spent, _) = world.books().await;
    let (records, history) = (world.records(), world.history(1).await);
    assert!(records.len() <= 1, "after {steps}: more than one record");
    assert_eq!(
        spent,
        records.iter().map(|record| record.charged).sum::<u64>(),
        "after {steps}: books and records differ"
    );
    assert!(history.is_empty() || history.len() == 2, "after {steps}: half a turn");

    // A repeat gets the same answer, or is the first one to be answered; it is never refused.
    world.main.push(hello());
    let mut repeat = again;
    repeat.request = enigma_core::RequestId::new(uuid::Uuid::from_u128(77));
    let reply = passing(&world, world.ask(repeat)).await.unwrap_or_else(|error| panic!("after {steps}: {error}"));
    assert_eq!(reply.replayed, !history.is_empty(), "after {steps}");
    passing(&world, read(reply.events)).await;
    assert_eq!(world.history(1).await.len(), 2, "after {steps}: one turn, whoever made it");
    ended
}

#[tokio::test]
async fn a_request_that_is_dropped_at_any_point_leaves_the_books_right() {
    let mut ends = 0;
    for steps in 0..60 {
        ends += usize::from(dropped_after(steps).await);
    }
    assert!(ends > 10, "the last ones ran to their end, so every point before it was tried");
}

#[tokio::test]
async fn a_request_that_is_never_polled_does_nothing() {
    let world = World::new();
    let command = world.question(Some(1)).await;
    drop(Box::pin(world.ask(command)));
    world.settle_down().await;
    assert!(world.main.calls().is_empty() && world.records().is_empty());
}
