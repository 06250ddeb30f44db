//! Random requests, against the decisions of the core.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use enigma_core::ledger::{BudgetPeriod, Ledger, Settlement};
use enigma_core::limit::{Decision, LeaseSet, LimitCheck, SlidingWindow, Subject, acquire_all};
use enigma_core::ports::{Closing, Entered, Entrance, LedgerBalance, RequestBooks, Spending};
use enigma_core::usage::{Ending, UsageRecord};
use proptest::prelude::*;

use super::{ReadBooks, record};
use crate::fixture::{NOON, request, tenant};
use crate::strategies::{budgets, samples, window_policies};

#[derive(Debug, Clone)]
enum Step {
    Enter { who: usize, streams: u32, lease: u64 },
    Reserve { tokens: u64, lifetime: u64 },
    Close { which: usize, how: u8, tokens: u64 },
}

fn steps() -> impl Strategy<Value = Vec<(u64, Step)>> {
    let step = prop_oneof![
        4 => (0usize..3, 1u32..4, 5u64..200).prop_map(|(who, streams, lease)| Step::Enter { who, streams, lease }),
        3 => (0u64..60, 1u64..200).prop_map(|(tokens, lifetime)| Step::Reserve { tokens, lifetime }),
        3 => (any::<usize>(), 0u8..4, 0u64..90).prop_map(|(which, how, tokens)| Step::Close { which, how, tokens }),
    ];
    prop::collection::vec((0u64..30, step), 1..60)
}

/// Random requests of several users are let in, reserve and are closed as [`acquire_all`], [`LeaseSet`] and [`Ledger`] decide it.
pub async fn decides_as_its_parts_do(books: &dyn RequestBooks, read: &dyn ReadBooks) {
    let users = ["a", "b", "c"].map(|name| Subject::new("user", name));
    let everybody = Subject::whole_tenant();
    let inputs = (window_policies(), window_policies(), budgets(), steps());
    for (run, (own, shared, budget, steps)) in samples(inputs, 32).enumerate() {
        let tenant = tenant(&format!("run-{run}"));
        let mut windows: HashMap<usize, SlidingWindow> = HashMap::new();
        let (mut all, mut leases, mut ledger) = (SlidingWindow::default(), LeaseSet::default(), Ledger::default());
        // What the requests that are in have set aside.
        let mut open: Vec<(u128, Option<u64>)> = Vec::new();
        let mut records: BTreeMap<u128, UsageRecord> = BTreeMap::new();
        let mut now = NOON;
        for (number, (pause, step)) in (0u128..).zip(steps) {
            now = now.saturating_add(Duration::from_millis(pause));
            match step {
                Step::Enter { who, streams, lease } => {
                    let window = windows.entry(who).or_default();
                    let checks = [
                        LimitCheck { subject: &users[who], policy: &own },
                        LimitCheck { subject: &everybody, policy: &shared },
                    ];
                    let (id, expires_at) = (request(number), now.saturating_add(Duration::from_millis(lease)));
                    let entrance = Entrance { request: id, checks: &checks, max_streams: streams, expires_at };
                    let entered = books.enter(&tenant, &entrance, now).await.expect("the books answer");
                    let expected = match acquire_all(&mut [(window, &own), (&mut all, &shared)], now) {
                        Decision::Denied { status } => Entered::RateLimited(status),
                        Decision::Granted { status: rate, .. } => match leases.enter(id, streams, expires_at, now) {
                            Ok(()) => Entered::In(rate),
                            Err(full) => Entered::StreamsFull { full, rate },
                        },
                    };
                    assert_eq!(entered, expected);
                    if matches!(entered, Entered::In(_)) {
                        open.push((number, None));
                    }
                }
                Step::Reserve { tokens, lifetime } => {
                    let Some((number, held)) = open.iter_mut().find(|(_, held)| held.is_none()) else { continue };
                    let (id, lifetime) = (request(*number), Duration::from_millis(lifetime));
                    let reserved = books.reserve(&tenant, id, tokens, &budget, lifetime, now).await;
                    let expected = ledger.reserve(id, tokens, &budget, lifetime, now);
                    assert_eq!(reserved.expect("the books answer"), expected);
                    *held = expected.ok().map(|()| tokens);
                }
                Step::Close { which, how, tokens } => {
                    if open.is_empty() {
                        continue;
                    }
                    let (number, held) = open.swap_remove(which % open.len());
                    let id = request(number);
                    let (spending, expected) = match (held, how) {
                        (None, _) => (Spending::None, Settlement::NOTHING),
                        (Some(_), 0) => {
                            ledger.release(&id);
                            (Spending::Released, Settlement::NOTHING)
                        }
                        (Some(reserved), _) => {
                            let expired = Settlement { charged: reserved, overrun: tokens.saturating_sub(reserved) };
                            let settled = ledger.settle(&id, tokens, &budget, now).unwrap_or(expired);
                            (Spending::Used { tokens, reserved, budget: &budget }, settled)
                        }
                    };
                    leases.leave(&id);
                    let given = held.map(|_| record(number, Ending::Finished));
                    let closing = Closing { request: id, spending, record: given.as_ref() };
                    let settlement = books.close(&tenant, closing, now).await.expect("the books answer");
                    assert_eq!(settlement, expected);
                    let Settlement { charged, overrun } = expected;
                    records.extend(given.map(|given| (number, UsageRecord { charged, overrun, ..given })));
                }
            }
        }
        ledger.expire(now);
        let expected = LedgerBalance {
            day: *ledger.day(),
            month: *ledger.month(),
            held_today: ledger.held(BudgetPeriod::Daily),
            held_this_month: ledger.held(BudgetPeriod::Monthly),
        };
        assert_eq!(read.balance(&tenant, now).await, expected);
        let mut kept = read.records(&tenant).await;
        kept.sort_by_key(|record| record.request.uuid());
        assert_eq!(kept, records.into_values().collect::<Vec<_>>());
    }
}
