//! A session as rows: one a message. It says in SQL what [`enigma_core::session::prune`] says in Rust.

use enigma_core::model::Role;
use enigma_core::session::{HistoryPage, RecentMessages, Retention, SessionSummary, StoredMessage, Turn};
use enigma_core::{MessageId, SessionId, Timestamp, UserId};
use serde::{Deserialize, Serialize};
use worker::SqlStorageValue;

use super::rows::{Rows, RowsError, number};

pub(super) const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS message (
        seq INTEGER PRIMARY KEY, id TEXT NOT NULL, role TEXT NOT NULL, at INTEGER NOT NULL, tokens INTEGER,
        truncated INTEGER NOT NULL, content TEXT NOT NULL
    );";

/// The first number of a session's messages.
const FIRST: u64 = 1;

/// The name under which a session's head is kept.
const HEAD: &str = "session";

/// What is known of a session that has messages.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    user: UserId,
    created_at: Timestamp,
    updated_at: Timestamp,
    next_seq: u64,
    count: u32,
    tokens: u64,
    /// No message is older; it may be earlier than the oldest one, so that it need not be sought at every change.
    oldest_at: Timestamp,
}

#[derive(Deserialize)]
struct MessageRow {
    seq: u64,
    id: MessageId,
    role: Role,
    at: u64,
    tokens: Option<u32>,
    truncated: u32,
    content: String,
}

impl From<MessageRow> for StoredMessage {
    fn from(row: MessageRow) -> Self {
        Self {
            id: row.id,
            role: row.role,
            content: row.content,
            at: Timestamp::from_millis(row.at),
            tokens: row.tokens,
            truncated: row.truncated != 0,
        }
    }
}

#[derive(Deserialize)]
struct Tokens {
    tokens: Option<u32>,
}

#[derive(Deserialize)]
struct Oldest {
    at: Option<u64>,
}

/// The messages of an object's session. Nothing here waits, and each change belongs into a transaction.
pub(super) struct SessionRows<'a> {
    pub(super) rows: &'a Rows,
    pub(super) session: SessionId,
}

impl SessionRows<'_> {
    /// Appends a turn and drops what retention ends.
    pub(super) fn append(
        &self,
        turn: &Turn,
        retention: Retention,
        now: Timestamp,
    ) -> Result<SessionSummary, RowsError> {
        let cutoff = retention.cutoff(now);
        let mut known = self.find()?;
        if let Some(head) = &mut known {
            self.delete_old(head, cutoff)?;
        }
        // A session whose messages have all ended begins anew.
        let mut head = known.filter(|head| head.count > 0).unwrap_or_else(|| Head {
            user: turn.user.clone(),
            created_at: now,
            updated_at: now,
            next_seq: FIRST,
            count: 0,
            tokens: 0,
            oldest_at: Timestamp::from_millis(u64::MAX),
        });

        // What would be removed at once is not written.
        let max = retention.max_messages as usize;
        let young: Vec<_> = turn.messages.iter().filter(|message| message.at >= cutoff).collect();
        let new = &young[young.len().saturating_sub(max)..];
        let added = u32::try_from(new.len()).unwrap_or(u32::MAX);
        self.delete_first(&mut head, retention.max_messages - added)?;

        let first = head.next_seq;
        head.updated_at = head.updated_at.max(now);
        head.next_seq += u64::from(added);
        head.count += added;
        head.tokens += new.iter().filter_map(|message| message.tokens).map(u64::from).sum::<u64>();
        head.oldest_at = new.iter().map(|message| message.at).fold(head.oldest_at, Timestamp::min);
        self.put(&head)?;
        for (message, seq) in new.iter().zip(first..) {
            self.add(message, seq)?;
        }
        Ok(self.summary(head))
    }

    fn add(&self, message: &StoredMessage, seq: u64) -> Result<(), RowsError> {
        let role = serde_json::to_value(message.role)?;
        self.rows.run(
            "INSERT INTO message (seq, id, role, at, tokens, truncated, content) VALUES (?, ?, ?, ?, ?, ?, ?)",
            vec![
                number(seq),
                message.id.to_string().into(),
                role.as_str().unwrap_or_default().into(),
                number(message.at.as_millis()),
                message.tokens.map_or(SqlStorageValue::Null, |tokens| number(tokens.into())),
                number(message.truncated.into()),
                message.content.as_str().into(),
            ],
        )
    }

    fn summary(&self, head: Head) -> SessionSummary {
        SessionSummary {
            id: self.session,
            user: head.user,
            created_at: head.created_at,
            updated_at: head.updated_at,
            message_count: head.count,
            token_count: head.tokens,
        }
    }

    /// Drops what retention ends; tells how many messages went.
    pub(super) fn prune(&self, retention: Retention, now: Timestamp) -> Result<u32, RowsError> {
        let Some(mut head) = self.find()? else { return Ok(0) };
        let before = head.count;
        self.delete_old(&mut head, retention.cutoff(now))?;
        self.delete_first(&mut head, retention.max_messages)?;
        self.put(&head)?;
        Ok(before - head.count)
    }

    /// Deletes everything; whether there was something.
    pub(super) fn delete(&self) -> Result<bool, RowsError> {
        let existed = self.find()?.is_some();
        self.rows.run("DELETE FROM message", vec![])?;
        self.rows.drop_kept(HEAD)?;
        Ok(existed)
    }

    /// What the list of sessions says of it; `None` when it has no messages.
    pub(super) fn current(&self) -> Result<Option<SessionSummary>, RowsError> {
        Ok(self.find()?.map(|head| self.summary(head)))
    }

    /// The time that no message is older than; `None` when there is none.
    pub(super) fn oldest_at(&self) -> Result<Option<Timestamp>, RowsError> {
        Ok(self.find()?.map(|head| head.oldest_at))
    }

    fn find(&self) -> Result<Option<Head>, RowsError> {
        self.rows.kept(HEAD)
    }

    fn put(&self, head: &Head) -> Result<(), RowsError> {
        if head.count > 0 { self.rows.keep(HEAD, head) } else { self.rows.drop_kept(HEAD) }
    }

    /// Deletes the messages from before `cutoff`.
    fn delete_old(&self, head: &mut Head, cutoff: Timestamp) -> Result<(), RowsError> {
        if head.oldest_at >= cutoff {
            return Ok(());
        }
        let gone = self
            .rows
            .query::<Tokens>("DELETE FROM message WHERE at < ? RETURNING tokens", vec![number(cutoff.as_millis())])?;
        take_off(head, &gone);
        let oldest = self.rows.query::<Oldest>("SELECT min(at) AS at FROM message", vec![])?.pop();
        head.oldest_at = Timestamp::from_millis(oldest.and_then(|it| it.at).unwrap_or(u64::MAX));
        Ok(())
    }

    /// Deletes the first messages until no more than `most` are left.
    fn delete_first(&self, head: &mut Head, most: u32) -> Result<(), RowsError> {
        let surplus = head.count.saturating_sub(most);
        if surplus > 0 {
            let gone = self.rows.query::<Tokens>(
                "DELETE FROM message WHERE seq IN (SELECT seq FROM message ORDER BY seq LIMIT ?) RETURNING tokens",
                vec![number(surplus.into())],
            )?;
            take_off(head, &gone);
        }
        Ok(())
    }

    /// The newest messages, at most `limit`, oldest first, and who began the session.
    pub(super) fn recent(&self, limit: u32, retention: Retention, now: Timestamp) -> Result<RecentMessages, RowsError> {
        let cutoff = retention.cutoff(now);
        let Some(head) = self.find()? else { return Ok(RecentMessages::default()) };
        if !self.is_kept(retention, cutoff)? {
            return Ok(RecentMessages::default());
        }
        let mut newest = self.newest(0, None, cutoff, limit.min(retention.max_messages).into())?;
        newest.reverse();
        Ok(RecentMessages { user: Some(head.user), messages: newest.into_iter().map(StoredMessage::from).collect() })
    }

    /// Whether retention leaves anything.
    fn is_kept(&self, retention: Retention, cutoff: Timestamp) -> Result<bool, RowsError> {
        Ok(retention.max_messages > 0 && !self.newest(0, None, cutoff, 1)?.is_empty())
    }

    /// The newest messages before `before`, at most `limit`, oldest first.
    pub(super) fn page(
        &self,
        before: Option<u64>,
        limit: u32,
        retention: Retention,
        now: Timestamp,
    ) -> Result<Option<HistoryPage>, RowsError> {
        let cutoff = retention.cutoff(now);
        let Some(head) = self.find()? else { return Ok(None) };
        if !self.is_kept(retention, cutoff)? {
            return Ok(None);
        }
        // More than that are kept only where the limit was lowered after the session's last turn.
        let floor = if head.count > retention.max_messages { self.floor(retention, cutoff)? } else { 0 };
        let mut newest = self.newest(floor, before, cutoff, u64::from(limit) + 1)?;
        let older = if newest.len() > limit as usize { newest.pop() } else { None };
        newest.reverse();
        Ok(Some(HistoryPage {
            user: Some(head.user),
            messages: newest.into_iter().map(StoredMessage::from).collect(),
            next_before: older.map(|row| row.seq + 1),
        }))
    }

    /// The number of the oldest message that the most that may be kept leaves.
    fn floor(&self, retention: Retention, cutoff: Timestamp) -> Result<u64, RowsError> {
        #[derive(Deserialize)]
        struct Floor {
            seq: u64,
        }
        let floor = self.rows.query::<Floor>(
            "SELECT seq FROM message WHERE at >= ? ORDER BY seq DESC LIMIT 1 OFFSET ?",
            vec![number(cutoff.as_millis()), number(retention.max_messages.saturating_sub(1).into())],
        )?;
        Ok(floor.first().map_or(0, |row| row.seq))
    }

    /// The newest first.
    fn newest(
        &self,
        floor: u64,
        before: Option<u64>,
        cutoff: Timestamp,
        limit: u64,
    ) -> Result<Vec<MessageRow>, RowsError> {
        self.rows.query(
            "SELECT seq, id, role, at, tokens, truncated, content FROM message
             WHERE seq >= ? AND seq < ? AND at >= ? ORDER BY seq DESC LIMIT ?",
            // A number that no message can have is after every message.
            vec![number(floor), number(before.unwrap_or(u64::MAX)), number(cutoff.as_millis()), number(limit)],
        )
    }
}

fn take_off(head: &mut Head, gone: &[Tokens]) {
    for row in gone {
        head.count = head.count.saturating_sub(1);
        head.tokens = head.tokens.saturating_sub(row.tokens.unwrap_or(0).into());
    }
}
