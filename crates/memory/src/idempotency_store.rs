//! Answers of repeatable requests in memory.

use std::collections::{BTreeSet, HashMap};

use async_trait::async_trait;
use enigma_core::idempotency::{Begin, Fingerprint, IdempotencyEntry, IdempotencyKey, begin};
use enigma_core::ports::IdempotencyStore;
use enigma_core::{PortError, RequestId, TenantId, Timestamp};

use crate::sharded::Sharded;

/// How much is kept for one tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdempotencyCapacity {
    /// Keys, of running requests and of answers.
    pub keys: usize,
    /// Bytes of all answers together.
    pub answer_bytes: usize,
}

impl Default for IdempotencyCapacity {
    /// 10,000 keys and 64 MiB.
    fn default() -> Self {
        Self { keys: 10_000, answer_bytes: 64 << 20 }
    }
}

/// Keeps answers in this process.
///
/// Where room is short, the answers that would expire first go first. The key of a request that still runs is never given up:
/// when there are nothing but such keys, the next request is refused.
pub struct MemoryIdempotencyStore {
    tenants: Sharded<Entries>,
    capacity: IdempotencyCapacity,
}

impl MemoryIdempotencyStore {
    /// Keeps at most this much for each tenant.
    pub fn new(capacity: IdempotencyCapacity) -> Self {
        Self { tenants: Sharded::new("idempotency store"), capacity }
    }
}

impl Default for MemoryIdempotencyStore {
    fn default() -> Self {
        Self::new(IdempotencyCapacity::default())
    }
}

type ByExpiry = BTreeSet<(Timestamp, IdempotencyKey)>;

#[derive(Default)]
struct Entries {
    by_key: HashMap<IdempotencyKey, IdempotencyEntry>,
    running: ByExpiry,
    answered: ByExpiry,
    answer_bytes: usize,
}

impl Entries {
    fn expire(&mut self, now: Timestamp) {
        loop {
            let oldest = [self.running.first(), self.answered.first()].into_iter().flatten().min();
            let Some((_, key)) = oldest.filter(|(expiry, _)| *expiry <= now).cloned() else { return };
            self.remove(&key);
        }
    }

    fn insert(&mut self, key: &IdempotencyKey, entry: IdempotencyEntry) {
        let by_expiry = if entry.answer.is_some() { &mut self.answered } else { &mut self.running };
        by_expiry.insert((entry.expires_at, key.clone()));
        self.answer_bytes += entry.answer.as_ref().map_or(0, String::len);
        self.by_key.insert(key.clone(), entry);
    }

    fn remove(&mut self, key: &IdempotencyKey) -> Option<IdempotencyEntry> {
        let entry = self.by_key.remove(key)?;
        let by_expiry = if entry.answer.is_some() { &mut self.answered } else { &mut self.running };
        by_expiry.remove(&(entry.expires_at, key.clone()));
        self.answer_bytes -= entry.answer.as_ref().map_or(0, String::len);
        Some(entry)
    }

    /// Drops the answer that would expire first; whether there was one.
    fn evict(&mut self) -> bool {
        let Some((_, key)) = self.answered.first().cloned() else { return false };
        self.remove(&key).is_some()
    }

    /// The entry of a request that runs, when `holder` is that request.
    fn remove_running(&mut self, key: &IdempotencyKey, holder: &RequestId) -> Option<IdempotencyEntry> {
        let entry = self.by_key.get(key)?;
        if entry.holder != *holder || entry.answer.is_some() {
            return None;
        }
        self.remove(key)
    }
}

#[async_trait]
impl IdempotencyStore for MemoryIdempotencyStore {
    async fn begin(
        &self,
        tenant: &TenantId,
        key: &IdempotencyKey,
        fingerprint: &Fingerprint,
        holder: RequestId,
        lease_until: Timestamp,
        now: Timestamp,
    ) -> Result<Begin, PortError> {
        let begun = self.tenants.with(tenant, |entries| {
            entries.expire(now);
            let begun = begin(entries.by_key.get(key), fingerprint, now);
            if begun == Begin::First {
                if entries.by_key.len() >= self.capacity.keys && !entries.evict() {
                    return None;
                }
                let new = IdempotencyEntry { fingerprint: *fingerprint, holder, answer: None, expires_at: lease_until };
                entries.insert(key, new);
            }
            Some(begun)
        })?;
        begun.ok_or_else(|| self.tenants.unavailable("the tenant has as many running requests as fit"))
    }

    async fn finish(
        &self,
        tenant: &TenantId,
        key: &IdempotencyKey,
        holder: &RequestId,
        answer: &str,
        keep_until: Timestamp,
    ) -> Result<(), PortError> {
        self.tenants.with(tenant, |entries| {
            if let Some(entry) = entries.remove_running(key, holder) {
                entries
                    .insert(key, IdempotencyEntry { answer: Some(answer.to_owned()), expires_at: keep_until, ..entry });
                while entries.answer_bytes > self.capacity.answer_bytes && entries.evict() {}
            }
        })
    }

    async fn abandon(&self, tenant: &TenantId, key: &IdempotencyKey, holder: &RequestId) -> Result<(), PortError> {
        self.tenants.with(tenant, |entries| {
            entries.remove_running(key, holder);
        })
    }
}

#[cfg(test)]
mod tests {
    use enigma_core::limit::Subject;
    use futures_util::FutureExt;
    use uuid::Uuid;

    use super::*;

    const CAPACITY: IdempotencyCapacity = IdempotencyCapacity { keys: 4, answer_bytes: 100 };

    struct Store(MemoryIdempotencyStore, TenantId);

    impl Store {
        fn new() -> Self {
            Self(MemoryIdempotencyStore::new(CAPACITY), TenantId::new("acme").unwrap())
        }

        fn begin(&self, number: u64, lease_until: u64, now: u64) -> Result<Begin, PortError> {
            let (lease_until, now) = (Timestamp::from_millis(lease_until), Timestamp::from_millis(now));
            let (key, asked) = (key(number), Fingerprint::of(&[]));
            let begun = self.0.begin(&self.1, &key, &asked, holder(number), lease_until, now);
            begun.now_or_never().expect("memory does not wait")
        }

        fn finish(&self, number: u64, answer: &str, keep_until: u64) {
            let keep_until = Timestamp::from_millis(keep_until);
            let (key, holder) = (key(number), holder(number));
            let finished = self.0.finish(&self.1, &key, &holder, answer, keep_until);
            finished.now_or_never().expect("memory does not wait").unwrap();
        }

        fn sizes(&self) -> [usize; 4] {
            let sizes = |it: &mut Entries| [it.by_key.len(), it.running.len(), it.answered.len(), it.answer_bytes];
            self.0.tenants.with(&self.1, sizes).unwrap()
        }
    }

    fn key(number: u64) -> IdempotencyKey {
        IdempotencyKey::new(&Subject::whole_tenant(), "/chat", &number.to_string()).unwrap()
    }

    fn holder(number: u64) -> RequestId {
        RequestId::new(Uuid::from_u128(number.into()))
    }

    #[test]
    fn what_has_expired_takes_no_room() {
        let store = Store::new();
        for number in 0..1000 {
            assert_eq!(store.begin(number, number + 2, number).unwrap(), Begin::First);
            if number % 2 == 0 {
                store.finish(number, "answer", number + 3);
            }
        }
        assert_eq!(store.begin(1000, 6000, 5000).unwrap(), Begin::First);
        assert_eq!(store.sizes(), [1, 1, 0, 0]);
    }

    #[test]
    fn the_answer_that_expires_first_makes_room_and_running_requests_do_not() {
        let store = Store::new();
        for (number, keep_until) in [(0, 900), (1, 800)] {
            assert_eq!(store.begin(number, 100, 0).unwrap(), Begin::First);
            store.finish(number, "answer", keep_until);
        }
        for number in [2, 3, 4, 5] {
            assert_eq!(store.begin(number, 100, 0).unwrap(), Begin::First);
            let first_is_there = store.0.tenants.with(&store.1, |it| it.by_key.contains_key(&key(0))).unwrap();
            assert_eq!(first_is_there, number < 5);
        }
        assert!(store.begin(6, 100, 0).is_err());
        assert_eq!(store.begin(2, 100, 0).unwrap(), Begin::InProgress);
        assert_eq!(store.sizes(), [4, 4, 0, 0]);
        assert_eq!(store.begin(6, 200, 100).unwrap(), Begin::First, "their leases have ended");
    }

    #[test]
    fn long_answers_push_each_other_out() {
        let store = Store::new();
        for number in 0..3 {
            assert_eq!(store.begin(number, 100, 0).unwrap(), Begin::First);
            store.finish(number, &"x".repeat(40), 500 + number);
        }
        assert_eq!(store.sizes(), [2, 0, 2, 80]);
        assert_eq!(store.begin(0, 100, 0).unwrap(), Begin::First, "it was the first to go");
        store.finish(0, &"x".repeat(101), 1000);
        assert_eq!(store.sizes(), [0, 0, 0, 0], "too long an answer is not kept at all");
    }
}
