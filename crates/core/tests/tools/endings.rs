//! Every ending: what is told, what is charged, and the one audit record.

use std::time::Duration;

use enigma_core::chat::ChatError;
use enigma_core::idempotency::{Fingerprint, IdempotencyKey};
use enigma_core::tools::{AuditOutcome, ParamsHash, ToolError, ToolFailure};
use enigma_core::usage::Ending;
use enigma_memory::testing::{CallState, Script, Step};
use serde_json::json;

use crate::harness::{NOW, TIMEOUT, World, acme};

async fn outcome(world: &World) -> (AuditOutcome, u64) {
    let records = world.audited().await;
    assert_eq!(records.len(), 1, "exactly one: {records:?}");
    (records[0].outcome, records[0].tokens)
}

#[tokio::test]
async fn a_result_is_told_charged_and_put_on_record() {
    let world = World::usual();
    world.will_say(r#"Here: {"said": "hello"}"#);
    let reply = world.parrot("hello").await.unwrap();
    assert_eq!((reply.data, reply.tokens), (json!({ "said": "hello" }), 10));
    let [record] = &world.audited().await[..] else { panic!("one record") };
    assert_eq!((record.outcome, record.tokens, record.at), (AuditOutcome::Succeeded, 10, NOW));
    assert_eq!(record.params, ParamsHash::of(&json!({ "how": "hello" })));
    assert_eq!(record.expires_at, NOW.saturating_add(Duration::from_secs(7 * 86_400)));
    assert_eq!((record.tool.as_str(), record.route.as_str()), ("parrot", "/tools/execute"));
    assert_eq!(world.books().await, (10, 0));
    let [usage] = &world.telemetry.records(&acme()).unwrap()[..] else { panic!("one record") };
    assert_eq!((usage.ending, usage.charged, usage.route.as_str()), (Ending::Finished, 10, "/tools/execute"));
}

#[tokio::test]
async fn a_bad_answer_is_repaired_once_and_then_it_fails() {
    let world = World::usual();
    world.will_say("no");
    world.will_say(r#"{"said": "better"}"#);
    assert_eq!(world.parrot("x").await.unwrap().tokens, 20);
    let calls = world.model.calls();
    assert_eq!(calls[1].call.messages.len(), 4);
    assert!(calls[1].call.messages[3].content.contains("it holds no JSON object"));

    let world = World::usual();
    world.will_say(r#"{"word": "a"}"#);
    world.will_say(r#"{"word": "b"}"#);
    let error = world.parrot("x").await.unwrap_err().error;
    assert!(matches!(error, ToolError::Failed(ToolFailure::Unusable(_))), "{error:?}");
    assert_eq!(outcome(&world).await, (AuditOutcome::Failed, 20));
    assert_eq!((world.model.calls().len(), world.books().await), (2, (20, 0)));
}

#[tokio::test]
async fn what_a_tool_does_badly_is_its_failure() {
    for how in ["panic", "fail", "wrong", "huge"] {
        let world = World::usual();
        let rejected = world.parrot(how).await.unwrap_err();
        assert!(matches!(rejected.error, ToolError::Failed(_)), "{how}: {rejected:?}");
        assert!(rejected.rate.is_some());
        assert_eq!(outcome(&world).await, (AuditOutcome::Failed, 0), "{how}");
        assert_eq!(world.books().await, (0, 0), "{how}");
    }
}

#[tokio::test]
async fn a_tool_that_asks_no_model_sets_nothing_aside() {
    let world = World::usual();
    let reply = world.parrot("for free").await.unwrap();
    assert_eq!((reply.data, reply.tokens), (json!({ "said": "free" }), 0));
    assert_eq!(outcome(&world).await, (AuditOutcome::Succeeded, 0));
    assert!(world.telemetry.records(&acme()).unwrap().is_empty());
}

#[tokio::test]
async fn refusals_are_put_on_record_and_spend_nothing() {
    for (flags, tool, params, expected) in [
        (json!({}), "parrot", json!({ "how": "x" }), AuditOutcome::Denied),
        (json!({ "birds": true }), "parrot", json!({ "how": "x" }), AuditOutcome::Denied),
        (json!({ "tools_enabled": true }), "parrot", json!({ "how": "x" }), AuditOutcome::Denied),
        (
            json!({ "tools_enabled": true, "birds": true, "tool_parrot": false }),
            "parrot",
            json!({ "how": "x" }),
            AuditOutcome::Denied,
        ),
        (json!({ "tools_enabled": true }), "owl", json!({}), AuditOutcome::NotFound),
        (json!({ "tools_enabled": true, "birds": true }), "parrot", json!({ "how": 3 }), AuditOutcome::Invalid),
    ] {
        let world = World::new(&flags);
        let error = world.execute(world.command(tool, params).await).await.unwrap_err().error;
        assert_eq!(AuditOutcome::from(&error), expected, "{flags}");
        assert_eq!(outcome(&world).await, (expected, 0), "{flags}");
        assert_eq!((world.books().await, world.model.calls().len()), ((0, 0), 0));
    }
}

#[tokio::test]
async fn a_tool_is_stopped_when_its_time_is_up() {
    for how in ["hang", "slow"] {
        let world = World::usual();
        world.model.push(Script::new([Step::Say(enigma_core::model::Delta::Content("{".to_owned())), Step::Hang]));
        let waiting = world.parrot(how);
        let passing = async {
            world.settle_down().await;
            world.clock.advance(TIMEOUT);
        };
        let (answer, ()) = tokio::join!(waiting, passing);
        let error = answer.unwrap_err().error;
        assert!(matches!(error, ToolError::TimedOut(TIMEOUT)), "{how}: {error:?}");
        let (outcome, tokens) = outcome(&world).await;
        assert_eq!((outcome, tokens > 0), (AuditOutcome::TimedOut, how == "slow"));
        let states = world.model.states();
        assert!(states.iter().all(|state| *state == CallState::Dropped), "{states:?}");
        // What the model has read and said so far is charged, estimated.
        assert_eq!(world.books().await, (tokens, 0));
    }
}

#[tokio::test]
async fn whoever_goes_ends_the_tool_and_so_does_the_end_of_the_program() {
    let world = World::usual();
    {
        let waiting = world.parrot("hang");
        tokio::select! {
            answer = waiting => panic!("{answer:?}"),
            () = world.settle_down() => {}
        }
    }
    assert_eq!(outcome(&world).await, (AuditOutcome::Cancelled, 0));
    assert_eq!(world.books().await, (0, 0));

    let world = World::usual();
    let stopping = async {
        world.settle_down().await;
        world.background.stop();
    };
    let (answer, ()) = tokio::join!(world.parrot("hang"), stopping);
    assert!(matches!(answer.unwrap_err().error, ToolError::Common(ChatError::ShuttingDown)));
    assert_eq!(outcome(&world).await, (AuditOutcome::Cancelled, 0));
}

#[tokio::test]
async fn limits_and_budgets_come_first() {
    let world = World::usual();
    for _ in 0..5 {
        world.parrot("for free").await.unwrap();
    }
    let rejected = world.parrot("for free").await.unwrap_err();
    assert!(matches!(rejected.error, ToolError::Common(ChatError::Admission(_))), "{rejected:?}");
    assert!(rejected.rate.is_some_and(|rate| rate.remaining == 0));
    assert_eq!(world.audited().await.len(), 5, "whom the limiter keeps out fills no log");
}

#[tokio::test]
async fn a_repeat_runs_nothing() {
    let world = World::usual();
    world.will_say(r#"{"said": "once"}"#);
    let mut command = world.command("parrot", json!({ "how": "x" })).await;
    let key = IdempotencyKey::new(&command.caller.subject, "/tools/execute", "key").unwrap();
    command.idempotency = Some((key.clone(), Fingerprint::of(&[b"x"])));
    let first = world.execute(command.clone()).await.unwrap();
    let again = world.execute(command).await.unwrap();
    assert_eq!((first.replayed, again.replayed), (false, true));
    assert_eq!((first.data, first.tokens), (again.data, again.tokens));
    assert_eq!((world.audited().await.len(), world.model.calls().len()), (1, 1));

    // What failed may be tried again.
    let mut failing = world.command("parrot", json!({ "how": "fail" })).await;
    failing.idempotency = Some((
        IdempotencyKey::new(&failing.caller.subject, "/tools/execute", "other").unwrap(),
        Fingerprint::of(&[b"y"]),
    ));
    for _ in 0..2 {
        assert!(matches!(world.execute(failing.clone()).await.unwrap_err().error, ToolError::Failed(_)));
    }
}
