//! The doubles do what the tests that use them rely on.

use std::sync::Arc;
use std::time::Duration;

use enigma_contract::fixture::{NOON, acme};
use enigma_core::model::{
    CallMetadata, ChatMessage, ChatModel, Delta, Embedder, EmbeddingCall, FinishReason, ModelCall, ModelError,
    ResponseFormat, Role, Sampling, ToolChoice, Usage,
};
use enigma_core::ports::{Background, TenantDirectory};
use enigma_core::tenant::{Tenant, TenantClaim, TenantIndex};
use enigma_core::{ModelId, TraceId};
use enigma_memory::MemoryTenantDirectory;
use enigma_memory::testing::{
    CallState, EmbedderStep, HashEmbedder, ManualClock, Script, ScriptedEmbedder, ScriptedModel, Step, TestBackground,
};
use futures_util::{FutureExt, StreamExt};

const SECOND: Duration = Duration::from_secs(1);

fn call() -> ModelCall {
    ModelCall {
        model: ModelId::new("m").expect("a valid model"),
        messages: vec![ChatMessage::text(Role::User, "hi")],
        max_tokens: 10,
        sampling: Sampling::default(),
        tools: Vec::new(),
        tool_choice: ToolChoice::Auto,
        response_format: ResponseFormat::Text,
        metadata: CallMetadata {
            tenant: acme(),
            trace: TraceId::new("t").expect("a valid trace"),
            traceparent: None,
            session: None,
            route: "/chat",
            gateway: None,
        },
    }
}

fn say(text: &str) -> Step {
    Step::Say(Delta::Content(text.to_owned()))
}

#[tokio::test]
async fn a_model_plays_one_script_per_call_and_keeps_what_it_was_asked() {
    let model = ScriptedModel::new(Arc::new(ManualClock::new(NOON)));
    let usage = Usage { prompt_tokens: 3, completion_tokens: 2 };
    model.push(Script::saying(["a", "b"], usage));
    model.push(Script::refusing(ModelError::Busy));

    let answer: Vec<_> = model.stream(&acme(), &call()).await.unwrap().map(Result::unwrap).collect().await;
    let content = |text: &str| Delta::Content(text.to_owned());
    assert_eq!(answer, [content("a"), content("b"), Delta::Finish(FinishReason::Stop), Delta::Usage(usage)]);
    assert!(matches!(model.stream(&acme(), &call()).await, Err(ModelError::Busy)));
    assert!(matches!(model.stream(&acme(), &call()).await, Err(ModelError::Unavailable { .. })));

    assert_eq!(model.states(), [CallState::Ended; 3]);
    assert_eq!((&model.calls()[0].tenant, &model.calls()[0].call), (&acme(), &call()));
}

#[tokio::test]
async fn a_model_waits_on_the_clock_and_ends_after_an_error() {
    let clock = ManualClock::new(NOON);
    let model = ScriptedModel::new(Arc::new(clock.clone()));
    let interrupted = ModelError::Interrupted { message: "cut".to_owned() };
    let steps = [say("a"), Step::Wait(SECOND), Step::Fail(interrupted), say("never")];
    model.push(Script::new(steps).first(Step::Wait(SECOND)));

    let (tenant, asked) = (acme(), call());
    let mut opening = model.stream(&tenant, &asked);
    assert!((&mut opening).now_or_never().is_none());
    assert_eq!(model.states(), [CallState::Opening]);
    clock.advance(SECOND);
    let mut answer = opening.await.unwrap();
    assert!(answer.next().await.unwrap().is_ok());
    assert!(answer.next().now_or_never().is_none());
    clock.advance(SECOND);
    assert!(matches!(answer.next().await, Some(Err(ModelError::Interrupted { .. }))));
    assert!(answer.next().await.is_none());
    assert_eq!(model.states(), [CallState::Ended]);
}

#[tokio::test]
async fn a_model_knows_when_it_is_dropped() {
    let model = ScriptedModel::new(Arc::new(ManualClock::new(NOON)));
    model.push(Script::new([say("a"), Step::Hang]));
    model.push(Script::new([]).first(Step::Hang));
    model.push(Script::new([say("all")]));

    let (tenant, asked) = (acme(), call());
    let mut answer = model.stream(&tenant, &asked).await.unwrap();
    assert!(answer.next().await.unwrap().is_ok());
    assert!(answer.next().now_or_never().is_none());
    let mut opening = model.stream(&tenant, &asked);
    assert!((&mut opening).now_or_never().is_none());
    let mut read = model.stream(&tenant, &asked).await.unwrap();
    assert!(read.next().await.unwrap().is_ok());
    assert_eq!(model.states(), [CallState::Streaming, CallState::Opening, CallState::Ended]);
    drop((answer, opening, read));
    assert_eq!(model.states(), [CallState::Dropped, CallState::Dropped, CallState::Ended]);
}

#[tokio::test]
async fn background_work_can_be_awaited_and_told_to_stop() {
    let runtime = tokio::runtime::Handle::current();
    let background = TestBackground::new(move |work| drop(runtime.spawn(work)));
    background.idle().await;
    for _ in 0..3 {
        background.spawn(background.stopping());
    }
    background.spawn(Box::pin(async {}));
    let mut idle = background.idle();
    tokio::task::yield_now().await;
    assert!((&mut idle).now_or_never().is_none());
    assert_eq!(background.running(), 3);
    background.stop();
    idle.await;
    assert_eq!(background.running(), 0);
    assert_eq!(background.stopping().now_or_never(), Some(()));
}

#[tokio::test]
async fn a_directory_shows_what_replaced_it_at_once() {
    let tenant =
        |id: &str| Tenant::from_json(&format!(r#"{{ "tenantId": "{id}", "aiModels": {{ "chat": "m" }} }}"#)).unwrap();
    let directory = MemoryTenantDirectory::new(TenantIndex::new([tenant("acme")]).unwrap());
    let acme = TenantClaim::Id(acme());
    let found = directory.find(&acme).await.unwrap().unwrap();
    directory.replace(TenantIndex::new([tenant("globex")]).unwrap());
    assert_eq!(directory.find(&acme).await.unwrap(), None);
    assert_eq!(found.id().as_str(), "acme", "who has it already keeps it");
}

fn texts<'a>(inputs: impl IntoIterator<Item = &'a str>) -> EmbeddingCall {
    let inputs = inputs.into_iter().map(str::to_owned).collect();
    EmbeddingCall { model: call().model, inputs, dimensions: None, metadata: call().metadata }
}

#[test]
fn texts_are_as_near_as_they_have_words_in_common() {
    let near = |a: &str, b: &str| {
        let vectors = HashEmbedder::default().answer(&texts([a, b])).vectors;
        vectors[0].iter().zip(&vectors[1]).map(|(a, b)| a * b).sum::<f32>()
    };
    assert!(near("The cat sat.", "sat, the CAT") > 0.999, "order, case and punctuation are nothing");
    let (much, little) = (near("a red car", "a red bus"), near("a red car", "a big bus"));
    assert!((0.5..0.85).contains(&much) && (0.15..0.55).contains(&little), "{much} {little}");
    assert!(near("oranges grow", "trains run").abs() < 0.25);
    assert!(near("?!", "?!") > 0.999 && near("?!", "...") < 0.25, "a text without words has a direction too");
}

#[tokio::test]
async fn an_embedder_does_what_it_is_told_and_knows_when_it_is_dropped() {
    let clock = ManualClock::new(NOON);
    let embedder = ScriptedEmbedder::new(Arc::new(clock.clone()));
    embedder.push(EmbedderStep::Fail(ModelError::Busy));
    embedder.push(EmbedderStep::Wait(SECOND));
    embedder.push(EmbedderStep::Hang);
    let asked = texts(["one two", "three"]);
    assert!(matches!(embedder.embed(&asked).await, Err(ModelError::Busy)));
    let mut waiting = embedder.embed(&asked);
    assert!((&mut waiting).now_or_never().is_none());
    let mut hanging = embedder.embed(&asked);
    assert!((&mut hanging).now_or_never().is_none());
    clock.advance(SECOND);
    let answer = waiting.await.unwrap();
    assert_eq!((answer.vectors.len(), answer.prompt_tokens), (2, Some(3)));
    assert_eq!(answer, embedder.embed(&asked).await.unwrap(), "without a step it answers");
    drop(hanging);
    assert_eq!(embedder.states(), [CallState::Ended, CallState::Ended, CallState::Dropped, CallState::Ended]);
    assert_eq!(embedder.calls()[0].call, asked);
}

macro_rules! run_synthesizer {
    ($case:ident) => {
        #[tokio::test]
        async fn $case() {
            enigma_contract::synthesizer::$case(&enigma_memory::testing::ToneSynthesizer, "tone").await;
        }
    };
}

enigma_contract::synthesizer_cases!(run_synthesizer);
