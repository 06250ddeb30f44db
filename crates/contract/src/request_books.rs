//! [`RequestBooks`]. Its runner also says how what was written can be read back: with [`ReadBooks`].

use std::time::Duration;

use async_trait::async_trait;
use enigma_core::ledger::{BudgetExceeded, Settlement};
use enigma_core::limit::{LimitCheck, RateStatus, StreamsFull, Subject, Window, WindowPolicy};
use enigma_core::ports::{Closing, Entered, Entrance, LedgerBalance, RequestBooks, Spending};
use enigma_core::tenant::TokenBudget;
use enigma_core::usage::{Ending, UsageRecord};
use enigma_core::{ModelId, TenantId, Timestamp, TraceId};
use futures_util::future::join_all;

use crate::fixture::{NOON, acme, acme_eu, after, request, user};

mod random;

pub use random::decides_as_its_parts_do;

/// Lists the cases of this port.
#[macro_export]
macro_rules! request_books_cases {
    ($run:ident) => {
        $run!(lets_in_and_says_how_full_the_windows_are);
        $run!(a_peek_takes_nothing);
        $run!(a_denied_enter_takes_nothing);
        $run!(who_only_lacks_a_stream_has_used_its_slot);
        $run!(a_close_frees_the_stream);
        $run!(a_stream_that_nobody_closes_is_free_when_its_lease_ends);
        $run!(a_reservation_keeps_to_the_budget);
        $run!(a_close_charges_what_was_used_and_records_it);
        $run!(what_no_budget_covers_is_recorded_as_an_overrun);
        $run!(a_release_is_recorded_and_charges_nothing);
        $run!(who_reserved_nothing_is_charged_nothing);
        $run!(a_reservation_that_expired_was_charged_in_full);
        $run!(a_second_close_changes_nothing);
        $run!(concurrent_closes_of_one_request_are_one);
        $run!(concurrent_enters_never_pass_the_windows);
        $run!(concurrent_enters_never_pass_the_streams);
        $run!(decides_as_its_parts_do);
        $run!(tenants_are_isolated);
    };
}

/// A way to read what a tenant's books hold.
#[async_trait]
pub trait ReadBooks: Send + Sync {
    /// Its ledger.
    async fn balance(&self, tenant: &TenantId, now: Timestamp) -> LedgerBalance;

    /// All its records, in any order.
    async fn records(&self, tenant: &TenantId) -> Vec<UsageRecord>;
}

const MINUTE: Duration = Duration::from_mins(1);

const HUNDRED_A_DAY: TokenBudget = TokenBudget { daily: Some(100), monthly: None };

fn policy(limit: u32) -> WindowPolicy {
    let window = Window { limit, length: MINUTE };
    WindowPolicy { sustained: window, burst: window }
}

fn alice() -> Subject {
    Subject::new("user", "alice")
}

/// One tenant's books, for requests of users that may ask `own` times and together `shared` times a minute.
struct Books<'a> {
    port: &'a dyn RequestBooks,
    tenant: TenantId,
    own: WindowPolicy,
    shared: WindowPolicy,
    streams: u32,
}

impl<'a> Books<'a> {
    fn new(port: &'a dyn RequestBooks, own: u32, shared: u32, streams: u32) -> Self {
        Self { port, tenant: acme(), own: policy(own), shared: policy(shared), streams }
    }

    /// Books with room for everything.
    fn wide(port: &'a dyn RequestBooks) -> Self {
        Self::new(port, 1000, 1000, 1000)
    }

    fn of(self, tenant: TenantId) -> Self {
        Self { tenant, ..self }
    }

    async fn enter(&self, who: &Subject, number: u128, now: Timestamp) -> Entered {
        let all = Subject::whole_tenant();
        let entrance = Entrance {
            request: request(number),
            checks: &[
                LimitCheck { subject: who, policy: &self.own },
                LimitCheck { subject: &all, policy: &self.shared },
            ],
            max_streams: self.streams,
            expires_at: now.saturating_add(MINUTE),
        };
        self.port.enter(&self.tenant, &entrance, now).await.expect("the books answer")
    }

    /// How many slots a window has left.
    async fn left(&self, subject: &Subject, policy: &WindowPolicy, now: Timestamp) -> u32 {
        let peeked = self.port.peek(&self.tenant, &[LimitCheck { subject, policy }], now).await;
        peeked.expect("the books answer").remaining
    }

    async fn reserve(&self, number: u128, tokens: u64, now: Timestamp) -> Result<(), BudgetExceeded> {
        let reserved = self.port.reserve(&self.tenant, request(number), tokens, &HUNDRED_A_DAY, MINUTE, now).await;
        reserved.expect("the books answer")
    }

    async fn close(
        &self,
        number: u128,
        spending: Spending<'_>,
        record: Option<&UsageRecord>,
        now: Timestamp,
    ) -> Settlement {
        let closing = Closing { request: request(number), spending, record };
        self.port.close(&self.tenant, closing, now).await.expect("the books answer")
    }

    /// Lets a request in that sets `tokens` aside.
    async fn open(&self, number: u128, tokens: u64) {
        assert!(matches!(self.enter(&alice(), number, NOON).await, Entered::In(_)));
        assert_eq!(self.reserve(number, tokens, NOON).await, Ok(()));
    }
}

const fn used(tokens: u64, reserved: u64) -> Spending<'static> {
    Spending::Used { tokens, reserved, budget: &HUNDRED_A_DAY }
}

/// A record as a request gives it, before it is known what it was charged.
fn record(number: u128, ending: Ending) -> UsageRecord {
    UsageRecord {
        request: request(number),
        trace: TraceId::new("trace-1").expect("a valid trace"),
        route: "/chat".to_owned(),
        user: user("alice"),
        session: None,
        model: ModelId::new("@cf/meta/llama").expect("a valid model"),
        provider: None,
        at: NOON,
        latency: Duration::from_millis(2345),
        first_token: Some(Duration::from_millis(345)),
        tokens_in: 20,
        tokens_out: 10,
        characters: None,
        estimated: false,
        charged: 0,
        overrun: 0,
        ending,
    }
}

/// The status counts down, and the first one too many is told when a slot frees.
pub async fn lets_in_and_says_how_full_the_windows_are(books: &dyn RequestBooks, _: &dyn ReadBooks) {
    let books = Books::new(books, 3, 100, 100);
    for number in 0..3u32 {
        let rate = RateStatus { limit: 3, remaining: 2 - number, reset_at: after(60_000), length: MINUTE };
        assert_eq!(books.enter(&alice(), number.into(), NOON).await, Entered::In(rate));
    }
    let full = RateStatus { limit: 3, remaining: 0, reset_at: after(60_000), length: MINUTE };
    assert_eq!(books.enter(&alice(), 3, NOON).await, Entered::RateLimited(full));
    assert!(matches!(books.enter(&alice(), 4, after(60_000)).await, Entered::In(_)));
}

/// To look changes nothing, and says what the entry before it said.
pub async fn a_peek_takes_nothing(books: &dyn RequestBooks, _: &dyn ReadBooks) {
    let (books, alice) = (Books::new(books, 1, 5, 5), alice());
    for _ in 0..3 {
        assert_eq!(books.left(&alice, &books.own, NOON).await, 1);
    }
    assert!(matches!(books.enter(&alice, 1, NOON).await, Entered::In(RateStatus { remaining: 0, .. })));
    for _ in 0..3 {
        assert_eq!(books.left(&alice, &books.own, NOON).await, 0);
        assert_eq!(books.left(&Subject::whole_tenant(), &books.shared, NOON).await, 4);
    }
}

/// Neither a slot of the windows that had room, nor a stream.
pub async fn a_denied_enter_takes_nothing(books: &dyn RequestBooks, _: &dyn ReadBooks) {
    let books = Books::new(books, 1, 3, 2);
    let (everybody, bob, carol) = (Subject::whole_tenant(), Subject::new("user", "bob"), Subject::new("user", "carol"));
    assert!(matches!(books.enter(&alice(), 1, NOON).await, Entered::In(_)));
    for number in 2..8 {
        let denied = books.enter(&alice(), number, NOON).await;
        assert!(matches!(denied, Entered::RateLimited(RateStatus { limit: 1, remaining: 0, .. })), "her own limit");
    }
    assert_eq!(books.left(&everybody, &books.shared, NOON).await, 2);
    assert!(matches!(books.enter(&bob, 8, NOON).await, Entered::In(_)), "the second stream was free");
    assert!(matches!(books.enter(&carol, 9, NOON).await, Entered::StreamsFull { .. }), "and is taken now");
    let dave = Subject::new("user", "dave");
    let denied = books.enter(&dave, 10, NOON).await;
    assert!(matches!(denied, Entered::RateLimited(RateStatus { limit: 3, remaining: 0, .. })), "the tenant's limit");
    assert_eq!(books.left(&dave, &books.own, NOON).await, 1);
}

/// It is told the limit, and its windows; the stream is not its own when one frees.
pub async fn who_only_lacks_a_stream_has_used_its_slot(books: &dyn RequestBooks, _: &dyn ReadBooks) {
    let books = Books::new(books, 5, 100, 1);
    assert!(matches!(books.enter(&alice(), 1, NOON).await, Entered::In(_)));
    let refused = books.enter(&alice(), 2, NOON).await;
    let rate = RateStatus { limit: 5, remaining: 3, reset_at: after(60_000), length: MINUTE };
    assert_eq!(refused, Entered::StreamsFull { full: StreamsFull { limit: 1 }, rate });
    assert_eq!(books.left(&alice(), &books.own, NOON).await, 3);
    books.close(1, Spending::None, None, NOON).await;
    assert!(matches!(books.enter(&alice(), 3, NOON).await, Entered::In(RateStatus { remaining: 2, .. })));
}

/// Whatever it closes, and its own only.
pub async fn a_close_frees_the_stream(books: &dyn RequestBooks, _: &dyn ReadBooks) {
    let books = Books { streams: 2, ..Books::wide(books) };
    books.open(1, 10).await;
    books.open(2, 10).await;
    assert!(matches!(books.enter(&alice(), 3, NOON).await, Entered::StreamsFull { .. }));
    books.close(1, used(5, 10), Some(&record(1, Ending::Finished)), NOON).await;
    books.open(4, 10).await;
    assert!(matches!(books.enter(&alice(), 5, NOON).await, Entered::StreamsFull { .. }));
    books.close(4, Spending::Released, None, NOON).await;
    books.open(6, 10).await;
    books.close(6, Spending::None, None, NOON).await;
    assert!(matches!(books.enter(&alice(), 7, NOON).await, Entered::In(_)));
    assert!(matches!(books.enter(&alice(), 8, NOON).await, Entered::StreamsFull { .. }));
}

/// And not before; to close it then is harmless.
pub async fn a_stream_that_nobody_closes_is_free_when_its_lease_ends(books: &dyn RequestBooks, _: &dyn ReadBooks) {
    let books = Books { streams: 1, ..Books::wide(books) };
    assert!(matches!(books.enter(&alice(), 1, NOON).await, Entered::In(_)));
    assert!(matches!(books.enter(&alice(), 2, after(59_999)).await, Entered::StreamsFull { .. }));
    assert!(matches!(books.enter(&alice(), 3, after(60_000)).await, Entered::In(_)));
    books.close(1, Spending::None, None, after(60_001)).await;
    assert!(matches!(books.enter(&alice(), 4, after(60_001)).await, Entered::StreamsFull { .. }));
}

/// To the last token, and not one more; asked again, it leaves the first answer as it is.
pub async fn a_reservation_keeps_to_the_budget(books: &dyn RequestBooks, read: &dyn ReadBooks) {
    let books = Books::wide(books);
    books.open(1, 60).await;
    assert!(matches!(books.enter(&alice(), 2, NOON).await, Entered::In(_)));
    let refused = books.reserve(2, 41, NOON).await.expect_err("it is more than is left");
    assert_eq!(refused.resets_at, NOON.next_day_start());
    assert_eq!(books.reserve(2, 40, NOON).await, Ok(()));
    assert_eq!(books.reserve(2, 40, NOON).await, Ok(()));
    assert_eq!(read.balance(&acme(), NOON).await.held_today, 100);
    assert_eq!(read.balance(&acme(), after(60_000)).await.day.settled, 100, "both have died");
}

/// What was not used is free again, and the record says what was charged; else it is kept as it was given.
pub async fn a_close_charges_what_was_used_and_records_it(books: &dyn RequestBooks, read: &dyn ReadBooks) {
    let books = Books::wide(books);
    books.open(1, 80).await;
    // What the caller says of the charge is not read.
    let given = UsageRecord { charged: 77, overrun: 77, ..record(1, Ending::Finished) };
    let settlement = books.close(1, used(30, 80), Some(&given), NOON).await;
    assert_eq!(settlement, Settlement { charged: 30, overrun: 0 });
    let balance = read.balance(&acme(), NOON).await;
    assert_eq!((balance.day.settled, balance.month.settled, balance.held_today), (30, 30, 0));
    assert_eq!(read.records(&acme()).await, [UsageRecord { charged: 30, ..record(1, Ending::Finished) }]);
    books.open(2, 70).await;
}

/// And is not charged.
pub async fn what_no_budget_covers_is_recorded_as_an_overrun(books: &dyn RequestBooks, read: &dyn ReadBooks) {
    let books = Books::wide(books);
    books.open(1, 10).await;
    books.open(2, 60).await;
    let settlement = books.close(1, used(55, 10), Some(&record(1, Ending::Finished)), NOON).await;
    assert_eq!(settlement, Settlement { charged: 40, overrun: 15 });
    let recorded = UsageRecord { charged: 40, overrun: 15, ..record(1, Ending::Finished) };
    assert_eq!(read.records(&acme()).await, [recorded]);
    let balance = read.balance(&acme(), NOON).await;
    assert_eq!((balance.day.settled, balance.day.overrun, balance.held_today), (40, 15, 60));
}

/// The tokens are free again at once.
pub async fn a_release_is_recorded_and_charges_nothing(books: &dyn RequestBooks, read: &dyn ReadBooks) {
    let books = Books::wide(books);
    books.open(1, 100).await;
    let settlement = books.close(1, Spending::Released, Some(&record(1, Ending::Failed)), NOON).await;
    assert_eq!(settlement, Settlement::NOTHING);
    assert_eq!(read.records(&acme()).await, [record(1, Ending::Failed)]);
    let balance = read.balance(&acme(), NOON).await;
    assert_eq!((balance.day.settled, balance.held_today), (0, 0));
    books.open(2, 100).await;
}

/// Nor is it recorded, where it brings no record.
pub async fn who_reserved_nothing_is_charged_nothing(books: &dyn RequestBooks, read: &dyn ReadBooks) {
    let books = Books::wide(books);
    assert!(matches!(books.enter(&alice(), 1, NOON).await, Entered::In(_)));
    assert_eq!(books.close(1, Spending::None, None, NOON).await, Settlement::NOTHING);
    assert_eq!(read.records(&acme()).await, []);
    let balance = read.balance(&acme(), NOON).await;
    assert_eq!((balance.day.settled, balance.held_today), (0, 0));
}

/// Its request may have spent it all; what was used beyond it no budget has covered.
pub async fn a_reservation_that_expired_was_charged_in_full(books: &dyn RequestBooks, read: &dyn ReadBooks) {
    let books = Books::wide(books);
    let late = after(60_000);
    for (number, tokens, overrun) in [(1, 5, 0), (2, 25, 5)] {
        books.open(number, 20).await;
        let settlement = Settlement { charged: 20, overrun };
        let given = record(number, Ending::TimedOut);
        assert_eq!(books.close(number, used(tokens, 20), Some(&given), late).await, settlement);
    }
    let mut records = read.records(&acme()).await;
    records.sort_by_key(|record| record.request);
    let expected = [0, 5].map(|overrun| (20, overrun));
    assert_eq!(records.iter().map(|it| (it.charged, it.overrun)).collect::<Vec<_>>(), expected);
    let balance = read.balance(&acme(), late).await;
    assert_eq!((balance.day.settled, balance.held_today), (40, 0));
}

/// Whatever it says the second time: it charges nothing, frees no other's stream, and the first record stays.
pub async fn a_second_close_changes_nothing(books: &dyn RequestBooks, read: &dyn ReadBooks) {
    let books = Books { streams: 2, ..Books::wide(books) };
    books.open(1, 50).await;
    books.open(2, 10).await;
    books.close(1, used(30, 50), Some(&record(1, Ending::Finished)), NOON).await;
    books.open(3, 10).await;
    for second in [used(30, 50), used(50, 50), Spending::Released, Spending::None] {
        books.close(1, second, Some(&record(1, Ending::Failed)), NOON).await;
        let balance = read.balance(&acme(), NOON).await;
        assert_eq!((balance.day.settled, balance.day.overrun, balance.held_today), (30, 0, 20), "{second:?}");
    }
    assert_eq!(read.records(&acme()).await, [UsageRecord { charged: 30, ..record(1, Ending::Finished) }]);
    assert!(matches!(books.enter(&alice(), 4, NOON).await, Entered::StreamsFull { .. }));
}

/// Of many at once, one charges and is recorded.
pub async fn concurrent_closes_of_one_request_are_one(books: &dyn RequestBooks, read: &dyn ReadBooks) {
    let books = Books::wide(books);
    books.open(1, 10).await;
    let given = record(1, Ending::Finished);
    join_all((0..16).map(|_| books.close(1, used(10, 10), Some(&given), NOON))).await;
    let balance = read.balance(&acme(), NOON).await;
    assert_eq!((balance.day.settled, balance.held_today), (10, 0));
    assert_eq!(read.records(&acme()).await, [UsageRecord { charged: 10, ..given }]);
}

/// Of many entries at once, as many are in as there are slots, and who is out has taken none of their own.
pub async fn concurrent_enters_never_pass_the_windows(books: &dyn RequestBooks, _: &dyn ReadBooks) {
    let books = Books::new(books, 1, 10, 1000);
    let users: Vec<_> = (0..48).map(|n| Subject::new("user", &n.to_string())).collect();
    let entered = join_all(users.iter().zip(0..).map(|(user, number)| books.enter(user, number, NOON))).await;
    assert_eq!(entered.iter().filter(|entered| matches!(entered, Entered::In(_))).count(), 10);
    for (user, entered) in users.iter().zip(entered) {
        let is_out = matches!(entered, Entered::RateLimited(_));
        assert_eq!(books.left(user, &books.own, NOON).await, u32::from(is_out));
    }
}

/// Of many entries at once, as many are in as there are streams.
pub async fn concurrent_enters_never_pass_the_streams(books: &dyn RequestBooks, _: &dyn ReadBooks) {
    let (books, alice) = (Books { streams: 5, ..Books::wide(books) }, alice());
    let entered = join_all((0..48).map(|number| books.enter(&alice, number, NOON))).await;
    assert_eq!(entered.iter().filter(|entered| matches!(entered, Entered::In(_))).count(), 5);
    let full = entered.iter().filter(|entered| matches!(entered, Entered::StreamsFull { .. })).count();
    assert_eq!(full, 43);
}

/// A tenant's windows, streams, budget and records are its own, even where two tenants' requests have one id.
pub async fn tenants_are_isolated(books: &dyn RequestBooks, read: &dyn ReadBooks) {
    let ours = Books::new(books, 1, 1, 1);
    let theirs = Books::new(books, 1, 1, 1).of(acme_eu());
    ours.open(1, 100).await;
    theirs.open(1, 100).await;
    assert!(matches!(ours.enter(&alice(), 2, NOON).await, Entered::RateLimited(_)));

    theirs.close(1, used(40, 100), Some(&record(1, Ending::Failed)), NOON).await;
    let balance = read.balance(&acme(), NOON).await;
    assert_eq!((balance.day.settled, balance.held_today), (0, 100));
    assert_eq!(read.records(&acme()).await, []);
    let later = after(60_000).saturating_sub(Duration::from_millis(1));
    let bob = Subject::new("user", "bob");
    let ours = Books { shared: policy(100), ..ours };
    assert!(matches!(ours.enter(&bob, 3, later).await, Entered::StreamsFull { .. }), "ours is still under way");

    ours.close(1, used(70, 100), Some(&record(1, Ending::Finished)), later).await;
    assert_eq!(read.balance(&acme(), later).await.day.settled, 70);
    assert_eq!(read.balance(&acme_eu(), later).await.day.settled, 40);
    assert_eq!(read.records(&acme()).await, [UsageRecord { charged: 70, ..record(1, Ending::Finished) }]);
    assert_eq!(read.records(&acme_eu()).await, [UsageRecord { charged: 40, ..record(1, Ending::Failed) }]);
}
