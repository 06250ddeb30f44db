mod attacks;
mod keys;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use enigma_memory::testing::{ManualClock, TestBackground};
use serde_json::{Value, json};

use super::*;
use crate::testing::Signer;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const SECONDS: u64 = 1_800_000_000;

/// Key sets by place, which can be told to fail or to hang.
#[derive(Default)]
struct Sets {
    published: Mutex<HashMap<String, Vec<u8>>>,
    fails: AtomicBool,
    hangs: AtomicBool,
    panics: AtomicBool,
    fetches: AtomicUsize,
}

#[async_trait]
impl KeySetSource for Sets {
    async fn fetch(&self, location: &KeySetLocation) -> Result<Vec<u8>, FetchError> {
        self.fetches.fetch_add(1, Ordering::Relaxed);
        assert!(!self.panics.load(Ordering::Relaxed), "as the test wants it");
        if self.hangs.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        // So that others come while it runs.
        tokio::task::yield_now().await;
        if self.fails.load(Ordering::Relaxed) {
            return Err(FetchError::Status(500));
        }
        let KeySetLocation::Url(url) = location else { return Err(FetchError::unreachable("no files here")) };
        let set = self.published.lock().unwrap().get(url).cloned();
        set.ok_or(FetchError::Status(404))
    }
}

struct World {
    clock: ManualClock,
    sets: Arc<Sets>,
    background: Arc<TestBackground>,
    verifier: JwtVerifier,
}

impl World {
    fn new() -> Self {
        let runtime = tokio::runtime::Handle::current();
        let background = Arc::new(TestBackground::new(move |work| drop(runtime.spawn(work))));
        let (clock, sets) = (ManualClock::new(NOW), Arc::new(Sets::default()));
        let verifier = JwtVerifier::new(
            Arc::clone(&sets) as _,
            Arc::new(clock.clone()),
            Arc::clone(&background) as _,
            KeyAgePolicy::default(),
        );
        Self { clock, sets, background, verifier }
    }

    /// A world in which the keys of tenant `acme` are these.
    fn with(keys: &[Value]) -> Self {
        let world = Self::new();
        world.publish("acme", keys);
        world
    }

    fn publish(&self, tenant: &str, keys: &[Value]) {
        let set = json!({ "keys": keys }).to_string().into_bytes();
        self.sets.published.lock().unwrap().insert(url(tenant), set);
    }

    fn fetches(&self) -> usize {
        self.sets.fetches.load(Ordering::Relaxed)
    }

    async fn verify(&self, tenant: &Tenant, token: &str) -> Result<Option<VerifiedToken>, PortError> {
        self.verifier.verify(tenant, token, self.clock.now()).await
    }

    async fn accepts(&self, token: &str) -> bool {
        self.verify(&acme(), token).await.expect("there are keys").is_some()
    }

    async fn is_unavailable(&self, token: &str) -> bool {
        matches!(self.verify(&acme(), token).await, Err(PortError::Unavailable { .. }))
    }
}

fn url(tenant: &str) -> String {
    format!("https://{tenant}.example/keys")
}

fn tenant_with(id: &str, changes: &Value) -> Tenant {
    let mut auth = json!({
        "mode": "jwt", "issuer": format!("https://{id}.example/"), "audience": "chat", "jwks": { "url": url(id) },
    });
    for (name, value) in changes.as_object().unwrap() {
        auth[name] = value.clone();
    }
    let file = json!({ "tenantId": id, "aiModels": { "chat": "m" }, "auth": auth });
    Tenant::from_json(&file.to_string()).unwrap()
}

fn acme() -> Tenant {
    tenant_with("acme", &json!({}))
}

/// Claims that tenant `acme` accepts for as long as any test lasts.
fn claims() -> Value {
    json!({ "iss": "https://acme.example/", "aud": "chat", "sub": "alice", "exp": SECONDS + 1_000_000 })
}
