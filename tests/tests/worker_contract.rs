//! The contract suites of the ports, over the real Durable Objects, KV and D1, inside workerd. A Worker that is made for it
//! runs them (`tests/worker`); each test here asks it to run one case.

use std::sync::OnceLock;
use std::time::Duration;

use enigma_conformance::{Api, Worker, WorkerConfig};
use serde_json::json;
use tokio::sync::Mutex;

/// The longest that a case takes: the random ones make thousands of calls.
const LONGEST: Duration = Duration::from_secs(300);

fn worker() -> &'static Worker {
    static WORKER: OnceLock<Worker> = OnceLock::new();
    // As many dimensions as the largest vectors of the cases have, and some.
    let vectorize = json!({
        "dimensions": 16,
        "metadataIndexes": ["lang", "year", "owner.team", "parity", "nested.number", "number"],
    });
    WORKER.get_or_init(|| WorkerConfig::new().package("tests/worker").vectorize(vectorize).start())
}

async fn run(port: &str, case: &str) {
    // The realm of a case is that of its isolate, so that there is one at a time.
    static NUMBER: Mutex<usize> = Mutex::const_new(0);
    let mut number = NUMBER.lock().await;
    *number += 1;
    // No case finds what another has left.
    let path = format!("/contract/{port}/{case}?realm=case{number}");
    let answer = Api::patient(&worker().base_url, LONGEST).get(&path).await;
    assert_eq!((answer.status, answer.text.as_str()), (200, "passed"), "{port}::{case}");
}

macro_rules! suite {
    ($port:ident, $cases:ident) => {
        mod $port {
            macro_rules! run {
                ($case:ident) => {
                    #[tokio::test]
                    async fn $case() {
                        super::run(stringify!($port), stringify!($case)).await;
                    }
                };
            }

            enigma_contract::$cases!(run);
        }
    };
}

suite!(cache, cache_cases);
suite!(corpus, corpus_cases);
suite!(embedder, embedder_cases);
suite!(idempotency_store, idempotency_store_cases);
suite!(rate_limiter, rate_limiter_cases);
suite!(request_books, request_books_cases);
suite!(audit_log, audit_log_cases);
suite!(session_index, session_index_cases);
suite!(session_store, session_store_cases);
suite!(session_turns, session_turns_cases);
suite!(stream_slots, stream_slots_cases);
suite!(telemetry, telemetry_cases);
suite!(tenant_directory, tenant_directory_cases);
suite!(token_ledger, token_ledger_cases);
suite!(turn_queue, turn_queue_cases);

/// The corpus again, with every chunk looked for by Vectorize.
mod corpus_by_index_alone {
    /// What an index that names a hundred cannot do: which of many equals it names, and what it cannot filter by.
    const NOT_BY_IT: [&str; 2] = [
        "what_fits_alike_is_in_the_order_of_document_and_chunk",
        "the_few_documents_that_a_filter_leaves_are_found_among_many",
    ];

    macro_rules! run {
        ($case:ident) => {
            #[tokio::test]
            async fn $case() {
                if !NOT_BY_IT.contains(&stringify!($case)) {
                    super::run("corpus_by_index_alone", stringify!($case)).await;
                }
            }
        };
    }

    enigma_contract::corpus_cases!(run);
}
