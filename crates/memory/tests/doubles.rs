//! The doubles do what the tests that use them rely on.

use std::sync::Arc;
use std::time::Duration;

use enigma_contract::fixture::{NOON, acme};
use enigma_core::model::{
    CallMetadata, ChatMessage, ChatModel, Delta, FinishReason, ModelCall, ModelError, ResponseFormat, Role, Sampling,
    ToolChoice, Usage,
};
use enigma_core::ports::{Background, TenantDirectory};
use enigma_core::tenant::{Tenant, TenantClaim, TenantIndex};
use enigma_core::{ModelId, TraceId};
use enigma_memory::MemoryTenantDirectory;
use enigma_memory::testing::{CallState, ManualClock, Script, ScriptedModel, Step, TestBackground};
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
