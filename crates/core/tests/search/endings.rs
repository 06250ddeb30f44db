use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use enigma_core::TenantId;
use enigma_core::chat::{ChatError, StreamFailure};
use enigma_core::model::{ChatModel, Delta, DeltaStream, ModelCall, ModelError};
use enigma_core::search::{CacheStatus, RetrievalError, SearchEvent};
use enigma_core::usage::Ending;
use enigma_memory::testing::{CallState, EmbedderStep, Script, Step};
use futures_util::StreamExt;

use crate::doubles::Fault;
use crate::harness::{SECOND, Setup, World, brewed, done, finish, names, passing, read, say, sources, text, usage};

#[tokio::test]
async fn sources_come_first_then_the_answer_and_the_end_and_all_is_charged_and_recorded_once() {
    let (world, before) = World::stocked(Setup::default()).await;
    world.model.answers.push(brewed());
    let reply = world.ask(world.question("How does tea steep?").await).await.unwrap();
    assert_eq!((reply.model.as_str(), reply.cache), ("main", CacheStatus::Miss));
    let events = read(reply.events).await;
    assert_eq!(names(&events), ["tea", "coffee"]);
    assert_eq!(text(&events), "Let it steep [source:tea#0].");
    let first = &sources(&events)[0];
    assert_eq!((first.id.as_str(), first.chunk_id.as_str()), ("tea#0", "0"));
    assert_eq!(first.text, "Boil the water, then let the tea steep.");
    assert!(sources(&events).iter().all(|source| (0.0..=1.0).contains(&source.score)));
    let done = done(&events);
    // Four words are embedded.
    assert_eq!((done.tokens_in, done.tokens_out, done.ending), (104, 10, Ending::Finished));
    assert!(done.confidence > 0.2 && done.follow_ups.is_empty());
    assert_eq!(world.books.take(), ["enter", "reserve", "close"]);
    world.assert_closed().await;
    let [record] = &world.records("/search")[..] else { panic!("one record") };
    assert_eq!((record.tokens_in, record.tokens_out, record.charged, record.estimated), (104, 10, 114, false));
    assert_eq!((record.ending, record.model.as_str()), (Ending::Finished, "main"));
    assert_eq!(record.provider.as_ref().unwrap().as_str(), "one");
    assert_eq!(world.spent().await - before, 114);
}

#[tokio::test]
async fn an_answer_that_cites_nothing_is_half_as_sure() {
    let (world, _) = World::stocked(Setup::default()).await;
    world.model.answers.push(brewed());
    world.model.answers.push(Script::saying(["Let it steep."], usage(100, 10)));
    let sure = world.answer("How does tea steep?").await;
    let half = world.answer("How does tea steep??").await;
    assert!((done(&sure).confidence - 2.0 * done(&half).confidence).abs() < 1e-6);
}

#[tokio::test]
async fn invented_citations_are_in_neither_the_streamed_nor_the_kept_answer() {
    let (world, _) = World::stocked(Setup::default()).await;
    let pieces = ["It steeps [sou", "rce:myth", "#7][source:tea#0] and [source:tea#9] so [sourc"];
    world.model.answers.push(Script::saying(pieces, usage(100, 10)));
    let events = world.answer("How does tea steep?").await;
    assert_eq!(text(&events), "It steeps [source:tea#0] and  so [sourc");
    let again = world.answer("How does tea steep?").await;
    assert_eq!(text(&again), text(&events));
    assert!(world.cache.puts.lock().unwrap().iter().all(|(_, value)| !value.contains("myth")));
}

#[tokio::test]
async fn a_model_that_fails_before_its_first_piece_is_told_and_only_the_vector_is_charged() {
    let (world, before) = World::stocked(Setup::default()).await;
    world.model.answers.push(Script::refusing(ModelError::Unsupported { feature: "x" }));
    let rejected = world.ask(world.question("How does tea steep?").await).await.unwrap_err();
    assert!(matches!(rejected.error, RetrievalError::Common(ChatError::Gateway(_))), "{rejected:?}");
    assert!(rejected.rate.is_some());
    world.assert_closed().await;
    let [record] = &world.records("/search")[..] else { panic!("one record") };
    assert_eq!((record.ending, record.charged, world.spent().await - before), (Ending::Failed, 4, 4));
    assert_eq!(record.provider, None, "the one of the model was not reached");
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_charged_and_neither_kept_nor_shared() {
    let (world, before) = World::stocked(Setup::default()).await;
    let broken = ModelError::Interrupted { message: "reset".into() };
    world.model.answers.push(Script::new([say("12345678"), Step::Fail(broken)]));
    let events = world.answer("How does tea steep?").await;
    assert_eq!(events[2], SearchEvent::Failed(StreamFailure::Model));
    assert_eq!(done(&events).ending, Ending::Failed);
    world.assert_closed().await;
    let [record] = &world.records("/search")[..] else { panic!("one record") };
    assert_eq!((record.ending, record.estimated), (Ending::Failed, true));
    assert_eq!(world.spent().await - before, done(&events).tokens_in + done(&events).tokens_out);
    assert_eq!(done(&events).tokens_out, 2);
    assert!(world.cache.puts.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_answer_without_a_word_is_not_kept() {
    let (world, _) = World::stocked(Setup::default()).await;
    world.model.answers.push(Script::new([finish()]));
    assert_eq!(done(&world.answer("How does tea steep?").await).ending, Ending::Finished);
    assert!(world.cache.puts.lock().unwrap().is_empty());
    world.assert_closed().await;
}

#[tokio::test]
async fn a_corpus_that_fails_ends_the_request_and_the_reservation() {
    for fault in [Fault::Fail, Fault::Panic] {
        let (world, before) = World::stocked(Setup::default()).await;
        world.corpus.faults.plan("state", [fault]);
        let rejected = world.ask(world.question("How does tea steep?").await).await.unwrap_err();
        assert!(matches!(rejected.error, RetrievalError::Common(ChatError::Port(_))), "{rejected:?}");
        assert_eq!(world.books.take(), ["enter", "close"]);

        world.corpus.faults.plan("nearest", [fault]);
        world.corpus.faults.plan("matching", [fault]);
        let rejected = world.ask(world.question("How does tea steep?").await).await.unwrap_err();
        assert!(matches!(rejected.error, RetrievalError::Common(ChatError::Port(_))), "{rejected:?}");
        world.assert_closed().await;
        assert_eq!(world.spent().await - before, 4, "the vector was made");
        assert_eq!(world.records("/search").len(), 1);
        assert!(world.model.answers.calls().is_empty());
    }
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_model_and_pays_for_what_was_said() {
    let (world, before) = World::stocked(Setup::default()).await;
    world.model.answers.push(Script::new([say("12345678"), Step::Hang]));
    let mut reply = world.ask(world.question("How does tea steep?").await).await.unwrap();
    assert!(matches!(reply.events.next().await, Some(SearchEvent::Sources(_))));
    reply.events.next().await.unwrap();
    drop(reply);
    world.background.idle().await;
    assert_eq!(world.model.answers.states(), [CallState::Dropped]);
    world.assert_closed().await;
    let record = &world.records("/search")[0];
    assert_eq!((record.ending, record.tokens_out), (Ending::ClientGone, 2));
    assert_eq!(world.spent().await - before, u64::from(record.tokens_in) + 2);
}

#[tokio::test]
async fn a_client_that_leaves_while_a_model_reads_pays_for_the_prompt() {
    for hangs_at in ["embedder", "model"] {
        let (world, before) = World::stocked(Setup::default()).await;
        if hangs_at == "embedder" {
            world.embedder.push(EmbedderStep::Hang);
        }
        world.model.answers.push(Script::new([Step::Hang]));
        let asking = world.ask(world.question("How does tea steep?").await);
        let answered = tokio::select! { biased; answer = asking => Some(answer), () = world.settle_down() => None };
        assert!(answered.is_none());
        world.background.idle().await;
        world.assert_closed().await;
        let [record] = &world.records("/search")[..] else { panic!("one record") };
        assert_eq!((record.ending, record.estimated), (Ending::ClientGone, true));
        let spent = world.spent().await - before;
        assert!(if hangs_at == "embedder" { spent == 5 } else { spent > 50 }, "{hangs_at}: {spent}");
    }
}

#[tokio::test]
async fn what_takes_too_long_or_is_stopped_ends_with_an_error_and_done() {
    for stops in [false, true] {
        let (world, _) = World::stocked(Setup::default()).await;
        let slow = (0..60).flat_map(|_| [say("1234"), Step::Wait(SECOND * 4)]);
        world.model.answers.push(Script::new(slow));
        let reply = world.ask(world.question("How does tea steep?").await).await.unwrap();
        if stops {
            world.settle_down().await;
            world.background.stop();
        }
        let events = passing(&world, read(reply.events)).await;
        let (failure, ending) = if stops {
            (StreamFailure::ShutDown, Ending::ShutDown)
        } else {
            (StreamFailure::TimedOut, Ending::TimedOut)
        };
        assert_eq!(events[events.len() - 2], SearchEvent::Failed(failure));
        assert_eq!(done(&events).ending, ending);
        world.assert_closed().await;
        assert_eq!(world.records("/search")[0].ending, ending);
        assert!(world.cache.puts.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn what_takes_too_long_or_is_stopped_before_the_answer_is_refused() {
    for stops in [false, true] {
        for hangs in ["state", "get", "nearest"] {
            let (world, _) = World::stocked(Setup::default()).await;
            world.corpus.faults.plan(hangs, [Fault::Hang]);
            if hangs == "get" {
                // A cache that hangs is not waited for.
                world.cache.faults.plan("get", [Fault::Hang]);
                world.model.answers.push(Script::new([Step::Hang]).first(Step::Wait(SECOND * 200)));
            }
            let mut asking = Box::pin(world.ask(world.question("How does tea steep?").await));
            assert!(futures_util::poll!(asking.as_mut()).is_pending());
            world.settle_down().await;
            if stops {
                world.background.stop();
            }
            let rejected = passing(&world, asking).await.unwrap_err();
            let error = &rejected.error;
            if stops {
                assert!(matches!(error, RetrievalError::Common(ChatError::ShuttingDown)), "{hangs}: {error}");
            } else if hangs != "get" {
                assert!(matches!(error, RetrievalError::Common(ChatError::TimedOut)), "{hangs}: {error}");
            }
            world.assert_closed().await;
        }
    }
}

#[tokio::test]
async fn a_slow_client_holds_the_model_back_and_is_given_up_in_time() {
    let (world, _) = World::stocked(Setup::default()).await;
    world.model.answers.push(Script::new((0..100).map(|_| say("12345678"))));
    let reply = world.ask(world.question("How does tea steep?").await).await.unwrap();
    world.settle_down().await;
    assert_eq!(world.background.running(), 1, "the task waits for the client");
    world.clock.advance(SECOND * 10);
    world.background.idle().await;
    assert_eq!(world.model.answers.states(), [CallState::Dropped]);
    assert_eq!(done(&read(reply.events).await).ending, Ending::ClientGone);
    world.assert_closed().await;
}

#[tokio::test]
async fn silence_and_a_provider_that_never_closes_have_an_end() {
    let (world, _) = World::stocked(Setup::default()).await;
    world.model.answers.push(Script::new([say("1234"), Step::Hang]));
    world.model.answers.push(Script::new([say("1234"), finish(), Step::Hang]));
    for (query, ending) in [("tea?", Ending::TimedOut), ("tea??", Ending::Finished)] {
        let reply = world.ask(world.question(query).await).await.unwrap();
        let events = passing(&world, read(reply.events)).await;
        assert_eq!(done(&events).ending, ending);
    }
    world.assert_closed().await;
}

#[tokio::test]
async fn a_provider_that_ignores_the_cap_is_stopped() {
    let (world, _) = World::stocked(Setup::default()).await;
    world.model.answers.push(Script::new((0..10_000).map(|_| say(&"x".repeat(1000)))));
    let events = world.answer("tea?").await;
    assert!(text(&events).len() < 16_000, "512 tokens");
    assert_eq!(world.model.answers.states(), [CallState::Dropped]);
    world.assert_closed().await;
}

#[tokio::test]
async fn books_that_cannot_be_closed_do_not_take_the_answer_away() {
    let (world, _) = World::stocked(Setup::default()).await;
    world.books.plan("close", [Fault::Fail]);
    world.model.answers.push(brewed());
    assert_eq!(done(&world.answer("tea?").await).ending, Ending::Finished);
    assert_eq!(world.books.take(), ["enter", "reserve", "close"]);
}

/// Panics at the piece of that number of the answer, or of a side question.
pub(crate) struct Panicking {
    pub(crate) at: usize,
    pub(crate) in_side_questions: bool,
}

#[async_trait]
impl ChatModel for Panicking {
    async fn stream(&self, _: &TenantId, call: &ModelCall) -> Result<DeltaStream, ModelError> {
        let is_side = !call.messages[0].content.starts_with("You answer questions");
        let at = if is_side == self.in_side_questions { self.at } else { 99 };
        assert_ne!(at, 0, "this model panics at once");
        let pieces = futures_util::stream::iter(0..3).map(move |n| {
            assert_ne!(n + 1, at, "this model panics");
            Ok(if n == 2 {
                Delta::Finish(enigma_core::model::FinishReason::Stop)
            } else {
                Delta::Content("12345678".into())
            })
        });
        Ok(pieces.boxed())
    }
}

#[tokio::test]
async fn a_panic_of_a_model_ends_its_answer_like_any_other_failure() {
    for at in 0..4 {
        let model = Arc::new(Panicking { at, in_side_questions: false });
        let (world, _) = World::stocked(Setup { model: Some(model), ..Setup::default() }).await;
        match world.ask(world.question("tea?").await).await {
            Err(rejected) => {
                assert!(at < 2 && matches!(rejected.error, RetrievalError::Common(ChatError::Gateway(_))));
            }
            Ok(reply) => {
                let events = read(reply.events).await;
                assert_eq!(events[events.len() - 2], SearchEvent::Failed(StreamFailure::Model));
                done(&events);
            }
        }
        world.assert_closed().await;
        let [record] = &world.records("/search")[..] else { panic!("one record") };
        assert_eq!(record.ending, Ending::Failed);
    }
}

#[tokio::test]
async fn a_panic_of_a_model_beside_the_answer_does_no_harm() {
    for at in 0..4 {
        let model = Arc::new(Panicking { at, in_side_questions: true });
        let mut setup = Setup { model: Some(model), ..Setup::rewriting() };
        setup.settings.follow_up_wait = Some(Duration::from_secs(1));
        let (world, _) = World::stocked(setup).await;
        let events = world.answer("tea?").await;
        assert_eq!((done(&events).ending, text(&events).as_str()), (Ending::Finished, "1234567812345678"));
        world.assert_closed().await;
        assert_eq!(world.records("/search").len(), 1);
    }
}
