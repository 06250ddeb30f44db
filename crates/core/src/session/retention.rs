//! How long messages are kept, and how many.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::StoredMessage;
use crate::time::Timestamp;

/// What a session may keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// Days.
    pub days: u32,
    /// Messages.
    pub max_messages: u32,
}

impl Retention {
    /// The first time that is still kept at `now`.
    pub fn cutoff(&self, now: Timestamp) -> Timestamp {
        now.saturating_sub(Duration::from_secs(u64::from(self.days) * 86_400))
    }
}

/// Leaves of a session's messages, oldest first, what may be kept at `now`: the newest ones, in their order.
///
/// This is the definition. Adapters that keep messages in a database say the same in its language, and the contract suite holds
/// them against it.
pub fn prune(mut messages: Vec<StoredMessage>, retention: &Retention, now: Timestamp) -> Vec<StoredMessage> {
    let cutoff = retention.cutoff(now);
    messages.retain(|message| message.at >= cutoff);
    let surplus = messages.len().saturating_sub(retention.max_messages as usize);
    messages.drain(..surplus);
    messages
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::MessageId;
    use crate::model::Role;
    use proptest::prelude::*;
    use uuid::Uuid;

    proptest! {
        #[test]
        fn order_is_kept_and_nothing_old_or_surplus_stays(
            times in proptest::collection::vec(0u64..40, 0..60), days in 1u32..20, max_messages in 1u32..20, now in 0u64..60,
        ) {
            let day = |n: u64| Timestamp::from_millis(n * 86_400_000);
            let messages: Vec<StoredMessage> = times.iter().zip(0u128..).map(|(at, n)| StoredMessage {
                id: MessageId::new(Uuid::from_u128(n)), role: Role::User, content: String::new(), at: day(*at),
                tokens: None, truncated: false,
            }).collect();
            let retention = Retention { days, max_messages };
            let kept = prune(messages.clone(), &retention, day(now));

            prop_assert!(kept.len() <= max_messages as usize);
            prop_assert!(kept.iter().all(|m| day(now).since(m.at) <= Duration::from_secs(u64::from(days) * 86_400)));
            prop_assert!(kept.windows(2).all(|w| w[0].id < w[1].id), "order is kept");
            let young: Vec<_> = messages.iter().filter(|m| m.at >= retention.cutoff(day(now))).collect();
            let expected = &young[young.len().saturating_sub(max_messages as usize)..];
            prop_assert!(kept.iter().eq(expected.iter().copied()), "the newest stay");
        }
    }
}
