use std::sync::Arc;
use std::time::Duration;

use enigma_core::books::ComposedBooks;
use enigma_core::ledger::Settlement;
use enigma_core::ports::{Closing, RequestBooks, Spending};
use enigma_core::tenant::TokenBudget;
use enigma_core::usage::{Ending, UsageRecord};
use enigma_core::{RequestId, Timestamp};
use enigma_memory::MemoryRateLimiter;
use uuid::Uuid;

use crate::failing::Part;
use crate::logged::Logged;

pub(crate) fn record() -> UsageRecord {
    UsageRecord {
        request: RequestId::new(Uuid::from_u128(1)),
        trace: "trace".parse().unwrap(),
        route: "/chat".to_owned(),
        user: "alice".parse().unwrap(),
        session: None,
        model: "m".parse().unwrap(),
        provider: None,
        at: Timestamp::from_millis(0),
        latency: Duration::from_secs(1),
        first_token: None,
        tokens_in: 4,
        tokens_out: 3,
        characters: None,
        estimated: false,
        charged: 0,
        overrun: 0,
        ending: Ending::Finished,
    }
}

/// The ledger, the telemetry and the slots fail as these say, in this order.
#[tokio::test]
async fn every_part_of_a_close_is_tried_and_each_error_told_once() {
    for fails in 0..8u8 {
        let [ledger, telemetry, slots] = [1, 2, 4].map(|bit| Arc::new(Part::new(fails & bit != 0)));
        let limiter = Arc::new(MemoryRateLimiter::default());
        let books = ComposedBooks::new(limiter, slots.clone(), ledger.clone(), telemetry.clone());
        let (logged, _guard) = Logged::listen();
        let (record, budget) = (record(), TokenBudget::default());
        let spending = Spending::Used { tokens: 7, reserved: 10, budget: &budget };
        let closing = Closing { request: record.request, spending, record: Some(&record) };
        let closed = books.close(&"acme".parse().unwrap(), closing, Timestamp::from_millis(0)).await;

        assert_eq!([&ledger, &telemetry, &slots].map(|part| part.count()), [1, 1, 1], "{fails}");
        let charged = if fails & 1 == 0 { 7 } else { 0 };
        assert_eq!(telemetry.records(), [UsageRecord { charged, ..record }], "{fails}");
        let mut told = closed.as_ref().err().map(|error| error.port().to_owned()).into_iter().collect::<Vec<_>>();
        told.extend(logged.ports());
        let failing = [(1, "token ledger"), (2, "telemetry"), (4, "stream slots")];
        let failing: Vec<_> = failing.into_iter().filter(|(bit, _)| fails & bit != 0).map(|(_, port)| port).collect();
        assert_eq!(told, failing, "{fails}: the first is returned and the others are logged");
        if let Ok(settlement) = closed {
            assert_eq!(settlement, Settlement { charged: 7, overrun: 0 });
        }
    }
}

#[tokio::test]
async fn a_request_that_reserved_nothing_does_not_ask_the_ledger() {
    let part = || Arc::new(Part::new(false));
    let (ledger, telemetry, slots) = (part(), part(), part());
    let limiter = Arc::new(MemoryRateLimiter::default());
    let books = ComposedBooks::new(limiter, slots.clone(), ledger.clone(), telemetry.clone());
    let closing = Closing { request: record().request, spending: Spending::None, record: None };
    let closed = books.close(&"acme".parse().unwrap(), closing, Timestamp::from_millis(0)).await;
    assert_eq!(closed.unwrap(), Settlement::NOTHING);
    assert_eq!([ledger, telemetry, slots].map(|part| part.count()), [0, 0, 1]);
}
