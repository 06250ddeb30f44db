//! What the decisions on the way of every request cost.

use std::hint::black_box;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use enigma_core::ledger::Ledger;
use enigma_core::limit::{Capacity, Places, SlidingWindow, Window, WindowPolicy};
use enigma_core::model::ProviderStream;
use enigma_core::tenant::{KeyHash, Presented, RequestIdentity, Resolver, Tenant, TenantIndex, TokenBudget};
use enigma_core::{RequestId, TenantId, Timestamp};
use enigma_memory::MemoryTenantDirectory;
use futures_util::FutureExt;
use uuid::Uuid;

fn policy() -> WindowPolicy {
    let window = |limit, seconds| Window { limit, length: Duration::from_secs(seconds) };
    WindowPolicy { sustained: window(1000, 60), burst: window(1000, 10) }
}

/// A window with a limit of 1,000 that is full: every decision lets one go and takes one in, or refuses.
fn sliding_window(criterion: &mut Criterion) {
    let policy = policy();
    // One request every 60 ms is exactly what the long window lets through.
    let full = |now: &mut u64| {
        let mut window = SlidingWindow::default();
        for _ in 0..1000 {
            *now += 60;
            window.acquire(&policy, Timestamp::from_millis(*now));
        }
        window
    };
    let mut group = criterion.benchmark_group("sliding window, limit 1000");
    let mut now = 0;
    let mut window = full(&mut now);
    group.bench_function("granted", |bencher| {
        bencher.iter(|| {
            now += 60;
            let decision = window.acquire(&policy, Timestamp::from_millis(now));
            assert!(decision.is_granted());
            decision
        });
    });
    let mut now = 0;
    let mut window = full(&mut now);
    group.bench_function("denied", |bencher| {
        bencher.iter(|| {
            let decision = window.acquire(&policy, Timestamp::from_millis(now));
            assert!(!decision.is_granted());
            decision
        });
    });
    group.finish();
}

/// 10,000 tenants with a host and a key each, asked through the port, as on a request.
fn resolution(criterion: &mut Criterion) {
    let tenants = (0..10_000).map(|n| {
        let json = serde_json::json!({
            "tenantId": format!("tenant-{n}"), "aiModels": { "chat": "m" },
            "allowedHosts": [format!("tenant-{n}.example")], "apiKeys": [KeyHash::of(&format!("key-{n}")).to_string()],
        });
        Tenant::from_json(&json.to_string()).expect("the tenant is valid")
    });
    let index = TenantIndex::new(tenants).expect("no two tenants claim the same");
    let resolver = Resolver::new(Arc::new(MemoryTenantDirectory::new(index)), None);
    let mut group = criterion.benchmark_group("resolution, 10000 tenants");
    let mut bench = |name: &str, identity: &dyn Fn() -> RequestIdentity<'static>| {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let identity = identity();
                resolver
                    .resolve(black_box(&identity))
                    .now_or_never()
                    .expect("memory answers at once")
                    .expect("it is known")
            });
        });
    };
    bench("by header", &|| RequestIdentity { tenant: Some("tenant-7777"), ..RequestIdentity::default() });
    bench("by host", &|| RequestIdentity { host: Some("tenant-7777.example:443"), ..RequestIdentity::default() });
    bench("by key, hashing included", &|| RequestIdentity {
        host: Some("shared.example"),
        presented: Some(Presented::new("key-7777")),
        ..RequestIdentity::default()
    });
    group.finish();
}

/// A stream of 1,000 chunks as OpenAI sends them, in pieces of 4 KiB.
fn provider_stream(criterion: &mut Criterion) {
    let mut text = String::new();
    for n in 0..1000 {
        let chunk = serde_json::json!({
            "id": "chatcmpl-AbCdEfGhIjKlMnOpQrStUvWxYz012", "object": "chat.completion.chunk", "created": 1_800_000_000,
            "model": "gpt-4o-mini-2024-07-18", "service_tier": "default", "system_fingerprint": "fp_0123456789",
            "choices": [{ "index": 0, "delta": { "content": format!(" word{n}") }, "logprobs": null, "finish_reason": null }],
            "usage": null,
        });
        text.extend(["data: ", &chunk.to_string(), "\n\n"]);
    }
    text.push_str("data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n");
    let mut group = criterion.benchmark_group("provider stream");
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("openai chunks", |bencher| {
        let mut deltas = Vec::new();
        bencher.iter(|| {
            deltas.clear();
            let mut stream = ProviderStream::new();
            for piece in text.as_bytes().chunks(4096) {
                stream.push(piece, &mut deltas).expect("the stream is well formed");
            }
            stream.end(&mut deltas).expect("the stream is whole");
            assert_eq!(deltas.len(), 1001);
        });
    });
    group.finish();
}

/// A reservation and its settlement, with 1,000 others open.
fn ledger(criterion: &mut Criterion) {
    let budget = TokenBudget { daily: Some(1 << 49), monthly: Some(1 << 50) };
    let (mut ledger, now, hour) =
        (Ledger::default(), Timestamp::from_millis(1_800_000_000_000), Duration::from_secs(3600));
    let id = |n: u128| RequestId::new(Uuid::from_u128(n));
    for n in 0..1000 {
        ledger.reserve(id(n), 100, &budget, hour, now).expect("the budget is large");
    }
    let mut next = 1000;
    criterion.bench_function("ledger, 1000 open: reserve and settle", |bencher| {
        bencher.iter(|| {
            next += 1;
            ledger.reserve(id(next), 100, &budget, hour, now).expect("the budget is large");
            let settlement = ledger.settle(&id(next), 70, &budget, now);
            ledger.take_changes();
            settlement
        });
    });
}

/// A place of one tenant of a hundred that have some.
fn capacity(criterion: &mut Criterion) {
    let tenants: Vec<_> = (0..100).map(|n| TenantId::new(&format!("tenant-{n}")).expect("it is one")).collect();
    let mut places = Places::new(Capacity::new(4096, 50));
    for tenant in &tenants {
        places.enter(tenant).expect("there is room");
    }
    let places = Mutex::new(places);
    let mut next = 0;
    criterion.bench_function("capacity, 100 tenants: enter and leave", |bencher| {
        bencher.iter(|| {
            next = (next + 1) % tenants.len();
            let entered = places.lock().expect("nobody panics").enter(black_box(&tenants[next]));
            places.lock().expect("nobody panics").leave(&tenants[next]);
            entered
        });
    });
}

criterion_group!(benches, sliding_window, resolution, provider_stream, ledger, capacity);
criterion_main!(benches);
