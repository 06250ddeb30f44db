//! What many tasks on real threads do at once.

use std::time::Duration;

use crate::support::{Fixture, chance, open};
use enigma_contract::fixture::{NOON, acme, request, session, turn, user};
use enigma_core::ports::{SessionStore, TokenLedger};
use enigma_core::session::Retention;
use enigma_core::tenant::TokenBudget;
use enigma_sqlite::{SqliteSessionStore, SqliteTokenLedger};
use tokio::task::JoinSet;

const MUCH: Retention = Retention { days: 30, max_messages: 1000 };

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn reservations_with_random_endings_never_pass_the_budget_and_end_at_the_sum() {
    const BUDGET: TokenBudget = TokenBudget { daily: Some(50_000), monthly: Some(1_000_000) };
    const LIFETIME: Duration = Duration::from_secs(60);
    let fixture = Fixture::new();
    let ledger = SqliteTokenLedger::new(fixture.database.clone());
    let mut requests = JoinSet::new();
    for number in 0..2_000u64 {
        let ledger = ledger.clone();
        requests.spawn(async move {
            let (tokens, ending) = (chance(number) % 200, chance(number + 1_000_000));
            let id = request(number.into());
            if ledger.reserve(&acme(), id, tokens, &BUDGET, LIFETIME, NOON).await.unwrap().is_err() {
                return (0, false);
            }
            let balance = ledger.balance(&acme(), NOON).await.unwrap();
            assert!(balance.day.settled + balance.held_today <= 50_000);
            assert!(balance.month.settled + balance.held_this_month <= 1_000_000);
            match ending % 8 {
                0 => (tokens, true), // lost: nobody ends it, and it is charged in full
                1 | 2 => {
                    assert!(ledger.release(&acme(), &id).await.unwrap());
                    (0, true)
                }
                _ => {
                    let used = (ending >> 8) % 250;
                    let settled = ledger.settle(&acme(), &id, used, &BUDGET, NOON).await.unwrap().unwrap();
                    assert_eq!(settled.charged + settled.overrun, used);
                    (settled.charged, true)
                }
            }
        });
    }
    let outcomes = requests.join_all().await;
    let charged: u64 = outcomes.iter().map(|(charged, _)| charged).sum();
    // Even if all came before any ended: 250 times less than 200 tokens fit.
    assert!(outcomes.iter().filter(|(_, made)| *made).count() >= 250);
    assert!(charged <= 50_000);

    let later = NOON.saturating_add(LIFETIME);
    let books = ledger.balance(&acme(), later).await.unwrap();
    assert_eq!((books.day.settled, books.held_today, books.held_this_month), (charged, 0, 0));
    fixture.close().await;
    let again = SqliteTokenLedger::new(open(&fixture.dir));
    assert_eq!(again.balance(&acme(), later).await.unwrap(), books);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_appends_share_transactions() {
    let fixture = Fixture::new();
    let store = SqliteSessionStore::new(fixture.database.clone());
    let mut appends = JoinSet::new();
    for number in 0..2_000u32 {
        let store = store.clone();
        appends.spawn(async move {
            let turn = turn(&user("alice"), [0, 1], NOON);
            store.append_turn(&acme(), &session((number % 50).into()), &turn, &MUCH, NOON).await.unwrap();
        });
    }
    appends.join_all().await;
    let stats = fixture.stats();
    assert_eq!((stats.jobs, stats.failed_jobs), (2_000, 0));
    assert!(stats.commits < 1_000, "{stats:?}");
    assert!(stats.largest_group > 1);
    for number in 0..50 {
        let messages = store.recent(&acme(), &session(number), 1_000, &MUCH, NOON).await.unwrap().messages;
        assert_eq!(messages.len(), 80);
    }
}
