//! Random histories, held against the definition of retention.

use std::collections::HashMap;

use enigma_core::ports::SessionStore;
use enigma_core::session::{Retention, SessionSummary, StoredMessage, Turn, prune};
use enigma_core::{MessageId, SessionId, Timestamp, UserId};
use proptest::prelude::*;
use uuid::Uuid;

use super::history;
use crate::fixture::{DAY, NOON, session, tenant, user};
use crate::strategies::{messages, retentions, samples};

#[derive(Debug, Clone)]
enum Step {
    Append { who: &'static str, messages: Vec<StoredMessage> },
    Delete,
    Sweep,
    Look,
}

fn steps() -> impl Strategy<Value = Vec<(u64, u128, Step)>> {
    let hour = 3_600_000;
    // Ten days before the case begins up to ten days after, so that some messages are too old when they come.
    let at = NOON.as_millis() - 240 * hour..=NOON.as_millis() + 240 * hour;
    let append = (prop::sample::select(vec!["alice", "bob"]), messages(1..=5, at));
    let step = prop_oneof![
        8 => append.prop_map(|(who, messages)| Step::Append { who, messages }),
        1 => Just(Step::Delete),
        1 => Just(Step::Sweep),
        3 => Just(Step::Look),
    ];
    prop::collection::vec((0u64..14 * hour, 0u128..3, step), 1..50)
}

#[derive(Default)]
struct Model {
    messages: Vec<StoredMessage>,
    begun: Option<(UserId, Timestamp)>,
    changed: Timestamp,
}

impl Model {
    /// Drops what retention ends, and the session when nothing is left of it; tells how many messages went.
    fn prune(&mut self, retention: Retention, now: Timestamp) -> u64 {
        let before = self.messages.len();
        self.messages = prune(std::mem::take(&mut self.messages), &retention, now);
        if self.messages.is_empty() {
            self.begun = None;
        }
        (before - self.messages.len()) as u64
    }

    fn append(&mut self, id: SessionId, turn: &Turn, retention: Retention, now: Timestamp) -> SessionSummary {
        self.prune(retention, now);
        let (user, created_at) = self.begun.get_or_insert_with(|| (turn.user.clone(), now)).clone();
        self.messages.extend(turn.messages.clone());
        self.changed = now;
        self.prune(retention, now);
        let token_count = self.messages.iter().filter_map(|message| message.tokens).map(u64::from).sum();
        let message_count = u32::try_from(self.messages.len()).expect("a handful");
        SessionSummary { id, user, created_at, updated_at: now, message_count, token_count }
    }
}

/// After random turns with random times, deletions and sweeps, every session holds what [`prune`] leaves of it, and its pages
/// hold all of that once, in order.
pub async fn keeps_what_prune_keeps(store: &dyn SessionStore) {
    for (run, (retention, page_size, steps)) in samples((retentions(), 1u32..8, steps()), 40).enumerate() {
        let tenant = tenant(&format!("run-{run}"));
        let (mut models, mut now): (HashMap<u128, Model>, _) = (HashMap::new(), NOON.saturating_sub(5 * DAY));
        for (nth, (pause, number, step)) in (0..).zip(steps) {
            now = Timestamp::from_millis(now.as_millis() + pause);
            let (id, model) = (session(number), models.entry(number).or_default());
            match step {
                Step::Append { who, mut messages } => {
                    for (message, place) in messages.iter_mut().zip(0..) {
                        message.id = MessageId::new(Uuid::from_u128(nth << 8 | place));
                    }
                    let turn = Turn { user: user(who), messages };
                    let summary = store.append_turn(&tenant, &id, &turn, &retention, now).await;
                    assert_eq!(summary.expect("the turn is appended"), model.append(id, &turn, retention, now));
                }
                Step::Delete => {
                    // Whether a session is there to delete whose messages are merely too old, is nowhere said.
                    let was_there = !model.messages.is_empty();
                    let expired = was_there && prune(model.messages.clone(), &retention, now).is_empty();
                    let deleted = store.delete(&tenant, &id).await.expect("the store answers");
                    assert!(expired || deleted == was_there);
                    *model = Model::default();
                }
                Step::Sweep => {
                    let swept = store.sweep(&tenant, &retention, now).await.expect("the store answers");
                    let expected: u64 = models.values_mut().map(|model| model.prune(retention, now)).sum();
                    assert!(swept <= expected, "what a read has removed already is not counted again");
                }
                Step::Look => {}
            }
            for (number, model) in &models {
                let expected = prune(model.messages.clone(), &retention, now);
                let recent = store.recent(&tenant, &session(*number), page_size, &retention, now).await;
                let tail = expected.len().saturating_sub(page_size as usize);
                assert_eq!(recent.expect("the store answers").messages, expected[tail..]);
                let all = history(store, &tenant, &session(*number), page_size, &retention, now).await;
                assert_eq!(all, (!expected.is_empty()).then_some(expected));
            }
        }
    }
}
