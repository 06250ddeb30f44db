mod clock;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const DAY: u64 = 86_400_000;

fn id(n: u128) -> RequestId {
    RequestId::new(Uuid::from_u128(n))
}

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

#[derive(Debug, Clone)]
enum Step {
    Reserve { who: u128, tokens: u64, lifetime: u64 },
    Settle { who: u128, used: u64 },
    Release { who: u128 },
    Wait { millis: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let who = || 0u128..12;
    let step = prop_oneof![
        4 => (who(), 0u64..60, 1u64..3 * DAY).prop_map(|(who, tokens, lifetime)| Step::Reserve { who, tokens, lifetime }),
        3 => (who(), 0u64..90).prop_map(|(who, used)| Step::Settle { who, used }),
        1 => who().prop_map(|who| Step::Release { who }),
        2 => (0u64..2 * DAY).prop_map(|millis| Step::Wait { millis }),
    ];
    proptest::collection::vec(step, 1..120)
}

/// The definition: a list of every charge and every hold, added up afresh each time.
#[derive(Default)]
struct Oracle {
    charges: Vec<(Timestamp, Timestamp, u64, u64)>, // day, month, charged to the day, charged to the month
    holds: Vec<(u128, Hold)>,
    newest: u64,
}

impl Oracle {
    fn day(&self) -> Timestamp {
        at(self.newest).day_start()
    }

    fn month(&self) -> Timestamp {
        at(self.newest).month_start()
    }

    fn settled(&self) -> (u64, u64) {
        let day = self.charges.iter().filter(|c| c.0 == self.day()).map(|c| c.2).sum();
        let month = self.charges.iter().filter(|c| c.1 == self.month()).map(|c| c.3).sum();
        (day, month)
    }

    fn held(&self) -> (u64, u64) {
        let day = self.holds.iter().filter(|(_, h)| h.day == self.day()).map(|(_, h)| h.tokens).sum();
        let month = self.holds.iter().filter(|(_, h)| h.month == self.month()).map(|(_, h)| h.tokens).sum();
        (day, month)
    }

    fn expire(&mut self, now: u64) {
        self.newest = self.newest.max(now);
        let charges = &mut self.charges;
        self.holds.retain(|(_, hold)| {
            let dead = hold.expires_at <= at(now);
            if dead {
                charges.push((hold.day, hold.month, hold.tokens, hold.tokens));
            }
            !dead
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn settled_and_held_never_pass_the_budget_and_add_up(
        steps in steps(), daily in proptest::option::of(1u64..300), monthly in proptest::option::of(1u64..900),
    ) {
        let budget = TokenBudget { daily, monthly };
        let (mut ledger, mut oracle) = (Ledger::default(), Oracle::default());
        let mut now = 40 * DAY;
        let mut open: HashMap<RequestId, Hold> = HashMap::new();
        for step in steps {
            match step {
                Step::Wait { millis } => now += millis,
                Step::Reserve { who, tokens, lifetime } => {
                    oracle.expire(now);
                    let (settled, held) = (oracle.settled(), oracle.held());
                    let known = oracle.holds.iter().any(|(other, _)| *other == who);
                    let fits = known
                        || (daily.is_none_or(|b| settled.0 + held.0 + tokens <= b)
                            && monthly.is_none_or(|b| settled.1 + held.1 + tokens <= b));
                    let answer = ledger.reserve(id(who), tokens, &budget, Duration::from_millis(lifetime), at(now));
                    prop_assert_eq!(answer.is_ok(), fits);
                    if let Err(denied) = answer {
                        prop_assert!(denied.resets_at > oracle.day(), "a budget renews in the future");
                    } else if !known {
                        let (day, month) = (oracle.day(), oracle.month());
                        oracle.holds.push((who, Hold { tokens, expires_at: at(now + lifetime), day, month }));
                    }
                }
                Step::Settle { who, used } => {
                    oracle.expire(now);
                    let settlement = ledger.settle(&id(who), used, &budget, at(now));
                    let place = oracle.holds.iter().position(|(other, _)| *other == who);
                    prop_assert_eq!(settlement.is_some(), place.is_some(), "a reservation ends exactly once");
                    if let (Some(settlement), Some(place)) = (settlement, place) {
                        let (_, hold) = oracle.holds.remove(place);
                        prop_assert_eq!(settlement.charged + settlement.overrun, used);
                        prop_assert!(settlement.charged >= used.min(hold.tokens), "what was set aside can always be charged");
                        let (settled, held) = (oracle.settled(), oracle.held());
                        let most = |limit: Option<u64>, spent: u64| limit.map_or(used, |l| used.min(l.saturating_sub(spent)));
                        let of_day = used.min(hold.tokens).max(most(daily, settled.0 + held.0));
                        let of_month = used.min(hold.tokens).max(most(monthly, settled.1 + held.1));
                        oracle.charges.push((hold.day, hold.month, of_day, of_month));
                    }
                }
                Step::Release { who } => {
                    let place = oracle.holds.iter().position(|(other, _)| *other == who);
                    prop_assert_eq!(ledger.release(&id(who)), place.is_some());
                    place.map(|place| oracle.holds.remove(place));
                }
            }
            let (settled, held) = (oracle.settled(), oracle.held());
            prop_assert_eq!((ledger.day().settled, ledger.month().settled), settled);
            prop_assert_eq!((ledger.held(BudgetPeriod::Daily), ledger.held(BudgetPeriod::Monthly)), held);
            prop_assert!(daily.is_none_or(|b| ledger.day().settled + held.0 <= b));
            prop_assert!(monthly.is_none_or(|b| ledger.month().settled + held.1 <= b));
            // The changes alone keep an adapter's rows equal to the holds.
            for change in ledger.take_changes() {
                match change {
                    HoldChange::Made(id, hold) => prop_assert!(open.insert(id, hold).is_none()),
                    HoldChange::Ended(id) => prop_assert!(open.remove(&id).is_some()),
                }
            }
            let restored = Ledger::restore(*ledger.day(), *ledger.month(), open.clone());
            prop_assert_eq!(&restored.holds, &ledger.holds);
            prop_assert_eq!(restored.held(BudgetPeriod::Daily), ledger.held(BudgetPeriod::Daily));
            prop_assert_eq!(restored.next_expiry(), ledger.next_expiry());
        }
    }
}

#[test]
fn a_request_that_died_is_charged_all_it_had_set_aside() {
    let budget = TokenBudget { daily: Some(100), monthly: None };
    let mut ledger = Ledger::default();
    ledger.reserve(id(1), 70, &budget, Duration::from_secs(10), at(DAY)).unwrap();
    assert_eq!(ledger.expire(at(DAY + 9_999)), 0);
    assert_eq!(ledger.expire(at(DAY + 10_000)), 1);
    assert_eq!(ledger.day().settled, 70);
    assert_eq!(ledger.settle(&id(1), 5, &budget, at(DAY + 10_001)), None, "it has ended");
    assert!(ledger.reserve(id(2), 31, &budget, Duration::from_secs(10), at(DAY + 10_001)).is_err());
}

#[test]
fn midnight_renews_the_day_and_keeps_the_month() {
    let budget = TokenBudget { daily: Some(100), monthly: Some(150) };
    let mut ledger = Ledger::default();
    let evening = Timestamp::parse_rfc3339("2026-11-29T23:59:59Z").unwrap();
    let morning = Timestamp::parse_rfc3339("2026-11-30T00:00:00Z").unwrap();
    ledger.reserve(id(1), 100, &budget, Duration::from_secs(60), evening).unwrap();
    let denied = ledger.reserve(id(2), 1, &budget, Duration::from_secs(60), evening).unwrap_err();
    assert_eq!(denied, BudgetExceeded { period: BudgetPeriod::Daily, resets_at: morning });
    ledger.reserve(id(3), 50, &budget, Duration::from_secs(60), morning).unwrap();
    let denied = ledger.reserve(id(4), 1, &budget, Duration::from_secs(60), morning).unwrap_err();
    let december = Timestamp::parse_rfc3339("2026-12-01T00:00:00Z").unwrap();
    assert_eq!(denied, BudgetExceeded { period: BudgetPeriod::Monthly, resets_at: december });
    ledger.settle(&id(1), 10, &budget, morning);
    assert_eq!((ledger.day().settled, ledger.month().settled), (0, 10), "yesterday's request is not of today's budget");
}

#[test]
fn a_look_at_the_books_opens_those_of_the_day() {
    let mut ledger = Ledger::default();
    let budget = TokenBudget::default();
    ledger.reserve(id(1), 70, &budget, Duration::from_secs(10), at(DAY)).unwrap();
    ledger.settle(&id(1), 70, &budget, at(DAY + 1));
    ledger.expire(at(2 * DAY));
    assert_eq!((ledger.day().settled, ledger.month().settled), (0, 70));
}

#[test]
fn no_sum_overflows() {
    let mut ledger = Ledger::default();
    let budget = TokenBudget::default();
    assert!(ledger.reserve(id(1), u64::MAX, &budget, Duration::from_secs(10), at(DAY)).is_err());
    for n in 2..5 {
        ledger.reserve(id(n), MAX_HOLD, &budget, Duration::from_secs(10), at(DAY)).unwrap();
        ledger.settle(&id(n), u64::MAX, &budget, at(DAY));
    }
    assert_eq!(ledger.day().settled, u64::MAX);
}
