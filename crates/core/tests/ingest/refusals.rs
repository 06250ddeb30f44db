use enigma_core::admission::AdmissionError;
use enigma_core::chat::ChatError;
use enigma_core::ingest::IngestEvent;
use enigma_core::model::{Embeddings, GatewayError};
use enigma_core::search::{RetrievalError, RetrievalRejected};
use enigma_memory::testing::EmbedderStep;
use serde_json::{Value, json};

use crate::doubles::Fault;
use crate::harness::{Setup, World, read_steps, tenant_json};
use crate::versions::{found, parts};

async fn refused(world: &World, text: &str) -> RetrievalRejected {
    let command = world.document("guide", text).await;
    world.take_in(command).await.unwrap_err()
}

fn with(world: &World, field: &str, value: &Value) {
    world.configure(|name| {
        let mut tenant = tenant_json(name);
        tenant[field] = value.clone();
        tenant
    });
}

#[tokio::test]
async fn what_cannot_be_embedded_costs_nothing() {
    let world = World::new();
    with(&world, "aiModels", &json!({ "chat": "main" }));
    assert!(matches!(refused(&world, "text").await.error, RetrievalError::NoEmbeddingModel));
    with(&world, "aiModels", &json!({ "chat": "main", "embeddings": "nobody" }));
    let rejected = refused(&world, "text").await;
    assert!(matches!(rejected.error, RetrievalError::Common(ChatError::Gateway(GatewayError::UnknownModel(_)))));
    assert!(world.books.take().is_empty() && world.corpus.faults.take().is_empty());
    world.assert_closed().await;
}

#[tokio::test]
async fn too_many_chunks_are_refused_before_anything_is_spent() {
    let world = World::with(Setup { max_chunks: 3, ..Setup::default() });
    world.add("acme", "guide", &parts("one", 3)).await;
    let spent = world.spent().await;
    let rejected = refused(&world, &parts("two", 4)).await;
    assert!(matches!(rejected.error, RetrievalError::TooManyChunks { chunks: 4, most: 3 }));
    assert_eq!((world.spent().await, found(&world, "acme").await.len()), (spent, 3));
    world.assert_closed().await;
}

#[tokio::test]
async fn a_text_of_nothing_is_refused_as_such() {
    let world = World::new();
    let rejected = refused(&world, "\u{0}\u{1} \u{feff}").await;
    assert!(matches!(rejected.error, RetrievalError::NoText), "{rejected:?}");
    assert!(world.embedder.calls().is_empty());
    world.assert_closed().await;
}

#[tokio::test]
async fn another_model_than_that_of_the_corpus_is_refused_and_nothing_is_written() {
    let world = World::new();
    world.add("acme", "guide", &parts("one", 3)).await;
    let spent = world.spent().await;
    world.corpus.faults.take();
    with(&world, "aiModels", &json!({ "chat": "main", "embeddings": "small" }));
    let rejected = refused(&world, &parts("two", 5)).await;
    let RetrievalError::OtherSpace { has, model, dimensions } = &rejected.error else { panic!("{rejected:?}") };
    assert_eq!((has.model.as_str(), has.dimensions, model.as_str(), *dimensions), ("words", 256, "small", None));
    assert_eq!((world.corpus.faults.take(), world.spent().await), (vec!["state"], spent));
    world.assert_closed().await;
    assert_eq!(found(&world, "acme").await.len(), 3);
}

#[tokio::test]
async fn a_model_that_has_other_dimensions_now_is_refused_after_one_batch_and_nothing_is_written() {
    let world = World::new();
    world.add("acme", "guide", &parts("one", 3)).await;
    let (asked, spent) = (world.embedder.calls().len(), world.spent().await);
    world.corpus.faults.take();
    let vectors = vec![vec![1.0, 0.0, 0.0]; 2];
    world.embedder.push(EmbedderStep::Answer(Embeddings { vectors, prompt_tokens: Some(7) }));
    let rejected = refused(&world, &parts("two", 7)).await;
    let RetrievalError::OtherSpace { has, dimensions, .. } = &rejected.error else { panic!("{rejected:?}") };
    assert_eq!((has.dimensions, *dimensions), (256, Some(3)));
    assert_eq!(world.embedder.calls().len(), asked + 1, "one batch is enough to know");
    assert_eq!(world.spent().await - spent, 7);
    assert!(!world.corpus.faults.take().contains(&"stage"));
    world.assert_closed().await;
}

#[tokio::test]
async fn a_space_that_was_taken_meanwhile_is_told_and_nothing_is_written() {
    let world = World::new();
    // A document of another model comes in after the state was read.
    with(&world, "aiModels", &json!({ "chat": "main", "embeddings": "small" }));
    let slow = world.document("guide", &parts("two", 5)).await;
    let reply = world.take_in(slow).await.unwrap();
    world.configure(tenant_json);
    let quick = world.document("quick", "text").await;
    let (slow, quick) = tokio::join!(read_steps(reply.events), async {
        match world.take_in(quick).await {
            Ok(reply) => read_steps(reply.events).await,
            Err(rejected) => vec![IngestEvent::Failed(rejected.error)],
        }
    });
    let failures = [slow, quick].concat_failures();
    assert!(matches!(&failures[..], [RetrievalError::OtherSpace { .. }]), "{failures:?}");
    assert_eq!((world.contents("acme").await.len(), world.corpus.inner_rest("acme").await), (1, 0));
    world.assert_closed().await;
}

trait Failures {
    fn concat_failures(self) -> Vec<RetrievalError>;
}

impl Failures for [Vec<IngestEvent>; 2] {
    fn concat_failures(self) -> Vec<RetrievalError> {
        let failure = |event| if let IngestEvent::Failed(error) = event { Some(error) } else { None };
        self.into_iter().flatten().filter_map(failure).collect()
    }
}

#[tokio::test]
async fn a_budget_or_a_window_that_is_too_small_refuses_before_anything_is_asked() {
    let world = World::new();
    with(&world, "tokenBudget", &json!({ "daily": 30 }));
    let rejected = refused(&world, &parts("one", 7)).await;
    let RetrievalError::Common(ChatError::Admission(AdmissionError::BudgetExceeded(_))) = rejected.error else {
        panic!("{rejected:?}")
    };
    assert!(rejected.rate.is_some());
    with(&world, "rateLimit", &json!({ "perMinute": 1 }));
    let rejected = refused(&world, &parts("one", 7)).await;
    let RetrievalError::Common(ChatError::Admission(AdmissionError::RateLimited(_))) = rejected.error else {
        panic!("{rejected:?}")
    };
    assert!(rejected.rate.is_some() && world.embedder.calls().is_empty());
    assert!(world.records("/ingest").is_empty());
    world.assert_closed().await;
}

#[tokio::test]
async fn what_a_lost_answer_of_the_ledger_has_set_aside_is_given_back() {
    for fault in [Fault::Fail, Fault::Lose] {
        let world = World::new();
        world.books.plan("reserve", [fault]);
        refused(&world, &parts("one", 7)).await;
        world.assert_closed().await;
        assert_eq!((world.spent().await, world.records("/ingest").len()), (0, 0));
    }
}
