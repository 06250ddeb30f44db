//! A caller may stop waiting at any point. Wherever that is, nothing stays half done.

use enigma_core::usage::Ending;
use enigma_memory::testing::{EmbedderStep, Script, Step};
use futures_util::{StreamExt, poll};

use crate::harness::{SECOND, Setup, World, brewed, done, finish, passing, read, say, text, usage};

async fn dropped_after(steps: usize) -> bool {
    let mut setup = Setup::rewriting();
    setup.settings.follow_up_wait = Some(SECOND * 2);
    let (world, before) = World::stocked(setup).await;
    let pause = || Step::Wait(SECOND);
    world.model.rewrites.push(Script::saying(["tea steep"], usage(50, 5)).first(pause()));
    world.embedder.push(EmbedderStep::Wait(SECOND));
    world
        .model
        .answers
        .push(Script::new([pause(), say("1234 "), pause(), say("5678 [source:tea#0]"), finish()]).first(pause()));
    world.model.follow_ups.push(Script::new([pause(), say("How long?"), Step::Wait(SECOND * 3), finish()]));
    let command = world.question("How does tea steep?").await;
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
                world.clock.advance(SECOND);
            }
        }
    }
    world.assert_closed().await;
    let records = world.records("/search");
    assert!(records.len() <= 1, "after {steps}: more than one record");
    let charged: u64 = records.iter().map(|record| record.charged).sum();
    assert_eq!(world.spent().await - before, charged, "after {steps}");
    let (asked, is_charged) = (world.model.rewrites.calls().len(), charged > 0);
    assert_eq!(asked > 0, is_charged, "after {steps}: what was asked of a model is charged");
    let is_whole = records.iter().any(|record| record.ending == Ending::Finished);
    assert_eq!(!world.cache.puts.lock().unwrap().is_empty(), is_whole, "after {steps}: whole answers are kept");

    // The next one is answered, and does not wait for who has gone.
    for script in 0..2 {
        world.model.answers.push(brewed());
        world.model.rewrites.push(Script::saying(["tea steep"], usage(50, 5)));
        world.model.follow_ups.push(Script::saying(["How long?"], usage(script, 5)));
    }
    let reply = passing(&world, world.ask(world.question("How does tea steep?").await)).await.unwrap();
    let events = passing(&world, read(reply.events)).await;
    assert_eq!(done(&events).ending, Ending::Finished, "after {steps}");
    assert!(text(&events).ends_with("[source:tea#0]") || text(&events).ends_with("[source:tea#0]."));
    world.assert_closed().await;
    ended
}

#[tokio::test]
async fn a_search_that_is_dropped_at_any_point_leaves_the_books_right() {
    let mut ends = 0;
    for steps in 0..90 {
        ends += usize::from(dropped_after(steps).await);
    }
    assert!(ends > 10, "the last ones ran to their end, so every point before it was tried");
}

#[tokio::test]
async fn a_search_that_is_never_polled_does_nothing() {
    let (world, before) = World::stocked(Setup::default()).await;
    let command = world.question("How does tea steep?").await;
    drop(Box::pin(world.ask(command)));
    world.settle_down().await;
    assert!(world.model.answers.calls().is_empty() && world.records("/search").is_empty());
    assert_eq!((world.spent().await, world.books.take().len()), (before, 0));
}
