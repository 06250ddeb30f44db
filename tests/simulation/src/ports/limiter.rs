//! A limiter, and the definition of a window by brute force to hold it to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use enigma_core::limit::{Decision, LimitCheck, RateStatus, SteadyTime, Subject, Window};
use enigma_core::ports::RateLimiter;
use enigma_core::{PortError, TenantId, Timestamp};

use crate::sim::Sim;

/// Watches the limiter of one life of the process.
pub(crate) struct SeenLimiter {
    sim: Sim,
    inner: Arc<dyn RateLimiter>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// Each tenant's time, which a long step back does not freeze.
    time: BTreeMap<TenantId, SteadyTime>,
    /// The times of all that was ever granted.
    granted: BTreeMap<(TenantId, Subject), Vec<Timestamp>>,
}

impl Seen {
    fn time(&mut self, tenant: &TenantId, now: Timestamp) -> Timestamp {
        self.time.entry(tenant.clone()).or_default().at(now)
    }
}

impl SeenLimiter {
    pub(crate) fn new(sim: Sim, inner: Arc<dyn RateLimiter>) -> Self {
        Self { sim, inner, seen: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn judge(&self, tenant: &TenantId, checks: &[LimitCheck<'_>], now: Timestamp, decision: &Decision) {
        let mut seen = self.lock();
        let now = seen.time(tenant, now);
        let granted = &mut seen.granted;
        let times = |check: &LimitCheck<'_>| granted.get(&(tenant.clone(), check.subject.clone())).cloned();
        let known: Vec<Vec<Timestamp>> = checks.iter().map(|check| times(check).unwrap_or_default()).collect();
        // A clock that steps back a little is taken to stand still.
        let at = known.iter().filter_map(|times| times.last()).fold(now, |at, last| at.max(*last));
        let has_room = |times: &[Timestamp], window: &Window| {
            let held = times.iter().filter(|time| time.saturating_add(window.length) > at).count();
            held < window.limit as usize
        };
        let room = checks
            .iter()
            .zip(&known)
            .all(|(check, times)| has_room(times, &check.policy.sustained) && has_room(times, &check.policy.burst));
        self.sim.check(room == decision.is_granted(), || {
            format!("the windows of {tenant} have room: {room}, and the limiter says {decision:?} at {at}")
        });
        if decision.is_granted() {
            for check in checks {
                granted.entry((tenant.clone(), check.subject.clone())).or_default().push(at);
            }
        }
    }
}

#[async_trait]
impl RateLimiter for SeenLimiter {
    async fn acquire(
        &self,
        tenant: &TenantId,
        checks: &[LimitCheck<'_>],
        now: Timestamp,
    ) -> Result<Decision, PortError> {
        let decision = self.inner.acquire(tenant, checks, now).await?;
        self.judge(tenant, checks, now, &decision);
        Ok(decision)
    }

    async fn peek(
        &self,
        tenant: &TenantId,
        checks: &[LimitCheck<'_>],
        now: Timestamp,
    ) -> Result<RateStatus, PortError> {
        self.lock().time(tenant, now);
        self.inner.peek(tenant, checks, now).await
    }
}
