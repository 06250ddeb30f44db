//! What a session keeps.

use serde::{Deserialize, Serialize};

use crate::id::{MessageId, SessionId, UserId};
use crate::model::Role;
use crate::time::Timestamp;

/// A message as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredMessage {
    /// Its id.
    pub id: MessageId,
    /// Who said it.
    pub role: Role,
    /// What was said.
    pub content: String,
    /// When.
    pub at: Timestamp,
    /// Its tokens, where they are known.
    pub tokens: Option<u32>,
    /// Whether the answer broke off before its end.
    pub truncated: bool,
}

/// What is appended as one: the user's message, or several, and the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// On whose behalf.
    pub user: UserId,
    /// The messages, oldest first.
    pub messages: Vec<StoredMessage>,
}

/// What is known of a session besides its messages' text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionSummary {
    /// Its id.
    pub id: SessionId,
    /// Who began it.
    pub user: UserId,
    /// When it was begun.
    pub created_at: Timestamp,
    /// When its newest turn was appended.
    pub updated_at: Timestamp,
    /// The messages that it keeps.
    pub message_count: u32,
    /// The sum of their known tokens.
    pub token_count: u64,
}

/// The newest messages of a session, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RecentMessages {
    /// Who began it; `None` where nothing of it is left, so that the next turn begins it anew.
    pub user: Option<UserId>,
    /// The messages, oldest first.
    pub messages: Vec<StoredMessage>,
}

/// A stretch of a session's history.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HistoryPage {
    /// Who began the session; `None` where that was not told, and then nobody but the holder of a key is shown the page.
    #[serde(default)]
    pub user: Option<UserId>,
    /// Its messages, oldest first.
    pub messages: Vec<StoredMessage>,
    /// Where the page before this one ends; `None` when there is none. A number that grows along the session, for use with
    /// the same session only.
    pub next_before: Option<u64>,
}

/// A stretch of the list of sessions.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SessionPage {
    /// The sessions, the latest changed first.
    pub sessions: Vec<SessionSummary>,
    /// The last of these, for the question for the next page; `None` when nothing follows.
    pub next: Option<(Timestamp, SessionId)>,
}
