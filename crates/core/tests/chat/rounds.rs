//! Chats in which the model calls tools of the platform.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use enigma_core::ToolName;
use enigma_core::chat::{ChatCommand, ChatEvent, ChatSettings, StreamFailure, ToolProgress, ToolState};
use enigma_core::model::{Delta, FinishReason, ModelCall, ModelError, Role, ToolCallDelta, ToolChoice};
use enigma_core::ports::AuditLog;
use enigma_core::tools::{
    AuditOutcome, AuditQuery, Permission, Tool, ToolDefinition, ToolFailure, ToolRegistry, ToolRun,
};
use enigma_core::usage::Ending;
use enigma_memory::testing::{Script, Step};
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::harness::{NOW, World, acme, done, finish, passing, read, say, settings, tenant_json, text, usage};

/// What the model is told to have found.
struct Lookup;

#[async_trait]
impl Tool for Lookup {
    fn definition(&self) -> ToolDefinition {
        ToolDefinition {
            name: ToolName::new("lookup").unwrap(),
            description: "Looks a word up.".to_owned(),
            parameters: json!({ "type": "object", "properties": { "word": { "type": "string" } }, "required": ["word"] }),
            output: json!({ "type": "object" }),
            timeout: Duration::from_secs(30),
            permissions: Vec::new(),
            takes_documents: false,
        }
    }

    fn estimate(&self, _params: &Value) -> u64 {
        0
    }

    async fn run(&self, _run: &ToolRun<'_>, params: &Value) -> Result<Value, ToolFailure> {
        match params["word"].as_str() {
            Some("hang") => std::future::pending().await,
            Some("fail") => Err(ToolFailure::Other("a secret of the operator".to_owned())),
            word => Ok(json!({ "found": format!("{} is a word", word.unwrap_or_default()) })),
        }
    }
}

/// A tool that nobody may use.
struct Locked;

#[async_trait]
impl Tool for Locked {
    fn definition(&self) -> ToolDefinition {
        let permissions = vec![Permission::Flag("nobody_has_it".to_owned())];
        ToolDefinition { name: ToolName::new("locked").unwrap(), permissions, ..Lookup.definition() }
    }

    fn estimate(&self, _params: &Value) -> u64 {
        0
    }

    async fn run(&self, _run: &ToolRun<'_>, _params: &Value) -> Result<Value, ToolFailure> {
        panic!("it must not run")
    }
}

fn tenant(flags: &Value) -> Value {
    let mut tenant = tenant_json();
    tenant["tokenBudget"] = json!({ "daily": 100_000 });
    tenant["featureFlags"] = flags.clone();
    tenant
}

fn world_with(settings: ChatSettings, flags: &Value) -> World {
    let mut tools = ToolRegistry::new();
    tools.register(Arc::new(Lookup)).unwrap();
    tools.register(Arc::new(Locked)).unwrap();
    World::with_tools(&tenant(flags), settings, tools)
}

fn world() -> World {
    world_with(settings(), &json!({ "tools_enabled": true, "tool_calling": true }))
}

async fn question(world: &World) -> ChatCommand {
    ChatCommand { server_tools: true, ..world.question(Some(1)).await }
}

fn asked(world: &World) -> Vec<ModelCall> {
    world.main.calls().into_iter().map(|recorded| recorded.call).collect()
}

/// An answer that says something, and then calls tools with these arguments.
fn saying_and_calling(text: &str, calls: &[(&str, &str)]) -> Script {
    let mut steps: Vec<Step> = (0u32..)
        .zip(calls)
        .map(|(index, (name, arguments))| {
            let (id, name) = (Some(format!("call_{index}")), Some((*name).to_owned()));
            Step::Say(Delta::ToolCall(ToolCallDelta { index, id, name, arguments: (*arguments).to_owned() }))
        })
        .collect();
    if !text.is_empty() {
        steps.insert(0, say(text));
    }
    steps.push(Step::Say(Delta::Finish(FinishReason::ToolCalls)));
    steps.push(Step::Say(Delta::Usage(usage(100, 10))));
    Script::new(steps)
}

fn calling(calls: &[(&str, &str)]) -> Script {
    saying_and_calling("", calls)
}

/// An answer in words.
fn saying(text: &str) -> Script {
    Script::new([say(text), finish(), Step::Say(Delta::Usage(usage(200, 20)))])
}

fn results(call: &ModelCall) -> Vec<Value> {
    let results = call.messages.iter().filter(|message| message.role == Role::Tool);
    results.map(|message| serde_json::from_str(&message.content).unwrap()).collect()
}

fn states(events: &[ChatEvent]) -> Vec<(&str, ToolState)> {
    let progress = |event| match event {
        &ChatEvent::Tool(ToolProgress { ref tool, state, .. }) => Some((tool.as_str(), state)),
        _ => None,
    };
    events.iter().filter_map(progress).collect()
}

async fn outcomes(world: &World) -> Vec<AuditOutcome> {
    let page = world.audit.list(&acme(), &AuditQuery::default(), None, 100, NOW).await.unwrap();
    page.records.iter().rev().map(|record| record.outcome).collect()
}

#[tokio::test]
async fn a_model_calls_a_tool_and_answers_from_its_result() {
    let world = world();
    world.main.push(calling(&[("lookup", r#"{"word":"tea"}"#)]));
    world.main.push(saying("Tea is a word."));
    let events = read(world.ask(question(&world).await).await.unwrap().events).await;
    assert_eq!(text(&events), "Tea is a word.");
    let zero = Duration::ZERO;
    assert_eq!(states(&events), [("lookup", ToolState::Started), ("lookup", ToolState::Succeeded(zero))]);
    assert!(!events.iter().any(|event| matches!(event, ChatEvent::ToolCall(_))), "nobody else can make these calls");
    let [first, second] = &asked(&world)[..] else { panic!("two calls") };
    assert_eq!(
        first.tools.iter().map(|tool| tool.name.as_str()).collect::<Vec<_>>(),
        ["lookup"],
        "and not what is denied"
    );
    assert_eq!(results(second), [json!({ "result": { "found": "tea is a word" } })]);
    assert_eq!((done(&events).tokens_in, done(&events).tokens_out), (300, 30));
    let [record] = &world.records()[..] else { panic!("one record for all of it") };
    assert_eq!((record.tokens_in, record.tokens_out, record.ending), (300, 30, Ending::Finished));
    assert_eq!(world.books().await.0, 330);
    assert_eq!(outcomes(&world).await, [AuditOutcome::Succeeded]);
    // What is kept is what was asked and what was answered.
    let kept: Vec<_> = world.history(1).await.into_iter().map(|message| (message.role, message.content)).collect();
    assert_eq!(kept, [(Role::User, "x".repeat(40)), (Role::Assistant, "Tea is a word.".to_owned())]);
    world.assert_nothing_is_held().await;
}

#[tokio::test]
async fn what_is_said_between_calls_is_a_part_of_the_answer() {
    let world = world();
    world.main.push(saying_and_calling("Let me look. ", &[("lookup", r#"{"word":"tea"}"#)]));
    world.main.push(saying("Tea is a word."));
    let command = ChatCommand { whole: true, ..question(&world).await };
    let events = read(world.ask(command).await.unwrap().events).await;
    assert_eq!(text(&events), "Let me look. Tea is a word.");
    assert_eq!(states(&events), []);
    assert_eq!(world.history(1).await[1].content, "Let me look. Tea is a word.");
}

#[tokio::test]
async fn without_the_flags_or_the_wish_no_tool_is_on_offer() {
    for flags in [json!({}), json!({ "tools_enabled": true }), json!({ "tool_calling": true })] {
        let world = world_with(settings(), &flags);
        world.main.push(saying("No."));
        read(world.ask(question(&world).await).await.unwrap().events).await;
        assert!(asked(&world)[0].tools.is_empty(), "{flags}");
    }
    let world = world();
    world.main.push(saying("No."));
    read(world.ask(world.question(None).await).await.unwrap().events).await;
    assert!(asked(&world)[0].tools.is_empty());
}

#[tokio::test]
async fn a_model_that_never_stops_calling_is_told_to_answer() {
    let world = world_with(
        ChatSettings { tool_rounds: 2, ..settings() },
        &json!({ "tools_enabled": true, "tool_calling": true }),
    );
    for _ in 0..3 {
        world.main.push(calling(&[("lookup", r#"{"word":"tea"}"#)]));
    }
    let events = read(world.ask(question(&world).await).await.unwrap().events).await;
    let choices: Vec<_> = asked(&world).iter().map(|call| call.tool_choice.clone()).collect();
    assert_eq!(choices, [ToolChoice::Auto, ToolChoice::Auto, ToolChoice::None]);
    assert_eq!(done(&events).finish_reason, Some(FinishReason::Stop));
    assert_eq!(outcomes(&world).await.len(), 2);
    world.assert_nothing_is_held().await;
}

#[tokio::test]
async fn a_call_that_cannot_be_made_is_told_to_the_model_and_put_on_record() {
    let world = world();
    world.main.push(calling(&[
        ("lookup", r#"{"word":7}"#),
        ("lookup", "{oops"),
        ("locked", r#"{"word":"x"}"#),
        ("missing", "{}"),
        ("no name\n", "{}"),
        ("lookup", r#"{"word":"fail"}"#),
        ("lookup", ""),
        ("lookup", r#"{"word":"a"}"#),
        ("lookup", r#"{"word":"one too many"}"#),
    ]));
    world.main.push(saying("I could not."));
    let events = read(world.ask(question(&world).await).await.unwrap().events).await;
    assert_eq!(text(&events), "I could not.");
    let told = results(&asked(&world)[1]);
    assert_eq!(told.len(), 9);
    for (n, part) in [
        (0, "break the schema"),
        (1, "no JSON"),
        (2, "may not be used"),
        (3, "no such tool"),
        (4, "no such tool"),
        (5, "the tool failed"),
        (6, "break the schema"),
        (8, "too many"),
    ] {
        assert!(told[n]["error"].as_str().unwrap().contains(part), "{n}: {}", told[n]);
    }
    assert!(told[7]["result"].is_object());
    assert!(!format!("{told:?}").contains("secret"));
    let mut found = outcomes(&world).await;
    found.sort_by_key(|outcome| format!("{outcome:?}"));
    let named: Vec<_> = found.iter().map(|outcome| outcome.as_str()).collect();
    assert_eq!(named, ["denied", "failed", "invalid", "invalid", "not_found", "succeeded"]);
    world.assert_nothing_is_held().await;
}

#[tokio::test]
async fn rounds_end_when_the_tokens_that_were_set_aside_are_spent() {
    let world = world_with(
        ChatSettings { tool_tokens: 60, ..settings() },
        &json!({ "tools_enabled": true, "tool_calling": true }),
    );
    for _ in 0..5 {
        world.main.push(calling(&[("lookup", r#"{"word":"tea"}"#)]));
    }
    let events = read(world.ask(question(&world).await).await.unwrap().events).await;
    assert!(asked(&world).len() < 5);
    assert_eq!(done(&events).finish_reason, Some(FinishReason::Length));
    world.assert_nothing_is_held().await;
}

#[tokio::test]
async fn a_model_that_fails_after_its_tools_leaves_the_books_right() {
    let world = world();
    world.main.push(calling(&[("lookup", r#"{"word":"tea"}"#)]));
    let refuse = || ModelError::Rejected { status: 400, message: "no".to_owned() };
    world.main.push(Script::refusing(refuse()));
    world.spare.push(Script::refusing(refuse()));
    let events = read(world.ask(question(&world).await).await.unwrap().events).await;
    assert!(events.contains(&ChatEvent::Failed(StreamFailure::Model)));
    let [record] = &world.records()[..] else { panic!("one record") };
    assert_eq!((record.tokens_in, record.tokens_out, record.ending), (100, 10, Ending::Failed));
    assert_eq!(world.books().await.0, 110);
    world.assert_nothing_is_held().await;
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_tool() {
    let world = world();
    world.main.push(calling(&[("lookup", r#"{"word":"hang"}"#)]));
    let mut reply = world.ask(question(&world).await).await.unwrap();
    assert!(matches!(reply.events.next().await, Some(ChatEvent::Tool(_))));
    drop(reply);
    world.background.idle().await;
    assert_eq!(outcomes(&world).await, [AuditOutcome::Cancelled]);
    assert_eq!(world.records()[0].ending, Ending::ClientGone);
    assert_eq!(world.books().await.0, 110);
    world.assert_nothing_is_held().await;
}

#[tokio::test]
async fn a_tool_that_takes_too_long_is_ended_and_the_model_goes_on() {
    let world = world();
    world.main.push(calling(&[("lookup", r#"{"word":"hang"}"#)]));
    world.main.push(saying("It took too long."));
    let reply = world.ask(question(&world).await).await.unwrap();
    let events = passing(&world, read(reply.events)).await;
    assert_eq!(text(&events), "It took too long.");
    assert_eq!(outcomes(&world).await, [AuditOutcome::TimedOut]);
    assert!(results(&asked(&world)[1])[0]["error"].as_str().unwrap().contains("too long"));
}
