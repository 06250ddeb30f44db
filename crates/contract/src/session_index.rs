//! [`SessionIndex`].

use std::collections::HashMap;

use enigma_core::ports::SessionIndex;
use enigma_core::session::SessionSummary;
use enigma_core::{SessionId, TenantId, Timestamp, UserId};
use futures_util::future::join_all;
use proptest::prelude::*;

use crate::fixture::{NOON, acme, acme_eu, after, session, tenant, user};
use crate::strategies::samples;

/// Lists the cases of this port.
#[macro_export]
macro_rules! session_index_cases {
    ($run:ident) => {
        $run!(a_summary_is_listed_as_it_was_given);
        $run!(the_latest_changed_come_first);
        $run!(a_newer_summary_replaces_an_older_one);
        $run!(an_older_summary_never_replaces_a_newer_one);
        $run!(only_the_sessions_of_the_user_that_is_asked_for_are_listed);
        $run!(only_what_has_changed_since_then_is_listed);
        $run!(pages_hold_every_session_once);
        $run!(a_removed_session_is_no_longer_listed);
        $run!(paging_goes_on_when_a_session_is_removed);
        $run!(concurrent_summaries_leave_the_newest);
        $run!(lists_what_was_recorded_last);
        $run!(tenants_are_isolated);
    };
}

const EVER: Timestamp = Timestamp::from_millis(0);

fn summary(number: u128, owner: &str, updated_at: Timestamp) -> SessionSummary {
    SessionSummary {
        id: session(number),
        user: user(owner),
        created_at: NOON,
        updated_at,
        message_count: 2,
        token_count: 300,
    }
}

async fn record(index: &dyn SessionIndex, tenant: &TenantId, summary: &SessionSummary) {
    index.record(tenant, summary).await.expect("the index answers");
}

/// Everything from the first page to the last, `limit` at a time.
async fn list(
    index: &dyn SessionIndex,
    tenant: &TenantId,
    user: Option<&UserId>,
    since: Timestamp,
    limit: u32,
) -> Vec<SessionSummary> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = index.list(tenant, user, since, after, limit).await.expect("the index answers");
        assert!(page.sessions.len() <= limit as usize);
        assert!(after.is_none() || !page.sessions.is_empty(), "a page that was promised holds something");
        all.extend(page.sessions);
        assert!(all.len() < 1000, "the pages come to an end");
        match page.next {
            Some(next) => after = Some(next),
            None => return all,
        }
    }
}

async fn listed(index: &dyn SessionIndex, tenant: &TenantId) -> Vec<SessionId> {
    list(index, tenant, None, EVER, 100).await.into_iter().map(|summary| summary.id).collect()
}

/// Every field comes back.
pub async fn a_summary_is_listed_as_it_was_given(index: &dyn SessionIndex) {
    let given = SessionSummary {
        message_count: u32::MAX,
        token_count: 1 << 50,
        ..summary(u128::MAX, "Zoë 'the' user; --", after(5))
    };
    record(index, &acme(), &given).await;
    assert_eq!(list(index, &acme(), None, EVER, 10).await, [given]);
}

/// In whatever order they were recorded.
pub async fn the_latest_changed_come_first(index: &dyn SessionIndex) {
    for (number, updated) in [(1, 20), (2, 40), (3, 10), (4, 30)] {
        record(index, &acme(), &summary(number, "alice", after(updated))).await;
    }
    assert_eq!(listed(index, &acme()).await, [2, 4, 1, 3].map(session));
}

/// It is listed once, at its new place.
pub async fn a_newer_summary_replaces_an_older_one(index: &dyn SessionIndex) {
    record(index, &acme(), &summary(1, "alice", after(10))).await;
    record(index, &acme(), &summary(2, "alice", after(20))).await;
    let newer = SessionSummary { message_count: 4, token_count: 900, ..summary(1, "alice", after(30)) };
    record(index, &acme(), &newer).await;
    assert_eq!(list(index, &acme(), None, EVER, 10).await, [newer, summary(2, "alice", after(20))]);
}

/// Notes may arrive out of order.
pub async fn an_older_summary_never_replaces_a_newer_one(index: &dyn SessionIndex) {
    let newer = SessionSummary { message_count: 4, ..summary(1, "alice", after(30)) };
    record(index, &acme(), &newer).await;
    record(index, &acme(), &summary(1, "alice", after(10))).await;
    assert_eq!(list(index, &acme(), None, EVER, 10).await, [newer]);
}

/// Users are told apart letter for letter; without a user all are listed.
pub async fn only_the_sessions_of_the_user_that_is_asked_for_are_listed(index: &dyn SessionIndex) {
    for (number, owner) in
        [(1u64, "alice"), (2, "Alice"), (3, "alice "), (4, "bob"), (5, "alice"), (6, "%"), (7, "a_ice")]
    {
        record(index, &acme(), &summary(number.into(), owner, after(number))).await;
    }
    let of = async |owner: &str, limit| {
        let owner = user(owner);
        let sessions = list(index, &acme(), Some(&owner), EVER, limit).await;
        sessions.into_iter().map(|summary| summary.id).collect::<Vec<_>>()
    };
    for limit in [1, 2, 10] {
        assert_eq!(of("alice", limit).await, [5, 1].map(session));
        assert_eq!(of("%", limit).await, [6].map(session));
        assert_eq!(of("a_ice", limit).await, [7].map(session));
        assert_eq!(of("carol", limit).await, []);
    }
    assert_eq!(listed(index, &acme()).await.len(), 7);
}

/// The moment itself is included.
pub async fn only_what_has_changed_since_then_is_listed(index: &dyn SessionIndex) {
    for number in 1..6u64 {
        record(index, &acme(), &summary(number.into(), "alice", after(number))).await;
    }
    for limit in [1, 2, 10] {
        let sessions = list(index, &acme(), None, after(3), limit).await;
        assert_eq!(sessions.into_iter().map(|summary| summary.id).collect::<Vec<_>>(), [5, 4, 3].map(session));
    }
    assert_eq!(list(index, &acme(), None, after(6), 10).await, []);
}

/// Whatever the size of a page, and where many sessions changed at the same time.
pub async fn pages_hold_every_session_once(index: &dyn SessionIndex) {
    for number in 0..30u32 {
        record(index, &acme(), &summary(number.into(), "alice", after(u64::from(number / 7)))).await;
    }
    for limit in [1, 2, 3, 7, 29, 30, 31] {
        let sessions = list(index, &acme(), None, EVER, limit).await;
        assert!(sessions.is_sorted_by(|one, next| one.updated_at >= next.updated_at));
        let mut ids: Vec<_> = sessions.into_iter().map(|summary| summary.id).collect();
        ids.sort();
        assert_eq!(ids, (0..30).map(session).collect::<Vec<_>>(), "{limit} a page");
    }
}

/// To remove it again, or one that never was, is harmless.
pub async fn a_removed_session_is_no_longer_listed(index: &dyn SessionIndex) {
    for number in 1..4u64 {
        record(index, &acme(), &summary(number.into(), "alice", after(number))).await;
    }
    for number in [2, 2, 9] {
        index.remove(&acme(), &session(number)).await.expect("the index answers");
    }
    assert_eq!(listed(index, &acme()).await, [3, 1].map(session));
}

/// Where a page ended stays a place, though the session that was there is gone.
pub async fn paging_goes_on_when_a_session_is_removed(index: &dyn SessionIndex) {
    for number in 1..7u64 {
        record(index, &acme(), &summary(number.into(), "alice", after(number))).await;
    }
    let first = index.list(&acme(), None, EVER, None, 2).await.expect("the index answers");
    for number in [4, 5] {
        index.remove(&acme(), &session(number)).await.expect("the index answers");
    }
    let second = index.list(&acme(), None, EVER, first.next, 10).await.expect("the index answers");
    assert_eq!(second.sessions.into_iter().map(|summary| summary.id).collect::<Vec<_>>(), [3, 2, 1].map(session));
}

/// Whichever of many notes comes first, the newest stays.
pub async fn concurrent_summaries_leave_the_newest(index: &dyn SessionIndex) {
    let acme = acme();
    let summaries: Vec<_> = (0..32u64).map(|n| summary(1, "alice", after(n * 7 % 32))).collect();
    join_all(summaries.iter().map(|summary| record(index, &acme, summary))).await;
    let listed = list(index, &acme, None, EVER, 10).await;
    assert_eq!(listed, [summary(1, "alice", after(31))]);
}

/// After random notes and removals, a list is what a table of the newest notes would say.
pub async fn lists_what_was_recorded_last(index: &dyn SessionIndex) {
    let steps = prop::collection::vec((0u128..8, 0usize..2, 0u64..1000, prop::bool::weighted(0.15)), 1..60);
    for (run, (steps, since, limit)) in samples((steps, 0u64..600, 1u32..6), 32).enumerate() {
        let (tenant, users) = (tenant(&format!("run-{run}")), ["alice", "bob"]);
        let mut model: HashMap<SessionId, SessionSummary> = HashMap::new();
        for (nth, (number, who, updated, removes)) in (0u32..).zip(steps) {
            if removes {
                index.remove(&tenant, &session(number)).await.expect("the index answers");
                model.remove(&session(number));
                continue;
            }
            // No two changes happen at one time here: which of them counts is nowhere said.
            let updated_at = after(updated * 100 + u64::from(nth));
            let new = SessionSummary { message_count: 2 + nth, ..summary(number, users[who], updated_at) };
            record(index, &tenant, &new).await;
            if model.get(&new.id).is_none_or(|old| old.updated_at < new.updated_at) {
                model.insert(new.id, new);
            }
        }
        let since = after(since * 100);
        for owner in [None, Some(user("alice")), Some(user("bob"))] {
            let mut expected: Vec<_> = model.values().cloned().collect();
            expected.retain(|it| it.updated_at >= since && owner.as_ref().is_none_or(|owner| it.user == *owner));
            expected.sort_by_key(|it| std::cmp::Reverse(it.updated_at));
            assert_eq!(list(index, &tenant, owner.as_ref(), since, limit).await, expected);
        }
    }
}

/// A tenant's sessions are its own, even where two tenants' sessions have one id and one user.
pub async fn tenants_are_isolated(index: &dyn SessionIndex) {
    record(index, &acme(), &summary(1, "alice", after(10))).await;
    assert_eq!(listed(index, &acme_eu()).await, []);
    record(index, &acme_eu(), &summary(1, "alice", after(20))).await;
    record(index, &acme_eu(), &summary(2, "alice", after(30))).await;
    assert_eq!(list(index, &acme(), None, EVER, 10).await, [summary(1, "alice", after(10))]);
    assert_eq!(list(index, &acme(), Some(&user("alice")), EVER, 1).await, [summary(1, "alice", after(10))]);
    index.remove(&acme_eu(), &session(1)).await.expect("the index answers");
    assert_eq!(listed(index, &acme()).await, [session(1)]);
    assert_eq!(listed(index, &acme_eu()).await, [session(2)]);
}
