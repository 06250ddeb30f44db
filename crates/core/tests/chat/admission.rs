use enigma_core::admission::AdmissionError;
use enigma_core::chat::ChatError;
use enigma_core::ledger::BudgetExceeded;
use enigma_core::model::Role;
use enigma_memory::testing::{Script, Step};

use crate::harness::{World, hello, read, say, settings, tenant_json};

#[tokio::test]
async fn a_request_beyond_the_rate_limit_reaches_nothing() {
    let mut tenant = tenant_json();
    tenant["rateLimit"] = serde_json::json!({ "perMinute": 1 });
    let world = World::with(&tenant, settings());
    world.main.push(hello());
    read(world.ask(world.question(Some(1)).await).await.unwrap().events).await;
    let rejected = world.ask(world.question(Some(1)).await).await.unwrap_err();
    let ChatError::Admission(AdmissionError::RateLimited(rate)) = rejected.error else { panic!("{rejected:?}") };
    assert_eq!((rate.limit, rate.remaining, rejected.rate), (1, 0, Some(rate)));
    assert_eq!(world.main.calls().len(), 1);
    assert_eq!(world.books().await, (15, 0));
}

#[tokio::test]
async fn a_request_beyond_the_budget_reaches_no_model() {
    let mut tenant = tenant_json();
    tenant["tokenBudget"] = serde_json::json!({ "daily": 59 });
    let world = World::with(&tenant, settings());
    let rejected = world.ask(world.question(Some(1)).await).await.unwrap_err();
    let ChatError::Admission(AdmissionError::BudgetExceeded(BudgetExceeded { resets_at, .. })) = rejected.error else {
        panic!("a prompt of 10 and a cap of 50 do not fit into 59: {rejected:?}")
    };
    assert!(resets_at > crate::harness::NOW);
    world.settle_down().await;
    assert!(world.main.calls().is_empty() && world.records().is_empty());
    world.assert_nothing_is_held().await;
}

#[tokio::test]
async fn answers_under_way_are_bounded() {
    let world = World::new();
    let mut open = Vec::new();
    for session in 1..=2 {
        world.main.push(Script::new([say("1"), Step::Hang]));
        open.push(world.ask(world.question(Some(session)).await).await.unwrap());
    }
    let rejected = world.ask(world.question(Some(3)).await).await.unwrap_err();
    assert!(matches!(rejected.error, ChatError::Admission(AdmissionError::TooManyStreams { .. })));
    drop(open);
    world.background.idle().await;
    world.main.push(hello());
    assert!(world.ask(world.question(Some(3)).await).await.is_ok());
}

#[tokio::test]
async fn a_session_refuses_tools_before_anything_is_taken() {
    let world = World::new();
    let mut command = world.question(Some(1)).await;
    command.messages[0].role = Role::Tool;
    let rejected = world.ask(command).await.unwrap_err();
    assert!(matches!(rejected.error, ChatError::SessionWithTools) && rejected.rate.is_none());
    world.main.push(hello());
    let reply = world.ask(world.question(Some(1)).await).await.unwrap();
    assert_eq!(reply.rate.remaining, 99);
}
