use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use enigma_core::TenantId;
use enigma_core::chat::{ChatError, ChatEvent, StreamFailure};
use enigma_core::model::{ChatModel, Delta, DeltaStream, FinishReason, GatewayError, ModelCall, ModelError, Role};
use enigma_core::usage::Ending;
use enigma_memory::testing::{CallState, Script, Step};
use futures_util::StreamExt;

use crate::harness::{World, done, finish, hello, passing, read, say, text, usage};

#[tokio::test]
async fn a_whole_answer_is_kept_charged_and_recorded_once() {
    let world = World::new();
    world.main.push(hello());
    let reply = world.ask(world.question(Some(1)).await).await.unwrap();
    assert_eq!((reply.model.as_str(), reply.tokens_in, reply.replayed), ("main", 10, false));
    let events = read(reply.events).await;
    assert_eq!(text(&events), "Hello");
    let done = done(&events);
    assert_eq!((done.tokens_in, done.tokens_out, done.finish_reason), (12, 3, Some(FinishReason::Stop)));

    let history = world.history(1).await;
    let said: Vec<_> = history.iter().map(|m| (m.role, m.content.as_str(), m.truncated)).collect();
    assert_eq!(said, [(Role::User, &*"x".repeat(40), false), (Role::Assistant, "Hello", false)]);
    assert_eq!(world.books().await, (15, 0));
    let [record] = &world.records()[..] else { panic!("one record") };
    assert_eq!((record.tokens_in, record.tokens_out, record.charged, record.estimated), (12, 3, 15, false));
    assert_eq!((record.ending, record.provider.as_ref().unwrap().as_str()), (Ending::Finished, "one"));
    world.assert_nothing_is_held().await;
}

#[tokio::test]
async fn without_a_session_nothing_is_kept() {
    let world = World::new();
    world.main.push(hello());
    let reply = world.ask(world.question(None).await).await.unwrap();
    read(reply.events).await;
    assert!(world.history(1).await.is_empty());
    assert_eq!(world.books().await, (15, 0));
}

#[tokio::test]
async fn without_the_providers_count_tokens_are_estimated() {
    let world = World::new();
    world.main.push(Script::new([say("12345"), say("6789"), finish()]));
    let events = read(world.ask(world.question(Some(1)).await).await.unwrap().events).await;
    assert_eq!((done(&events).tokens_in, done(&events).tokens_out), (10, 3), "nine characters make three tokens");
    assert!(world.records()[0].estimated);
    assert_eq!(world.books().await, (13, 0));
}

#[tokio::test]
async fn a_failure_before_the_first_piece_costs_nothing() {
    let world = World::new();
    world.main.push(Script::refusing(ModelError::Unsupported { feature: "x" }));
    let rejected = world.ask(world.question(Some(1)).await).await.unwrap_err();
    assert!(matches!(rejected.error, ChatError::Gateway(GatewayError::Failed { .. })), "{rejected:?}");
    assert!(rejected.rate.is_some(), "the windows were looked at");
    world.settle_down().await;
    assert_eq!(world.books().await, (0, 0));
    assert!(world.history(1).await.is_empty());
    assert_eq!(world.records()[0].ending, Ending::Failed);
    world.assert_nothing_is_held().await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_kept_truncated_and_charged() {
    let world = World::new();
    let broken = ModelError::Interrupted { message: "reset".into() };
    world.main.push(Script::new([say("12345678"), Step::Fail(broken)]));
    let events = read(world.ask(world.question(Some(1)).await).await.unwrap().events).await;
    assert_eq!(events[1], ChatEvent::Failed(StreamFailure::Model), "the error comes before done");
    assert_eq!((done(&events).finish_reason, done(&events).ending), (None, Ending::Failed));
    let history = world.history(1).await;
    assert!(history[1].truncated && history[1].content == "12345678");
    assert_eq!(world.books().await, (12, 0));
    assert_eq!(world.records().len(), 1);
    world.assert_nothing_is_held().await;
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_model_and_keeps_what_was_said() {
    let world = World::new();
    world.main.push(Script::new([say("12345678"), Step::Hang]));
    let mut reply = world.ask(world.question(Some(1)).await).await.unwrap();
    assert_eq!(reply.events.next().await, Some(ChatEvent::Content("12345678".into())));
    assert_eq!(world.main.states(), [CallState::Streaming]);
    drop(reply);
    world.background.idle().await;
    assert_eq!(world.main.states(), [CallState::Dropped]);
    assert!(world.history(1).await[1].truncated);
    assert_eq!(world.books().await, (12, 0));
    assert_eq!(world.records()[0].ending, Ending::ClientGone);
    world.assert_nothing_is_held().await;
}

#[tokio::test]
async fn a_client_that_goes_away_before_the_first_piece_pays_for_the_prompt() {
    let world = World::new();
    world.main.push(Script::new([Step::Hang]));
    let asking = world.ask(world.question(Some(1)).await);
    let answered = tokio::select! { biased; answer = asking => Some(answer), () = world.settle_down() => None };
    assert!(answered.is_none());
    world.background.idle().await;
    assert_eq!(world.main.states(), [CallState::Dropped]);
    assert!(world.history(1).await.is_empty(), "there is nothing to keep");
    assert_eq!(world.books().await, (10, 0));
    assert_eq!(world.records()[0].ending, Ending::ClientGone);
    world.assert_nothing_is_held().await;
}

#[tokio::test]
async fn a_client_that_reads_too_late_still_reads_the_last_event() {
    // One of these lengths fills the channel with the last piece, so that the last event finds no room.
    for pieces in 0..14 {
        let world = World::new();
        world.main.push(Script::new((0..=pieces).map(|_| say("12345678")).chain([finish()])));
        let reply = world.ask(world.question(Some(1)).await).await.unwrap();
        for _ in 0..3 {
            world.settle_down().await;
            world.clock.advance(Duration::from_secs(11));
        }
        world.background.idle().await;
        done(&read(reply.events).await);
    }
}

#[tokio::test]
async fn a_slow_client_holds_the_model_back_and_is_given_up_in_time() {
    let world = World::new();
    world.main.push(Script::new((0..1000).map(|_| say("12345678"))));
    let reply = world.ask(world.question(Some(1)).await).await.unwrap();
    world.settle_down().await;
    assert_eq!(world.background.running(), 1, "the task waits for the client");
    world.clock.advance(Duration::from_secs(10));
    world.background.idle().await;
    assert_eq!(world.main.states(), [CallState::Dropped]);
    let kept = world.history(1).await[1].content.len() / 8;
    assert!((8..16).contains(&kept), "{kept} pieces were read for a client that read none");
    assert_eq!(world.records()[0].ending, Ending::ClientGone);
    drop(reply);
    world.assert_nothing_is_held().await;
}

#[tokio::test]
async fn a_request_that_takes_too_long_ends_with_an_error_and_done() {
    let world = World::new();
    let slow = (0..60).flat_map(|_| [Step::Wait(Duration::from_secs(4)), say("1234")]);
    world.main.push(Script::new([say("1234")].into_iter().chain(slow)));
    let reply = world.ask(world.question(Some(1)).await).await.unwrap();
    let events = passing(&world, read(reply.events)).await;
    assert_eq!(events[events.len() - 2], ChatEvent::Failed(StreamFailure::TimedOut));
    assert_eq!(done(&events).ending, Ending::TimedOut);
    assert!(world.history(1).await[1].truncated);
    world.assert_nothing_is_held().await;
}

#[tokio::test]
async fn silence_between_pieces_has_an_end() {
    let world = World::new();
    world.main.push(Script::new([say("1234"), Step::Hang]));
    let reply = world.ask(world.question(Some(1)).await).await.unwrap();
    world.settle_down().await;
    world.clock.advance(Duration::from_secs(5));
    let events = read(reply.events).await;
    assert_eq!(events[1], ChatEvent::Failed(StreamFailure::TimedOut));
    done(&events);
    world.assert_nothing_is_held().await;
}

#[tokio::test]
async fn a_provider_that_never_closes_after_its_end_does_not_spoil_the_answer() {
    let world = World::new();
    world.main.push(Script::new([say("1234"), finish(), Step::Hang]));
    let reply = world.ask(world.question(Some(1)).await).await.unwrap();
    world.settle_down().await;
    world.clock.advance(Duration::from_secs(2));
    let events = read(reply.events).await;
    assert_eq!(done(&events).ending, Ending::Finished);
    assert!(!world.history(1).await[1].truncated);
}

#[tokio::test]
async fn a_host_that_stops_ends_its_streams_with_an_error_and_done() {
    let world = World::new();
    world.main.push(Script::new([say("1234"), Step::Hang]));
    let reply = world.ask(world.question(Some(1)).await).await.unwrap();
    world.background.stop();
    let events = read(reply.events).await;
    assert_eq!(events[1], ChatEvent::Failed(StreamFailure::ShutDown));
    done(&events);
    assert!(world.history(1).await[1].truncated);
    assert_eq!(world.records()[0].ending, Ending::ShutDown);
    world.assert_nothing_is_held().await;
}

#[tokio::test]
async fn an_answer_that_cannot_be_kept_is_not_called_done_well() {
    let world = World::new();
    world.store.fails.store(true, Ordering::Relaxed);
    world.main.push(hello());
    let events = read(world.ask(world.question(Some(1)).await).await.unwrap().events).await;
    assert_eq!(events[2], ChatEvent::Failed(StreamFailure::NotKept));
    assert_eq!(done(&events).finish_reason, None);
    assert_eq!(world.books().await, (15, 0), "it was used all the same");
    assert_eq!(world.records()[0].ending, Ending::Failed);
    world.assert_nothing_is_held().await;
}

#[tokio::test]
async fn use_beyond_the_budget_is_recorded_as_an_overrun_and_not_charged() {
    let world = World::new();
    let greedy = Script::saying(["Hi"], usage(990, 500));
    world.main.push(greedy);
    let events = read(world.ask(world.question(Some(1)).await).await.unwrap().events).await;
    assert_eq!(done(&events).tokens_out, 500, "the client is told the truth");
    assert_eq!(world.books().await, (1000, 0), "the budget holds");
    assert_eq!((world.records()[0].charged, world.records()[0].overrun), (1000, 490));
}

#[tokio::test]
async fn an_early_count_does_not_make_the_rest_free() {
    let world = World::new();
    let early = Step::Say(Delta::Usage(usage(12, 0)));
    let pieces = (0..6).map(|_| say("12345678"));
    world.main.push(Script::new([early].into_iter().chain(pieces).chain([Step::Hang])));
    let mut reply = world.ask(world.question(Some(1)).await).await.unwrap();
    reply.events.next().await.unwrap();
    world.settle_down().await;
    drop(reply);
    world.background.idle().await;
    assert_eq!(world.books().await, (12 + 12, 0), "the provider's prompt, and 48 characters of answer");
}

#[tokio::test]
async fn a_provider_that_ignores_the_cap_is_stopped() {
    let world = World::new();
    world.main.push(Script::new((0..10_000).map(|_| say(&"x".repeat(1000)))));
    let events = read(world.ask(world.question(Some(1)).await).await.unwrap().events).await;
    assert_eq!(done(&events).finish_reason, Some(FinishReason::Length));
    let bytes = text(&events).len();
    assert!((4000..7000).contains(&bytes), "{bytes} bytes of an answer of at most 50 tokens");
    assert_eq!(world.main.states(), [CallState::Dropped]);
    world.assert_nothing_is_held().await;
}

pub(crate) struct Panicking;

#[async_trait::async_trait]
impl ChatModel for Panicking {
    async fn stream(&self, _: &TenantId, _: &ModelCall) -> Result<DeltaStream, ModelError> {
        let pieces = futures_util::stream::iter(0..2).map(|n| {
            assert_eq!(n, 0, "this model panics at its second piece");
            Ok(Delta::Content("12345678".into()))
        });
        Ok(pieces.boxed())
    }
}

#[tokio::test]
async fn a_panic_of_a_model_ends_its_answer_like_any_other_failure() {
    let world = World::with_main(Arc::new(Panicking));
    let events = read(world.ask(world.question(Some(1)).await).await.unwrap().events).await;
    assert_eq!(events[1], ChatEvent::Failed(StreamFailure::Model));
    done(&events);
    assert!(world.history(1).await[1].truncated);
    assert_eq!((world.books().await, world.records().len()), ((12, 0), 1));
    world.assert_nothing_is_held().await;
}

struct PanickingAtOnce;

#[async_trait::async_trait]
impl ChatModel for PanickingAtOnce {
    async fn stream(&self, _: &TenantId, call: &ModelCall) -> Result<DeltaStream, ModelError> {
        panic!("this model panics before it answers r{}", call.metadata.trace);
    }
}

#[tokio::test]
async fn a_panic_before_the_answer_falls_back_like_any_other_failure() {
    let world = World::with_main(Arc::new(PanickingAtOnce));
    world.spare.push(hello());
    let command = world.question(Some(1)).await;
    let events = read(passing(&world, world.ask(command)).await.unwrap().events).await;
    assert_eq!((text(&events).as_str(), done(&events).model.as_str()), ("Hello", "spare"));
    assert_eq!((world.books().await, world.records().len()), ((15, 0), 1));

    let command = world.question(Some(1)).await;
    let rejected = passing(&world, world.ask(command)).await.unwrap_err();
    assert!(matches!(rejected.error, ChatError::Gateway(_)), "{rejected:?}");
    assert_eq!((world.books().await, world.records().len()), ((15, 0), 2));
    world.assert_nothing_is_held().await;
}
