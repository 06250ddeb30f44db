//! [`IdempotencyStore`].

use std::collections::HashMap;

use enigma_core::idempotency::{Begin, Fingerprint, IdempotencyEntry, IdempotencyKey, begin as decide};
use enigma_core::limit::Subject;
use enigma_core::ports::IdempotencyStore;
use enigma_core::{TenantId, Timestamp};
use futures_util::future::join_all;
use proptest::prelude::*;

use crate::fixture::{NOON, acme, acme_eu, after, request, tenant};
use crate::strategies::samples;

/// Lists the cases of this port.
#[macro_export]
macro_rules! idempotency_store_cases {
    ($run:ident) => {
        $run!(the_first_one_goes_on_and_the_others_wait);
        $run!(a_repeat_gets_the_answer_of_the_first);
        $run!(another_request_under_the_same_key_is_told_so);
        $run!(an_answer_is_kept_until_its_time_and_no_longer);
        $run!(a_key_whose_holder_died_is_free_at_the_end_of_its_lease);
        $run!(an_abandoned_key_is_free);
        $run!(only_the_holder_can_finish_or_abandon);
        $run!(an_answer_cannot_be_abandoned);
        $run!(keys_are_apart);
        $run!(of_concurrent_calls_one_is_the_first);
        $run!(decides_as_the_entry_says);
        $run!(tenants_are_isolated);
    };
}

fn key(text: &str) -> IdempotencyKey {
    IdempotencyKey::new(&Subject::new("user", "alice"), "/chat", text).expect("a valid key")
}

fn asked(what: &str) -> Fingerprint {
    Fingerprint::of(&[what.as_bytes()])
}

/// Asks for a key with a lease of a second.
async fn begin(store: &dyn IdempotencyStore, key: &IdempotencyKey, what: &str, holder: u128, now: Timestamp) -> Begin {
    let lease = now.saturating_add(std::time::Duration::from_secs(1));
    store.begin(&acme(), key, &asked(what), request(holder), lease, now).await.expect("the store answers")
}

async fn finish(store: &dyn IdempotencyStore, key: &IdempotencyKey, holder: u128, answer: &str, keep_until: Timestamp) {
    store.finish(&acme(), key, &request(holder), answer, keep_until).await.expect("the store answers");
}

async fn abandon(store: &dyn IdempotencyStore, key: &IdempotencyKey, holder: u128) {
    store.abandon(&acme(), key, &request(holder)).await.expect("the store answers");
}

fn replay(answer: &str) -> Begin {
    Begin::Replay(answer.to_owned())
}

/// As long as there is no answer, repeats are told that the first one runs.
pub async fn the_first_one_goes_on_and_the_others_wait(store: &dyn IdempotencyStore) {
    let key = key("k");
    assert_eq!(begin(store, &key, "hi", 1, NOON).await, Begin::First);
    for holder in 2..5 {
        assert_eq!(begin(store, &key, "hi", holder, after(999)).await, Begin::InProgress);
    }
}

/// Byte for byte, as often as it is asked for.
pub async fn a_repeat_gets_the_answer_of_the_first(store: &dyn IdempotencyStore) {
    for (number, answer) in
        ["{\"text\":\"Grüße, 世界 🦀\"}", "", "nul \0 and 'quotes'", &"long ".repeat(20_000)].iter().enumerate()
    {
        let key = key(&format!("k{number}"));
        assert_eq!(begin(store, &key, "hi", 1, NOON).await, Begin::First);
        finish(store, &key, 1, answer, after(60_000)).await;
        for holder in 2..5 {
            assert_eq!(begin(store, &key, "hi", holder, after(500)).await, replay(answer));
        }
    }
}

/// While the first one runs, and when it has its answer.
pub async fn another_request_under_the_same_key_is_told_so(store: &dyn IdempotencyStore) {
    let key = key("k");
    assert_eq!(begin(store, &key, "hi", 1, NOON).await, Begin::First);
    assert_eq!(begin(store, &key, "ho", 2, NOON).await, Begin::Mismatch);
    finish(store, &key, 1, "answer", after(60_000)).await;
    assert_eq!(begin(store, &key, "ho", 3, NOON).await, Begin::Mismatch);
    assert_eq!(begin(store, &key, "hi", 4, NOON).await, replay("answer"));
}

/// It outlives the lease under which it was made. Afterwards the key is as good as new, for another request too.
pub async fn an_answer_is_kept_until_its_time_and_no_longer(store: &dyn IdempotencyStore) {
    let key = key("k");
    assert_eq!(begin(store, &key, "hi", 1, NOON).await, Begin::First);
    finish(store, &key, 1, "answer", after(60_000)).await;
    assert_eq!(begin(store, &key, "hi", 2, after(59_999)).await, replay("answer"));
    assert_eq!(begin(store, &key, "ho", 3, after(60_000)).await, Begin::First);
    assert_eq!(begin(store, &key, "ho", 4, after(60_500)).await, Begin::InProgress);
}

/// Its answer, should it still come, is not taken.
pub async fn a_key_whose_holder_died_is_free_at_the_end_of_its_lease(store: &dyn IdempotencyStore) {
    let key = key("k");
    assert_eq!(begin(store, &key, "hi", 1, NOON).await, Begin::First);
    assert_eq!(begin(store, &key, "hi", 2, after(999)).await, Begin::InProgress);
    assert_eq!(begin(store, &key, "hi", 3, after(1000)).await, Begin::First);
    finish(store, &key, 1, "too late", after(60_000)).await;
    assert_eq!(begin(store, &key, "hi", 4, after(1001)).await, Begin::InProgress);
    abandon(store, &key, 1).await;
    assert_eq!(begin(store, &key, "hi", 5, after(1002)).await, Begin::InProgress);
    finish(store, &key, 3, "in time", after(60_000)).await;
    assert_eq!(begin(store, &key, "hi", 6, after(1003)).await, replay("in time"));
}

/// At once, and for another request too.
pub async fn an_abandoned_key_is_free(store: &dyn IdempotencyStore) {
    let key = key("k");
    assert_eq!(begin(store, &key, "hi", 1, NOON).await, Begin::First);
    abandon(store, &key, 1).await;
    abandon(store, &key, 1).await;
    assert_eq!(begin(store, &key, "ho", 2, NOON).await, Begin::First);
    finish(store, &key, 1, "of the one that gave up", after(60_000)).await;
    assert_eq!(begin(store, &key, "ho", 3, NOON).await, Begin::InProgress);
}

/// Those who were told to wait cannot; neither can anyone for a key that nobody holds.
pub async fn only_the_holder_can_finish_or_abandon(store: &dyn IdempotencyStore) {
    let key = key("k");
    finish(store, &key, 1, "of nobody", after(60_000)).await;
    abandon(store, &key, 1).await;
    assert_eq!(begin(store, &key, "hi", 1, NOON).await, Begin::First);
    assert_eq!(begin(store, &key, "hi", 2, NOON).await, Begin::InProgress);
    finish(store, &key, 2, "stolen", after(60_000)).await;
    abandon(store, &key, 2).await;
    assert_eq!(begin(store, &key, "hi", 3, NOON).await, Begin::InProgress);
    finish(store, &key, 1, "answer", after(60_000)).await;
    finish(store, &key, 2, "stolen", after(60_000)).await;
    assert_eq!(begin(store, &key, "hi", 3, NOON).await, replay("answer"));
}

/// Not even by the request that gave it.
pub async fn an_answer_cannot_be_abandoned(store: &dyn IdempotencyStore) {
    let key = key("k");
    assert_eq!(begin(store, &key, "hi", 1, NOON).await, Begin::First);
    finish(store, &key, 1, "answer", after(60_000)).await;
    for holder in [1, 2] {
        abandon(store, &key, holder).await;
        assert_eq!(begin(store, &key, "hi", 3, NOON).await, replay("answer"));
    }
}

/// Requests under different keys have nothing to do with each other, though they ask the same.
pub async fn keys_are_apart(store: &dyn IdempotencyStore) {
    let (one, other) = (key("k"), key("K"));
    assert_eq!(begin(store, &one, "hi", 1, NOON).await, Begin::First);
    assert_eq!(begin(store, &other, "hi", 2, NOON).await, Begin::First);
    abandon(store, &other, 1).await;
    finish(store, &other, 1, "crossed", after(60_000)).await;
    finish(store, &one, 1, "one", after(60_000)).await;
    assert_eq!(begin(store, &one, "hi", 3, NOON).await, replay("one"));
    assert_eq!(begin(store, &other, "hi", 3, NOON).await, Begin::InProgress);
}

/// The rest waits.
pub async fn of_concurrent_calls_one_is_the_first(store: &dyn IdempotencyStore) {
    let key = key("k");
    let begun = join_all((0..64).map(|holder| begin(store, &key, "hi", holder, NOON))).await;
    assert_eq!(begun.iter().filter(|it| **it == Begin::First).count(), 1);
    assert_eq!(begun.iter().filter(|it| **it == Begin::InProgress).count(), 63);
    // An expired lease is taken over once, too.
    let begun = join_all((100..164).map(|holder| begin(store, &key, "hi", holder, after(1000)))).await;
    assert_eq!(begun.iter().filter(|it| **it == Begin::First).count(), 1);
}

#[derive(Debug, Clone)]
enum Step {
    Begin { what: &'static str, lease: u64 },
    Finish { keep: u64 },
    Abandon,
}

/// Random calls are decided as [`enigma_core::idempotency::begin`] decides by the entry that they would have left.
pub async fn decides_as_the_entry_says(store: &dyn IdempotencyStore) {
    let step = prop_oneof![
        4 => (prop::sample::select(vec!["hi", "ho"]), 1u64..40).prop_map(|(what, lease)| Step::Begin { what, lease }),
        2 => (1u64..80).prop_map(|keep| Step::Finish { keep }),
        1 => Just(Step::Abandon),
    ];
    let steps = prop::collection::vec((step, 0u64..20, 0usize..2, 0u128..4), 1..80);
    for (run, steps) in samples(steps, 48).enumerate() {
        let (tenant, keys) = (tenant(&format!("run-{run}")), [key("a"), key("b")]);
        let (mut model, mut now): (HashMap<usize, IdempotencyEntry>, _) = (HashMap::new(), 1_000_000u64);
        for (step, pause, which, holder) in steps {
            now += pause;
            let (at, key, holder) = (Timestamp::from_millis(now), &keys[which], request(holder));
            // Who still has the key; after the end of a lease that is nowhere said, until somebody asks again.
            let running = model.get_mut(&which).filter(|it| it.answer.is_none() && at < it.expires_at);
            match step {
                Step::Begin { what, lease } => {
                    let lease_until = Timestamp::from_millis(now + lease);
                    let expected = decide(model.get(&which), &asked(what), at);
                    if expected == Begin::First {
                        let fingerprint = asked(what);
                        model.insert(
                            which,
                            IdempotencyEntry { fingerprint, holder, answer: None, expires_at: lease_until },
                        );
                    }
                    let begun = store.begin(&tenant, key, &asked(what), holder, lease_until, at).await;
                    assert_eq!(begun.expect("the store answers"), expected);
                }
                Step::Finish { keep } => {
                    let Some(entry) = running else { continue };
                    let (answer, keep_until) = (format!("answer at {now}"), Timestamp::from_millis(now + keep));
                    store.finish(&tenant, key, &holder, &answer, keep_until).await.expect("the store answers");
                    if entry.holder == holder {
                        (entry.answer, entry.expires_at) = (Some(answer), keep_until);
                    }
                }
                Step::Abandon => {
                    let holds = running.is_some_and(|entry| entry.holder == holder);
                    let expired = model.get(&which).is_some_and(|entry| entry.expires_at <= at);
                    if holds {
                        model.remove(&which);
                    }
                    if !expired {
                        store.abandon(&tenant, key, &holder).await.expect("the store answers");
                    }
                }
            }
        }
    }
}

/// The same key of two tenants is two keys.
pub async fn tenants_are_isolated(store: &dyn IdempotencyStore) {
    let (key, theirs) = (key("k"), acme_eu());
    let begin_theirs = async |tenant: &TenantId, holder: u128| {
        let begun = store.begin(tenant, &key, &asked("hi"), request(holder), after(1000), NOON).await;
        begun.expect("the store answers")
    };
    assert_eq!(begin(store, &key, "hi", 1, NOON).await, Begin::First);
    store.finish(&theirs, &key, &request(1), "theirs", after(60_000)).await.expect("the store answers");
    store.abandon(&theirs, &key, &request(1)).await.expect("the store answers");
    assert_eq!(begin(store, &key, "hi", 2, NOON).await, Begin::InProgress);
    finish(store, &key, 1, "ours", after(60_000)).await;
    assert_eq!(begin_theirs(&theirs, 2).await, Begin::First);
    assert_eq!(begin_theirs(&theirs, 3).await, Begin::InProgress);
    assert_eq!(begin(store, &key, "hi", 4, NOON).await, replay("ours"));
}
