//! [`StreamSlots`].

use std::time::Duration;

use enigma_core::limit::{LeaseSet, StreamsFull};
use enigma_core::ports::StreamSlots;
use enigma_core::{RequestId, TenantId, Timestamp};
use futures_util::future::join_all;
use proptest::prelude::*;

use crate::fixture::{NOON, acme, acme_eu, after, request, tenant};
use crate::strategies::samples;

/// Lists the cases of this port.
#[macro_export]
macro_rules! stream_slots_cases {
    ($run:ident) => {
        $run!(lets_in_up_to_the_limit);
        $run!(who_leaves_makes_room_once);
        $run!(a_lease_that_ends_makes_room);
        $run!(a_holder_that_enters_again_prolongs_its_lease);
        $run!(who_is_refused_takes_no_room);
        $run!(a_limit_may_change_between_calls);
        $run!(concurrent_entries_never_pass_the_limit);
        $run!(decides_as_the_lease_set_does);
        $run!(tenants_are_isolated);
    };
}

const MINUTE: Duration = Duration::from_mins(1);

async fn enter(
    slots: &dyn StreamSlots,
    tenant: &TenantId,
    holder: u128,
    limit: u32,
    now: Timestamp,
) -> Result<(), StreamsFull> {
    slots.enter(tenant, request(holder), limit, now.saturating_add(MINUTE), now).await.expect("the slots answer")
}

async fn leave(slots: &dyn StreamSlots, tenant: &TenantId, holder: u128) {
    slots.leave(tenant, &request(holder)).await.expect("the slots answer");
}

/// As many as the limit get in, and the next one is told the limit.
pub async fn lets_in_up_to_the_limit(slots: &dyn StreamSlots) {
    for holder in 0..3 {
        assert_eq!(enter(slots, &acme(), holder, 3, NOON).await, Ok(()));
    }
    assert_eq!(enter(slots, &acme(), 3, 3, NOON).await, Err(StreamsFull { limit: 3 }));
}

/// To leave frees one slot; to leave again, or without having been in, frees none.
pub async fn who_leaves_makes_room_once(slots: &dyn StreamSlots) {
    for holder in 0..2 {
        assert_eq!(enter(slots, &acme(), holder, 2, NOON).await, Ok(()));
    }
    leave(slots, &acme(), 9).await;
    assert!(enter(slots, &acme(), 2, 2, NOON).await.is_err());
    leave(slots, &acme(), 0).await;
    leave(slots, &acme(), 0).await;
    assert_eq!(enter(slots, &acme(), 2, 2, NOON).await, Ok(()));
    leave(slots, &acme(), 0).await;
    assert!(enter(slots, &acme(), 3, 2, NOON).await.is_err());
}

/// A holder that does not leave is forgotten at the end of its lease, and not before; to leave then is harmless.
pub async fn a_lease_that_ends_makes_room(slots: &dyn StreamSlots) {
    assert_eq!(enter(slots, &acme(), 0, 1, NOON).await, Ok(()));
    assert!(enter(slots, &acme(), 1, 1, after(59_999)).await.is_err());
    assert_eq!(enter(slots, &acme(), 1, 1, after(60_000)).await, Ok(()));
    leave(slots, &acme(), 0).await;
    assert!(enter(slots, &acme(), 2, 1, after(60_001)).await.is_err());
}

/// A holder has one slot, however often it enters, until its last lease ends.
pub async fn a_holder_that_enters_again_prolongs_its_lease(slots: &dyn StreamSlots) {
    for pause in [0, 30_000, 50_000] {
        assert_eq!(enter(slots, &acme(), 0, 2, after(pause)).await, Ok(()));
    }
    assert_eq!(enter(slots, &acme(), 1, 2, after(70_000)).await, Ok(()));
    assert!(enter(slots, &acme(), 2, 2, after(109_999)).await.is_err());
    assert_eq!(enter(slots, &acme(), 2, 2, after(110_000)).await, Ok(()));
}

/// A refusal leaves nothing behind.
pub async fn who_is_refused_takes_no_room(slots: &dyn StreamSlots) {
    assert_eq!(enter(slots, &acme(), 0, 1, NOON).await, Ok(()));
    for holder in 1..20 {
        assert!(enter(slots, &acme(), holder, 1, NOON).await.is_err());
    }
    leave(slots, &acme(), 0).await;
    assert_eq!(enter(slots, &acme(), 20, 1, NOON).await, Ok(()));
}

/// A lower limit counts those who are in under a higher one, and throws nobody out.
pub async fn a_limit_may_change_between_calls(slots: &dyn StreamSlots) {
    for holder in 0..3 {
        assert_eq!(enter(slots, &acme(), holder, 3, NOON).await, Ok(()));
    }
    assert_eq!(enter(slots, &acme(), 3, 2, NOON).await, Err(StreamsFull { limit: 2 }));
    leave(slots, &acme(), 0).await;
    assert!(enter(slots, &acme(), 3, 2, NOON).await.is_err());
    assert_eq!(enter(slots, &acme(), 3, 3, NOON).await, Ok(()));
}

/// Of many entries at once, as many succeed as there are slots.
pub async fn concurrent_entries_never_pass_the_limit(slots: &dyn StreamSlots) {
    let entries = (0..64).map(|holder| async move { enter(slots, &acme(), holder, 5, NOON).await.is_ok() });
    let entered = join_all(entries).await.into_iter().filter(|entered| *entered).count();
    assert_eq!(entered, 5);
}

/// Random entries and exits are decided as [`LeaseSet`] decides them.
pub async fn decides_as_the_lease_set_does(slots: &dyn StreamSlots) {
    let steps = prop::collection::vec((0u128..6, any::<bool>(), -3i64..8, 1u64..25, 1u32..4), 1..80);
    for (run, steps) in samples(steps, 48).enumerate() {
        let tenant = tenant(&format!("run-{run}"));
        let (mut model, mut now) = (LeaseSet::default(), 1_000_000u64);
        for (holder, leaves, pause, length, limit) in steps {
            now = now.saturating_add_signed(pause);
            let holder: RequestId = request(holder);
            if leaves {
                slots.leave(&tenant, &holder).await.expect("the slots answer");
                model.leave(&holder);
            } else {
                let (now, end) = (Timestamp::from_millis(now), Timestamp::from_millis(now + length));
                let entered = slots.enter(&tenant, holder, limit, end, now).await.expect("the slots answer");
                assert_eq!(entered, model.enter(holder, limit, end, now));
            }
        }
    }
}

/// One tenant's streams take no room of another's, and one cannot end another's.
pub async fn tenants_are_isolated(slots: &dyn StreamSlots) {
    assert_eq!(enter(slots, &acme(), 0, 1, NOON).await, Ok(()));
    assert_eq!(enter(slots, &acme_eu(), 0, 1, NOON).await, Ok(()));
    leave(slots, &acme_eu(), 0).await;
    assert!(enter(slots, &acme(), 1, 1, NOON).await.is_err());
    assert_eq!(enter(slots, &acme_eu(), 1, 1, NOON).await, Ok(()));
}
