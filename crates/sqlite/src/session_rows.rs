//! Sessions as rows. This says in SQL what [`enigma_core::session::prune`] says in Rust.

use enigma_core::session::{HistoryPage, RecentMessages, Retention, SessionSummary, StoredMessage, Turn};
use enigma_core::{SessionId, TenantId, Timestamp, UserId};
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, ToSql, Transaction, params};

use crate::columns::{After, Col, get, get_optional};
use crate::error::StoreError;
use crate::sql;

/// The first number of a session's messages.
const FIRST: u64 = 1;

/// A session on one connection.
pub(crate) struct SessionRows<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) tenant: &'a TenantId,
    pub(crate) session: &'a SessionId,
}

/// A session's row.
#[derive(Debug)]
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

impl SessionRows<'_> {
    /// Appends a turn and drops what retention ends.
    pub(crate) fn append(
        &self,
        turn: &Turn,
        retention: Retention,
        now: Timestamp,
    ) -> Result<SessionSummary, StoreError> {
        let cutoff = retention.cutoff(now);
        let mut known = self.find()?;
        if let Some(head) = &mut known {
            self.delete_old(head, cutoff)?;
        }
        let is_known = known.is_some();
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
        if head.count > 0 {
            self.put(&head)?;
        } else if is_known {
            self.delete_head()?;
        }
        let mut add = self.connection.prepare_cached(sql::MESSAGE_ADD)?;
        for (message, seq) in new.iter().zip(first..) {
            add.execute(params![
                Col(self.tenant),
                Col(self.session),
                Col(seq),
                Col(&message.id),
                Col(message.role),
                Col(message.at),
                message.tokens,
                message.truncated,
                message.content
            ])?;
        }
        Ok(SessionSummary {
            id: *self.session,
            user: head.user,
            created_at: head.created_at,
            updated_at: head.updated_at,
            message_count: head.count,
            token_count: head.tokens,
        })
    }

    /// Drops what retention ends; tells how many messages went.
    pub(crate) fn prune(&self, retention: Retention, now: Timestamp) -> Result<u32, StoreError> {
        let Some(mut head) = self.find()? else { return Ok(0) };
        let before = head.count;
        self.delete_old(&mut head, retention.cutoff(now))?;
        self.delete_first(&mut head, retention.max_messages)?;
        if head.count > 0 {
            self.put(&head)?;
        } else {
            self.delete_head()?;
        }
        Ok(before - head.count)
    }

    /// Deletes everything; whether there was something.
    pub(crate) fn delete(&self) -> Result<bool, StoreError> {
        self.statement(sql::MESSAGES_DELETE_ALL)?.execute(self.key())?;
        Ok(self.statement(sql::SESSION_DELETE)?.execute(self.key())? > 0)
    }

    fn delete_head(&self) -> Result<(), StoreError> {
        self.statement(sql::SESSION_DELETE)?.execute(self.key())?;
        Ok(())
    }

    fn find(&self) -> Result<Option<Head>, StoreError> {
        let head = self.statement(sql::SESSION_FIND)?.query_row(self.key(), |row| {
            Ok(Head {
                user: get(row, 0)?,
                created_at: get(row, 1)?,
                updated_at: get(row, 2)?,
                next_seq: get(row, 3)?,
                count: row.get(4)?,
                tokens: get(row, 5)?,
                oldest_at: get(row, 6)?,
            })
        });
        Ok(head.optional()?)
    }

    fn put(&self, head: &Head) -> Result<(), StoreError> {
        self.statement(sql::SESSION_PUT)?.execute(params![
            Col(self.tenant),
            Col(self.session),
            Col(&head.user),
            Col(head.created_at),
            Col(head.updated_at),
            Col(head.next_seq),
            head.count,
            Col(head.tokens),
            Col(head.oldest_at)
        ])?;
        Ok(())
    }

    /// Deletes the messages from before `cutoff`.
    fn delete_old(&self, head: &mut Head, cutoff: Timestamp) -> Result<(), StoreError> {
        if head.oldest_at >= cutoff {
            return Ok(());
        }
        self.take_off(head, sql::MESSAGES_DELETE_OLD, &Col(cutoff))?;
        let oldest = self.statement(sql::MESSAGES_OLDEST_AT)?.query_row(self.key(), |row| get_optional(row, 0))?;
        head.oldest_at = oldest.unwrap_or(Timestamp::from_millis(u64::MAX));
        Ok(())
    }

    /// Deletes the first messages until no more than `most` are left.
    fn delete_first(&self, head: &mut Head, most: u32) -> Result<(), StoreError> {
        match head.count.saturating_sub(most) {
            0 => Ok(()),
            surplus => self.take_off(head, sql::MESSAGES_DELETE_FIRST, &surplus),
        }
    }

    fn take_off(&self, head: &mut Head, delete: &str, which: &dyn ToSql) -> Result<(), StoreError> {
        let mut statement = self.statement(delete)?;
        let mut rows = statement.query(params![Col(self.tenant), Col(self.session), which])?;
        while let Some(row) = rows.next()? {
            let tokens: Option<u32> = row.get(0)?;
            head.count = head.count.saturating_sub(1);
            head.tokens = head.tokens.saturating_sub(tokens.unwrap_or(0).into());
        }
        Ok(())
    }

    /// The newest messages, at most `limit`, oldest first, and who began the session.
    pub(crate) fn recent(
        &self,
        limit: u32,
        retention: Retention,
        now: Timestamp,
    ) -> Result<RecentMessages, StoreError> {
        let cutoff = retention.cutoff(now);
        let Some(head) = self.find()? else { return Ok(RecentMessages::default()) };
        if !self.is_kept(retention, cutoff)? {
            return Ok(RecentMessages::default());
        }
        let mut newest = self.newest(0, None, cutoff, limit.min(retention.max_messages).into())?;
        newest.reverse();
        Ok(RecentMessages { user: Some(head.user), messages: newest.into_iter().map(|(_, message)| message).collect() })
    }

    /// Whether retention leaves anything.
    fn is_kept(&self, retention: Retention, cutoff: Timestamp) -> Result<bool, StoreError> {
        let kept = retention.max_messages > 0
            && self
                .statement(sql::MESSAGES_EXIST)?
                .query_row(params![Col(self.tenant), Col(self.session), Col(cutoff)], |row| row.get(0))?;
        Ok(kept)
    }

    /// The newest messages before `before`, at most `limit`, oldest first.
    pub(crate) fn page(
        &self,
        before: Option<u64>,
        limit: u32,
        retention: Retention,
        now: Timestamp,
    ) -> Result<Option<HistoryPage>, StoreError> {
        let cutoff = retention.cutoff(now);
        let Some(head) = self.find()? else { return Ok(None) };
        if !self.is_kept(retention, cutoff)? {
            return Ok(None);
        }
        // More than that are kept only where the limit was lowered after the session's last turn.
        let floor = if head.count > retention.max_messages { self.floor(retention, cutoff)? } else { 0 };
        let mut newest = self.newest(floor, before, cutoff, u64::from(limit) + 1)?;
        let older = (newest.len() > limit as usize).then(|| newest.pop()).flatten();
        newest.reverse();
        Ok(Some(HistoryPage {
            user: Some(head.user),
            messages: newest.into_iter().map(|(_, message)| message).collect(),
            next_before: older.map(|(seq, _)| seq + 1),
        }))
    }

    /// The number of the oldest message that the most that may be kept leaves.
    fn floor(&self, retention: Retention, cutoff: Timestamp) -> Result<u64, StoreError> {
        let skipped = retention.max_messages.saturating_sub(1);
        let floor = self
            .statement(sql::MESSAGES_FLOOR)?
            .query_row(params![Col(self.tenant), Col(self.session), Col(cutoff), skipped], |row| get(row, 0));
        Ok(floor.optional()?.unwrap_or(0))
    }

    /// Messages with their numbers, the newest first.
    fn newest(
        &self,
        floor: u64,
        before: Option<u64>,
        cutoff: Timestamp,
        limit: u64,
    ) -> Result<Vec<(u64, StoredMessage)>, StoreError> {
        // A number that the column cannot hold is after every message.
        let before = before.and_then(|before| i64::try_from(before).ok()).unwrap_or(i64::MAX);
        let rows = self
            .statement(sql::MESSAGES_NEWEST)?
            .query_map(
                params![Col(self.tenant), Col(self.session), Col(floor), before, Col(cutoff), Col(limit)],
                message,
            )?
            .collect::<rusqlite::Result<_>>()?;
        Ok(rows)
    }

    fn statement(&self, sql: &str) -> Result<CachedStatement<'_>, StoreError> {
        Ok(self.connection.prepare_cached(sql)?)
    }

    fn key(&self) -> (Col<&TenantId>, Col<&SessionId>) {
        (Col(self.tenant), Col(self.session))
    }
}

fn message(row: &Row<'_>) -> rusqlite::Result<(u64, StoredMessage)> {
    let message = StoredMessage {
        id: get(row, 1)?,
        role: get(row, 2)?,
        at: get(row, 3)?,
        tokens: row.get(4)?,
        truncated: row.get(5)?,
        content: row.get(6)?,
    };
    Ok((get(row, 0)?, message))
}

/// The next sessions after `after` that may have something to remove.
pub(crate) fn to_sweep(
    connection: &Transaction<'_>,
    tenant: &TenantId,
    after: Option<&SessionId>,
    retention: Retention,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<SessionId>, StoreError> {
    let found = connection
        .prepare_cached(sql::SESSIONS_TO_SWEEP)?
        .query_map(
            params![Col(tenant), After(after), Col(retention.cutoff(now)), retention.max_messages, limit],
            |row| get(row, 0),
        )?
        .collect::<rusqlite::Result<_>>()?;
    Ok(found)
}
