use proptest::prelude::*;

use super::*;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn window(limit: u32, millis: u64) -> Window {
    Window { limit, length: Duration::from_millis(millis) }
}

fn policies() -> impl Strategy<Value = WindowPolicy> {
    (1u32..8, 1u32..8, 1u64..40, 1u64..40).prop_map(|(sustained, burst, long, short)| WindowPolicy {
        sustained: window(sustained, long.max(short)),
        burst: window(burst, long.min(short)),
    })
}

/// The definition, by brute force over every request that was ever granted.
#[derive(Default)]
struct Oracle {
    granted: Vec<Timestamp>,
}

impl Oracle {
    fn held(&self, window: &Window, now: Timestamp) -> usize {
        self.granted.iter().filter(|at| at.saturating_add(window.length) > now).count()
    }

    fn has_room(&self, policy: &WindowPolicy, now: Timestamp) -> bool {
        [policy.sustained, policy.burst].iter().all(|w| self.held(w, now) < w.limit as usize)
    }

    fn acquire(&mut self, policy: &WindowPolicy, now: Timestamp) -> bool {
        let now = self.granted.last().map_or(now, |last| now.max(*last));
        let room = self.has_room(policy, now);
        if room {
            self.granted.push(now);
        }
        room
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn decisions_status_and_reset_are_those_of_the_definition(
        policy in policies(), steps in proptest::collection::vec(-30i64..40, 1..120)
    ) {
        let (mut sliding, mut oracle, mut clock) = (SlidingWindow::default(), Oracle::default(), 1000i64);
        for step in steps {
            clock += step; // the clock may step back
            let now = at(clock.unsigned_abs());
            let before = sliding.clone();
            let decision = sliding.acquire(&policy, now);
            prop_assert_eq!(decision.is_granted(), oracle.acquire(&policy, now));
            let now = oracle.granted.last().map_or(now, |last| now.max(*last));
            let status = *decision.status();
            if decision.is_granted() {
                let left = [policy.sustained, policy.burst].map(|w| w.limit - u32::try_from(oracle.held(&w, now)).unwrap());
                prop_assert_eq!(status.remaining, left[0].min(left[1]));
                prop_assert_eq!(sliding.peek(&policy, now), status, "a look says the same as the decision before it");
            } else {
                prop_assert_eq!(&before, &sliding, "a denied call changes nothing");
                prop_assert_eq!(status.remaining, 0);
                prop_assert!(oracle.has_room(&policy, status.reset_at), "a slot frees at reset_at");
                prop_assert!(!oracle.has_room(&policy, at(status.reset_at.as_millis() - 1)), "and not before");
            }
            prop_assert!(sliding.granted().len() <= policy.sustained.limit as usize, "memory is bounded by the limit");
        }
        // No window of either length ever holds more than its limit, wherever it starts.
        for window in [policy.sustained, policy.burst] {
            for start in &oracle.granted {
                let end = start.saturating_add(window.length);
                let held = oracle.granted.iter().filter(|at| *start <= **at && **at < end).count();
                prop_assert!(held <= window.limit as usize);
            }
        }
    }

    #[test]
    fn a_restored_window_decides_as_the_one_it_was_made_from(
        policy in policies(), steps in proptest::collection::vec(0u64..12, 1..60)
    ) {
        let (mut kept, mut clock) = (SlidingWindow::default(), 0);
        for step in steps {
            clock += step;
            let mut restored = SlidingWindow::from_granted(kept.granted());
            prop_assert_eq!(restored.acquire(&policy, at(clock)), kept.acquire(&policy, at(clock)));
        }
    }

    #[test]
    fn a_policy_may_change_between_requests(
        changes in proptest::collection::vec((policies(), 0u64..12), 1..60)
    ) {
        let (mut sliding, mut oracle, mut clock) = (SlidingWindow::default(), Oracle::default(), 0);
        for (policy, step) in changes {
            clock += step;
            let decision = sliding.acquire(&policy, at(clock));
            // What an older and shorter policy has let go is gone; so it may grant more than the oracle, never less.
            if oracle.has_room(&policy, at(clock)) {
                prop_assert!(decision.is_granted());
            }
            if decision.is_granted() {
                oracle.granted.push(at(clock));
                let held = sliding.granted().filter(|t| !has_left(*t, &policy.burst, at(clock))).count();
                let left = policy.burst.limit - u32::try_from(held).unwrap();
                prop_assert!(decision.status().remaining <= left);
            }
        }
    }

    #[test]
    fn several_windows_grant_all_or_none(
        user in policies(), tenant in policies(), steps in proptest::collection::vec((0u64..12, 0usize..3), 1..80)
    ) {
        let mut users: Vec<SlidingWindow> = vec![SlidingWindow::default(); 3];
        let (mut all, mut clock) = (SlidingWindow::default(), 0);
        for (step, who) in steps {
            clock += step;
            let before = (users[who].clone(), all.clone());
            let free = before.0.has_room(&user, at(clock)) && before.1.has_room(&tenant, at(clock));
            let decision = acquire_all(&mut [(&mut users[who], &user), (&mut all, &tenant)], at(clock));
            prop_assert_eq!(decision.is_granted(), free);
            let looked = peek_all(&[(&users[who], &user), (&all, &tenant)], at(clock));
            prop_assert_eq!(&looked, decision.status(), "a look says the same as the decision before it");
            if free {
                prop_assert!(users[who].granted().last() == Some(at(clock)) && all.granted().last() == Some(at(clock)));
            } else {
                prop_assert_eq!(&before, &(users[who].clone(), all.clone()));
                prop_assert!(decision.status().reset_at > at(clock));
            }
        }
    }

    #[test]
    fn a_slot_that_is_given_back_can_be_taken_again(policy in policies(), steps in proptest::collection::vec(0u64..12, 1..40)) {
        let (mut sliding, mut clock) = (SlidingWindow::default(), 0);
        for step in steps {
            clock += step;
            let before: Vec<_> = sliding.granted().filter(|t| !has_left(*t, &policy.sustained, at(clock))).collect();
            if let Decision::Granted { at: taken, .. } = sliding.acquire(&policy, at(clock)) {
                sliding.give_back(taken);
                prop_assert_eq!(sliding.granted().collect::<Vec<_>>(), before);
                prop_assert!(sliding.acquire(&policy, at(clock)).is_granted());
            }
        }
    }
}
