//! The stores of retrieval, as the Worker has them, asked by hand.

use std::error::Error;
use std::sync::Arc;

use enigma_cloudflare::{D1VectorizeCorpus, Exactness, Freshness, KvTenantDirectory, TenantRules, WorkerClock};
use enigma_core::ports::{Clock, Corpus, KeywordQuery, TenantDirectory, VectorQuery};
use enigma_core::retrieval::{
    Chunk, Document, DocumentId, EmbeddedChunk, EmbeddingSpace, Metadata, MetadataFilter, Passage, Staging, words,
};
use enigma_core::{ModelId, PortError, TenantId, Timestamp, VersionId};
use enigma_worker::Retrieval;
use enigma_worker::config::{Config, of};
use serde_json::{Value, json};
use uuid::Uuid;
use worker::Env;

/// Does what `ask` says, for one tenant; tells what came of it, or how it failed.
pub(crate) async fn act(env: &Env, ask: &Value) -> String {
    let config = Config::load(&of(env)).expect("the settings are right");
    let directory = KvTenantDirectory::from_env(
        env,
        r#"{ "tenants": {} }"#,
        TenantRules::default(),
        Freshness::default(),
        Arc::new(WorkerClock),
    );
    let directory: Arc<dyn TenantDirectory> = Arc::new(directory.expect("KV is bound"));
    let stores = Retrieval::from_env(&config, env, Arc::clone(&directory)).expect("the stores are bound");
    // Every chunk is looked for by Vectorize.
    let only_index = D1VectorizeCorpus::from_env(env, Some(directory), config.metadata_indexes.clone())
        .expect("the stores are bound")
        .with_exactness(Exactness { chunks: 0, late: 0 });
    let corpus: &dyn Corpus = if ask["only_index"] == true { &only_index } else { &*stores.corpus };
    let tenant = tenant(ask);
    let told = match ask["op"].as_str().unwrap_or_default() {
        "cache.put" => {
            let end = WorkerClock.now().saturating_add(std::time::Duration::from_secs(600));
            let put = stores.cache.put(&tenant, text(ask, "key"), text(ask, "value"), end, WorkerClock.now());
            put.await.map(|()| json!("done"))
        }
        "cache.get" => {
            let got = stores.cache.get(&tenant, text(ask, "key"), WorkerClock.now());
            got.await.map(|got| json!(got))
        }
        _ => on_corpus(corpus, ask).await,
    };
    told.unwrap_or_else(|error| failure(&error)).to_string()
}

fn failure(error: &PortError) -> Value {
    let kind = match error {
        PortError::Unavailable { .. } => "unavailable",
        PortError::Timeout { .. } => "timeout",
        PortError::Corrupt { .. } => "corrupt",
    };
    json!({ "failed": kind, "port": error.port(), "why": error.source().map(ToString::to_string) })
}

fn text<'a>(ask: &'a Value, name: &str) -> &'a str {
    ask[name].as_str().unwrap_or_default()
}

fn tenant(ask: &Value) -> TenantId {
    TenantId::new(text(ask, "tenant")).expect("it names a tenant")
}

async fn on_corpus(corpus: &dyn Corpus, ask: &Value) -> Result<Value, PortError> {
    let (tenant, now) = (tenant(ask), WorkerClock.now());
    let filter = MetadataFilter::from_json(ask.get("filter").unwrap_or(&json!({}))).expect("it is a filter");
    match text(ask, "op") {
        "put" => put(corpus, ask).await,
        "state" => {
            let state = corpus.state(&tenant).await?;
            Ok(json!({ "generation": state.generation.0, "dimensions": state.space.map(|space| space.dimensions) }))
        }
        "near" => {
            let query = VectorQuery { vector: &vector(ask, 0), filter: &filter, limit: 100 };
            Ok(names(&corpus.nearest(&tenant, query).await?))
        }
        "words" => {
            let words: Vec<String> = words(text(ask, "text")).collect();
            let query = KeywordQuery { words: &words, filter: &filter, limit: 100 };
            Ok(names(&corpus.matching(&tenant, query).await?))
        }
        "delete" => {
            let id = DocumentId::new(text(ask, "document")).expect("it is a name");
            Ok(json!(corpus.delete(&tenant, &id).await?))
        }
        "sweep" => Ok(json!(corpus.sweep(&tenant, Timestamp::from_millis(now.as_millis() + 1)).await?)),
        other => panic!("there is nothing like {other}"),
    }
}

/// Of so many dimensions, as the number of the chunk turns it.
fn vector(ask: &Value, ordinal: u32) -> Vec<f32> {
    let dimensions = ask["dimensions"].as_u64().and_then(|it| usize::try_from(it).ok()).unwrap_or(8);
    let mut vector = vec![0.0; dimensions];
    #[expect(clippy::cast_possible_truncation, reason = "vectors are of f32")]
    {
        vector[0] = (f64::from(ordinal) / 1000.0).cos() as f32;
        vector[1] = (f64::from(ordinal) / 1000.0).sin() as f32;
    }
    vector
}

async fn put(corpus: &dyn Corpus, ask: &Value) -> Result<Value, PortError> {
    let (tenant, now) = (tenant(ask), WorkerClock.now());
    let id = DocumentId::new(text(ask, "document")).expect("it is a name");
    let count = ask["count"].as_u64().and_then(|it| u32::try_from(it).ok()).unwrap_or(1);
    let dimensions = u32::try_from(vector(ask, 0).len()).unwrap_or(u32::MAX);
    let space = EmbeddingSpace { model: ModelId::new("embedder").expect("it is a name"), dimensions };
    let version = VersionId::new(Uuid::from_u128(now.as_millis().into()));
    let version = ask["version"].as_u64().map_or(version, |it| VersionId::new(Uuid::from_u128(it.into())));
    let chunks: Vec<_> = (0..count)
        .map(|ordinal| EmbeddedChunk {
            chunk: Chunk { ordinal, start: 0, text: text(ask, "text").to_owned() },
            vector: vector(ask, ordinal),
        })
        .collect();
    for part in chunks.chunks(100) {
        corpus.stage(&tenant, Staging { document: &id, version, space: &space }, part, now).await?;
    }
    let metadata = ask["metadata"].as_object().cloned().unwrap_or_default();
    let metadata = Metadata::new(metadata).expect("they are small");
    let document = Document { id, source: None, title: None, url: None, metadata };
    let published = corpus.publish(&tenant, version, &document, &space, count, now).await?;
    Ok(published.map_or_else(|refused| json!(refused.to_string()), |generation| json!(generation.0)))
}

fn names(found: &[Passage]) -> Value {
    found.iter().map(|it| format!("{}#{}", it.document.id, it.chunk.ordinal)).collect()
}
