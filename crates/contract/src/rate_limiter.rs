//! [`RateLimiter`].

use std::collections::HashMap;
use std::time::Duration;

use enigma_core::limit::{Decision, LimitCheck, RateStatus, SlidingWindow, Subject, Window, WindowPolicy, acquire_all};
use enigma_core::ports::RateLimiter;
use enigma_core::{TenantId, Timestamp};
use futures_util::future::join_all;
use proptest::prelude::*;

use crate::fixture::{NOON, acme, acme_eu, after, tenant};
use crate::strategies::{samples, window_policies};

/// Lists the cases of this port.
#[macro_export]
macro_rules! rate_limiter_cases {
    ($run:ident) => {
        $run!(takes_up_to_the_limit);
        $run!(a_slot_frees_when_it_leaves_its_window);
        $run!(a_burst_is_limited_too);
        $run!(denied_calls_change_nothing);
        $run!(a_call_that_one_check_denies_leaves_every_window_unchanged);
        $run!(concurrent_calls_never_take_more_than_a_window_holds);
        $run!(concurrent_subjects_share_the_tenants_window);
        $run!(a_peek_takes_nothing);
        $run!(subjects_are_counted_apart);
        $run!(a_subject_that_was_idle_has_its_whole_limit_again);
        $run!(a_clock_that_steps_back_grants_nothing_extra);
        $run!(a_policy_may_change_between_calls);
        $run!(decides_as_the_sliding_window_does);
        $run!(decides_on_several_checks_as_the_sliding_windows_do);
        $run!(tenants_are_isolated);
    };
}

fn policy(limit: u32) -> WindowPolicy {
    let window = Window { limit, length: Duration::from_mins(1) };
    WindowPolicy { sustained: window, burst: window }
}

fn alice() -> Subject {
    Subject::new("user", "alice")
}

async fn acquire(
    limiter: &dyn RateLimiter,
    tenant: &TenantId,
    checks: &[(&Subject, &WindowPolicy)],
    now: Timestamp,
) -> Decision {
    let checks: Vec<_> = checks.iter().map(|(subject, policy)| LimitCheck { subject, policy }).collect();
    limiter.acquire(tenant, &checks, now).await.expect("the limiter answers")
}

async fn peek(
    limiter: &dyn RateLimiter,
    tenant: &TenantId,
    checks: &[(&Subject, &WindowPolicy)],
    now: Timestamp,
) -> RateStatus {
    let checks: Vec<_> = checks.iter().map(|(subject, policy)| LimitCheck { subject, policy }).collect();
    limiter.peek(tenant, &checks, now).await.expect("the limiter answers")
}

/// As many calls as the limit are granted, the next one is not, and the status counts down.
pub async fn takes_up_to_the_limit(limiter: &dyn RateLimiter) {
    let (alice, policy) = (alice(), policy(3));
    for remaining in [2, 1, 0] {
        let decision = acquire(limiter, &acme(), &[(&alice, &policy)], NOON).await;
        assert!(decision.is_granted());
        assert_eq!(decision.status().remaining, remaining);
        assert_eq!(decision.status().limit, 3);
    }
    let denied = acquire(limiter, &acme(), &[(&alice, &policy)], NOON).await;
    assert!(!denied.is_granted());
    assert_eq!(denied.status().reset_at, after(60_000));
}

/// A slot is free again at `reset_at`, and not a millisecond sooner; one at a time.
pub async fn a_slot_frees_when_it_leaves_its_window(limiter: &dyn RateLimiter) {
    let (alice, policy) = (alice(), policy(2));
    assert!(acquire(limiter, &acme(), &[(&alice, &policy)], after(0)).await.is_granted());
    assert!(acquire(limiter, &acme(), &[(&alice, &policy)], after(10)).await.is_granted());
    let denied = acquire(limiter, &acme(), &[(&alice, &policy)], after(59_999)).await;
    assert!(!denied.is_granted());
    assert_eq!(denied.status().reset_at, after(60_000));
    assert!(acquire(limiter, &acme(), &[(&alice, &policy)], after(60_000)).await.is_granted());
    assert!(!acquire(limiter, &acme(), &[(&alice, &policy)], after(60_009)).await.is_granted());
    assert!(acquire(limiter, &acme(), &[(&alice, &policy)], after(60_010)).await.is_granted());
}

/// The short window denies what the long one would still allow.
pub async fn a_burst_is_limited_too(limiter: &dyn RateLimiter) {
    let alice = alice();
    let policy = WindowPolicy { burst: Window { limit: 2, length: Duration::from_secs(5) }, ..policy(10) };
    for _ in 0..2 {
        assert!(acquire(limiter, &acme(), &[(&alice, &policy)], NOON).await.is_granted());
    }
    let denied = acquire(limiter, &acme(), &[(&alice, &policy)], after(1)).await;
    assert!(!denied.is_granted());
    assert_eq!((denied.status().limit, denied.status().reset_at), (2, after(5000)));
    assert!(acquire(limiter, &acme(), &[(&alice, &policy)], after(5000)).await.is_granted());
}

/// However often a denied caller tries, its next slot frees at the same time.
pub async fn denied_calls_change_nothing(limiter: &dyn RateLimiter) {
    let (alice, policy) = (alice(), policy(1));
    assert!(acquire(limiter, &acme(), &[(&alice, &policy)], NOON).await.is_granted());
    for pause in 1..50 {
        let denied = acquire(limiter, &acme(), &[(&alice, &policy)], after(pause * 1000)).await;
        assert!(!denied.is_granted());
        assert_eq!(denied.status().reset_at, after(60_000));
    }
    assert!(acquire(limiter, &acme(), &[(&alice, &policy)], after(60_000)).await.is_granted());
}

/// All or none, whichever of the checks it is that denies.
pub async fn a_call_that_one_check_denies_leaves_every_window_unchanged(limiter: &dyn RateLimiter) {
    let (alice, bob, everybody) = (alice(), Subject::new("user", "bob"), Subject::whole_tenant());
    let (one, three) = (policy(1), policy(3));
    let ask = async |who: &Subject| acquire(limiter, &acme(), &[(who, &one), (&everybody, &three)], NOON).await;

    assert!(ask(&alice).await.is_granted());
    for _ in 0..5 {
        let denied = ask(&alice).await;
        assert!(!denied.is_granted());
        assert_eq!((denied.status().limit, denied.status().remaining), (1, 0), "it is the user's own limit");
    }
    assert_eq!(peek(limiter, &acme(), &[(&everybody, &three)], NOON).await.remaining, 2);

    for name in ["b", "c"] {
        assert!(ask(&Subject::new("user", name)).await.is_granted());
    }
    let denied = ask(&bob).await;
    assert!(!denied.is_granted());
    assert_eq!((denied.status().limit, denied.status().remaining), (3, 0), "it is the tenant's limit");
    assert_eq!(peek(limiter, &acme(), &[(&bob, &one)], NOON).await.remaining, 1);
}

/// Of many calls at once, as many are granted as there are slots.
pub async fn concurrent_calls_never_take_more_than_a_window_holds(limiter: &dyn RateLimiter) {
    let (alice, policy) = (alice(), policy(10));
    let calls = (0..64).map(|_| async { acquire(limiter, &acme(), &[(&alice, &policy)], NOON).await.is_granted() });
    let granted = join_all(calls).await.into_iter().filter(|granted| *granted).count();
    assert_eq!(granted, 10);
}

/// Calls of many users at once take no more than the tenant has, and none of them leaves a trace in a window of its own.
pub async fn concurrent_subjects_share_the_tenants_window(limiter: &dyn RateLimiter) {
    let (everybody, one, ten) = (Subject::whole_tenant(), policy(1), policy(10));
    let users: Vec<_> = (0..64).map(|n| Subject::new("user", &n.to_string())).collect();
    let calls = users.iter().map(|user| {
        let checks = [(user, &one), (&everybody, &ten)];
        async move { acquire(limiter, &acme(), &checks, NOON).await.is_granted() }
    });
    let granted = join_all(calls).await;
    assert_eq!(granted.iter().filter(|granted| **granted).count(), 10);
    for (user, granted) in users.iter().zip(granted) {
        let left = peek(limiter, &acme(), &[(user, &one)], NOON).await.remaining;
        assert_eq!(left, u32::from(!granted));
    }
}

/// To look changes nothing, and says what the decision before it said.
pub async fn a_peek_takes_nothing(limiter: &dyn RateLimiter) {
    let (alice, everybody, two, five) = (alice(), Subject::whole_tenant(), policy(2), policy(5));
    let checks = [(&alice, &two), (&everybody, &five)];
    for _ in 0..5 {
        assert_eq!(peek(limiter, &acme(), &checks, NOON).await.remaining, 2);
    }
    for _ in 0..2 {
        let decision = acquire(limiter, &acme(), &checks, NOON).await;
        assert!(decision.is_granted());
        for _ in 0..5 {
            assert_eq!(peek(limiter, &acme(), &checks, NOON).await, *decision.status());
        }
    }
    assert!(!acquire(limiter, &acme(), &checks, NOON).await.is_granted());
    assert_eq!(peek(limiter, &acme(), &checks, after(60_000)).await.remaining, 2);
}

/// One user's calls do not count against another's; neither do those of a key or an address of the same name.
pub async fn subjects_are_counted_apart(limiter: &dyn RateLimiter) {
    let policy = policy(1);
    let names = [
        ("user", "a"),
        ("key", "a"),
        ("address", "a"),
        ("user", "a:b"),
        ("user", ""),
        ("user", "b"),
        ("user", "tenant"),
    ];
    for (kind, name) in names {
        let subject = Subject::new(kind, name);
        assert!(acquire(limiter, &acme(), &[(&subject, &policy)], NOON).await.is_granted(), "{subject}");
    }
    assert!(acquire(limiter, &acme(), &[(&Subject::whole_tenant(), &policy)], NOON).await.is_granted());
    for (kind, name) in names {
        let subject = Subject::new(kind, name);
        assert!(!acquire(limiter, &acme(), &[(&subject, &policy)], NOON).await.is_granted(), "{subject}");
    }
}

/// A subject that comes back after a long time is as good as new, and is counted from then on.
pub async fn a_subject_that_was_idle_has_its_whole_limit_again(limiter: &dyn RateLimiter) {
    let (alice, bob, policy) = (alice(), Subject::new("user", "bob"), policy(2));
    for hour in [0, 1, 2, 24, 1000] {
        let now = after(hour * 3_600_000);
        // Somebody else keeps the limiter busy meanwhile, so that it has occasion to forget.
        for minute in 0..10 {
            let moment = now.saturating_add(Duration::from_mins(minute));
            assert!(acquire(limiter, &acme(), &[(&bob, &policy)], moment).await.is_granted());
        }
        let now = now.saturating_add(Duration::from_mins(10));
        for granted in [true, true, false] {
            assert_eq!(acquire(limiter, &acme(), &[(&alice, &policy)], now).await.is_granted(), granted);
        }
    }
}

/// A step back, however long, neither frees a slot nor lets one in twice.
pub async fn a_clock_that_steps_back_grants_nothing_extra(limiter: &dyn RateLimiter) {
    let (alice, policy) = (alice(), policy(2));
    for back in [60_000, 0] {
        assert!(acquire(limiter, &acme(), &[(&alice, &policy)], after(back)).await.is_granted());
    }
    for now in [after(0), after(60_000), Timestamp::from_millis(0), after(119_999)] {
        assert!(!acquire(limiter, &acme(), &[(&alice, &policy)], now).await.is_granted());
    }
    assert!(acquire(limiter, &acme(), &[(&alice, &policy)], after(120_000)).await.is_granted());
}

/// A stricter policy counts what was granted under a milder one.
pub async fn a_policy_may_change_between_calls(limiter: &dyn RateLimiter) {
    let (alice, strict, mild) = (alice(), policy(2), policy(4));
    for _ in 0..3 {
        assert!(acquire(limiter, &acme(), &[(&alice, &mild)], NOON).await.is_granted());
    }
    assert!(!acquire(limiter, &acme(), &[(&alice, &strict)], NOON).await.is_granted());
    assert!(acquire(limiter, &acme(), &[(&alice, &mild)], NOON).await.is_granted());
    assert!(!acquire(limiter, &acme(), &[(&alice, &mild)], NOON).await.is_granted());
}

/// Random calls, with a clock that also steps back a little, are decided as [`SlidingWindow`] decides them.
pub async fn decides_as_the_sliding_window_does(limiter: &dyn RateLimiter) {
    let sequences = (window_policies(), prop::collection::vec((-20i64..40, any::<bool>()), 1..80));
    for (run, (policy, steps)) in samples(sequences, 48).enumerate() {
        let (tenant, alice) = (tenant(&format!("run-{run}")), alice());
        let (mut model, mut now) = (SlidingWindow::default(), 1_000_000u64);
        for (step, looks) in steps {
            now = now.saturating_add_signed(step);
            let now = Timestamp::from_millis(now);
            if looks {
                assert_eq!(peek(limiter, &tenant, &[(&alice, &policy)], now).await, model.peek(&policy, now));
            } else {
                assert_eq!(acquire(limiter, &tenant, &[(&alice, &policy)], now).await, model.acquire(&policy, now));
            }
        }
    }
}

/// Random calls of several users, each with a limit of its own and one for all, are decided as [`acquire_all`] decides them.
pub async fn decides_on_several_checks_as_the_sliding_windows_do(limiter: &dyn RateLimiter) {
    let steps = prop::collection::vec((0u64..15, 0usize..3, any::<bool>()), 1..80);
    for (run, (one, all, steps)) in samples((window_policies(), window_policies(), steps), 48).enumerate() {
        let (tenant, everybody) = (tenant(&format!("run-{run}")), Subject::whole_tenant());
        let users = ["a", "b", "c"].map(|name| Subject::new("user", name));
        let mut models: HashMap<usize, SlidingWindow> = HashMap::new();
        let (mut tenants, mut now) = (SlidingWindow::default(), 1_000_000u64);
        for (step, who, looks) in steps {
            now += step;
            let now = Timestamp::from_millis(now);
            let model = models.entry(who).or_default();
            let checks = [(&users[who], &one), (&everybody, &all)];
            if looks {
                let remaining = model.peek(&one, now).remaining.min(tenants.peek(&all, now).remaining);
                assert_eq!(peek(limiter, &tenant, &checks, now).await.remaining, remaining);
            } else {
                let expected = acquire_all(&mut [(&mut *model, &one), (&mut tenants, &all)], now);
                assert_eq!(acquire(limiter, &tenant, &checks, now).await, expected);
            }
        }
    }
}

/// The same subject of two tenants is two subjects.
pub async fn tenants_are_isolated(limiter: &dyn RateLimiter) {
    let (alice, everybody, policy) = (alice(), Subject::whole_tenant(), policy(1));
    let checks = [(&alice, &policy), (&everybody, &policy)];
    assert!(acquire(limiter, &acme(), &checks, NOON).await.is_granted());
    assert!(!acquire(limiter, &acme(), &checks, NOON).await.is_granted());
    assert_eq!(peek(limiter, &acme_eu(), &checks, NOON).await.remaining, 1);
    assert!(acquire(limiter, &acme_eu(), &checks, NOON).await.is_granted());
    assert!(!acquire(limiter, &acme_eu(), &checks, NOON).await.is_granted());
}
