//! Usage records as rows.

use enigma_core::Timestamp;
use enigma_core::usage::UsageRecord;
use serde::Deserialize;

use super::rows::{Rows, RowsError, number};

pub(super) const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS usage (request TEXT PRIMARY KEY, at INTEGER NOT NULL, record TEXT NOT NULL) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS usage_by_time ON usage (at);";

#[derive(Deserialize)]
struct Kept {
    record: String,
}

/// Keeps a record. A second one of the same request changes nothing.
pub(super) fn add(rows: &Rows, record: &UsageRecord) -> Result<(), RowsError> {
    let text = serde_json::to_string(record)?;
    rows.run(
        "INSERT OR IGNORE INTO usage (request, at, record) VALUES (?, ?, ?)",
        vec![record.request.to_string().into(), number(record.at.as_millis()), text.into()],
    )
}

/// The newest records, at most `limit`, the newest first.
pub(super) fn newest(rows: &Rows, limit: u32) -> Result<Vec<UsageRecord>, RowsError> {
    let kept =
        rows.query::<Kept>("SELECT record FROM usage ORDER BY at DESC, request LIMIT ?", vec![number(limit.into())])?;
    kept.iter().map(|kept| Ok(serde_json::from_str(&kept.record)?)).collect()
}

/// Deletes records from before a time, at most `limit`.
pub(super) fn delete_old(rows: &Rows, before: Timestamp, limit: u32) -> Result<(), RowsError> {
    rows.run(
        "DELETE FROM usage WHERE request IN (SELECT request FROM usage WHERE at < ? ORDER BY at LIMIT ?)",
        vec![number(before.as_millis()), number(limit.into())],
    )
}

/// When the oldest record is from.
pub(super) fn oldest(rows: &Rows) -> Result<Option<Timestamp>, RowsError> {
    #[derive(Deserialize)]
    struct Oldest {
        at: Option<u64>,
    }
    let oldest = rows.query::<Oldest>("SELECT min(at) AS at FROM usage", vec![])?.pop();
    Ok(oldest.and_then(|it| it.at).map(Timestamp::from_millis))
}
