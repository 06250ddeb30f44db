//! [`TokenLedger`].

use std::time::Duration;

use enigma_core::Timestamp;
use enigma_core::ledger::{BudgetExceeded, BudgetPeriod, Ledger, MAX_HOLD, Settlement};
use enigma_core::ports::{LedgerBalance, TokenLedger};
use enigma_core::tenant::TokenBudget;
use futures_util::future::join_all;
use proptest::prelude::*;

use crate::fixture::{DAY, NOON, acme, acme_eu, after, request, tenant};
use crate::strategies::{budgets, samples};

/// Lists the cases of this port.
#[macro_export]
macro_rules! token_ledger_cases {
    ($run:ident) => {
        $run!(reserves_up_to_the_budget);
        $run!(a_refusal_names_the_budget_and_when_it_renews);
        $run!(a_settlement_charges_what_was_used_and_frees_the_rest);
        $run!(what_is_used_beyond_the_hold_is_charged_as_far_as_the_budget_goes);
        $run!(a_release_charges_nothing);
        $run!(a_reservation_ends_once);
        $run!(a_reservation_that_expires_is_charged_in_full);
        $run!(a_second_reservation_of_a_request_leaves_the_first_as_it_is);
        $run!(a_new_day_and_a_new_month_open_new_books);
        $run!(a_request_that_outlives_its_day_is_not_charged_to_the_next);
        $run!(without_a_budget_everything_is_counted_and_nothing_refused);
        $run!(concurrent_reservations_never_pass_the_budget);
        $run!(concurrent_endings_of_one_request_charge_it_once);
        $run!(decides_as_the_ledger_does);
        $run!(tenants_are_isolated);
    };
}

const MINUTE: Duration = Duration::from_mins(1);

const HUNDRED_A_DAY: TokenBudget = TokenBudget { daily: Some(100), monthly: None };

async fn reserve(
    ledger: &dyn TokenLedger,
    number: u128,
    tokens: u64,
    budget: &TokenBudget,
    now: Timestamp,
) -> Result<(), BudgetExceeded> {
    ledger.reserve(&acme(), request(number), tokens, budget, MINUTE, now).await.expect("the ledger answers")
}

async fn settle(
    ledger: &dyn TokenLedger,
    number: u128,
    used: u64,
    budget: &TokenBudget,
    now: Timestamp,
) -> Option<Settlement> {
    ledger.settle(&acme(), &request(number), used, budget, now).await.expect("the ledger answers")
}

async fn release(ledger: &dyn TokenLedger, number: u128) -> bool {
    ledger.release(&acme(), &request(number)).await.expect("the ledger answers")
}

async fn balance(ledger: &dyn TokenLedger, now: Timestamp) -> LedgerBalance {
    ledger.balance(&acme(), now).await.expect("the ledger answers")
}

fn charged(tokens: u64) -> Settlement {
    Settlement { charged: tokens, overrun: 0 }
}

/// To the last token, and not one more.
pub async fn reserves_up_to_the_budget(ledger: &dyn TokenLedger) {
    assert_eq!(reserve(ledger, 1, 60, &HUNDRED_A_DAY, NOON).await, Ok(()));
    assert!(reserve(ledger, 2, 41, &HUNDRED_A_DAY, NOON).await.is_err());
    assert_eq!(reserve(ledger, 3, 40, &HUNDRED_A_DAY, NOON).await, Ok(()));
    assert!(reserve(ledger, 4, 1, &HUNDRED_A_DAY, NOON).await.is_err());
    let balance = balance(ledger, NOON).await;
    assert_eq!((balance.held_today, balance.held_this_month), (100, 100));
    assert_eq!((balance.day.settled, balance.month.settled), (0, 0));
    assert_eq!((balance.day.start, balance.month.start), (NOON.day_start(), NOON.month_start()));
}

/// Where both budgets are short, it names the one that takes longer to renew.
pub async fn a_refusal_names_the_budget_and_when_it_renews(ledger: &dyn TokenLedger) {
    let budget = TokenBudget { daily: Some(100), monthly: Some(150) };
    let daily = BudgetExceeded { period: BudgetPeriod::Daily, resets_at: NOON.next_day_start() };
    let monthly = BudgetExceeded { period: BudgetPeriod::Monthly, resets_at: NOON.next_month_start() };
    assert_eq!(reserve(ledger, 1, 101, &budget, NOON).await, Err(daily));
    assert_eq!(reserve(ledger, 2, 151, &budget, NOON).await, Err(monthly));
    assert_eq!(reserve(ledger, 3, 100, &budget, NOON).await, Ok(()));
    assert_eq!(settle(ledger, 3, 100, &budget, NOON).await, Some(charged(100)));
    assert_eq!(reserve(ledger, 4, 50, &budget, NOON).await, Err(daily));
    let tomorrow = NOON.saturating_add(DAY);
    assert_eq!(reserve(ledger, 5, 51, &budget, tomorrow).await, Err(monthly));
    assert_eq!(reserve(ledger, 6, 50, &budget, tomorrow).await, Ok(()));
}

/// What was set aside and not used can be reserved again.
pub async fn a_settlement_charges_what_was_used_and_frees_the_rest(ledger: &dyn TokenLedger) {
    assert_eq!(reserve(ledger, 1, 100, &HUNDRED_A_DAY, NOON).await, Ok(()));
    assert_eq!(settle(ledger, 1, 30, &HUNDRED_A_DAY, NOON).await, Some(charged(30)));
    let balance = balance(ledger, NOON).await;
    assert_eq!((balance.day.settled, balance.month.settled, balance.held_today), (30, 30, 0));
    assert_eq!(reserve(ledger, 2, 70, &HUNDRED_A_DAY, NOON).await, Ok(()));
    assert_eq!(settle(ledger, 2, 0, &HUNDRED_A_DAY, NOON).await, Some(charged(0)));
}

/// The part that no budget covers is known as overrun, and is no part of what is settled.
pub async fn what_is_used_beyond_the_hold_is_charged_as_far_as_the_budget_goes(ledger: &dyn TokenLedger) {
    assert_eq!(reserve(ledger, 1, 10, &HUNDRED_A_DAY, NOON).await, Ok(()));
    assert_eq!(reserve(ledger, 2, 60, &HUNDRED_A_DAY, NOON).await, Ok(()));
    let settled = settle(ledger, 1, 55, &HUNDRED_A_DAY, NOON).await;
    assert_eq!(settled, Some(Settlement { charged: 40, overrun: 15 }));
    let balance = balance(ledger, NOON).await;
    assert_eq!((balance.day.settled, balance.day.overrun, balance.held_today), (40, 15, 60));
    assert_eq!((balance.month.settled, balance.month.overrun), (55, 0), "the month has no limit");
}

/// The tokens are free again, and the request can no longer be settled.
pub async fn a_release_charges_nothing(ledger: &dyn TokenLedger) {
    assert_eq!(reserve(ledger, 1, 100, &HUNDRED_A_DAY, NOON).await, Ok(()));
    assert!(release(ledger, 1).await);
    assert_eq!(balance(ledger, NOON).await.held_today, 0);
    assert_eq!(balance(ledger, NOON).await.day.settled, 0);
    assert_eq!(reserve(ledger, 2, 100, &HUNDRED_A_DAY, NOON).await, Ok(()));
}

/// Whatever ended it first; what has no reservation cannot be ended at all.
pub async fn a_reservation_ends_once(ledger: &dyn TokenLedger) {
    for number in 1..4 {
        assert_eq!(reserve(ledger, number, 10, &HUNDRED_A_DAY, NOON).await, Ok(()));
    }
    assert_eq!(settle(ledger, 1, 10, &HUNDRED_A_DAY, NOON).await, Some(charged(10)));
    assert!(release(ledger, 2).await);
    let late = NOON.saturating_add(MINUTE);
    assert_eq!(balance(ledger, late).await.day.settled, 20, "the third has expired");
    for number in [1, 2, 3, 9] {
        assert_eq!(settle(ledger, number, 10, &HUNDRED_A_DAY, late).await, None);
        assert!(!release(ledger, number).await);
    }
    let balance = balance(ledger, late).await;
    assert_eq!((balance.day.settled, balance.held_today), (20, 0));
}

/// Its request may have spent it all; the charge falls due at the end of its lifetime, and not before.
pub async fn a_reservation_that_expires_is_charged_in_full(ledger: &dyn TokenLedger) {
    assert_eq!(reserve(ledger, 1, 60, &HUNDRED_A_DAY, NOON).await, Ok(()));
    let before = balance(ledger, after(59_999)).await;
    assert_eq!((before.day.settled, before.held_today), (0, 60));
    let at_its_end = balance(ledger, after(60_000)).await;
    assert_eq!((at_its_end.day.settled, at_its_end.month.settled, at_its_end.held_today), (60, 60, 0));
    assert!(reserve(ledger, 2, 41, &HUNDRED_A_DAY, after(60_000)).await.is_err());
    assert_eq!(reserve(ledger, 3, 40, &HUNDRED_A_DAY, after(60_000)).await, Ok(()));
    // Nobody looks at the books in between here.
    assert_eq!(settle(ledger, 3, 1, &HUNDRED_A_DAY, after(120_000)).await, None);
    assert_eq!(balance(ledger, after(120_000)).await.day.settled, 100);
}

/// To reserve again neither sets more aside, nor prolongs, nor is refused when the budget is full.
pub async fn a_second_reservation_of_a_request_leaves_the_first_as_it_is(ledger: &dyn TokenLedger) {
    assert_eq!(reserve(ledger, 1, 80, &HUNDRED_A_DAY, NOON).await, Ok(()));
    assert_eq!(reserve(ledger, 1, 50, &HUNDRED_A_DAY, after(30_000)).await, Ok(()));
    assert_eq!(balance(ledger, after(30_000)).await.held_today, 80);
    assert_eq!(balance(ledger, after(60_000)).await.day.settled, 80);
}

/// A day's end frees the day's budget only, a month's end both.
pub async fn a_new_day_and_a_new_month_open_new_books(ledger: &dyn TokenLedger) {
    let budget = TokenBudget { daily: Some(100), monthly: Some(150) };
    let spend = async |number, tokens, now| {
        reserve(ledger, number, tokens, &budget, now).await?;
        settle(ledger, number, tokens, &budget, now).await.expect("it was just reserved");
        Ok::<(), BudgetExceeded>(())
    };
    let last_moment = NOON.next_day_start().saturating_sub(Duration::from_millis(1));
    assert_eq!(spend(1, 100, last_moment).await, Ok(()));
    assert!(spend(2, 1, last_moment).await.is_err());
    let next_day = NOON.next_day_start();
    assert_eq!(spend(3, 50, next_day).await, Ok(()));
    let books = balance(ledger, next_day).await;
    assert_eq!((books.day.start, books.day.settled), (next_day, 50));
    assert_eq!((books.month.start, books.month.settled), (NOON.month_start(), 150));
    assert!(spend(4, 1, next_day).await.is_err());
    let next_month = NOON.next_month_start();
    assert_eq!(spend(5, 100, next_month).await, Ok(()));
    let books = balance(ledger, next_month).await;
    assert_eq!((books.day.settled, books.month.settled), (100, 100));
    assert!(spend(6, 1, next_day).await.is_err(), "a clock that steps back opens no old books");
}

/// Its day's books are closed; the month's, which go on, are charged.
pub async fn a_request_that_outlives_its_day_is_not_charged_to_the_next(ledger: &dyn TokenLedger) {
    let next_day = NOON.next_day_start();
    let evening = next_day.saturating_sub(Duration::from_secs(30));
    assert_eq!(reserve(ledger, 1, 100, &HUNDRED_A_DAY, evening).await, Ok(()));
    assert_eq!(reserve(ledger, 2, 100, &HUNDRED_A_DAY, next_day).await, Ok(()), "the new day's budget is free");
    let books = balance(ledger, next_day).await;
    assert_eq!((books.held_today, books.held_this_month), (100, 200));
    assert!(settle(ledger, 1, 70, &HUNDRED_A_DAY, next_day).await.is_some());
    let books = balance(ledger, next_day).await;
    assert_eq!((books.day.settled, books.month.settled), (0, 70));
    assert_eq!((books.held_today, books.held_this_month), (100, 100));
}

/// The books are kept for a tenant without limits too.
pub async fn without_a_budget_everything_is_counted_and_nothing_refused(ledger: &dyn TokenLedger) {
    let unlimited = TokenBudget::default();
    let much = MAX_HOLD;
    assert_eq!(reserve(ledger, 1, much, &unlimited, NOON).await, Ok(()));
    assert_eq!(reserve(ledger, 2, 5, &unlimited, NOON).await, Ok(()));
    assert_eq!(settle(ledger, 2, 500, &unlimited, NOON).await, Some(charged(500)));
    let books = balance(ledger, NOON).await;
    assert_eq!((books.day.settled, books.month.settled), (500, 500));
    assert_eq!((books.held_today, books.held_this_month), (much, much));
}

/// Of many reservations at once, as many are made as the budget covers.
pub async fn concurrent_reservations_never_pass_the_budget(ledger: &dyn TokenLedger) {
    let calls = (0..64).map(|number| async move { reserve(ledger, number, 7, &HUNDRED_A_DAY, NOON).await.is_ok() });
    let made = join_all(calls).await.into_iter().filter(|made| *made).count();
    assert_eq!(made, 14);
    assert_eq!(balance(ledger, NOON).await.held_today, 98);
}

/// Of settlements and releases that come at once, one counts.
pub async fn concurrent_endings_of_one_request_charge_it_once(ledger: &dyn TokenLedger) {
    assert_eq!(reserve(ledger, 1, 10, &HUNDRED_A_DAY, NOON).await, Ok(()));
    let endings = (0..32).map(|number| async move {
        if number % 2 == 0 {
            settle(ledger, 1, 10, &HUNDRED_A_DAY, NOON).await.map(|settlement| settlement.charged)
        } else {
            release(ledger, 1).await.then_some(0)
        }
    });
    let ended: Vec<u64> = join_all(endings).await.into_iter().flatten().collect();
    assert_eq!(ended.len(), 1);
    let books = balance(ledger, NOON).await;
    assert_eq!((books.day.settled, books.held_today), (ended[0], 0));
}

#[derive(Debug, Clone)]
enum Step {
    Reserve { number: u128, tokens: u64, lifetime: Duration },
    Settle { number: u128, used: u64 },
    Release { number: u128 },
    Look,
}

fn steps() -> impl Strategy<Value = Vec<(u64, Step)>> {
    let number = 0u128..12;
    let step = prop_oneof![
        4 => (number.clone(), 0u64..60, 1u64..200).prop_map(|(number, tokens, hours)| Step::Reserve {
            number, tokens, lifetime: Duration::from_mins(hours),
        }),
        3 => (number.clone(), 0u64..90).prop_map(|(number, used)| Step::Settle { number, used }),
        1 => number.prop_map(|number| Step::Release { number }),
        1 => Just(Step::Look),
    ];
    // Minutes between two steps: mostly few, sometimes enough for another day or month.
    let pause = prop_oneof![12 => 0u64..120, 2 => 600u64..2000, 1 => 20_000u64..50_000];
    prop::collection::vec((pause, step), 1..120)
}

/// Random calls over days and months are decided as [`Ledger`] decides them, and never is more settled and held than the budget
/// has.
pub async fn decides_as_the_ledger_does(ledger: &dyn TokenLedger) {
    for (run, (budget, steps)) in samples((budgets(), steps()), 48).enumerate() {
        let tenant = tenant(&format!("run-{run}"));
        let (mut model, mut now) = (Ledger::default(), NOON);
        for (pause, step) in steps {
            now = now.saturating_add(Duration::from_mins(pause));
            match step {
                Step::Reserve { number, tokens, lifetime } => {
                    let id = request(number);
                    let made = ledger.reserve(&tenant, id, tokens, &budget, lifetime, now).await;
                    assert_eq!(made.expect("the ledger answers"), model.reserve(id, tokens, &budget, lifetime, now));
                }
                Step::Settle { number, used } => {
                    let id = request(number);
                    let settled = ledger.settle(&tenant, &id, used, &budget, now).await;
                    assert_eq!(settled.expect("the ledger answers"), model.settle(&id, used, &budget, now));
                }
                Step::Release { number } => {
                    let id = request(number);
                    let released = ledger.release(&tenant, &id).await.expect("the ledger answers");
                    assert_eq!(released, model.release(&id));
                }
                Step::Look => {}
            }
            let books = ledger.balance(&tenant, now).await.expect("the ledger answers");
            model.expire(now);
            let expected = LedgerBalance {
                day: *model.day(),
                month: *model.month(),
                held_today: model.held(BudgetPeriod::Daily),
                held_this_month: model.held(BudgetPeriod::Monthly),
            };
            assert_eq!(books, expected);
            assert!(budget.daily.is_none_or(|limit| books.day.settled + books.held_today <= limit));
            assert!(budget.monthly.is_none_or(|limit| books.month.settled + books.held_this_month <= limit));
        }
    }
}

/// One tenant's spending is not another's, and one cannot end another's reservations.
pub async fn tenants_are_isolated(ledger: &dyn TokenLedger) {
    assert_eq!(reserve(ledger, 1, 100, &HUNDRED_A_DAY, NOON).await, Ok(()));
    let theirs = acme_eu();
    assert_eq!(ledger.balance(&theirs, NOON).await.expect("the ledger answers").held_today, 0);
    let settled = ledger.settle(&theirs, &request(1), 5, &HUNDRED_A_DAY, NOON).await;
    assert_eq!(settled.expect("the ledger answers"), None);
    assert!(!ledger.release(&theirs, &request(1)).await.expect("the ledger answers"));
    // The same request id is another request there.
    let reserved = ledger.reserve(&theirs, request(1), 40, &HUNDRED_A_DAY, MINUTE, NOON).await;
    assert_eq!(reserved.expect("the ledger answers"), Ok(()));
    assert_eq!(settle(ledger, 1, 90, &HUNDRED_A_DAY, NOON).await, Some(charged(90)));
    let books = ledger.balance(&theirs, NOON).await.expect("the ledger answers");
    assert_eq!((books.held_today, books.day.settled), (40, 0));
}
