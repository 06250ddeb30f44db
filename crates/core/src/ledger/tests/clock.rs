//! A clock that is wrong for a while. What it says and what is true are told apart here, as the ledger cannot.

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
enum Move {
    Reserve {
        tokens: u64,
    },
    Settle {
        used: u64,
    },
    Wait {
        millis: u64,
    },
    /// The clock is off by so many days from now on.
    Off {
        days: i64,
    },
}

fn moves(days: std::ops::Range<i64>) -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        5 => (1u64..70).prop_map(|tokens| Move::Reserve { tokens }),
        3 => (0u64..90).prop_map(|used| Move::Settle { used }),
        2 => (0u64..DAY / 4).prop_map(|millis| Move::Wait { millis }),
        2 => days.prop_map(|days| Move::Off { days }),
        2 => Just(Move::Off { days: 0 }),
    ];
    proptest::collection::vec(one, 1..100)
}

/// What was really spent and set aside, and when that really was.
#[derive(Default)]
struct Truth {
    spent: Vec<(Timestamp, u64)>,
    open: Vec<(u128, Timestamp, u64)>,
}

impl Truth {
    fn total(&self, is_in: impl Fn(Timestamp) -> bool) -> u64 {
        let spent: u64 = self.spent.iter().filter(|(at, _)| is_in(*at)).map(|(_, tokens)| tokens).sum();
        let held: u64 = self.open.iter().filter(|(_, at, _)| is_in(*at)).map(|(_, _, tokens)| tokens).sum();
        spent + held
    }
}

/// Plays `moves`, and asserts that whatever is granted while the clock is right fits the budget of the true day, and of the true
/// month where `months` are checked, with all that was granted in it before, whatever the clock had said then.
fn play(moves: Vec<Move>, budget: &TokenBudget, months: bool) -> Result<(), TestCaseError> {
    let (mut ledger, mut truth) = (Ledger::default(), Truth::default());
    let (mut now, mut off, mut last) = (400 * DAY + DAY / 2, 0i64, 0);
    ledger.expire(at(now));
    for step in moves {
        let told = at(now.checked_add_signed(off * DAY.cast_signed()).unwrap());
        match step {
            // Over midnight, a clock that is behind opens another day's books, as if it were right.
            Move::Wait { millis } if off < 0 => now = (now + millis).min(now - now % DAY + DAY - 1),
            Move::Wait { millis } => {
                now += millis;
                if off == 0 {
                    ledger.expire(at(now));
                }
            }
            // A clock that fell behind is wrong in one way until it is right again; one that ran ahead may be wrong in many.
            Move::Off { days } if off < 0 && days < 0 => {}
            Move::Off { days } => {
                off = days;
                if off == 0 {
                    // Somebody looks, so that it is known.
                    ledger.expire(at(now));
                }
            }
            Move::Reserve { tokens } => {
                last += 1;
                // Longer than any step of the clock, so that nothing expires.
                let lifetime = Duration::from_secs(1000 * 86_400);
                if ledger.reserve(id(last), tokens, budget, lifetime, told).is_ok() {
                    truth.open.push((last, at(now), tokens));
                    if off == 0 {
                        let day = truth.total(|when| when.day_start() == at(now).day_start());
                        prop_assert!(day <= budget.daily.unwrap(), "{day} in one day");
                        let month = truth.total(|when| when.month_start() == at(now).month_start());
                        prop_assert!(!months || month <= budget.monthly.unwrap(), "{month} in one month");
                    }
                }
            }
            Move::Settle { used } => {
                let Some((who, when, tokens)) = truth.open.pop() else { continue };
                let settled = ledger.settle(&id(who), used, budget, told);
                prop_assert!(settled.is_some());
                // What no budget covered was not granted.
                truth.spent.push((when, used.min(tokens)));
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn after_a_clock_that_ran_ahead_the_true_day_and_month_are_bounded_by_their_budgets(moves in moves(1..60)) {
        play(moves, &TokenBudget { daily: Some(200), monthly: Some(450) }, true)?;
    }

    #[test]
    fn after_a_clock_that_fell_behind_the_true_day_is_bounded_by_its_budget(moves in moves(-60..0)) {
        play(moves, &TokenBudget { daily: Some(200), monthly: None }, false)?;
    }

    /// A mistake is over with the day that it happened on. Only the very day that the clock had named begins with what was
    /// spent in its name, and here it lies further ahead than time goes.
    #[test]
    fn the_day_after_a_mistake_has_its_whole_budget(moves in moves(40..60)) {
        let budget = TokenBudget { daily: Some(200), monthly: None };
        let mut ledger = Ledger::default();
        let (mut now, mut off) = (400 * DAY, 0);
        for (step, n) in moves.into_iter().zip(1..) {
            match step {
                Move::Wait { millis } => now += millis,
                Move::Off { days } => off = days.cast_unsigned(),
                Move::Reserve { tokens } => {
                    let _ = ledger.reserve(id(n), tokens, &budget, MINUTE, at(now + off * DAY));
                    ledger.settle(&id(n), tokens, &budget, at(now + off * DAY));
                }
                Move::Settle { .. } => {}
            }
        }
        // Put right on the day of the mistake, and not only on the next one.
        ledger.expire(at(now));
        let tomorrow = at(now).next_day_start();
        prop_assert!(ledger.reserve(id(1000), 200, &budget, MINUTE, tomorrow).is_ok());
    }
}

#[test]
fn a_clock_that_jumped_ahead_freezes_nothing_when_it_is_put_right() {
    let budget = TokenBudget { daily: Some(100), monthly: Some(300) };
    let mut ledger = Ledger::default();
    let noon = Timestamp::parse_rfc3339("2026-11-23T12:00:00Z").unwrap();
    let later = noon.saturating_add(Duration::from_secs(900 * 86_400));
    let mut spend = |n: u128, tokens: u64, at: Timestamp| {
        ledger.reserve(id(n), tokens, &budget, MINUTE, at)?;
        ledger.settle(&id(n), tokens, &budget, at);
        Ok::<_, BudgetExceeded>((ledger.day().settled, ledger.month().settled))
    };
    assert_eq!(spend(1, 30, noon), Ok((30, 30)));
    assert_eq!(spend(2, 60, later), Ok((60, 60)), "nobody can know yet");
    // Right again: the day has 90 of its 100, and knows when it really ends.
    let denied = spend(3, 11, noon).unwrap_err();
    assert_eq!((denied.period, denied.resets_at), (BudgetPeriod::Daily, noon.next_day_start()));
    assert_eq!(spend(4, 10, noon), Ok((100, 100)));
    assert_eq!(spend(5, 100, noon.next_day_start()), Ok((100, 200)));
}

#[test]
fn a_second_before_midnight_is_no_new_day() {
    let budget = TokenBudget { daily: Some(100), monthly: None };
    let mut ledger = Ledger::default();
    let midnight = Timestamp::parse_rfc3339("2026-11-24T00:00:00Z").unwrap();
    let (before, after) =
        (midnight.saturating_sub(Duration::from_secs(1)), midnight.saturating_add(Duration::from_secs(1)));
    let mut spend = |n: u128, tokens: u64, at: Timestamp| {
        let granted = ledger.reserve(id(n), tokens, &budget, MINUTE, at).is_ok();
        ledger.settle(&id(n), tokens, &budget, at);
        granted
    };
    assert!(spend(1, 60, before));
    assert!(spend(2, 30, after));
    for n in 0..5 {
        assert!(!spend(10 + n, 20, before), "60 and 30 are spent");
        assert!(spend(20 + n, 10, after), "the new day goes on where it was");
    }
    assert!(!spend(30, 30, after), "80 of the new day are spent");
    assert!(spend(31, 20, after));
}

#[test]
fn what_a_restart_forgets_is_only_what_an_earlier_date_had() {
    let budget = TokenBudget { daily: Some(100), monthly: None };
    let mut ledger = Ledger::default();
    ledger.reserve(id(1), 70, &budget, MINUTE, at(500 * DAY)).unwrap();
    let rows: Vec<_> = ledger.holds.iter().map(|(id, hold)| (*id, *hold)).collect();
    let mut ledger = Ledger::restore(*ledger.day(), *ledger.month(), rows);
    assert!(ledger.reserve(id(2), 31, &budget, MINUTE, at(400 * DAY)).is_err(), "70 are set aside, whatever the date");
    ledger.settle(&id(1), 50, &budget, at(400 * DAY));
    assert_eq!((ledger.day().start, ledger.day().settled), (at(400 * DAY), 50));
    assert!(ledger.reserve(id(2), 50, &budget, MINUTE, at(400 * DAY)).is_ok());
}
