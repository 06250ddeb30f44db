//! Clients that leave at any moment: the model's work ends at once, and the books are right.

#![expect(clippy::unwrap_used, reason = "all of this is test code: a panic is how it reports")]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use enigma_conformance::client::{completion, session};
use enigma_conformance::upstream::{Ended, PATIENCE};
use enigma_conformance::{Api, ServerConfig, Tenant, Upstream};
use enigma_core::ports::TokenLedger;
use enigma_core::usage::Ending;
use enigma_core::{TenantId, Timestamp};
use enigma_sqlite::{Database, Options, SqliteTelemetry, SqliteTokenLedger};
use futures_util::future::join_all;
use http::Method;
use serde_json::json;
use tokio::time::Instant;
use uuid::Uuid;

const STREAMS: usize = 500;
const TENANTS: [&str; 2] = ["acme", "globex"];
/// Over how long the requests come.
const ARRIVALS: u64 = 4000;
/// The longest that a client waits for a first token that does not come.
const STAY: u64 = 1500;
/// The most pieces that one takes where they come.
const PIECES: u64 = 12;
/// How long a model may work for a client that has gone.
const SOON: Duration = Duration::from_secs(1);
/// The same for the slowest one in twenty: that is the time of the server, the client and the model together, with whatever else
/// this machine does.
const LATEST: Duration = Duration::from_secs(5);

/// A number below `bound`.
fn any(bound: u64) -> u64 {
    u64::from_le_bytes(Uuid::new_v4().into_bytes()[..8].try_into().unwrap()) % bound
}

/// A client that leaves, and what it saw.
struct Left {
    tenant: &'static str,
    trace: String,
    at: Instant,
    pieces: u64,
}

/// Asks for a stream, and leaves: half of the clients at some time before the first piece, the others after any piece, or a while
/// after that.
async fn leave(api: Api, tenant: &'static str, n: usize) -> Left {
    let trace = format!("left-{n}-{}", Uuid::new_v4().simple());
    let message = match n % 4 {
        0 => format!("{trace} [[hang before first]]"),
        1 => format!("{trace} [[hang]]"),
        2 => format!("{trace} [[tokens {PIECES}]][[hang]]"),
        _ => format!("{trace} [[tokens {PIECES} every 50ms]][[hang]]"),
    };
    let early = n % 4 < 2;
    let (path, body) = if n % 8 < 4 {
        ("/chat", json!({ "sessionId": session(), "message": message }))
    } else {
        ("/v1/chat/completions", completion(&message, &json!({ "stream": true })))
    };
    let api = api.with("x-trace-id", &trace);
    let mut pieces = 0;
    let reading = async {
        let body = Some(("application/json", body.to_string().into()));
        let mut reply = api.begin(Method::POST, path, body).await.unwrap();
        assert_eq!(reply.status, 200);
        let wanted = if early { u64::MAX } else { 1 + any(PIECES) };
        while pieces < wanted {
            let event = reply.next().await.expect("a stream without an end has ended");
            assert_ne!(event.name.as_deref(), Some("error"), "{event:?}");
            pieces += u64::from(event.text().is_some());
        }
        tokio::time::sleep(Duration::from_millis(any(100))).await;
    };
    // What the client holds is dropped with `reading`, its connection included.
    let stay = if early { Duration::from_millis(any(STAY)) } else { PATIENCE * 2 };
    let waited = tokio::time::timeout(stay, reading).await;
    assert_eq!(waited.is_err(), early, "{trace}: {pieces} pieces");
    Left { tenant, trace, at: Instant::now(), pieces }
}

#[tokio::test]
async fn every_stream_that_is_dropped_is_ended_recorded_and_settled_once() {
    let upstream = Upstream::start();
    let directory = Arc::new(tempfile::tempdir().unwrap());
    let config = ServerConfig::new()
        .upstream(&upstream.base_url())
        .set("models.first_token_timeout_seconds", 30)
        .set("models.idle_timeout_seconds", 30)
        .set("server.header_read_timeout_seconds", 60)
        .set("log.level", "warn");
    let tenant = |id: &&str| {
        let budget = json!({ "daily": 100_000_000 });
        Tenant::new(id).with("concurrency", json!({ "maxStreams": STREAMS })).with("tokenBudget", budget)
    };
    let config = TENANTS.iter().map(tenant).fold(config, |config, tenant| config.tenant(&tenant));
    let mut server = config.stored_in(&directory).start();

    let apis = TENANTS.map(|tenant| (tenant, server.tenant(tenant)));
    let clients = (0..STREAMS).map(|n| {
        let (tenant, api) = apis[n % 3 % 2].clone();
        let after = Duration::from_millis(any(ARRIVALS));
        async move {
            tokio::time::sleep(after).await;
            leave(api, tenant, n).await
        }
    });
    let left = join_all(clients).await;
    let early = left.iter().filter(|left| left.pieces == 0).count();
    assert_eq!(early, STREAMS / 2, "left before the first token");

    // The model's work ends within a second.
    let mut took = Vec::new();
    for client in &left {
        let end = Instant::now() + PATIENCE;
        let calls = loop {
            let calls = upstream.calls(&client.trace);
            if calls.iter().all(|call| call.ended().is_some()) {
                break calls;
            }
            assert!(Instant::now() < end, "the model works on for {}", client.trace);
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        assert!(calls.len() <= 1, "{} was called for twice", client.trace);
        for call in calls {
            assert_eq!(call.ended(), Some(Ended::Cancelled));
            took.push(call.ended_at().unwrap().saturating_duration_since(client.at));
        }
    }
    took.sort_unstable();
    let (most, slowest) = (took[took.len() * 19 / 20], took[took.len() - 1]);
    println!("{} calls: 95 % ended within {most:?}, the last after {slowest:?}", took.len());
    assert!(took.len() > STREAMS / 2, "only {} of {STREAMS} reached a model", took.len());
    assert!(most < SOON && slowest < LATEST, "models worked on for {most:?}, one for {slowest:?}");

    // Nobody has to be told to end.
    server.terminate();
    assert!(server.ended(PATIENCE).success());
    let log = server.stderr.text();
    assert!(!log.contains("ending what still runs"), "{log}");
    assert!(!log.contains("\"ERROR\""), "{log}");

    let database = Database::open(directory.path().join("enigma.db"), &Options::default()).unwrap();
    let telemetry = SqliteTelemetry::new(database.clone());
    let ledger = SqliteTokenLedger::new(database.clone());
    let (beginning, end) = (Timestamp::from_millis(0), Timestamp::from_millis(u64::MAX >> 12));
    for name in TENANTS {
        let tenant = TenantId::new(name).unwrap();
        let mine: Vec<_> = left.iter().filter(|left| left.tenant == name).collect();
        let records = telemetry.usage(&tenant, beginning, end, u32::MAX).await.unwrap();
        let mut of_trace: HashMap<&str, u64> = HashMap::new();
        let mut charged = 0;
        for record in &records {
            assert!(of_trace.insert(record.trace.as_str(), record.charged).is_none(), "two records: {record:?}");
            assert_eq!(record.ending, Ending::ClientGone, "{record:?}");
            assert_eq!(record.overrun, 0, "{record:?}");
            charged += record.charged;
        }
        for client in &mine {
            let reached = upstream.calls(&client.trace).len();
            match of_trace.remove(client.trace.as_str()) {
                Some(charged) => assert!(charged > 0, "{} was not charged its prompt", client.trace),
                // One that was dropped before it had set tokens aside owes nothing, and there is nothing to tell of it.
                None => assert_eq!(reached, 0, "{} reached a model, and left no record", client.trace),
            }
        }
        assert!(of_trace.is_empty(), "records of nobody: {of_trace:?}");
        assert!(!records.is_empty());
        let latest = records.iter().map(|record| record.at).max().unwrap();
        let balance = ledger.balance(&tenant, latest).await.unwrap();
        assert_eq!((balance.held_today, balance.held_this_month), (0, 0), "something is still set aside");
        // The month's account, as a test may run at midnight. A settlement too many, or one too few, would show.
        assert_eq!(balance.month.settled, charged);
    }
    database.close().await;
}
