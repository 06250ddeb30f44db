//! Usage records, each of which is noted where its request is.

use async_trait::async_trait;
use enigma_core::ports::Telemetry;
use enigma_core::usage::UsageRecord;
use enigma_core::{PortError, TenantId};

use crate::witness::{Witness, number};

/// Keeps every record that it is given, and does not hide a second one.
pub(crate) struct SeenTelemetry {
    pub(crate) witness: Witness,
}

#[async_trait]
impl Telemetry for SeenTelemetry {
    async fn record_usage(&self, tenant: &TenantId, record: &UsageRecord) -> Result<(), PortError> {
        self.witness.about(&record.request, |facts| {
            let is_theirs = facts.tenant == *tenant && facts.session == record.session;
            facts.records.push(record.clone());
            self.witness.sim.check(is_theirs, || format!("{tenant} records r{}", number(&record.request)));
        });
        Ok(())
    }
}
