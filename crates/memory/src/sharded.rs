//! Something for every tenant, behind locks that few tenants share.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Mutex;

use enigma_core::{PortError, TenantId};

/// More than the cores of most machines, so that two busy tenants seldom wait for each other.
const SHARDS: usize = 64;

/// One `T` for each tenant.
pub(crate) struct Sharded<T> {
    port: &'static str,
    shards: Box<[Mutex<HashMap<TenantId, T>>]>,
    hasher: RandomState,
}

impl<T: Default> Sharded<T> {
    /// Nothing yet, for the adapter of `port`.
    pub(crate) fn new(port: &'static str) -> Self {
        Self { port, shards: (0..SHARDS).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }

    /// Does something with what belongs to `tenant`, alone.
    ///
    /// # Errors
    /// [`PortError::Unavailable`] when somebody panicked in here: what they left may be half done, so nobody goes on with it.
    pub(crate) fn with<R>(&self, tenant: &TenantId, act: impl FnOnce(&mut T) -> R) -> Result<R, PortError> {
        let mut shard = self.shard(tenant).lock().map_err(|_| self.unavailable("a call panicked"))?;
        if let Some(theirs) = shard.get_mut(tenant) {
            return Ok(act(theirs));
        }
        Ok(act(shard.entry(tenant.clone()).or_default()))
    }

    fn shard(&self, tenant: &TenantId) -> &Mutex<HashMap<TenantId, T>> {
        let [byte, ..] = self.hasher.hash_one(tenant).to_le_bytes();
        &self.shards[usize::from(byte) % SHARDS]
    }

    /// The error of an adapter that cannot do what it is asked, for `reason`.
    pub(crate) fn unavailable(&self, reason: &'static str) -> PortError {
        PortError::unavailable(self.port, reason)
    }
}
