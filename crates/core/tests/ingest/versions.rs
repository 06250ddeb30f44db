use std::collections::BTreeSet;

use enigma_core::ports::{Corpus, KeywordQuery, VectorQuery};
use enigma_core::retrieval::{CorpusGeneration, MetadataFilter, Passage};
use enigma_memory::testing::EmbedderStep;
use futures_util::future::join_all;

use crate::doubles::FaultyCorpus;
use crate::harness::{SECOND, World, ingested, passing, read_steps, tenant};

/// A text of so many chunks, each of which tells of which version it is.
pub(crate) fn parts(version: &str, count: usize) -> String {
    let part = |n| format!("# Part {n}\n\nAll of version {version} here.\n\n");
    (0..count).map(part).collect::<Vec<_>>().concat()
}

/// Every chunk that can be found: its document, its number, and the version that it tells.
pub(crate) async fn found(world: &World, name: &str) -> BTreeSet<(String, u32, String)> {
    let query = KeywordQuery { words: &["version".to_owned()], filter: &MetadataFilter::default(), limit: 100 };
    let passages = world.corpus.inner.matching(&tenant(name), query).await.unwrap();
    let version = |text: &str| text.split_once("version ").unwrap().1.split(' ').next().unwrap().to_owned();
    let one = |it: Passage| (it.document.id.as_str().to_owned(), it.chunk.ordinal, version(&it.chunk.text));
    passages.into_iter().map(one).collect()
}

pub(crate) async fn nearest(world: &World, name: &str, text: &str) -> Passage {
    use enigma_core::model::EmbeddingCall;
    let call = EmbeddingCall {
        model: "words".parse().unwrap(),
        inputs: vec![text.to_owned()],
        dimensions: None,
        metadata: enigma_core::model::CallMetadata {
            tenant: tenant(name),
            trace: enigma_core::TraceId::new("trace").unwrap(),
            traceparent: None,
            session: None,
            route: "/search",
            gateway: None,
        },
    };
    let vectors = enigma_memory::testing::HashEmbedder::default().answer(&call).vectors;
    let query = VectorQuery { vector: &vectors[0], filter: &MetadataFilter::default(), limit: 1 };
    world.corpus.inner.nearest(&tenant(name), query).await.unwrap().remove(0)
}

impl FaultyCorpus {
    /// Sweeps what was staged until now, and tells how much that was.
    pub(crate) async fn inner_rest(&self, name: &str) -> u64 {
        let far = enigma_core::Timestamp::from_millis(u64::MAX / 2);
        self.inner.sweep(&tenant(name), far).await.unwrap()
    }
}

async fn generation(world: &World) -> CorpusGeneration {
    world.corpus.inner.state(&tenant("acme")).await.unwrap().generation
}

#[tokio::test]
async fn a_repeat_of_a_document_replaces_it_whole() {
    let world = World::new();
    world.add("acme", "guide", &parts("one", 7)).await;
    world.add("acme", "other", &parts("zero", 2)).await;
    let before = generation(&world).await;
    world.add("acme", "guide", &parts("two", 3)).await;
    assert_eq!(generation(&world).await.0, before.0 + 1);
    let guide = (0..3).map(|n| ("guide".to_owned(), n, "two".to_owned()));
    let other = (0..2).map(|n| ("other".to_owned(), n, "zero".to_owned()));
    assert_eq!(found(&world, "acme").await, guide.chain(other).collect());
    assert_eq!(world.contents("acme").await, [("guide".to_owned(), 3), ("other".to_owned(), 2)]);
    assert!(found(&world, "other").await.is_empty(), "another tenant has nothing of it");
    world.assert_closed().await;
}

#[tokio::test]
async fn the_older_version_is_found_until_the_new_one_is_whole() {
    let world = World::new();
    world.add("acme", "guide", &parts("one", 3)).await;
    for _ in 0..4 {
        world.embedder.push(EmbedderStep::Wait(SECOND));
    }
    let command = world.document("guide", &parts("two", 7)).await;
    let reply = passing(&world, world.take_in(command)).await.unwrap();
    assert_eq!(found(&world, "acme").await.len(), 3, "the first batch is staged, and not seen");
    let events = passing(&world, read_steps(reply.events)).await;
    assert_eq!(ingested(&events).chunks, 7);
    assert_eq!(found(&world, "acme").await.len(), 7);
}

#[tokio::test]
async fn of_two_at_the_same_time_one_whole_version_wins() {
    for delay in 0..12 {
        let world = World::new();
        let ingest = async |version: &str, count, wait| {
            for _ in 0..wait {
                tokio::task::yield_now().await;
            }
            let command = world.document("guide", &parts(version, count)).await;
            read_steps(world.take_in(command).await.unwrap().events).await
        };
        let all = join_all([ingest("one", 7, 0), ingest("two", 5, delay), ingest("three", 6, delay / 2)]).await;
        assert!(all.iter().all(|events| ingested(events).ending == enigma_core::usage::Ending::Finished));
        let found = found(&world, "acme").await;
        let versions: BTreeSet<_> = found.iter().map(|it| it.2.as_str()).collect();
        let [version] = versions.into_iter().collect::<Vec<_>>()[..] else { panic!("a mixture: {found:?}") };
        let count = [("one", 7), ("two", 5), ("three", 6)].into_iter().find(|it| it.0 == version).unwrap().1;
        assert_eq!(found.len(), count);
        assert_eq!((generation(&world).await.0, world.corpus.inner_rest("acme").await), (3, 0));
        world.assert_closed().await;
        assert_eq!(world.records("/ingest").len(), 3);
    }
}

#[tokio::test]
async fn documents_are_listed_and_deleted_for_one_tenant() {
    let world = World::new();
    for name in ["acme", "other"] {
        world.add(name, "guide", &parts("one", 2)).await;
    }
    let (acme, guide) = (world.context("acme").await, "guide".to_owned().try_into().unwrap());
    let page = world.documents.list(&acme, None, 10).await.unwrap();
    assert_eq!((page.documents.len(), page.documents[0].chunks, page.next), (1, 2, None));
    assert!(world.documents.delete(&acme, &guide).await.unwrap());
    assert!(!world.documents.delete(&acme, &guide).await.unwrap());
    assert!(world.contents("acme").await.is_empty());
    assert_eq!(world.contents("other").await, [("guide".to_owned(), 2)]);
}
