//! How much is under way at once: leases that end, or expire when their holder died.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::id::RequestId;
use crate::time::Timestamp;

/// As much is under way as is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error, Serialize, Deserialize)]
#[error("{limit} are under way already")]
pub struct StreamsFull {
    /// The limit.
    pub limit: u32,
}

/// The requests of one tenant that are under way. Never holds more than the highest limit it was asked with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeaseSet {
    holders: HashMap<RequestId, Timestamp>,
    by_expiry: BTreeSet<(Timestamp, RequestId)>,
}

impl LeaseSet {
    /// Restores a set from its holders, with the time at which each one's lease ends, in any order.
    pub fn restore(holders: impl IntoIterator<Item = (RequestId, Timestamp)>) -> Self {
        let mut leases = Self::default();
        for (holder, expires_at) in holders {
            leases.put(holder, expires_at);
        }
        leases
    }

    /// The holders, with the time at which each one's lease ends, the first to end first; those included whose lease has expired
    /// since the last entry.
    pub fn holders(&self) -> impl ExactSizeIterator<Item = (RequestId, Timestamp)> + '_ {
        self.by_expiry.iter().map(|(expires_at, holder)| (*holder, *expires_at))
    }

    /// Lets `holder` in until `expires_at`, unless `limit` are in already. To ask twice for one holder prolongs its lease.
    ///
    /// # Errors
    /// [`StreamsFull`], and nothing has changed but that leases which had expired are gone.
    pub fn enter(
        &mut self,
        holder: RequestId,
        limit: u32,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<(), StreamsFull> {
        while let Some((expiry, expired)) = self.by_expiry.first().copied().filter(|(expiry, _)| *expiry <= now) {
            self.by_expiry.remove(&(expiry, expired));
            self.holders.remove(&expired);
        }
        if !self.holders.contains_key(&holder) && self.holders.len() >= limit as usize {
            return Err(StreamsFull { limit });
        }
        self.put(holder, expires_at);
        Ok(())
    }

    /// Ends a lease. One that has ended before, or expired, stays so.
    pub fn leave(&mut self, holder: &RequestId) {
        if let Some(expiry) = self.holders.remove(holder) {
            self.by_expiry.remove(&(expiry, *holder));
        }
    }

    fn put(&mut self, holder: RequestId, expires_at: Timestamp) {
        self.leave(&holder);
        self.holders.insert(holder, expires_at);
        self.by_expiry.insert((expires_at, holder));
    }

    /// How many are in, those included whose lease has expired since the last entry.
    pub fn len(&self) -> usize {
        self.holders.len()
    }

    /// Whether nobody is in.
    pub fn is_empty(&self) -> bool {
        self.holders.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    proptest! {
        #[test]
        fn never_more_than_the_limit_are_in_and_the_dead_make_room(
            limit in 1u32..5,
            steps in proptest::collection::vec((0u128..8, proptest::bool::ANY, 0u64..5, 1u64..20), 1..120),
        ) {
            let (mut leases, mut now) = (LeaseSet::default(), 0u64);
            let mut oracle: HashMap<u128, u64> = HashMap::new();
            for (who, leaving, pause, length) in steps {
                now += pause;
                let holder = RequestId::new(Uuid::from_u128(who));
                if leaving {
                    leases.leave(&holder);
                    oracle.remove(&who);
                } else {
                    oracle.retain(|_, expiry| *expiry > now);
                    let fits = oracle.contains_key(&who) || oracle.len() < limit as usize;
                    let entered = leases.enter(
                        holder, limit, Timestamp::from_millis(now + length), Timestamp::from_millis(now),
                    );
                    prop_assert_eq!(entered.is_ok(), fits);
                    if fits {
                        oracle.insert(who, now + length);
                    }
                }
                prop_assert!(leases.len() <= limit as usize);
                prop_assert_eq!(leases.holders.len(), leases.by_expiry.len());
                // What an adapter has written down of it is all of it.
                prop_assert_eq!(&LeaseSet::restore(leases.holders()), &leases);
            }
        }
    }

    #[test]
    fn holders_come_in_the_order_in_which_their_leases_end_and_each_once() {
        let (holder, at) = (|n| RequestId::new(Uuid::from_u128(n)), Timestamp::from_millis);
        let kept = [(holder(1), at(30)), (holder(2), at(10)), (holder(3), at(20)), (holder(1), at(5))];
        let mut leases = LeaseSet::restore(kept);
        let ends: Vec<_> = leases.holders().collect();
        assert_eq!(ends, [(holder(1), at(5)), (holder(2), at(10)), (holder(3), at(20))]);
        assert_eq!(leases.enter(holder(4), 2, at(40), at(10)), Ok(()), "two of them have expired");
        assert_eq!(leases.enter(holder(5), 2, at(40), at(10)), Err(StreamsFull { limit: 2 }));
    }
}
