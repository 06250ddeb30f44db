//! What a seed decides before a run begins: who is there, what they may spend, and what goes wrong.

use enigma_core::tenant::{KeyHash, Tenant, TokenBudget};
use enigma_core::{SessionId, TenantId};
use serde_json::json;
use uuid::Uuid;

use crate::sim::Sim;

/// 2026-12-31T23:59:30Z: a day, a month and a year end soon.
const NEAR_A_MONTHS_END: u64 = 1_798_761_570_000;
/// Some noon.
const NOON: u64 = 1_798_632_000_000;

/// How the clock of the process behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Steps {
    /// It goes evenly.
    None,
    /// It is put right by seconds, forwards and back, and no lease notices.
    Small,
    /// It jumps by days. Leases end under those who hold them, so that what only leases promise is not asked for.
    Wild,
}

/// One tenant.
pub(crate) struct TenantPlan {
    pub(crate) id: TenantId,
    pub(crate) budget: TokenBudget,
    pub(crate) max_streams: u32,
    per_minute: u32,
    burst: u32,
    tenant_per_minute: u32,
    max_messages: u32,
    is_open: bool,
}

impl TenantPlan {
    fn draw(sim: &Sim, number: u64) -> Self {
        let budget = match sim.below(4) {
            0 => TokenBudget { daily: None, monthly: None },
            1 => TokenBudget { daily: Some(sim.between(50, 400)), monthly: Some(sim.between(100, 800)) },
            _ => TokenBudget { daily: Some(sim.between(200, 4000)), monthly: None },
        };
        let draw = |from, to| u32::try_from(sim.between(from, to)).expect("the bounds are small");
        Self {
            id: TenantId::new(["acme", "bolt", "crux"][usize::try_from(number).expect("there are three")])
                .expect("these are names of tenants"),
            budget,
            max_streams: draw(1, 4),
            per_minute: draw(2, 40),
            burst: draw(2, 12),
            tenant_per_minute: draw(4, 60),
            max_messages: *sim.pick(&[3, 6, 200, 200]),
            is_open: sim.chance(400),
        }
    }

    /// The key that opens this tenant's door in the given epoch of its configuration.
    pub(crate) fn secret(&self, epoch: u64) -> String {
        format!("{}-key-{epoch}", self.id)
    }

    /// Whether one may come in without a key.
    pub(crate) const fn is_open(&self) -> bool {
        self.is_open
    }

    /// The tenant's file. With each epoch the key is another one.
    pub(crate) fn tenant(&self, epoch: u64) -> Tenant {
        let mut budget = json!({});
        for (name, limit) in [("daily", self.budget.daily), ("monthly", self.budget.monthly)] {
            if let Some(limit) = limit {
                budget[name] = json!(limit);
            }
        }
        let mode = if self.is_open { "open" } else { "apiKey" };
        let file = json!({
            "tenantId": self.id.as_str(), "aiModels": { "chat": "spare", "embeddings": "words" }, "auth": { "mode": mode },
            "apiKeys": [KeyHash::of(&self.secret(epoch)).to_string()],
            "tokenBudget": budget, "maxMessagesPerSession": self.max_messages,
            "rateLimit": {
                "perMinute": self.per_minute.max(self.burst), "burst": self.burst,
                "tenant": { "perMinute": self.tenant_per_minute },
            },
            "concurrency": { "maxStreams": self.max_streams },
        });
        Tenant::from_json(&file.to_string()).unwrap_or_else(|error| unreachable!("the plan made {file}: {error}"))
    }
}

/// What goes wrong, in so many of a thousand cases.
#[derive(Clone, Copy)]
pub(crate) struct Rates {
    /// A port refuses, is silent, or loses its answer.
    pub(crate) port: u64,
    /// A model misbehaves.
    pub(crate) model: u64,
    /// A client goes away.
    pub(crate) leave: u64,
    /// A client reads slowly.
    pub(crate) slow: u64,
    /// A request may be repeated.
    pub(crate) key: u64,
}

/// A run before it begins.
pub(crate) struct Plan {
    pub(crate) start: u64,
    pub(crate) tenants: Vec<TenantPlan>,
    /// How many clients there are, and how much each does.
    pub(crate) clients: u64,
    pub(crate) actions: u64,
    pub(crate) sessions: u64,
    pub(crate) rates: Rates,
    /// Whether faults strike whole facade calls, as on a host that answers them itself, or the ports behind.
    pub(crate) facade: bool,
    pub(crate) steps: Steps,
    /// The steps of the scheduler at which the process dies.
    pub(crate) crashes: Vec<u64>,
    /// At which it is told to stop, and starts anew when all work has ended.
    pub(crate) stops: Vec<u64>,
    /// At which every tenant's key is revoked, and a new one counts.
    pub(crate) reloads: Vec<u64>,
}

impl Plan {
    pub(crate) fn draw(sim: &Sim) -> Self {
        let rate = |choices: &[u64]| *sim.pick(choices);
        let times = |permille, horizon| {
            let mut at: Vec<u64> = (0..3).filter(|_| sim.chance(permille)).map(|_| sim.below(horizon)).collect();
            at.sort_unstable();
            at
        };
        let horizon = 300;
        Self {
            start: *sim.pick(&[NOON, NEAR_A_MONTHS_END]) + sim.below(20_000),
            tenants: (0..sim.between(1, 3)).map(|number| TenantPlan::draw(sim, number)).collect(),
            clients: sim.between(2, 7),
            actions: sim.between(1, 4),
            sessions: sim.between(1, 3),
            rates: Rates {
                port: rate(&[0, 10, 50, 120]),
                model: rate(&[0, 100, 300, 600]),
                leave: rate(&[0, 0, 150, 400]),
                slow: rate(&[0, 100, 300]),
                key: rate(&[0, 400, 900]),
            },
            facade: sim.chance(400),
            steps: *sim.pick(&[Steps::None, Steps::None, Steps::Small, Steps::Small, Steps::Small, Steps::Wild]),
            crashes: times(rate(&[0, 0, 250]), horizon),
            stops: times(rate(&[0, 0, 0, 200]), horizon),
            reloads: times(rate(&[0, 0, 200]), horizon),
        }
    }

    /// The plan of the tenant of this name.
    pub(crate) fn tenant(&self, id: &TenantId) -> Option<&TenantPlan> {
        self.tenants.iter().find(|tenant| tenant.id == *id)
    }
}

/// The session of this number. Every tenant has the same ones.
pub(crate) fn session(number: u64) -> SessionId {
    SessionId::new(Uuid::from_u128(0x5e55_0000_0000 + u128::from(number)))
}
