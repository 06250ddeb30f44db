//! Tenants in memory.

use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use enigma_core::PortError;
use enigma_core::ports::TenantDirectory;
use enigma_core::tenant::{Tenant, TenantClaim, TenantIndex};

/// A set of tenants that can be replaced as a whole. Whoever asks after [`replace`](Self::replace) has returned sees the new set.
#[derive(Debug, Default)]
pub struct MemoryTenantDirectory {
    index: RwLock<Arc<TenantIndex>>,
}

impl MemoryTenantDirectory {
    /// Holds the tenants of `index`.
    pub fn new(index: TenantIndex) -> Self {
        Self { index: RwLock::new(Arc::new(index)) }
    }

    /// Holds the tenants of `index` from now on.
    pub fn replace(&self, index: TenantIndex) {
        let new = Arc::new(index);
        // Nothing can panic while the lock is held, and a snapshot is always whole.
        let old = std::mem::replace(&mut *self.index.write().unwrap_or_else(PoisonError::into_inner), new);
        drop(old);
    }

    /// The tenants as they are now.
    pub fn snapshot(&self) -> Arc<TenantIndex> {
        Arc::clone(&self.index.read().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl TenantDirectory for MemoryTenantDirectory {
    async fn find<'a>(&self, claim: &TenantClaim<'a>) -> Result<Option<Arc<Tenant>>, PortError> {
        Ok(self.snapshot().find(claim).cloned())
    }

    async fn allows_origin(&self, origin: &str) -> Result<bool, PortError> {
        Ok(self.snapshot().allows_origin(origin))
    }
}
