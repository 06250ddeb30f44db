//! What remote adapters send as JSON.

use std::fmt::Debug;
use std::time::Duration;

use enigma_core::Timestamp;
use enigma_core::idempotency::Begin;
use enigma_core::ledger::Account;
use enigma_core::limit::{RateStatus, StreamsFull, Subject};
use enigma_core::ports::{Entered, LedgerBalance};
use enigma_core::session::Retention;
use enigma_core::tenant::TokenBudget;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn travels<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T, as_json: &Value) {
    assert_eq!(serde_json::to_value(value).unwrap(), *as_json);
    assert_eq!(serde_json::from_value::<T>(as_json.clone()).unwrap(), *value);
}

#[test]
fn what_ports_answer_and_are_told_travels_as_json() {
    let at = Timestamp::from_millis;
    let rate = RateStatus { limit: 5, remaining: 2, reset_at: at(9), length: Duration::from_secs(60) };
    let rate_json = serde_json::to_value(rate).unwrap();
    travels(&Entered::In(rate), &json!({ "in": rate_json }));
    travels(&Entered::RateLimited(rate), &json!({ "rate_limited": rate_json }));
    let full = StreamsFull { limit: 3 };
    let full_json = json!({ "streams_full": { "full": { "limit": 3 }, "rate": rate_json } });
    travels(&Entered::StreamsFull { full, rate }, &full_json);

    travels(&Begin::First, &json!("first"));
    travels(&Begin::InProgress, &json!("in_progress"));
    travels(&Begin::Mismatch, &json!("mismatch"));
    travels(&Begin::Replay("an answer".to_owned()), &json!({ "replay": "an answer" }));

    let account = Account { start: at(0), settled: 1, overrun: 2 };
    let balance = LedgerBalance { day: account, month: account, held_today: 3, held_this_month: 4 };
    let account = serde_json::to_value(account).unwrap();
    let balance_json = json!({ "day": account, "month": account, "held_today": 3, "held_this_month": 4 });
    travels(&balance, &balance_json);
    travels(&TokenBudget { daily: Some(1), monthly: None }, &json!({ "daily": 1, "monthly": null }));
    travels(&Retention { days: 30, max_messages: 100 }, &json!({ "days": 30, "max_messages": 100 }));
}

#[test]
fn a_subject_travels_as_its_text() {
    for subject in [Subject::new("user", "a:b"), Subject::whole_tenant()] {
        assert_eq!(Subject::from_text(subject.as_str()), subject);
    }
}
