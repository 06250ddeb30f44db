use std::collections::BTreeSet;

use enigma_core::chat::ChatError;
use enigma_core::ingest::IngestEvent;
use enigma_core::model::ModelError;
use enigma_core::search::RetrievalError;
use enigma_core::usage::Ending;
use enigma_memory::testing::EmbedderStep;
use futures_util::StreamExt;

use crate::doubles::Fault;
use crate::harness::{NOW, SECOND, World, ingested, passing, read_steps, tenant};
use crate::versions::{found, parts};

fn steps(events: &[IngestEvent]) -> Vec<(u32, u32)> {
    let step = |event: &IngestEvent| match event {
        IngestEvent::Progress { done, total } => Some((*done, *total)),
        _ => None,
    };
    events.iter().filter_map(step).collect()
}

#[tokio::test]
async fn a_document_of_many_batches_is_whole_and_charged_and_recorded_once() {
    let world = World::new();
    let command = world.document("guide", &parts("one", 7)).await;
    let reply = world.take_in(command).await.unwrap();
    assert_eq!((reply.model.as_str(), reply.chunks, reply.replayed), ("words", 7, false));
    let events = read_steps(reply.events).await;
    assert_eq!(steps(&events), [(2, 7), (4, 7), (6, 7)]);
    let done = ingested(&events).clone();
    assert_eq!((done.chunks, done.ending, done.document.as_str()), (7, Ending::Finished, "guide"));
    assert_eq!(found(&world, "acme").await, (0..7).map(|n| ("guide".into(), n, "one".into())).collect());
    world.assert_closed().await;
    let [record] = &world.records("/ingest")[..] else { panic!("one record") };
    assert_eq!((record.ending, record.charged, record.tokens_out), (Ending::Finished, done.tokens, 0));
    assert_eq!((record.provider.as_ref().unwrap().as_str(), record.model.as_str()), ("vectors", "words"));
    assert_eq!((world.spent().await, record.estimated), (done.tokens, false));
}

#[tokio::test]
async fn each_chunk_has_its_own_vector() {
    let world = World::new();
    let text = (0..7).map(|n| format!("# Part {n}\n\nHere is word{n}of{n} alone.\n\n")).collect::<Vec<_>>().concat();
    world.add("acme", "guide", &text).await;
    for n in 0..7 {
        let nearest = crate::versions::nearest(&world, "acme", &format!("word{n}of{n}")).await;
        assert_eq!(nearest.chunk.ordinal, n);
    }
}

#[tokio::test]
async fn a_batch_that_fails_leaves_the_older_version_and_charges_those_before() {
    // Four batches; the first fails before there is a reply, the others after it.
    for failing in 0..4 {
        let world = World::new();
        world.add("acme", "guide", &parts("one", 3)).await;
        let before = world.spent().await;
        for batch in 0..4 {
            let fails = EmbedderStep::Fail(ModelError::Unsupported { feature: "x" });
            world.embedder.push(if batch == failing { fails } else { EmbedderStep::Wait(SECOND) });
        }
        let command = world.document("guide", &parts("two", 7)).await;
        let taking = passing(&world, world.take_in(command)).await;
        if failing == 0 {
            let rejected = taking.unwrap_err();
            assert!(matches!(rejected.error, RetrievalError::Common(ChatError::Gateway(_))), "{rejected:?}");
            assert!(rejected.rate.is_some());
        } else {
            let events = passing(&world, read_steps(taking.unwrap().events)).await;
            assert_eq!(ingested(&events).ending, Ending::Failed);
            let failed = &events[events.len() - 2];
            assert!(matches!(failed, IngestEvent::Failed(RetrievalError::Common(ChatError::Gateway(_)))), "{failed:?}");
        }
        world.assert_closed().await;
        assert_eq!(world.spent().await > before, failing > 0, "those before were read");
        let records = world.records("/ingest");
        assert_eq!((records.len(), records[1].ending), (2, Ending::Failed));
        assert_eq!(found(&world, "acme").await.len(), 3);
        assert_eq!(world.corpus.inner_rest("acme").await, 0, "nothing is staged");
    }
}

#[tokio::test]
async fn a_corpus_that_fails_at_any_step_leaves_the_older_version() {
    for fault in [Fault::Fail, Fault::Panic] {
        for (name, before) in [("state", 0), ("stage", 0), ("stage", 1), ("stage", 3), ("publish", 0)] {
            for discards in [Fault::None, fault] {
                let world = World::new();
                world.add("acme", "guide", &parts("one", 3)).await;
                world.corpus.faults.plan(name, std::iter::repeat_n(Fault::None, before).chain([fault]));
                world.corpus.faults.plan("discard", [discards]);
                let command = world.document("guide", &parts("two", 7)).await;
                match world.take_in(command).await {
                    Ok(reply) => {
                        let events = read_steps(reply.events).await;
                        assert_eq!(ingested(&events).ending, Ending::Failed, "{name} {before} {fault:?}");
                        assert!(matches!(events[events.len() - 2], IngestEvent::Failed(_)));
                    }
                    Err(rejected) => assert!(rejected.rate.is_some(), "{name} {before} {fault:?}: {rejected}"),
                }
                world.assert_closed().await;
                let versions: BTreeSet<_> = found(&world, "acme").await.into_iter().map(|it| it.2).collect();
                assert_eq!(versions, BTreeSet::from(["one".into()]), "{name} {before} {fault:?}");
                assert_eq!(world.records("/ingest").len(), if name == "state" { 1 } else { 2 });
                world.clock.advance(SECOND);
                world.corpus.faults.clear();
                let left = world.corpus.inner_rest("acme").await;
                assert_eq!(left > 0, discards != Fault::None && name != "state" && (name, before) != ("stage", 0));
                assert_eq!(world.corpus.inner_rest("acme").await, 0, "the sweep has taken it");
            }
        }
    }
}

#[tokio::test]
async fn a_publication_whose_answer_is_lost_is_asked_about_again() {
    let world = World::new();
    world.add("acme", "guide", &parts("one", 3)).await;
    world.corpus.faults.plan("publish", [Fault::Lose]);
    world.add("acme", "guide", &parts("two", 4)).await;
    assert_eq!(found(&world, "acme").await.len(), 4);
    world.assert_closed().await;
}

#[tokio::test]
async fn a_client_that_leaves_half_way_leaves_the_older_version_and_pays_for_what_was_under_way() {
    let world = World::new();
    world.add("acme", "guide", &parts("one", 3)).await;
    let before = world.spent().await;
    for step in [EmbedderStep::Wait(SECOND), EmbedderStep::Hang, EmbedderStep::Hang, EmbedderStep::Hang] {
        world.embedder.push(step);
    }
    let command = world.document("guide", &parts("two", 7)).await;
    let mut reply = passing(&world, world.take_in(command)).await.unwrap();
    assert!(matches!(reply.events.next().await, Some(IngestEvent::Progress { done: 2, total: 7 })));
    world.settle_down().await;
    drop(reply);
    world.background.idle().await;
    world.assert_closed().await;
    let record = world.records("/ingest").pop().unwrap();
    assert_eq!(record.ending, Ending::ClientGone);
    assert!(record.estimated, "the batches that nobody waited for");
    let first = 20;
    assert!(world.spent().await - before > first + 20, "three more batches were being read");
    assert_eq!((found(&world, "acme").await.len(), world.corpus.inner_rest("acme").await), (3, 0));
}

#[tokio::test]
async fn a_client_that_leaves_before_the_first_batch_pays_for_it() {
    let world = World::new();
    world.embedder.push(EmbedderStep::Hang);
    let command = world.document("guide", &parts("two", 7)).await;
    let taking = world.take_in(command);
    let answered = tokio::select! { biased; answer = taking => Some(answer), () = world.settle_down() => None };
    assert!(answered.is_none());
    world.background.idle().await;
    world.assert_closed().await;
    let [record] = &world.records("/ingest")[..] else { panic!("one record") };
    assert_eq!((record.ending, record.charged > 0), (Ending::ClientGone, true));
    assert!(found(&world, "acme").await.is_empty());
}

#[tokio::test]
async fn an_ingestion_that_takes_too_long_or_is_stopped_ends_with_an_error_and_done() {
    for stops in [false, true] {
        let world = World::new();
        world.embedder.push(EmbedderStep::Wait(SECOND));
        world.corpus.faults.plan("stage", [Fault::None, Fault::Hang]);
        let command = world.document("guide", &parts("two", 7)).await;
        let reply = passing(&world, world.take_in(command)).await.unwrap();
        if stops {
            world.settle_down().await;
            world.background.stop();
        }
        let events = passing(&world, read_steps(reply.events)).await;
        let (ending, failed) = (ingested(&events).ending, &events[events.len() - 2]);
        if stops {
            assert_eq!(ending, Ending::ShutDown);
            assert!(matches!(failed, IngestEvent::Failed(RetrievalError::Common(ChatError::ShuttingDown))));
        } else {
            assert_eq!(ending, Ending::TimedOut);
            assert!(matches!(failed, IngestEvent::Failed(RetrievalError::Common(ChatError::TimedOut))));
        }
        world.assert_closed().await;
        assert_eq!(world.records("/ingest")[0].ending, ending);
        assert!(world.contents("acme").await.is_empty());
        assert_eq!(world.corpus.inner_rest("acme").await, 0);
    }
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_given_up() {
    let world = World::new();
    let command = world.document("guide", &parts("one", 60)).await;
    let reply = world.take_in(command).await.unwrap();
    world.settle_down().await;
    assert_eq!(world.background.running(), 1, "the task waits for the client");
    world.assert_closed().await;
    assert_eq!(world.records("/ingest")[0].ending, Ending::ClientGone);
    let events = read_steps(reply.events).await;
    assert_eq!(ingested(&events).ending, Ending::ClientGone, "the last event is there all the same");
    assert!(world.contents("acme").await.is_empty());
}

#[tokio::test]
async fn without_the_providers_count_tokens_are_estimated() {
    let world = World::new();
    let vectors = vec![vec![1.0, 0.0]];
    world.embedder.push(EmbedderStep::Answer(enigma_core::model::Embeddings { vectors, prompt_tokens: None }));
    world.add("acme", "guide", &"x".repeat(40)).await;
    world.assert_closed().await;
    let [record] = &world.records("/ingest")[..] else { panic!("one record") };
    assert_eq!((record.charged, record.estimated), (10, true));
    assert!(record.at == NOW && tenant("acme").as_str() == "acme");
}
