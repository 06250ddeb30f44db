//! A caller may stop waiting at any point. Wherever that is, nothing stays half done.

use enigma_core::usage::Ending;
use enigma_memory::testing::EmbedderStep;
use futures_util::{StreamExt, poll};

use crate::harness::{SECOND, World, ingested, keyed, passing, read_steps};
use crate::versions::{found, parts};

async fn dropped_after(steps: usize) -> bool {
    let world = World::new();
    world.add("acme", "guide", &parts("one", 3)).await;
    world.background.idle().await;
    for _ in 0..4 {
        world.embedder.push(EmbedderStep::Wait(SECOND));
    }
    let command = keyed(world.document("guide", &parts("two", 7)).await, "key", "a");
    let again = command.clone();
    let mut ended = false;
    {
        let mut request = std::pin::pin!(async {
            let mut events = world.take_in(command).await.unwrap().events;
            while events.next().await.is_some() {}
        });
        for step in 0..steps {
            if poll!(request.as_mut()).is_ready() {
                ended = true;
                break;
            }
            tokio::task::yield_now().await;
            if step % 7 == 6 {
                world.clock.advance(SECOND);
            }
        }
    }
    world.assert_closed().await;
    let version = found(&world, "acme").await;
    let is_new = version.len() == 7;
    assert!(is_new || version.len() == 3, "after {steps}: {version:?}");
    assert!(version.iter().all(|it| it.2 == if is_new { "two" } else { "one" }), "after {steps}");
    assert_eq!(world.corpus.inner_rest("acme").await, 0, "after {steps}: something is staged");
    let records = world.records("/ingest");
    let own = &records[1..];
    assert!(own.len() <= 1, "after {steps}: more than one record");
    assert_eq!(own.iter().any(|record| record.ending == Ending::Finished), is_new, "after {steps}");
    // A repeat is told the same, or does it; it is never refused.
    let repeat = enigma_core::ingest::IngestCommand { request: world.request(), ..again };
    let reply = passing(&world, world.take_in(repeat)).await.unwrap_or_else(|error| panic!("after {steps}: {error}"));
    assert_eq!(reply.replayed, is_new, "after {steps}");
    let events = passing(&world, read_steps(reply.events)).await;
    assert_eq!(ingested(&events).ending, Ending::Finished);
    assert_eq!(found(&world, "acme").await.len(), 7);
    ended
}

#[tokio::test]
async fn an_ingestion_that_is_dropped_at_any_point_leaves_books_and_corpus_right() {
    let mut ends = 0;
    for steps in 0..100 {
        ends += usize::from(dropped_after(steps).await);
    }
    assert!(ends > 10, "the last ones ran to their end, so every point before it was tried");
}
