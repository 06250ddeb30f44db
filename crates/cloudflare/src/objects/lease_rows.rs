//! Leases as rows.

use enigma_core::limit::{LeaseSet, StreamsFull};
use enigma_core::{RequestId, Timestamp};
use serde::Deserialize;

use super::rows::{Rows, RowsError, number};
use crate::message::StreamAsk;

pub(super) const SCHEMA: &str =
    "CREATE TABLE IF NOT EXISTS lease (holder TEXT PRIMARY KEY, expires_at INTEGER NOT NULL) WITHOUT ROWID;";

#[derive(Deserialize)]
struct Lease {
    holder: RequestId,
    expires_at: u64,
}

pub(super) fn load(rows: &Rows) -> Result<LeaseSet, RowsError> {
    let leases = rows.query::<Lease>("SELECT holder, expires_at FROM lease", vec![])?;
    Ok(LeaseSet::restore(leases.into_iter().map(|it| (it.holder, Timestamp::from_millis(it.expires_at)))))
}

/// Lets a request in, or not.
pub(super) fn enter(
    leases: &mut LeaseSet,
    rows: &Rows,
    ask: &StreamAsk,
    now: Timestamp,
) -> Result<Result<(), StreamsFull>, RowsError> {
    let before = leases.len();
    let entered = leases.enter(ask.request, ask.max_streams, ask.expires_at, now);
    if leases.len() < before + usize::from(entered.is_ok()) {
        rows.run("DELETE FROM lease WHERE expires_at <= ?", vec![number(now.as_millis())])?;
    }
    if entered.is_ok() {
        rows.run(
            "INSERT INTO lease (holder, expires_at) VALUES (?, ?)
             ON CONFLICT (holder) DO UPDATE SET expires_at = excluded.expires_at",
            vec![ask.request.to_string().into(), number(ask.expires_at.as_millis())],
        )?;
    }
    Ok(entered)
}

pub(super) fn leave(leases: &mut LeaseSet, rows: &Rows, holder: &RequestId) -> Result<(), RowsError> {
    leases.leave(holder);
    rows.run("DELETE FROM lease WHERE holder = ?", vec![holder.to_string().into()])
}
