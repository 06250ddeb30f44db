//! Random inputs, as proptest strategies, and a fixed sample of them for cases that cannot run inside proptest's own loop
//! because they are async.

use std::ops::RangeInclusive;
use std::time::Duration;

use enigma_core::limit::{Window, WindowPolicy};
use enigma_core::model::Role;
use enigma_core::session::{Retention, StoredMessage};
use enigma_core::tenant::TokenBudget;
use enigma_core::{MessageId, Timestamp};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use uuid::Uuid;

/// `count` values of `strategy`, the same ones every time.
pub fn samples<S: Strategy>(strategy: S, count: usize) -> impl Iterator<Item = S::Value> {
    let mut runner = TestRunner::deterministic();
    (0..count).map(move |_| strategy.new_tree(&mut runner).expect("no strategy of a case rejects values").current())
}

/// Window policies with small limits and lengths of up to 40 ms, so that a short sequence of requests meets their edges.
pub fn window_policies() -> impl Strategy<Value = WindowPolicy> {
    (1u32..8, 1u32..8, 1u64..40, 1u64..40).prop_map(|(sustained, burst, one, other)| WindowPolicy {
        sustained: Window { limit: sustained, length: Duration::from_millis(one.max(other)) },
        burst: Window { limit: burst, length: Duration::from_millis(one.min(other)) },
    })
}

/// Budgets of a few hundred tokens, with and without either limit.
pub fn budgets() -> impl Strategy<Value = TokenBudget> {
    (prop::option::weighted(0.8, 50u64..300), prop::option::weighted(0.8, 50u64..600))
        .prop_map(|(daily, monthly)| TokenBudget { daily, monthly })
}

/// Retentions of a few days and messages.
pub fn retentions() -> impl Strategy<Value = Retention> {
    (1u32..6, 2u32..14).prop_map(|(days, max_messages)| Retention { days, max_messages })
}

/// Messages of every role, with times in `at`, in milliseconds, and texts in many scripts. Their ids are numbered from 0 on.
pub fn messages(count: RangeInclusive<usize>, at: RangeInclusive<u64>) -> impl Strategy<Value = Vec<StoredMessage>> {
    let role = prop::sample::select(vec![Role::System, Role::User, Role::Assistant, Role::Tool]);
    let one = (role, ".{0,12}", at, prop::option::of(0u32..5000), any::<bool>());
    prop::collection::vec(one, count).prop_map(move |parts| {
        let numbered = parts.into_iter().zip(0..);
        numbered
            .map(|((role, content, at, tokens, truncated), number)| StoredMessage {
                id: MessageId::new(Uuid::from_u128(number)),
                role,
                content,
                at: Timestamp::from_millis(at),
                tokens,
                truncated,
            })
            .collect()
    })
}
