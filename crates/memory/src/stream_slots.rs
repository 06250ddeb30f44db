//! Leases in memory.

use async_trait::async_trait;
use enigma_core::limit::{LeaseSet, StreamsFull};
use enigma_core::ports::StreamSlots;
use enigma_core::{PortError, RequestId, TenantId, Timestamp};

use crate::sharded::Sharded;

/// Bounds the answers that this process generates at once.
pub struct MemoryStreamSlots {
    tenants: Sharded<LeaseSet>,
}

impl Default for MemoryStreamSlots {
    fn default() -> Self {
        Self { tenants: Sharded::new("stream slots") }
    }
}

#[async_trait]
impl StreamSlots for MemoryStreamSlots {
    async fn enter(
        &self,
        tenant: &TenantId,
        holder: RequestId,
        limit: u32,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<Result<(), StreamsFull>, PortError> {
        self.tenants.with(tenant, |leases| leases.enter(holder, limit, expires_at, now))
    }

    async fn leave(&self, tenant: &TenantId, holder: &RequestId) -> Result<(), PortError> {
        self.tenants.with(tenant, |leases| leases.leave(holder))
    }
}
