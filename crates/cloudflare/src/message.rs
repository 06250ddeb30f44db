//! What the Worker and its Durable Objects say to each other, as JSON.
//!
//! Worker and objects are one program, but not always of one version: during a deployment an old Worker asks a new object and
//! the other way round. So a field that is added must be optional, and a variant that is added must not be asked for before
//! every object knows it.

use std::time::Duration;

use enigma_core::idempotency::{Fingerprint, IdempotencyKey};
use enigma_core::ledger::{BudgetExceeded, Settlement};
use enigma_core::limit::{Decision, LimitCheck, Opinion, Question, RateStatus, StreamsFull, Subject, WindowPolicy};
use enigma_core::session::{RecentMessages, Retention, StoredMessage, Turn};
use enigma_core::tenant::TokenBudget;
use enigma_core::usage::UsageRecord;
use enigma_core::{RequestId, SessionId, TenantId, Timestamp};
use serde::{Deserialize, Serialize};

/// A message to an object.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Message<Q> {
    /// Whose object is meant. An object answers its own tenant only.
    pub(crate) tenant: TenantId,
    pub(crate) ask: Q,
}

/// A limit that a request must pass.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Check {
    subject: String,
    pub(crate) policy: WindowPolicy,
}

impl Check {
    pub(crate) fn subject(&self) -> Subject {
        Subject::from_text(&self.subject)
    }
}

impl From<&LimitCheck<'_>> for Check {
    fn from(check: &LimitCheck<'_>) -> Self {
        Self { subject: check.subject.as_str().to_owned(), policy: *check.policy }
    }
}

/// One of the tenant's streams, for a request.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct StreamAsk {
    pub(crate) request: RequestId,
    pub(crate) max_streams: u32,
    pub(crate) expires_at: Timestamp,
}

/// A question to a line of windows, each in an object of its own. It goes from one object to the next, and the tenant's own is
/// always the last.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LineAsk {
    pub(crate) question: LineQuestion,
    /// The windows from this object on; the first one is its own.
    pub(crate) checks: Vec<Check>,
    /// Taken by the last object, when every window gave a slot.
    pub(crate) stream: Option<StreamAsk>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LineQuestion {
    /// For a slot, or what they think of it.
    Slot(Question),
    /// How full they are.
    Peek(Timestamp),
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LineAnswer {
    Decided { decision: Decision, full: Option<StreamsFull> },
    Thinks(Opinion),
    Peeked { status: RateStatus, at: Timestamp },
}

/// A question to the object of a tenant.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LedgerAsk {
    Line(LineAsk),
    EnterStream {
        stream: StreamAsk,
        now: Timestamp,
    },
    LeaveStream {
        request: RequestId,
    },
    Reserve {
        request: RequestId,
        tokens: u64,
        budget: TokenBudget,
        lifetime: Duration,
        now: Timestamp,
    },
    Settle {
        request: RequestId,
        used: u64,
        budget: TokenBudget,
        now: Timestamp,
    },
    Release {
        request: RequestId,
    },
    Balance {
        now: Timestamp,
    },
    Close(Box<CloseAsk>),
    Record(Box<UsageRecord>),
    Records {
        limit: u32,
    },
    BeginKey {
        key: IdempotencyKey,
        fingerprint: Fingerprint,
        holder: RequestId,
        lease_until: Timestamp,
        now: Timestamp,
    },
    FinishKey {
        key: IdempotencyKey,
        holder: RequestId,
        answer: String,
        keep_until: Timestamp,
    },
    AbandonKey {
        key: IdempotencyKey,
        holder: RequestId,
    },
}

impl LedgerAsk {
    /// Whether asking twice leaves what asking once does, so that a question whose answer was lost can be asked again.
    pub(crate) const fn may_be_said_twice(&self) -> bool {
        match self {
            Self::LeaveStream { .. }
            | Self::Reserve { .. }
            | Self::Release { .. }
            | Self::Balance { .. }
            | Self::Close(_)
            | Self::Record(_)
            | Self::Records { .. }
            | Self::FinishKey { .. }
            | Self::AbandonKey { .. } => true,
            // These take something, or tell what became of it by what they find.
            Self::Line(_) | Self::EnterStream { .. } | Self::Settle { .. } | Self::BeginKey { .. } => false,
        }
    }
}

/// The end of a request that got in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct CloseAsk {
    pub(crate) request: RequestId,
    pub(crate) spending: SpendingAsk,
    pub(crate) record: Option<UsageRecord>,
    pub(crate) now: Timestamp,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SpendingAsk {
    None,
    Released,
    Used { tokens: u64, reserved: u64, budget: TokenBudget },
}

pub(crate) type Reserved = Result<(), BudgetExceeded>;
pub(crate) type EnteredStream = Result<(), StreamsFull>;
pub(crate) type Settled = Option<Settlement>;

/// A question to the object of a session.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SessionAsk {
    pub(crate) session: SessionId,
    pub(crate) verb: SessionVerb,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SessionVerb {
    /// Waits for the turn; answered when it has come.
    Enter {
        request: RequestId,
        lease: Duration,
    },
    /// The same, with the newest messages in the answer.
    Begin {
        request: RequestId,
        lease: Duration,
        limit: u32,
        retention: Retention,
        now: Timestamp,
        /// Whether the answer says whose session it is. A Worker that does not ask for it expects the bare messages.
        #[serde(default)]
        with_user: bool,
    },
    /// Ends the turn of a request, or its waiting.
    Leave {
        request: RequestId,
    },
    /// Appends, and ends the turn of `request`, when one is named.
    Append {
        turn: Turn,
        retention: Retention,
        now: Timestamp,
        request: Option<RequestId>,
    },
    Recent {
        limit: u32,
        retention: Retention,
        now: Timestamp,
    },
    Page {
        before: Option<u64>,
        limit: u32,
        retention: Retention,
        now: Timestamp,
    },
    Delete,
    Prune {
        retention: Retention,
        now: Timestamp,
    },
}

/// The answer to [`SessionVerb::Begin`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Begun {
    WithUser(RecentMessages),
    /// What an object of an older version says, and what an older Worker understands.
    Bare(Vec<StoredMessage>),
}

impl SessionVerb {
    /// Whether asking twice leaves what asking once does.
    pub(crate) const fn may_be_said_twice(&self) -> bool {
        matches!(self, Self::Leave { .. } | Self::Recent { .. } | Self::Page { .. })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// During a deployment either side may be the older one.
    #[test]
    fn the_beginning_of_a_turn_is_understood_by_and_of_older_versions() {
        let message = json!({
            "id": "00000000-0000-0000-0000-000000000001", "role": "user", "content": "hello", "at": 1,
            "tokens": null, "truncated": false,
        });
        let read = |answer: serde_json::Value| serde_json::from_value::<Begun>(answer).unwrap();
        for messages in [json!([]), json!([message]), json!([message, message])] {
            let count = messages.as_array().unwrap().len();
            assert!(matches!(read(messages.clone()), Begun::Bare(bare) if bare.len() == count), "{messages}");
            let answer = read(json!({ "user": "alice", "messages": messages }));
            assert!(matches!(&answer, Begun::WithUser(recent) if recent.messages.len() == count), "{answer:?}");
        }
        let older = json!({ "begin": {
            "request": "00000000-0000-0000-0000-000000000001", "lease": { "secs": 1, "nanos": 0 }, "limit": 1,
            "retention": { "days": 1, "max_messages": 2 }, "now": 1,
        } });
        let verb: SessionVerb = serde_json::from_value(older).unwrap();
        assert!(matches!(verb, SessionVerb::Begin { with_user: false, .. }));
    }
}
