//! What real threads do at the same time.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use enigma_contract::fixture::{NOON, acme, acme_eu, after, request, session, turn, user};
use enigma_core::idempotency::{Begin, Fingerprint, IdempotencyKey};
use enigma_core::limit::{LimitCheck, Subject, Window, WindowPolicy};
use enigma_core::ports::{IdSource, IdempotencyStore, RateLimiter, SessionStore, StreamSlots, TokenLedger, TurnQueue};
use enigma_core::session::Retention;
use enigma_core::tenant::TokenBudget;
use enigma_memory::testing::SeededIds;
use enigma_memory::{
    MemoryIdempotencyStore, MemoryRateLimiter, MemorySessionStore, MemoryStreamSlots, MemoryTokenLedger,
    MemoryTurnQueue,
};
use futures_util::FutureExt;
use tokio::task::{JoinSet, yield_now};

const THREADS: usize = 8;

/// Runs `work` on every thread at once, with the thread's number, and adds up what they return.
fn on_every_thread(work: impl Fn(usize) -> usize + Sync) -> usize {
    let start = Barrier::new(THREADS);
    let run = |thread| {
        start.wait();
        work(thread)
    };
    std::thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || run(thread))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no thread panics")).sum()
    })
}

/// The result of a call that never waits.
fn done<T>(call: impl Future<Output = T>) -> T {
    call.now_or_never().expect("memory does not wait")
}

#[test]
fn ten_thousand_attempts_get_as_many_slots_as_there_are() {
    let window = |limit| Window { limit, length: Duration::from_mins(1) };
    let policy = |limit| WindowPolicy { sustained: window(limit), burst: window(limit) };
    let (limiter, everybody, all, each) =
        (MemoryRateLimiter::default(), Subject::whole_tenant(), policy(1000), policy(400));
    for tenant in [acme(), acme_eu()] {
        let granted = on_every_thread(|thread| {
            // Four users with 400 each want more than the 1000 that there are for all.
            let user = Subject::new("user", &(thread % 4).to_string());
            let checks =
                [LimitCheck { subject: &user, policy: &each }, LimitCheck { subject: &everybody, policy: &all }];
            let attempt = |_: &u64| done(limiter.acquire(&tenant, &checks, NOON)).unwrap().is_granted();
            (0..10_000 / THREADS as u64).filter(attempt).count()
        });
        assert_eq!(granted, 1000);
        let left = |subject: &Subject, policy: &WindowPolicy| {
            done(limiter.peek(&tenant, &[LimitCheck { subject, policy }], NOON)).unwrap().remaining
        };
        assert_eq!(left(&everybody, &all), 0);
        let taken: u32 = (0..4).map(|n| 400 - left(&Subject::new("user", &n.to_string()), &each)).sum();
        assert_eq!(taken, 1000, "who was denied for the tenant's sake lost nothing");
    }
}

#[test]
fn no_more_streams_run_than_there_are_slots() {
    let (slots, tenant, running) = (MemoryStreamSlots::default(), acme(), AtomicUsize::new(0));
    let entered = on_every_thread(|thread| {
        let enter = |n: &u128| {
            let holder = request(thread as u128 * 10_000 + n);
            if done(slots.enter(&tenant, holder, 5, after(60_000), NOON)).unwrap().is_err() {
                return false;
            }
            assert!(running.fetch_add(1, Ordering::SeqCst) < 5);
            std::thread::yield_now();
            running.fetch_sub(1, Ordering::SeqCst);
            done(slots.leave(&tenant, &holder)).unwrap();
            true
        };
        (0..2000).filter(enter).count()
    });
    assert!(entered > 0);
    let free = (0..THREADS as u128)
        .filter(|n| done(slots.enter(&tenant, request(*n), 5, after(60_000), NOON)).unwrap().is_ok());
    assert_eq!(free.count(), 5, "everybody has left");
}

/// How a reservation ends.
enum End {
    Settle(u64),
    Release,
    Expire,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn two_thousand_reservations_never_pass_the_budget_and_end_at_what_was_settled() {
    const BUDGET: u64 = 100_000;
    let budget = TokenBudget { daily: Some(BUDGET), monthly: Some(BUDGET) };
    let ledger = Arc::new(MemoryTokenLedger::default());
    let (chance, clock) = (SeededIds::new(42), Arc::new(AtomicU64::new(0)));
    let below = |limit: u128| u64::try_from(chance.random() % limit).unwrap();

    let mut requests = JoinSet::new();
    for number in 0..2000 {
        let tokens = 1 + below(300);
        let end = match below(4) {
            0 => End::Release,
            1 => End::Expire,
            _ => End::Settle(below(u128::from(tokens) + 1)),
        };
        let (pauses, ledger, clock) = (below(20), Arc::clone(&ledger), Arc::clone(&clock));
        requests.spawn(async move {
            let (tenant, id) = (acme(), request(number));
            let now = || after(clock.fetch_add(1, Ordering::SeqCst));
            // Who is left to expire does so while the others still run.
            let lifetime = Duration::from_millis(if matches!(end, End::Expire) { 100 } else { 3_600_000 });
            let reserved = ledger.reserve(&tenant, id, tokens, &budget, lifetime, now()).await.unwrap().is_ok();
            for _ in 0..pauses {
                yield_now().await;
                let books = ledger.balance(&tenant, now()).await.unwrap();
                assert!(books.day.settled + books.held_today <= BUDGET);
                assert!(books.month.settled + books.held_this_month <= BUDGET);
            }
            if !reserved {
                return 0;
            }
            match end {
                End::Settle(used) => {
                    let settlement = ledger.settle(&tenant, &id, used, &budget, now()).await.unwrap().unwrap();
                    assert_eq!((settlement.charged, settlement.overrun), (used, 0));
                    used
                }
                End::Release => {
                    assert!(ledger.release(&tenant, &id).await.unwrap());
                    0
                }
                End::Expire => tokens,
            }
        });
    }
    let charged: u64 = requests.join_all().await.into_iter().sum();
    let books = ledger.balance(&acme(), after(1_800_000)).await.unwrap();
    assert_eq!((books.day.settled, books.month.settled), (charged, charged));
    assert_eq!((books.held_today, books.held_this_month, books.day.overrun), (0, 0, 0));
    assert!(charged > BUDGET / 4, "the budget was really fought for");
}

/// So many that no line gets longer than lines may be.
const SESSIONS: usize = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn turns_of_a_session_never_overlap_though_some_stop_waiting() {
    let queue = Arc::new(MemoryTurnQueue::default());
    let inside: Arc<Vec<AtomicUsize>> = Arc::new((0..SESSIONS).map(|_| AtomicUsize::new(0)).collect());
    let mut turns = JoinSet::new();
    for number in 0..2000usize {
        let (queue, inside) = (Arc::clone(&queue), Arc::clone(&inside));
        turns.spawn(async move {
            let which = number % SESSIONS;
            let id = session(which as u128);
            let tenant = acme();
            let mut entering = queue.enter(&tenant, &id, request(number as u128));
            if number % 3 == 0 {
                // Gives up, perhaps at the very moment in which its turn comes.
                for _ in 0..number % 7 {
                    if let Some(permit) = (&mut entering).now_or_never() {
                        drop(permit.unwrap());
                        return;
                    }
                    yield_now().await;
                }
                return;
            }
            let permit = entering.await.unwrap();
            assert_eq!(inside[which].fetch_add(1, Ordering::SeqCst), 0);
            yield_now().await;
            assert_eq!(inside[which].fetch_sub(1, Ordering::SeqCst), 1);
            drop(permit);
        });
    }
    turns.join_all().await;
    for which in 0..SESSIONS {
        let permit = queue.enter(&acme(), &session(which as u128), request(0)).now_or_never();
        assert!(permit.is_some_and(|permit| permit.is_ok()), "everybody has left");
    }
}

#[test]
fn a_permit_never_gets_lost_on_its_way_to_one_who_gives_up() {
    let (queue, tenant, id) = (MemoryTurnQueue::default(), acme(), session(1));
    let turns = on_every_thread(|thread| {
        // Every thread asks, looks once, and goes: with the permit, or without it while another thread hands it on.
        let ask = |_: &u32| queue.enter(&tenant, &id, request(thread as u128)).now_or_never().is_some();
        (0..20_000).filter(ask).count()
    });
    assert!(turns > 0);
    assert!(queue.enter(&tenant, &id, request(0)).now_or_never().is_some(), "everybody has left");
}

#[test]
fn one_of_many_threads_is_the_first_with_a_key() {
    let (store, tenant) = (MemoryIdempotencyStore::default(), acme());
    let firsts = on_every_thread(|thread| {
        let is_first = |n: &u32| {
            let key = IdempotencyKey::new(&Subject::whole_tenant(), "/chat", &n.to_string()).unwrap();
            let asked = Fingerprint::of(&[b"hi"]);
            let begun = store.begin(&tenant, &key, &asked, request(thread as u128), after(1000), NOON);
            done(begun).unwrap() == Begin::First
        };
        (0..1000).filter(is_first).count()
    });
    assert_eq!(firsts, 1000);
}

#[test]
fn turns_of_many_threads_are_appended_whole() {
    let (store, tenant) = (MemorySessionStore::default(), acme());
    let retention = Retention { days: 30, max_messages: 100_000 };
    on_every_thread(|thread| {
        for n in 0..200 {
            let first = u32::try_from(thread).unwrap() * 10_000 + n * 2;
            let turn = turn(&user("alice"), [first, first + 1], NOON);
            done(store.append_turn(&tenant, &session(1), &turn, &retention, NOON)).unwrap();
        }
        0
    });
    let kept = done(store.recent(&tenant, &session(1), u32::MAX, &retention, NOON)).unwrap().messages;
    assert_eq!(kept.len(), THREADS * 400);
    let number = |place: usize| kept[place].id.uuid().as_u128();
    let mut last = [None; THREADS];
    for place in (0..kept.len()).step_by(2) {
        assert_eq!(number(place) + 1, number(place + 1), "a turn is whole");
        let thread = usize::try_from(number(place) / 10_000).unwrap();
        assert!(last[thread].replace(number(place)) < Some(number(place)), "a thread's turns are in its order");
    }
}
