//! A clock of the wall that steps, under a server that runs.

use std::time::Duration;

use enigma_conformance::client::session;
use enigma_conformance::{Server, Tenant};
use serde_json::json;

use crate::Bench;

const MINUTE: i64 = 60_000;
const DAY: i64 = 86_400_000;

fn limited(bench: &Bench) -> Server {
    let tenant = Tenant::new("limited")
        .with("rateLimit", json!({ "perMinute": 4, "burst": 4 }))
        .with("sessionRetentionDays", json!(30))
        .with("tokenBudget", json!({ "daily": 1000, "monthly": 3000 }));
    bench.config().tenant(&tenant).start()
}

async fn granted(server: &Server, most: usize) -> usize {
    let mut granted = 0;
    for _ in 0..most {
        let answer = server.tenant("limited").chat(&session(), "[[usage 3 4]]").await;
        match answer.status {
            200 => granted += 1,
            _ => drop(answer.error(429, "rate_limited")),
        }
    }
    granted
}

/// A clock that goes back and forth never grants more than the limit in what is really one minute.
#[tokio::test]
async fn a_clock_that_steps_back_grants_nothing() {
    let bench = Bench::new();
    let server = limited(&bench);
    assert_eq!(granted(&server, 6).await, 4);
    for offset in [-10 * MINUTE, -DAY, -400 * DAY] {
        bench.system.clock_is_off(offset);
        assert_eq!(granted(&server, 2).await, 0, "{offset}");
    }
    bench.system.clock_is_off(0);
    assert_eq!(granted(&server, 2).await, 0);
}

/// Deadlines are counted by a timer that does not step.
#[tokio::test]
async fn a_step_within_an_answer_does_not_end_it() {
    let bench = Bench::new();
    let server = bench.start();
    for offset in [DAY, -DAY] {
        let api = server.tenant("acme");
        let (session, gate) = (session(), enigma_conformance::client::tag());
        let message = format!("[[tokens 1]][[gate {gate}]][[tokens 2]][[usage 3 4]]");
        let mut reply = api.chat_stream(&session, &message).await;
        reply.text().await;
        bench.system.clock_is_off(offset);
        tokio::time::sleep(Duration::from_millis(100)).await;
        bench.upstream.open(&gate);
        let finished = reply.finish().await;
        assert!(finished.error.is_none(), "{finished:?}");
        bench.system.clock_is_off(0);
        assert_eq!(api.said(&session).await.len(), 2);
    }
}
