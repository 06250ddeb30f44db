//! Answers of requests that may be repeated, as rows.

use enigma_core::idempotency::{self, Begin, Fingerprint, IdempotencyEntry, IdempotencyKey};
use enigma_core::{RequestId, Timestamp};
use serde::Deserialize;

use super::rows::{Rows, RowsError, number};

pub(super) const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS answer (
        key TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, holder TEXT NOT NULL, expires_at INTEGER NOT NULL, answer TEXT
    );
    CREATE INDEX IF NOT EXISTS answer_by_expiry ON answer (expires_at);";

/// Expired entries that go when a new one comes: more than one, so that they become fewer.
const EXPIRED_AT_ONCE: u32 = 4;

#[derive(Deserialize)]
struct Row {
    fingerprint: String,
    holder: RequestId,
    answer: Option<String>,
    expires_at: u64,
}

pub(super) fn begin(
    rows: &Rows,
    key: &IdempotencyKey,
    fingerprint: &Fingerprint,
    holder: &RequestId,
    lease_until: Timestamp,
    now: Timestamp,
) -> Result<Begin, RowsError> {
    let found = rows.query::<Row>(
        "SELECT fingerprint, holder, answer, expires_at FROM answer WHERE key = ?",
        vec![key.as_str().into()],
    )?;
    let entry = found.into_iter().next().map(entry).transpose()?;
    let begun = idempotency::begin(entry.as_ref(), fingerprint, now);
    if begun == Begin::First {
        delete_expired(rows, now, EXPIRED_AT_ONCE)?;
        rows.run(
            "INSERT OR REPLACE INTO answer (key, fingerprint, holder, expires_at, answer) VALUES (?, ?, ?, ?, NULL)",
            vec![
                key.as_str().into(),
                hex::encode(fingerprint.bytes()).into(),
                holder.to_string().into(),
                number(lease_until.as_millis()),
            ],
        )?;
    }
    Ok(begun)
}

fn entry(row: Row) -> Result<IdempotencyEntry, RowsError> {
    let mut fingerprint = [0; 32];
    hex::decode_to_slice(&row.fingerprint, &mut fingerprint).map_err(|error| RowsError::Corrupt(error.to_string()))?;
    Ok(IdempotencyEntry {
        fingerprint: Fingerprint::from_bytes(fingerprint),
        holder: row.holder,
        answer: row.answer,
        expires_at: Timestamp::from_millis(row.expires_at),
    })
}

pub(super) fn finish(
    rows: &Rows,
    key: &IdempotencyKey,
    holder: &RequestId,
    answer: String,
    keep_until: Timestamp,
) -> Result<(), RowsError> {
    rows.run(
        "UPDATE answer SET answer = ?, expires_at = ? WHERE key = ? AND holder = ? AND answer IS NULL",
        vec![answer.into(), number(keep_until.as_millis()), key.as_str().into(), holder.to_string().into()],
    )
}

pub(super) fn abandon(rows: &Rows, key: &IdempotencyKey, holder: &RequestId) -> Result<(), RowsError> {
    rows.run(
        "DELETE FROM answer WHERE key = ? AND holder = ? AND answer IS NULL",
        vec![key.as_str().into(), holder.to_string().into()],
    )
}

pub(super) fn delete_expired(rows: &Rows, now: Timestamp, limit: u32) -> Result<(), RowsError> {
    rows.run(
        "DELETE FROM answer WHERE key IN (SELECT key FROM answer WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)",
        vec![number(now.as_millis()), number(limit.into())],
    )
}

/// When the next entry expires.
pub(super) fn next_expiry(rows: &Rows) -> Result<Option<Timestamp>, RowsError> {
    #[derive(Deserialize)]
    struct Next {
        at: Option<u64>,
    }
    let next = rows.query::<Next>("SELECT min(expires_at) AS at FROM answer", vec![])?.pop();
    Ok(next.and_then(|it| it.at).map(Timestamp::from_millis))
}
