//! How much of a host may be in work at once, in all and for each tenant.

use std::collections::HashMap;

use thiserror::Error;

use crate::id::TenantId;

/// How many places a host has, and how a tenant's part of them follows what is free.
///
/// A tenant may have as many in work as a multiple of the places that are free, and no more; the multiple is `share / (1 - share)`,
/// which is one for the usual share of a half. So a tenant alone gets its share of all places, `n` tenants that all want
/// everything get `1 / (n + 1)` each at that share, and one part as large stays free for whoever comes next. A tenant that has
/// nothing in work is refused only when no place is left at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    total: u32,
    share_percent: u32,
}

impl Capacity {
    /// So many places, of which one tenant alone may have `share_percent` in a hundred. A host has at least one place, and a
    /// share is 1 to 100; at 100 tenants take from each other whatever they can get.
    pub const fn new(total: u32, share_percent: u32) -> Self {
        let total = if total == 0 { 1 } else { total };
        let share_percent = match share_percent {
            0 => 1,
            1..=100 => share_percent,
            _ => 100,
        };
        Self { total, share_percent }
    }

    /// Whether a tenant that has `of_tenant` in work may have one more, when all tenants together have `in_all`.
    pub const fn admits(self, in_all: u32, of_tenant: u32) -> bool {
        let free = self.total.saturating_sub(in_all) as u64;
        let share = self.share_percent as u64;
        of_tenant as u64 * (100 - share) < free * share
    }

    /// The most that one tenant can have in work.
    pub const fn most_of_one(self) -> u32 {
        // Hundreds and the rest apart, which cannot overflow.
        self.total / 100 * self.share_percent + (self.total % 100 * self.share_percent).div_ceil(100)
    }

    /// How many a tenant gets, however many another one wants: if only these two have anything in work, it is not refused below
    /// this.
    pub const fn guaranteed_beside_one(self) -> u32 {
        let left = self.total - self.most_of_one();
        Self { total: left, ..self }.most_of_one()
    }
}

/// Nothing was taken: the tenant has its part, or the host is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{of_tenant} of the tenant are in work, and {in_all} in all")]
pub struct CapacityFull {
    /// What all tenants have in work.
    pub in_all: u32,
    /// What the tenant has.
    pub of_tenant: u32,
}

/// Who has how many places. Its size is bounded by the tenants that have any.
#[derive(Debug)]
pub struct Places {
    capacity: Capacity,
    in_all: u32,
    of_tenants: HashMap<TenantId, u32>,
}

impl Places {
    /// All places are free.
    pub fn new(capacity: Capacity) -> Self {
        Self { capacity, in_all: 0, of_tenants: HashMap::new() }
    }

    /// Takes a place for `tenant`.
    ///
    /// # Errors
    /// [`CapacityFull`], and nothing has changed.
    pub fn enter(&mut self, tenant: &TenantId) -> Result<(), CapacityFull> {
        let theirs = self.of_tenants.get_mut(tenant);
        let of_tenant = theirs.as_deref().copied().unwrap_or(0);
        if !self.capacity.admits(self.in_all, of_tenant) {
            return Err(CapacityFull { in_all: self.in_all, of_tenant });
        }
        match theirs {
            Some(count) => *count += 1,
            None => drop(self.of_tenants.insert(tenant.clone(), 1)),
        }
        self.in_all += 1;
        Ok(())
    }

    /// Gives one place of `tenant` back; one that has none stays so.
    pub fn leave(&mut self, tenant: &TenantId) {
        let Some(count) = self.of_tenants.get_mut(tenant) else { return };
        *count -= 1;
        if *count == 0 {
            self.of_tenants.remove(tenant);
        }
        self.in_all -= 1;
    }

    /// What is in work in all.
    pub const fn in_all(&self) -> u32 {
        self.in_all
    }

    /// What `tenant` has in work.
    pub fn of(&self, tenant: &TenantId) -> u32 {
        self.of_tenants.get(tenant).copied().unwrap_or(0)
    }

    /// How many tenants have anything in work.
    pub fn tenants(&self) -> usize {
        self.of_tenants.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tenant(n: usize) -> TenantId {
        TenantId::new(&format!("t{n}")).unwrap()
    }

    proptest! {
        #[test]
        fn never_more_than_all_and_each_release_frees_one(
            total in 1u32..40,
            share in 1u32..=100,
            steps in proptest::collection::vec((0usize..6, proptest::bool::ANY), 1..200),
        ) {
            let capacity = Capacity::new(total, share);
            let mut places = Places::new(capacity);
            let mut oracle: HashMap<usize, u32> = HashMap::new();
            for (who, leaving) in steps {
                let (before, all) = (places.of(&tenant(who)), places.in_all());
                if leaving {
                    places.leave(&tenant(who));
                    let had = oracle.remove(&who).unwrap_or(0);
                    if had > 1 {
                        oracle.insert(who, had - 1);
                    }
                } else {
                    match places.enter(&tenant(who)) {
                        Ok(()) => *oracle.entry(who).or_default() += 1,
                        Err(full) => {
                            prop_assert_eq!(full, CapacityFull { in_all: all, of_tenant: before });
                            prop_assert!(before > 0 || all == total, "whoever has nothing gets the last place");
                        }
                    }
                }
                prop_assert!(places.in_all() <= total);
                prop_assert!(places.of(&tenant(who)) <= capacity.most_of_one());
                prop_assert_eq!(places.in_all(), oracle.values().sum::<u32>());
                prop_assert_eq!(places.tenants(), oracle.len(), "only those who have a place take room");
                for (who, count) in &oracle {
                    prop_assert_eq!(places.of(&tenant(*who)), *count);
                }
            }
        }

        /// Whatever one tenant asks for and gives back, another one is never refused below its guaranteed part.
        #[test]
        fn a_flood_of_one_tenant_does_not_refuse_another(
            total in 1u32..200,
            share in 1u32..=100,
            steps in proptest::collection::vec((0u8..8, 1usize..50), 1..100),
        ) {
            let capacity = Capacity::new(total, share);
            let mut places = Places::new(capacity);
            let (flood, other) = (tenant(0), tenant(1));
            for (what, times) in steps {
                match what {
                    0 => places.leave(&other),
                    1..=2 => (0..times).for_each(|_| places.leave(&flood)),
                    3..=4 => drop((0..times).map(|_| places.enter(&flood)).collect::<Vec<_>>()),
                    _ => {
                        let had = places.of(&other);
                        let entered = places.enter(&other);
                        prop_assert!(entered.is_ok() || had >= capacity.guaranteed_beside_one(), "{entered:?}");
                    }
                }
            }
        }

        /// Tenants that ask in turn for as long as anybody gets something have the same in the end, to one.
        #[test]
        fn floods_share_alike_and_leave_a_part_for_the_next(total in 1u32..500, tenants in 1usize..12) {
            let mut places = Places::new(Capacity::new(total, 50));
            while (0..tenants).filter(|n| places.enter(&tenant(*n)).is_ok()).count() > 0 {}
            let counts: Vec<u32> = (0..tenants).map(|n| places.of(&tenant(n))).collect();
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            prop_assert!(most - least <= 1, "{:?}", counts);
            let part = total / (u32::try_from(tenants).unwrap() + 1);
            prop_assert!(*least >= part, "{:?}", counts);
            // What stays free is as much, less what rounding gave the others.
            prop_assert!(total - places.in_all() + u32::try_from(tenants).unwrap() >= part);
        }
    }

    #[test]
    fn a_half_is_what_one_tenant_gets_and_a_quarter_is_sure_beside_it() {
        let capacity = Capacity::new(1000, 50);
        assert_eq!((capacity.most_of_one(), capacity.guaranteed_beside_one()), (500, 250));
        let mut places = Places::new(capacity);
        while places.enter(&tenant(0)).is_ok() {}
        assert_eq!(places.of(&tenant(0)), 500);
        while places.enter(&tenant(1)).is_ok() {}
        assert_eq!(places.of(&tenant(1)), 250);
        // As the first one's end, both come to have the same.
        for _ in 0..2000 {
            for n in [0, 1] {
                places.leave(&tenant(n));
                let _ = places.enter(&tenant(1 - n));
                let _ = places.enter(&tenant(n));
            }
        }
        let (first, second) = (places.of(&tenant(0)), places.of(&tenant(1)));
        assert!(first.abs_diff(second) <= 2, "{first} and {second}");
        assert!(first >= 332, "{first} and {second}");
    }

    #[test]
    fn the_smallest_and_the_greediest_hosts_work_too() {
        let mut places = Places::new(Capacity::new(0, 0));
        assert_eq!(places.enter(&tenant(0)), Ok(()));
        assert_eq!(places.enter(&tenant(1)), Err(CapacityFull { in_all: 1, of_tenant: 0 }));
        places.leave(&tenant(1));
        assert_eq!(places.in_all(), 1, "whoever has no place gives none back");
        places.leave(&tenant(0));
        assert_eq!(places.tenants(), 0);
        let mut places = Places::new(Capacity::new(3, 1000));
        assert_eq!((0..5).filter(|_| places.enter(&tenant(0)).is_ok()).count(), 3);
    }
}
