//! The contract suites, over the real bindings.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use enigma_cloudflare::{
    AiBinding, D1AuditLog, D1SessionIndex, D1VectorizeCorpus, Exactness, Freshness, KvCache, KvTenantDirectory,
    ObjectBooks, ObjectIdempotencyStore, ObjectSessions, Objects, TenantRules, WorkerClock, WorkersAiEmbedder,
};
use enigma_contract::request_books::ReadBooks;
use enigma_core::ports::{LedgerBalance, TokenLedger};
use enigma_core::usage::UsageRecord;
use enigma_core::{TenantId, Timestamp};
use futures_util::FutureExt;
use serde_json::{Map, Value, json};
use worker::Env;

/// Every record that a case can have made.
const ALL: u32 = 10_000;

/// Runs a case, in a realm of its own; tells how it ended.
pub(crate) async fn run(env: &Env, port: &str, case: &str, realm: &str) -> (u16, String) {
    // The tenants of a directory are in its files, under their own names.
    enigma_contract::fixture::enter_realm(if port == "tenant_directory" { "" } else { realm });
    match AssertUnwindSafe(find(env, port, case)).catch_unwind().await {
        Ok(true) => (200, "passed".to_owned()),
        Ok(false) => (404, "there is no such case".to_owned()),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            (500, text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked").to_owned())
        }
    }
}

/// Whether there is such a case; it has passed then.
async fn find(env: &Env, port: &str, case: &str) -> bool {
    let objects = Objects::from_env(env).expect("the objects are bound");
    let index = D1SessionIndex::from_env(env).expect("D1 is bound");
    let books = ObjectBooks::new(objects.clone());
    let minute = Duration::from_secs(60);
    let sessions = ObjectSessions::new(objects.clone(), index.clone(), minute, minute);

    macro_rules! suite {
        ($port:ident, $cases:ident, |$suite_case:ident| $call:expr) => {{
            macro_rules! run {
                ($name:ident) => {
                    if case == stringify!($name) {
                        use enigma_contract::$port::$name as $suite_case;
                        $call.await;
                        return true;
                    }
                };
            }
            enigma_contract::$cases!(run);
            false
        }};
    }

    match port {
        "rate_limiter" => suite!(rate_limiter, rate_limiter_cases, |run_case| run_case(&books)),
        "stream_slots" => suite!(stream_slots, stream_slots_cases, |run_case| run_case(&books)),
        "token_ledger" => suite!(token_ledger, token_ledger_cases, |run_case| run_case(&books)),
        "telemetry" => suite!(telemetry, telemetry_cases, |run_case| run_case(&books, |tenant: TenantId| {
            let books = books.clone();
            async move { books.records(&tenant, ALL).await.expect("the books answer") }.boxed()
        })),
        "request_books" => {
            let read = Read(books.clone());
            suite!(request_books, request_books_cases, |run_case| run_case(&books, &read))
        }
        "embedder" => {
            let ai = AiBinding::from_env(env, "AI").expect("Workers AI is bound");
            let embedder = WorkersAiEmbedder::new(ai).with_default_gateway("default-gateway");
            suite!(embedder, embedder_cases, |run_case| run_case(&embedder, "@cf/baai/bge-m3"))
        }
        "session_store" => suite!(session_store, session_store_cases, |run_case| run_case(&sessions)),
        "session_index" => suite!(session_index, session_index_cases, |run_case| run_case(&index)),
        "audit_log" => {
            let log = D1AuditLog::from_env(env).expect("D1 is bound");
            suite!(audit_log, audit_log_cases, |run_case| run_case(&log))
        }
        "turn_queue" => suite!(turn_queue, turn_queue_cases, |run_case| run_case(&sessions)),
        "session_turns" => suite!(session_turns, session_turns_cases, |run_case| run_case(&sessions)),
        "idempotency_store" => {
            let store = ObjectIdempotencyStore::new(objects);
            suite!(idempotency_store, idempotency_store_cases, |run_case| run_case(&store))
        }
        "cache" => {
            let cache = KvCache::from_env(env).expect("KV is bound");
            suite!(cache, cache_cases, |run_case| run_case(&cache))
        }
        "corpus" => {
            let corpus = corpus(env, Exactness::default());
            suite!(corpus, corpus_cases, |run_case| run_case(&corpus))
        }
        "corpus_by_index_alone" => {
            let corpus = corpus(env, Exactness { chunks: 0, late: 0 });
            suite!(corpus, corpus_cases, |run_case| run_case(&corpus))
        }
        "tenant_directory" => {
            let directory = directory(env).await;
            suite!(tenant_directory, tenant_directory_cases, |run_case| run_case(&directory))
        }
        _ => false,
    }
}

/// A corpus whose vectors carry what the suite filters by, or a part of it.
fn corpus(env: &Env, exactness: Exactness) -> D1VectorizeCorpus {
    let indexes = "lang:string,year:number,owner.team:string,parity:string,nested.number:number,number:number";
    let indexes = indexes.parse().expect("these can be indexes");
    D1VectorizeCorpus::from_env(env, None, indexes).expect("D1 and Vectorize are bound").with_exactness(exactness)
}

/// A directory of the suite's tenants: the first one bundled, the others in KV.
async fn directory(env: &Env) -> KvTenantDirectory {
    let document = |files: &[&str]| {
        let tenants: Map<String, Value> = files
            .iter()
            .map(|file| serde_json::from_str::<Value>(file).expect("the suite's tenants are JSON"))
            .map(|tenant| (tenant["tenantId"].as_str().unwrap_or_default().to_owned(), tenant))
            .collect();
        json!({ "tenants": tenants }).to_string()
    };
    let (bundled, in_kv) = enigma_contract::tenant_directory::FILES.split_at(1);
    let put = env.kv("CONFIG").and_then(|kv| Ok(kv.put("tenants", document(in_kv))?)).expect("KV is bound");
    put.execute().await.expect("KV takes the tenants");
    let rules = TenantRules::default();
    KvTenantDirectory::from_env(env, &document(bundled), rules, Freshness::default(), Arc::new(WorkerClock))
        .expect("KV is bound")
}

/// Reads the books back.
struct Read(ObjectBooks);

#[async_trait]
impl ReadBooks for Read {
    async fn balance(&self, tenant: &TenantId, now: Timestamp) -> LedgerBalance {
        TokenLedger::balance(&self.0, tenant, now).await.expect("the books answer")
    }

    async fn records(&self, tenant: &TenantId) -> Vec<UsageRecord> {
        self.0.records(tenant, ALL).await.expect("the books answer")
    }
}
