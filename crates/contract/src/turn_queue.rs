//! [`TurnQueue`].

use std::pin::pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use enigma_core::TenantId;
use enigma_core::ports::{TurnPermit, TurnQueue};
use futures_util::future::{join, join_all, poll_fn};
use futures_util::poll;

use crate::fixture::{acme, acme_eu, request, session};

/// Lists the cases of this port.
#[macro_export]
macro_rules! turn_queue_cases {
    ($run:ident) => {
        $run!(the_next_one_waits_for_the_permit_to_be_dropped);
        $run!(permits_are_given_in_the_order_in_which_they_were_asked_for);
        $run!(concurrent_turns_never_overlap);
        $run!(who_stops_waiting_does_not_keep_the_others_waiting);
        $run!(whose_turn_has_come_and_who_is_gone_does_not_keep_the_others_waiting);
        $run!(a_queue_that_everybody_has_left_can_be_entered_again);
        $run!(other_sessions_do_not_wait);
        $run!(tenants_are_isolated);
    };
}

async fn enter(queue: &dyn TurnQueue, tenant: &TenantId, in_session: u128, number: u128) -> TurnPermit {
    queue.enter(tenant, &session(in_session), request(number)).await.expect("the queue answers")
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

/// There is one permit, and it passes on when it is dropped.
pub async fn the_next_one_waits_for_the_permit_to_be_dropped(queue: &dyn TurnQueue) {
    let acme = acme();
    let first = enter(queue, &acme, 1, 1).await;
    let mut second = pin!(enter(queue, &acme, 1, 2));
    for _ in 0..5 {
        assert!(poll!(second.as_mut()).is_pending());
    }
    drop(first);
    let second = second.await;
    let mut third = pin!(enter(queue, &acme, 1, 3));
    assert!(poll!(third.as_mut()).is_pending());
    drop(second);
    drop(third.await);
}

/// First come, first served, however many wait.
pub async fn permits_are_given_in_the_order_in_which_they_were_asked_for(queue: &dyn TurnQueue) {
    let (acme, served) = (acme(), Mutex::new(Vec::new()));
    let first = enter(queue, &acme, 1, 1000).await;
    let waiters = join_all((0..40).map(|number| {
        let (acme, served) = (&acme, &served);
        async move {
            let permit = enter(queue, acme, 1, number).await;
            served.lock().expect("nobody panics with it").push(number);
            pause().await;
            drop(permit);
        }
    }));
    let mut waiters = pin!(waiters);
    assert!(poll!(waiters.as_mut()).is_pending());
    assert!(served.lock().expect("nobody panics with it").is_empty());
    drop(first);
    waiters.await;
    assert_eq!(*served.lock().expect("nobody panics with it"), (0..40).collect::<Vec<_>>());
}

/// At no time do two hold a permit of one session.
pub async fn concurrent_turns_never_overlap(queue: &dyn TurnQueue) {
    let (acme, inside, turns) = (acme(), AtomicUsize::new(0), AtomicUsize::new(0));
    join_all((0..40).map(|number| {
        let (acme, inside, turns) = (&acme, &inside, &turns);
        async move {
            for _ in 0..number % 4 {
                pause().await;
            }
            let permit = enter(queue, acme, 1, number).await;
            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
            for _ in 0..number % 3 {
                pause().await;
            }
            assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1);
            turns.fetch_add(1, Ordering::SeqCst);
            drop(permit);
        }
    }))
    .await;
    assert_eq!(turns.load(Ordering::SeqCst), 40);
}

/// A waiter may go at any place of the line.
pub async fn who_stops_waiting_does_not_keep_the_others_waiting(queue: &dyn TurnQueue) {
    let acme = acme();
    let first = enter(queue, &acme, 1, 1).await;
    let mut waiters: Vec<_> = (2..8).map(|number| Box::pin(enter(queue, &acme, 1, number))).collect();
    for waiter in &mut waiters {
        assert!(poll!(waiter.as_mut()).is_pending());
    }
    // The first of the line, one in its middle, and the last.
    for place in [5, 2, 0] {
        drop(waiters.remove(place));
    }
    drop(first);
    join_all(waiters.into_iter().map(|waiter| async { drop(waiter.await) })).await;
}

/// A waiter may go between the moment in which it is let in and the moment in which it would have noticed.
pub async fn whose_turn_has_come_and_who_is_gone_does_not_keep_the_others_waiting(queue: &dyn TurnQueue) {
    let acme = acme();
    let first = enter(queue, &acme, 1, 1).await;
    let mut second = Box::pin(enter(queue, &acme, 1, 2));
    let mut third = Box::pin(enter(queue, &acme, 1, 3));
    assert!(poll!(second.as_mut()).is_pending());
    assert!(poll!(third.as_mut()).is_pending());
    drop(first);
    drop(second);
    drop(third.await);
    drop(enter(queue, &acme, 1, 4).await);
}

/// An empty queue is as good as new.
pub async fn a_queue_that_everybody_has_left_can_be_entered_again(queue: &dyn TurnQueue) {
    let acme = acme();
    for number in 0..5 {
        let permit = enter(queue, &acme, 1, number).await;
        let mut gone = Box::pin(enter(queue, &acme, 1, 100 + number));
        assert!(poll!(gone.as_mut()).is_pending());
        drop(gone);
        drop(permit);
    }
}

/// The turns of one session have nothing to do with those of another.
pub async fn other_sessions_do_not_wait(queue: &dyn TurnQueue) {
    let acme = acme();
    let first = enter(queue, &acme, 1, 1).await;
    let (second, third) = join(enter(queue, &acme, 2, 2), enter(queue, &acme, 3, 3)).await;
    let mut waiting = pin!(enter(queue, &acme, 1, 4));
    assert!(poll!(waiting.as_mut()).is_pending());
    drop((second, third));
    assert!(poll!(waiting.as_mut()).is_pending());
    drop(first);
    drop(waiting.await);
}

/// Sessions of two tenants that have one id do not wait for each other.
pub async fn tenants_are_isolated(queue: &dyn TurnQueue) {
    let (acme, acme_eu) = (acme(), acme_eu());
    let ours = enter(queue, &acme, 1, 1).await;
    let theirs = enter(queue, &acme_eu, 1, 1).await;
    let mut waiting = pin!(enter(queue, &acme, 1, 2));
    drop(theirs);
    assert!(poll!(waiting.as_mut()).is_pending());
    drop(ours);
    drop(waiting.await);
}
