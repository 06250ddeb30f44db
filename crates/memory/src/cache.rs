//! Answers in memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;
use enigma_core::ports::Cache;
use enigma_core::{PortError, TenantId, Timestamp};

/// What an entry takes beside its key and its value, about: its places in three maps.
const ENTRY_BYTES: usize = 256;

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheCapacity {
    /// Bytes of all tenants together.
    pub bytes: usize,
    /// Bytes of one tenant.
    pub tenant_bytes: usize,
}

impl Default for CacheCapacity {
    /// 64 MiB, and 8 MiB of it for one tenant.
    fn default() -> Self {
        Self { bytes: 64 << 20, tenant_bytes: 8 << 20 }
    }
}

/// Keeps answers in this process.
///
/// What was used longest ago makes room: the tenant's own while it has as much as it may, and otherwise that of the tenant that
/// has most. So no tenant's many answers push out the few of another.
pub struct MemoryCache {
    entries: Mutex<Entries>,
    capacity: CacheCapacity,
}

impl MemoryCache {
    /// Keeps at most this much.
    pub fn new(capacity: CacheCapacity) -> Self {
        Self { entries: Mutex::default(), capacity }
    }

    fn entries(&self) -> Result<MutexGuard<'_, Entries>, PortError> {
        self.entries.lock().map_err(|_| PortError::unavailable("cache", "a call panicked"))
    }
}

impl Default for MemoryCache {
    fn default() -> Self {
        Self::new(CacheCapacity::default())
    }
}

#[derive(Default)]
struct Entries {
    tenants: HashMap<TenantId, Part>,
    /// Who has how much.
    by_size: BTreeSet<(usize, TenantId)>,
    bytes: usize,
    /// Counts the uses.
    uses: u64,
}

/// What belongs to one tenant.
#[derive(Default)]
struct Part {
    by_key: HashMap<String, Entry>,
    /// The keys, the one first that was used longest ago.
    by_use: BTreeMap<u64, String>,
    bytes: usize,
}

struct Entry {
    value: String,
    expires_at: Timestamp,
    used: u64,
}

impl Part {
    fn remove(&mut self, key: &str) {
        if let Some(entry) = self.by_key.remove(key) {
            self.by_use.remove(&entry.used);
            self.bytes -= size(key, &entry.value);
        }
    }

    /// Drops what was used longest ago; whether there was something.
    fn evict(&mut self) -> bool {
        let Some((_, key)) = self.by_use.pop_first() else { return false };
        self.remove(&key);
        true
    }
}

fn size(key: &str, value: &str) -> usize {
    // The key stands there twice.
    ENTRY_BYTES + 2 * key.len() + value.len()
}

impl Entries {
    /// Changes what belongs to a tenant, and counts how much that is then.
    fn change<R>(&mut self, tenant: &TenantId, act: impl FnOnce(&mut Part, u64) -> R) -> R {
        self.uses += 1;
        let part = self.tenants.entry(tenant.clone()).or_default();
        let before = part.bytes;
        let outcome = act(part, self.uses);
        let after = part.bytes;
        if after != before {
            self.by_size.remove(&(before, tenant.clone()));
            self.bytes = self.bytes - before + after;
        }
        if after > 0 {
            self.by_size.insert((after, tenant.clone()));
        } else {
            self.tenants.remove(tenant);
        }
        outcome
    }

    fn get(&mut self, tenant: &TenantId, key: &str, now: Timestamp) -> Option<String> {
        self.change(tenant, |part, used| {
            let entry = part.by_key.get_mut(key)?;
            if entry.expires_at <= now {
                part.remove(key);
                return None;
            }
            let key = part.by_use.remove(&entry.used)?;
            part.by_use.insert(used, key);
            entry.used = used;
            Some(entry.value.clone())
        })
    }

    fn put(&mut self, tenant: &TenantId, key: &str, value: &str, expires_at: Timestamp, capacity: CacheCapacity) {
        let most = capacity.tenant_bytes.min(capacity.bytes);
        let takes = size(key, value);
        self.change(tenant, |part, used| {
            part.remove(key);
            if takes <= most {
                while part.bytes + takes > most && part.evict() {}
                part.by_use.insert(used, key.to_owned());
                part.by_key.insert(key.to_owned(), Entry { value: value.to_owned(), expires_at, used });
                part.bytes += takes;
            }
        });
        while self.bytes > capacity.bytes {
            let Some((_, largest)) = self.by_size.last().cloned() else { return };
            self.change(&largest, |part, _| part.evict());
        }
    }
}

#[async_trait]
impl Cache for MemoryCache {
    async fn get(&self, tenant: &TenantId, key: &str, now: Timestamp) -> Result<Option<String>, PortError> {
        Ok(self.entries()?.get(tenant, key, now))
    }

    async fn put(
        &self,
        tenant: &TenantId,
        key: &str,
        value: &str,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<(), PortError> {
        let mut entries = self.entries()?;
        if expires_at <= now {
            entries.change(tenant, |part, _| part.remove(key));
        } else {
            entries.put(tenant, key, value, expires_at, self.capacity);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000);
    const LATER: Timestamp = Timestamp::from_millis(2_000);

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    /// Room for so many entries of a thousand bytes, key and all, of all and of one tenant.
    fn room(all: usize, one: usize) -> CacheCapacity {
        CacheCapacity { bytes: all * 1_000, tenant_bytes: one * 1_000 }
    }

    fn put(entries: &mut Entries, capacity: CacheCapacity, of: &str, key: &str) {
        let value = "x".repeat(1_000 - ENTRY_BYTES - 2 * key.len());
        entries.put(&tenant(of), key, &value, LATER, capacity);
    }

    fn has(entries: &mut Entries, of: &str, key: &str) -> bool {
        entries.get(&tenant(of), key, NOW).is_some()
    }

    #[test]
    fn what_was_used_longest_ago_makes_room() {
        let (mut entries, three) = (Entries::default(), room(100, 3));
        for key in ["a", "b", "c"] {
            put(&mut entries, three, "acme", key);
        }
        assert!(has(&mut entries, "acme", "a"));
        put(&mut entries, three, "acme", "d");
        let left = ["a", "b", "c", "d"].map(|key| has(&mut entries, "acme", key));
        assert_eq!(left, [true, false, true, true]);
        assert_eq!(entries.bytes, 3_000);
    }

    #[test]
    fn who_has_most_makes_room_for_others() {
        let (mut entries, six) = (Entries::default(), room(6, 5));
        put(&mut entries, six, "small", "a");
        for key in ["a", "b", "c", "d", "e", "f"] {
            put(&mut entries, six, "large", key);
        }
        put(&mut entries, six, "small", "b");
        assert!(has(&mut entries, "small", "a") && has(&mut entries, "small", "b"));
        let left = ["b", "c", "d", "e", "f"].map(|key| has(&mut entries, "large", key));
        assert_eq!(left, [false, true, true, true, true]);
        assert_eq!((entries.bytes, entries.by_size.len()), (6_000, 2));
    }

    #[test]
    fn what_is_too_large_is_not_kept_and_replaces_what_was_there() {
        let (mut entries, one) = (Entries::default(), room(1, 1));
        put(&mut entries, one, "acme", "a");
        entries.put(&tenant("acme"), "a", &"x".repeat(2_000), LATER, one);
        assert!(!has(&mut entries, "acme", "a"));
        assert_eq!((entries.bytes, entries.tenants.len(), entries.by_size.len()), (0, 0, 0), "nothing is left behind");
    }
}
