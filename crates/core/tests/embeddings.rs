//! The gateway to embedding models: batches, retries, breakers, time limits, and answers that are none.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on stops")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use enigma_core::admission::{Admission, Permit};
use enigma_core::books::ComposedBooks;
use enigma_core::model::{
    BreakerPolicy, CallMetadata, Embedded, Embedder, EmbedderRoute, EmbeddingCall, EmbeddingGateway, Embeddings,
    GatewayError, ModelError, Phase, RetryPolicy, StaticEmbedderCatalog,
};
use enigma_core::ports::Clock;
use enigma_core::tenant::{ClientAddress, RequestIdentity, Resolver, Tenant, TenantIndex, UserHints};
use enigma_core::{RequestId, Timestamp, TraceId};
use enigma_memory::testing::{CallState, EmbedderStep, HashEmbedder, ManualClock, ScriptedEmbedder, SeededIds};
use enigma_memory::{MemoryRateLimiter, MemoryStreamSlots, MemoryTelemetry, MemoryTenantDirectory, MemoryTokenLedger};
use futures_util::{FutureExt, poll};
use proptest::prelude::*;
use uuid::Uuid;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const SECOND: Duration = Duration::from_secs(1);

struct World {
    clock: ManualClock,
    embedder: Arc<ScriptedEmbedder>,
    gateway: EmbeddingGateway,
    tenant: Tenant,
    permit: Permit,
}

impl World {
    async fn new(max_batch: usize) -> Self {
        let clock = ManualClock::new(NOW);
        let embedder = Arc::new(ScriptedEmbedder::new(Arc::new(clock.clone())));
        let gateway = gateway(&clock, Arc::clone(&embedder) as _, max_batch);
        let (tenant, permit) = permit().await;
        Self { clock, embedder, gateway, tenant, permit }
    }

    async fn embed(&self, call: EmbeddingCall) -> Result<Embedded, GatewayError> {
        self.gateway.embed(&self.permit, &self.tenant, call, NOW.saturating_add(SECOND * 100)).await
    }

    fn fail(&self, error: ModelError) {
        self.embedder.push(EmbedderStep::Fail(error));
    }

    fn answer(&self, vectors: Vec<Vec<f32>>) {
        self.embedder.push(EmbedderStep::Answer(Embeddings { vectors, prompt_tokens: None }));
    }

    fn in_flight(&self) -> usize {
        self.embedder.states().into_iter().filter(|state| *state == CallState::Opening).count()
    }

    /// Lets a request run, and time with it.
    async fn passing<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            if let std::task::Poll::Ready(done) = poll!(work.as_mut()) {
                return done;
            }
            self.clock.advance(Duration::from_millis(250));
        }
    }
}

fn gateway(clock: &ManualClock, embedder: Arc<dyn Embedder>, max_batch: usize) -> EmbeddingGateway {
    let route = EmbedderRoute { provider: "here".parse().unwrap(), embedder, max_batch };
    let catalog = StaticEmbedderCatalog::new().with_model("words".parse().unwrap(), route);
    let breaker = BreakerPolicy { failures: 4, ..BreakerPolicy::default() };
    let retry = RetryPolicy { max_attempts: 2, ..RetryPolicy::default() };
    let clock: Arc<dyn Clock> = Arc::new(clock.clone());
    EmbeddingGateway::new(Arc::new(catalog), clock, Arc::new(SeededIds::new(7)), breaker, retry, SECOND * 20)
}

async fn permit() -> (Tenant, Permit) {
    let json =
        r#"{ "tenantId": "acme", "aiModels": { "chat": "m", "embeddings": "words" }, "auth": { "mode": "open" } }"#;
    let tenant = Tenant::from_json(json).unwrap();
    let directory = MemoryTenantDirectory::new(TenantIndex::new([tenant.clone()]).unwrap());
    let resolver = Resolver::new(Arc::new(directory), None);
    let identity = RequestIdentity { tenant: Some("acme"), ..RequestIdentity::default() };
    let claimed = resolver.resolve(&identity).await.unwrap();
    let context = resolver.authenticate(claimed, None, &ClientAddress::new("192.0.2.1"), NOW).await.unwrap();
    let books = ComposedBooks::new(
        Arc::new(MemoryRateLimiter::default()),
        Arc::new(MemoryStreamSlots::default()),
        Arc::new(MemoryTokenLedger::default()),
        Arc::new(MemoryTelemetry::new(10)),
    );
    let admission = Admission::new(Arc::new(books), SECOND * 200);
    let caller = context.caller(UserHints::default());
    let entry = admission.enter(&context, &caller, RequestId::new(Uuid::from_u128(1)), NOW).await.unwrap();
    let permit = admission.reserve(&context, &entry, 10, NOW).await.unwrap();
    (tenant, permit)
}

fn call<T: Into<String>>(inputs: impl IntoIterator<Item = T>) -> EmbeddingCall {
    EmbeddingCall {
        model: "words".parse().unwrap(),
        inputs: inputs.into_iter().map(Into::into).collect(),
        dimensions: None,
        metadata: CallMetadata {
            tenant: "acme".parse().unwrap(),
            trace: TraceId::new("trace").unwrap(),
            traceparent: None,
            session: None,
            route: "/search",
            gateway: None,
        },
    }
}

fn numbered(texts: usize) -> EmbeddingCall {
    call((0..texts).map(|n| format!("text {n}")))
}

/// Whether the vectors are those of the whole call, but for rounding.
fn is_right(embedded: &Embedded, call: &EmbeddingCall) -> bool {
    let expected = HashEmbedder::default().answer(call).vectors;
    let alike = |a: &[f32], b: &[f32]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
    embedded.vectors.len() == expected.len() && embedded.vectors.iter().zip(&expected).all(|(a, b)| alike(a, b))
}

fn unavailable() -> ModelError {
    ModelError::unavailable("503")
}

fn failure(embedded: Result<Embedded, GatewayError>) -> ModelError {
    match embedded {
        Err(GatewayError::Failed { source, .. }) => source,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn texts_go_in_batches_and_come_back_in_their_order() {
    let world = World::new(3).await;
    let embedded = world.embed(numbered(8)).await.unwrap();
    assert!(is_right(&embedded, &numbered(8)));
    assert_eq!((embedded.space.model.as_str(), embedded.space.dimensions), ("words", 256));
    assert_eq!((embedded.tokens, embedded.estimated, embedded.provider.as_str()), (16, false, "here"));
    let sizes: Vec<_> = world.embedder.calls().iter().map(|call| call.call.inputs.len()).collect();
    assert_eq!(sizes, [3, 3, 2]);
}

#[tokio::test]
async fn the_first_batch_goes_alone_and_then_four_at_a_time() {
    let world = World::new(1).await;
    for _ in 0..10 {
        world.embedder.push(EmbedderStep::Wait(SECOND));
    }
    let mut work = Box::pin(world.embed(numbered(10)));
    for in_flight in [1, 4, 4] {
        assert!((&mut work).now_or_never().is_none());
        assert_eq!(world.in_flight(), in_flight);
        world.clock.advance(SECOND);
    }
    assert!((&mut work).now_or_never().is_none());
    assert_eq!(world.in_flight(), 1);
    world.clock.advance(SECOND);
    assert_eq!(work.await.unwrap().vectors.len(), 10);
}

#[tokio::test]
async fn batches_can_be_read_one_by_one() {
    let world = World::new(2).await;
    let deadline = NOW.saturating_add(SECOND);
    let mut batches = world.gateway.batches(&world.permit, &world.tenant, numbered(5), deadline).unwrap();
    assert_eq!((batches.texts, world.embedder.calls().len()), (5, 0), "nothing is asked before it is awaited");
    let mut sizes = Vec::new();
    while let Some(batch) = batches.next().await {
        let batch = batch.unwrap();
        assert_eq!(
            (batch.tokens, batch.estimated, batch.space.dimensions),
            (batch.vectors.len() as u64 * 2, false, 256)
        );
        sizes.push(batch.vectors.len());
    }
    assert_eq!(sizes, [2, 2, 1]);
    assert!(batches.next().await.is_none());
}

#[tokio::test]
async fn tokens_that_the_provider_did_not_count_are_estimated() {
    let world = World::new(1).await;
    world.answer(vec![vec![3.0, 4.0]]);
    world.embedder.push(EmbedderStep::Answer(Embeddings { vectors: vec![vec![0.0, 2.0]], prompt_tokens: Some(0) }));
    world.embedder.push(EmbedderStep::Answer(Embeddings { vectors: vec![vec![1.0, 0.0]], prompt_tokens: Some(7) }));
    let embedded = world.embed(call(["äöüß1", "123456789", "x"])).await.unwrap();
    assert_eq!((embedded.tokens, embedded.estimated), (2 + 3 + 7, true));
    assert_eq!(embedded.vectors, [[0.6, 0.8], [0.0, 1.0], [1.0, 0.0]], "all of length 1");
}

#[tokio::test]
async fn a_batch_is_tried_again_alone() {
    let world = World::new(2).await;
    world.embedder.push(EmbedderStep::Wait(SECOND));
    world.fail(unavailable());
    let embedded = world.passing(world.embed(numbered(6))).await.unwrap();
    assert!(is_right(&embedded, &numbered(6)));
    assert_eq!(world.embedder.calls().len(), 4);
}

#[tokio::test]
async fn a_batch_that_fails_for_good_ends_the_others() {
    let world = World::new(1).await;
    world.embedder.push(EmbedderStep::Wait(SECOND));
    world.fail(ModelError::Rejected { status: 400, message: String::new() });
    for _ in 0..8 {
        world.embedder.push(EmbedderStep::Hang);
    }
    let failed = failure(world.passing(world.embed(numbered(10))).await);
    assert!(matches!(failed, ModelError::Rejected { status: 400, .. }));
    let states = world.embedder.states();
    assert_eq!(states[..2], [CallState::Ended; 2]);
    assert!(states.len() <= 6 && states[2..].iter().all(|state| *state == CallState::Dropped), "{states:?}");
}

#[tokio::test]
async fn when_the_first_batch_fails_the_others_are_not_asked_for() {
    let world = World::new(1).await;
    world.fail(ModelError::Unauthorized { status: 401 });
    assert!(matches!(failure(world.embed(numbered(9)).await), ModelError::Unauthorized { .. }));
    assert_eq!(world.embedder.calls().len(), 1);
}

#[tokio::test]
async fn a_provider_that_keeps_failing_is_left_alone_and_a_long_document_can_be_its_probe() {
    let world = World::new(1).await;
    for _ in 0..4 {
        world.fail(unavailable());
    }
    for _ in 0..2 {
        assert!(matches!(failure(world.passing(world.embed(numbered(1))).await), ModelError::Unavailable { .. }));
    }
    assert!(matches!(failure(world.embed(numbered(1)).await), ModelError::BreakerOpen));
    assert_eq!(world.embedder.calls().len(), 4);
    world.clock.advance(SECOND * 20);
    assert_eq!(world.embed(numbered(9)).await.unwrap().vectors.len(), 9);
}

#[tokio::test]
async fn an_embedder_that_does_not_answer_is_given_up() {
    let world = World::new(10).await;
    world.embedder.push(EmbedderStep::Hang);
    world.embedder.push(EmbedderStep::Hang);
    assert!(matches!(failure(world.passing(world.embed(numbered(1))).await), ModelError::Timeout(Phase::FirstToken)));
    assert_eq!(world.embedder.states(), [CallState::Dropped; 2], "it is tried once more");

    world.embedder.push(EmbedderStep::Hang);
    let soon = world.clock.now().saturating_add(SECOND);
    let work = world.gateway.embed(&world.permit, &world.tenant, numbered(1), soon);
    assert!(matches!(failure(world.passing(work).await), ModelError::Timeout(Phase::Deadline)));
    assert_eq!(world.clock.now().since(soon), Duration::ZERO);
}

#[tokio::test]
async fn what_is_no_answer_is_a_failure_of_the_provider() {
    let wrong = [
        vec![vec![1.0, 0.0]],
        vec![vec![1.0, 0.0]; 3],
        vec![vec![1.0, 0.0], vec![1.0]],
        vec![vec![], vec![]],
        vec![vec![1.0, f32::NAN], vec![1.0, 0.0]],
        vec![vec![f32::INFINITY, 0.0], vec![1.0, 0.0]],
        vec![vec![0.0, 0.0], vec![1.0, 0.0]],
    ];
    for vectors in wrong {
        let world = World::new(10).await;
        world.answer(vectors.clone());
        world.answer(vectors.clone());
        let failed = failure(world.passing(world.embed(numbered(2))).await);
        assert!(matches!(failed, ModelError::Malformed { .. }), "{vectors:?}: {failed:?}");
    }
}

#[tokio::test]
async fn all_batches_have_the_dimensions_of_the_first() {
    let world = World::new(1).await;
    world.answer(vec![vec![1.0, 0.0]]);
    for _ in 0..2 {
        world.answer(vec![vec![1.0, 0.0, 0.0]]);
    }
    assert!(matches!(failure(world.passing(world.embed(numbered(2))).await), ModelError::Malformed { .. }));
}

#[tokio::test]
async fn dimensions_are_those_that_were_asked_for() {
    let world = World::new(2).await;
    let asking = EmbeddingCall { dimensions: Some(2), ..numbered(3) };
    assert_eq!(world.embed(asking.clone()).await.unwrap().space.dimensions, 2);
    world.answer(vec![vec![1.0, 0.0, 0.0]; 2]);
    assert!(matches!(failure(world.embed(asking).await), ModelError::Unsupported { feature: "dimensions" }));
    assert_eq!(world.embedder.calls().len(), 3, "another try gives no other dimensions");
}

#[tokio::test]
async fn who_goes_away_ends_the_work() {
    let world = World::new(1).await;
    for _ in 0..9 {
        world.embedder.push(EmbedderStep::Wait(SECOND));
    }
    let mut work = Box::pin(world.embed(numbered(9)));
    assert!((&mut work).now_or_never().is_none());
    world.clock.advance(SECOND);
    assert!((&mut work).now_or_never().is_none());
    drop(work);
    assert_eq!(world.in_flight(), 0);
    assert_eq!(world.embedder.states()[1..], [CallState::Dropped; 4]);
}

#[tokio::test]
async fn a_model_that_nobody_serves_is_told_from_one_that_fails() {
    let world = World::new(1).await;
    let other = EmbeddingCall { model: "other".parse().unwrap(), ..numbered(1) };
    assert!(world.gateway.serves(&world.tenant, &"words".parse().unwrap()));
    assert!(!world.gateway.serves(&world.tenant, &other.model));
    assert!(matches!(world.embed(other).await, Err(GatewayError::UnknownModel(model)) if model.as_str() == "other"));
    assert!(matches!(failure(world.embed(numbered(0)).await), ModelError::Rejected { status: 400, .. }));
}

#[tokio::test]
async fn an_embedder_that_panics_has_failed() {
    struct Panics;
    #[async_trait]
    impl Embedder for Panics {
        async fn embed(&self, _call: &EmbeddingCall) -> Result<Embeddings, ModelError> {
            panic!("a fault of the adapter")
        }
    }
    let world = World::new(1).await;
    let gateway = gateway(&world.clock, Arc::new(Panics), 1);
    let work = gateway.embed(&world.permit, &world.tenant, numbered(1), NOW.saturating_add(SECOND * 9));
    assert!(matches!(failure(world.passing(work).await), ModelError::Unavailable { .. }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn batches_change_nothing_but_the_number_of_calls(
        texts in proptest::collection::vec("[a-c ]{1,6}", 1..30), max_batch in 0usize..9, waits in proptest::collection::vec(0u64..4, 0..30),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let world = World::new(max_batch).await;
            for wait in waits {
                world.embedder.push(EmbedderStep::Wait(SECOND * u32::try_from(wait).unwrap()));
            }
            let embedded = world.passing(world.embed(call(texts.clone()))).await.unwrap();
            prop_assert!(is_right(&embedded, &call(texts.clone())));
            prop_assert_eq!(world.embedder.calls().len(), texts.len().div_ceil(max_batch.max(1)));
            prop_assert_eq!(world.in_flight(), 0);
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn the_deployments_model_comes_before_the_tenants_own() {
    let (tenant, _) = permit().await;
    let clock = ManualClock::new(NOW);
    let embedder = || Arc::new(ScriptedEmbedder::new(Arc::new(clock.clone())));
    let own = gateway(&clock, embedder(), 2);
    assert_eq!(own.model_of(&tenant).unwrap().as_str(), "words");
    let prescribed = gateway(&clock, embedder(), 2).with_model(Some("other".parse().unwrap()));
    assert_eq!(prescribed.model_of(&tenant).unwrap().as_str(), "other");
}
