//! What is recorded of a request when it has ended. Never message text.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{ModelId, ProviderId, RequestId, SessionId, TraceId, UserId};
use crate::time::Timestamp;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The answer is whole.
    Finished,
    /// The model failed.
    Failed,
    /// The request took too long.
    TimedOut,
    /// The client went away, or read nothing for too long.
    ClientGone,
    /// The program was told to stop.
    ShutDown,
}

impl Ending {
    /// The name in records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::ClientGone => "client_gone",
            Self::ShutDown => "shut_down",
        }
    }
}

/// The record of a request that reserved tokens. There is exactly one for each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageRecord {
    /// The request.
    pub request: RequestId,
    /// Its trace.
    pub trace: TraceId,
    /// The route that it came through.
    pub route: String,
    /// On whose behalf.
    pub user: UserId,
    /// The session, when there is one.
    pub session: Option<SessionId>,
    /// The model that answered, or was asked last.
    pub model: ModelId,
    /// Who serves it, when it was reached.
    pub provider: Option<ProviderId>,
    /// When the request came.
    pub at: Timestamp,
    /// How long it took.
    pub latency: Duration,
    /// How long the first piece of the answer took.
    pub first_token: Option<Duration>,
    /// Tokens of the prompt.
    pub tokens_in: u32,
    /// Tokens of the answer.
    pub tokens_out: u32,
    /// Characters that were spoken, which is what engines charge for; only of requests for speech. Budgets count them as the
    /// tokens of their text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub characters: Option<u32>,
    /// Whether the tokens are our estimate, because the provider reported none.
    pub estimated: bool,
    /// Tokens charged to the budget.
    pub charged: u64,
    /// Tokens used beyond what the budget could cover.
    pub overrun: u64,
    /// How it ended.
    pub ending: Ending,
}
