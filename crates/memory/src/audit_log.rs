//! Audit records in memory.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;

use async_trait::async_trait;
use enigma_core::ports::AuditLog;
use enigma_core::tools::{AuditPage, AuditQuery, AuditRecord};
use enigma_core::{AuditId, PortError, TenantId, Timestamp};

use crate::sharded::Sharded;

/// A tenant's records that are kept at most. One more pushes the oldest out.
const MAX_RECORDS: usize = 10_000;

/// Keeps the newest audit records of each tenant in this process.
pub struct MemoryAuditLog {
    tenants: Sharded<Records>,
}

impl Default for MemoryAuditLog {
    fn default() -> Self {
        Self { tenants: Sharded::new("audit log") }
    }
}

/// A place in the log: the newest first, and those of one time by their id.
type Place = (Reverse<Timestamp>, AuditId);

#[derive(Default)]
struct Records {
    in_order: BTreeMap<Place, AuditRecord>,
    known: HashSet<AuditId>,
}

impl Records {
    fn append(&mut self, record: &AuditRecord) {
        if !self.known.insert(record.id) {
            return;
        }
        self.in_order.insert((Reverse(record.at), record.id), record.clone());
        if self.in_order.len() > MAX_RECORDS
            && let Some((_, oldest)) = self.in_order.pop_last()
        {
            self.known.remove(&oldest.id);
        }
    }

    fn list(&self, query: &AuditQuery, after: Option<Place>, limit: u32, now: Timestamp) -> AuditPage {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self
            .in_order
            .range((start, Bound::Unbounded))
            .map(|(_, record)| record)
            .filter(|record| now < record.expires_at && query.matches(record))
            .peekable();
        let records: Vec<_> = rest.by_ref().take(limit as usize).cloned().collect();
        let next = rest.peek().and(records.last()).map(|last| (last.at, last.id));
        AuditPage { records, next }
    }

    fn sweep(&mut self, now: Timestamp) -> u64 {
        let before = self.in_order.len();
        self.in_order.retain(|_, record| now < record.expires_at);
        let kept = self.in_order.values().map(|record| record.id).collect();
        self.known = kept;
        (before - self.in_order.len()) as u64
    }
}

#[async_trait]
impl AuditLog for MemoryAuditLog {
    async fn append(&self, tenant: &TenantId, record: &AuditRecord) -> Result<(), PortError> {
        self.tenants.with(tenant, |records| records.append(record))
    }

    async fn list(
        &self,
        tenant: &TenantId,
        query: &AuditQuery,
        after: Option<(Timestamp, AuditId)>,
        limit: u32,
        now: Timestamp,
    ) -> Result<AuditPage, PortError> {
        let after = after.map(|(at, id)| (Reverse(at), id));
        self.tenants.with(tenant, |records| records.list(query, after, limit, now))
    }

    async fn sweep(&self, tenant: &TenantId, now: Timestamp) -> Result<u64, PortError> {
        self.tenants.with(tenant, |records| records.sweep(now))
    }
}
