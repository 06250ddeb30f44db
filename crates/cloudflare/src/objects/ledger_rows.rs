//! A tenant's books as rows: one for each period, and one for each request that has set tokens aside.

use enigma_core::ledger::{Account, Hold, HoldChange, Ledger};
use enigma_core::{RequestId, Timestamp};
use serde::Deserialize;

use super::rows::{Rows, RowsError, number};

pub(super) const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS hold (
        request TEXT PRIMARY KEY, tokens INTEGER NOT NULL, expires_at INTEGER NOT NULL,
        day INTEGER NOT NULL, month INTEGER NOT NULL
    ) WITHOUT ROWID;";

const DAY: &str = "day";
const MONTH: &str = "month";

#[derive(Deserialize)]
struct HoldRow {
    request: RequestId,
    tokens: u64,
    expires_at: u64,
    day: u64,
    month: u64,
}

pub(super) fn load(rows: &Rows) -> Result<Ledger, RowsError> {
    let holds = rows.query::<HoldRow>("SELECT request, tokens, expires_at, day, month FROM hold", vec![])?;
    let at = Timestamp::from_millis;
    let holds = holds.into_iter().map(|row| {
        let hold = Hold { tokens: row.tokens, expires_at: at(row.expires_at), day: at(row.day), month: at(row.month) };
        (row.request, hold)
    });
    let account = |name| rows.kept::<Account>(name).map(Option::unwrap_or_default);
    Ok(Ledger::restore(account(DAY)?, account(MONTH)?, holds))
}

/// Does something with the books, and writes down what it changed.
pub(super) fn change<T>(ledger: &mut Ledger, rows: &Rows, act: impl FnOnce(&mut Ledger) -> T) -> Result<T, RowsError> {
    let (day, month) = (*ledger.day(), *ledger.month());
    let result = act(ledger);
    for (name, before, after) in [(DAY, day, *ledger.day()), (MONTH, month, *ledger.month())] {
        if before != after {
            rows.keep(name, &after)?;
        }
    }
    for change in ledger.take_changes() {
        match change {
            HoldChange::Made(request, Hold { tokens, expires_at, day, month }) => rows.run(
                "INSERT OR REPLACE INTO hold (request, tokens, expires_at, day, month) VALUES (?, ?, ?, ?, ?)",
                vec![
                    request.to_string().into(),
                    number(tokens),
                    number(expires_at.as_millis()),
                    number(day.as_millis()),
                    number(month.as_millis()),
                ],
            )?,
            HoldChange::Ended(request) => {
                rows.run("DELETE FROM hold WHERE request = ?", vec![request.to_string().into()])?;
            }
        }
    }
    Ok(result)
}
