//! [`SessionTurns`].

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use enigma_core::ports::{HeldTurn, OpenTurn, SessionTurns};
use enigma_core::session::{Retention, StoredMessage};
use enigma_core::{TenantId, Timestamp};
use futures_util::future::{join, join_all, poll_fn};
use futures_util::poll;

use crate::fixture::{DAY, NOON, acme, acme_eu, message, request, session, turn, user};

/// Lists the cases of this port.
#[macro_export]
macro_rules! session_turns_cases {
    ($run:ident) => {
        $run!(a_session_begins_without_a_history);
        $run!(a_turn_sees_what_the_turn_before_it_has_appended);
        $run!(the_history_is_read_after_the_wait);
        $run!(the_newest_messages_come_oldest_first);
        $run!(what_retention_ends_is_not_shown);
        $run!(turns_come_in_the_order_in_which_they_were_asked_for);
        $run!(concurrent_turns_never_overlap_and_each_sees_all_before_it);
        $run!(a_turn_that_ends_lets_the_next_one_in_and_leaves_nothing);
        $run!(a_turn_that_is_dropped_lets_the_next_one_in_and_leaves_nothing);
        $run!(who_stops_waiting_does_not_keep_the_others_waiting);
        $run!(other_sessions_do_not_wait);
        $run!(tenants_are_isolated);
    };
}

const MUCH: Retention = Retention { days: 30, max_messages: 1000 };

async fn begin(turns: &dyn SessionTurns, tenant: &TenantId, in_session: u128, number: u128) -> OpenTurn {
    turns.begin(tenant, &session(in_session), request(number), 1000, &MUCH, NOON).await.expect("the turns answer")
}

/// Appends a question and an answer, whose numbers are `2 * number` and the next one.
async fn append(held: Box<dyn HeldTurn>, number: u32, at: Timestamp) {
    let turn = turn(&user("alice"), [2 * number, 2 * number + 1], at);
    held.append(&turn, &MUCH, at).await.expect("the turn is kept");
}

/// The messages of the turns of these numbers.
fn said(numbers: impl IntoIterator<Item = u32>, at: Timestamp) -> Vec<StoredMessage> {
    numbers.into_iter().flat_map(|number| [2 * number, 2 * number + 1]).map(|number| message(number, at)).collect()
}

async fn history(turns: &dyn SessionTurns, tenant: &TenantId, in_session: u128) -> Vec<StoredMessage> {
    let OpenTurn { history, held, .. } = begin(turns, tenant, in_session, 10_000).await;
    held.end().await;
    history
}

/// Lets everything else that runs on this task go on once.
async fn pause() {
    let mut paused = false;
    poll_fn(|context| {
        if paused {
            return Poll::Ready(());
        }
        paused = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Nobody has said anything, and nobody waits.
pub async fn a_session_begins_without_a_history(turns: &dyn SessionTurns) {
    let OpenTurn { user, history, held } = begin(turns, &acme(), 1, 1).await;
    assert_eq!((user, history), (None, vec![]));
    held.end().await;
}

/// Whole, and every field of it.
pub async fn a_turn_sees_what_the_turn_before_it_has_appended(turns: &dyn SessionTurns) {
    for number in 0..4 {
        let OpenTurn { user: began, history, held } = begin(turns, &acme(), 1, number.into()).await;
        assert_eq!(history, said(0..number, NOON));
        assert_eq!(began, (number > 0).then(|| user("alice")), "a turn knows who began the session");
        append(held, number, NOON).await;
    }
}

/// Who began to wait before the other one appended sees it all the same.
pub async fn the_history_is_read_after_the_wait(turns: &dyn SessionTurns) {
    let acme = acme();
    let first = begin(turns, &acme, 1, 1).await;
    let mut second = pin!(begin(turns, &acme, 1, 2));
    for _ in 0..5 {
        assert!(poll!(second.as_mut()).is_pending());
        pause().await;
    }
    let ((), second) = join(append(first.held, 0, NOON), second).await;
    assert_eq!(second.history, said([0], NOON));
    append(second.held, 1, NOON).await;
    assert_eq!(history(turns, &acme, 1).await, said(0..2, NOON));
}

/// No more than are asked for.
pub async fn the_newest_messages_come_oldest_first(turns: &dyn SessionTurns) {
    let (acme, session) = (acme(), session(1));
    for number in 0..4 {
        append(begin(turns, &acme, 1, number.into()).await.held, number, NOON).await;
    }
    for (number, (limit, first)) in (9..).zip([(0, 8), (1, 7), (3, 5), (8, 0), (100, 0)]) {
        let open = turns.begin(&acme, &session, request(number), limit, &MUCH, NOON).await.expect("the turns answer");
        let newest: Vec<_> = (first..8).map(|number| message(number, NOON)).collect();
        assert_eq!(open.history, newest, "{limit}");
        open.held.end().await;
    }
}

/// Neither what is too old nor what is too much.
pub async fn what_retention_ends_is_not_shown(turns: &dyn SessionTurns) {
    let (acme, session) = (acme(), session(1));
    append(begin(turns, &acme, 1, 1).await.held, 0, NOON).await;
    let later = NOON.saturating_add(DAY * 2);
    append(begin(turns, &acme, 1, 2).await.held, 1, later).await;
    let both: Vec<_> = said([0], NOON).into_iter().chain(said([1], later)).collect();
    for (number, (days, max_messages, gone)) in (3..).zip([(2, 1000, 0), (30, 3, 1), (1, 1000, 2)]) {
        let retention = Retention { days, max_messages };
        let begun = turns.begin(&acme, &session, request(number), 1000, &retention, later).await;
        let open = begun.expect("the turns answer");
        assert_eq!(open.history, both[gone..], "{retention:?}");
        open.held.end().await;
    }
    let past_both = later.saturating_add(DAY * 31 + Duration::from_millis(1));
    let open = turns.begin(&acme, &session, request(9), 1000, &MUCH, past_both).await.expect("the turns answer");
    assert_eq!(open.history, []);
    open.held.end().await;
}

/// First come, first served.
pub async fn turns_come_in_the_order_in_which_they_were_asked_for(turns: &dyn SessionTurns) {
    let acme = acme();
    let first = begin(turns, &acme, 1, 1000).await;
    let waiters = join_all((1..12).map(|number| {
        let acme = &acme;
        async move {
            let OpenTurn { history, held, .. } = begin(turns, acme, 1, number.into()).await;
            assert_eq!(history, said(0..number, NOON));
            pause().await;
            append(held, number, NOON).await;
        }
    }));
    let mut waiters = pin!(waiters);
    for _ in 0..5 {
        assert!(poll!(waiters.as_mut()).is_pending());
        pause().await;
    }
    join(append(first.held, 0, NOON), waiters).await;
    assert_eq!(history(turns, &acme, 1).await, said(0..12, NOON));
}

/// At no time are two under way, and none is lost, whichever way they end.
pub async fn concurrent_turns_never_overlap_and_each_sees_all_before_it(turns: &dyn SessionTurns) {
    let (acme, inside, kept) = (acme(), AtomicUsize::new(0), Mutex::new(Vec::new()));
    join_all((0..24u32).map(|number| {
        let (acme, inside, kept) = (&acme, &inside, &kept);
        async move {
            for _ in 0..number % 4 {
                pause().await;
            }
            let OpenTurn { history, held, .. } = begin(turns, acme, 1, number.into()).await;
            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
            assert_eq!(history, said(kept.lock().unwrap_or_else(PoisonError::into_inner).clone(), NOON));
            for _ in 0..number % 3 {
                pause().await;
            }
            if !number.is_multiple_of(5) {
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(number);
            }
            assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1);
            if number.is_multiple_of(5) {
                held.end().await;
            } else {
                append(held, number, NOON).await;
            }
        }
    }))
    .await;
    let kept = kept.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert_eq!(kept.len(), 19);
    assert_eq!(history(turns, &acme, 1).await, said(kept, NOON));
}

/// What the model did not answer is no turn.
pub async fn a_turn_that_ends_lets_the_next_one_in_and_leaves_nothing(turns: &dyn SessionTurns) {
    let acme = acme();
    let first = begin(turns, &acme, 1, 1).await;
    let mut second = pin!(begin(turns, &acme, 1, 2));
    assert!(poll!(second.as_mut()).is_pending());
    let ((), second) = join(first.held.end(), second).await;
    assert_eq!(second.history, []);
    second.held.end().await;
    assert_eq!(history(turns, &acme, 1).await, []);
}

/// A holder that goes without a word does not stop its session.
pub async fn a_turn_that_is_dropped_lets_the_next_one_in_and_leaves_nothing(turns: &dyn SessionTurns) {
    let acme = acme();
    let first = begin(turns, &acme, 1, 1).await;
    let mut second = pin!(begin(turns, &acme, 1, 2));
    assert!(poll!(second.as_mut()).is_pending());
    drop(first);
    let second = second.await;
    assert_eq!(second.history, []);
    drop(second);
    append(begin(turns, &acme, 1, 3).await.held, 0, NOON).await;
    assert_eq!(history(turns, &acme, 1).await, said([0], NOON));
}

/// A waiter may go at any place of the line.
pub async fn who_stops_waiting_does_not_keep_the_others_waiting(turns: &dyn SessionTurns) {
    let acme = acme();
    let first = begin(turns, &acme, 1, 1).await;
    let mut waiters: Vec<_> = (2..8).map(|number| Box::pin(begin(turns, &acme, 1, number))).collect();
    for waiter in &mut waiters {
        assert!(poll!(waiter.as_mut()).is_pending());
    }
    // The first of the line, one in its middle, and the last.
    for place in [5, 2, 0] {
        drop(waiters.remove(place));
    }
    let others = join_all(waiters.into_iter().map(|waiter| async { waiter.await.held.end().await }));
    join(append(first.held, 0, NOON), others).await;
    assert_eq!(history(turns, &acme, 1).await, said([0], NOON));
}

/// The turns of one session have nothing to do with those of another, and neither have their messages.
pub async fn other_sessions_do_not_wait(turns: &dyn SessionTurns) {
    let acme = acme();
    let first = begin(turns, &acme, 1, 1).await;
    let (second, third) = join(begin(turns, &acme, 2, 2), begin(turns, &acme, 3, 3)).await;
    let mut waiting = pin!(begin(turns, &acme, 1, 4));
    assert!(poll!(waiting.as_mut()).is_pending());
    join(append(second.held, 1, NOON), append(third.held, 2, NOON)).await;
    assert!(poll!(waiting.as_mut()).is_pending());
    let ((), waiting) = join(append(first.held, 0, NOON), waiting).await;
    assert_eq!(waiting.history, said([0], NOON));
    waiting.held.end().await;
    assert_eq!(history(turns, &acme, 2).await, said([1], NOON));
    assert_eq!(history(turns, &acme, 3).await, said([2], NOON));
}

/// Sessions of two tenants that have one id neither wait for each other nor show each other anything.
pub async fn tenants_are_isolated(turns: &dyn SessionTurns) {
    let (acme, acme_eu) = (acme(), acme_eu());
    let ours = begin(turns, &acme, 1, 1).await;
    let theirs = begin(turns, &acme_eu, 1, 1).await;
    let mut waiting = pin!(begin(turns, &acme, 1, 2));
    append(theirs.held, 7, NOON).await;
    assert!(poll!(waiting.as_mut()).is_pending());
    let ((), waiting) = join(append(ours.held, 0, NOON), waiting).await;
    assert_eq!(waiting.history, said([0], NOON));
    waiting.held.end().await;
    assert_eq!(history(turns, &acme_eu, 1).await, said([7], NOON));
}
