//! Usage records in memory.

use std::collections::{HashSet, VecDeque};

use async_trait::async_trait;
use enigma_core::ports::Telemetry;
use enigma_core::usage::UsageRecord;
use enigma_core::{PortError, RequestId, TenantId};

use crate::sharded::Sharded;

/// Keeps the newest records of each tenant in this process.
pub struct MemoryTelemetry {
    tenants: Sharded<Records>,
    capacity: usize,
}

#[derive(Default)]
struct Records {
    oldest_first: VecDeque<UsageRecord>,
    requests: HashSet<RequestId>,
}

impl MemoryTelemetry {
    /// Keeps at most `capacity` records of each tenant; one more pushes the oldest out.
    pub fn new(capacity: usize) -> Self {
        Self { tenants: Sharded::new("telemetry"), capacity }
    }

    /// The records of `tenant`, oldest first.
    ///
    /// # Errors
    /// [`PortError`] when a call panicked.
    pub fn records(&self, tenant: &TenantId) -> Result<Vec<UsageRecord>, PortError> {
        self.tenants.with(tenant, |records| records.oldest_first.iter().cloned().collect())
    }
}

impl Default for MemoryTelemetry {
    /// Keeps 10,000 records of each tenant.
    fn default() -> Self {
        Self::new(10_000)
    }
}

#[async_trait]
impl Telemetry for MemoryTelemetry {
    async fn record_usage(&self, tenant: &TenantId, record: &UsageRecord) -> Result<(), PortError> {
        self.tenants.with(tenant, |records| {
            if !records.requests.insert(record.request) {
                return;
            }
            records.oldest_first.push_back(record.clone());
            if records.oldest_first.len() > self.capacity
                && let Some(oldest) = records.oldest_first.pop_front()
            {
                records.requests.remove(&oldest.request);
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use enigma_core::usage::Ending;
    use enigma_core::{ModelId, Timestamp, TraceId, UserId};
    use futures_util::FutureExt;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn the_newest_records_stay() {
        let (telemetry, tenant) = (MemoryTelemetry::new(3), TenantId::new("acme").unwrap());
        for number in 0..10 {
            let record = UsageRecord {
                request: RequestId::new(Uuid::from_u128(number)),
                trace: TraceId::new("t").unwrap(),
                route: "/chat".to_owned(),
                user: UserId::new("alice").unwrap(),
                session: None,
                model: ModelId::new("m").unwrap(),
                provider: None,
                at: Timestamp::from_millis(0),
                latency: Duration::ZERO,
                first_token: None,
                tokens_in: 1,
                tokens_out: 1,
                characters: None,
                estimated: false,
                charged: 2,
                overrun: 0,
                ending: Ending::Finished,
            };
            telemetry.record_usage(&tenant, &record).now_or_never().expect("memory does not wait").unwrap();
        }
        let kept: Vec<_> =
            telemetry.records(&tenant).unwrap().into_iter().map(|it| it.request.uuid().as_u128()).collect();
        assert_eq!(kept, [7, 8, 9]);
        assert_eq!(telemetry.tenants.with(&tenant, |it| it.requests.len()).unwrap(), 3);
    }
}
