//! What stands in the database of a server, read while it runs or after it has died.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Row};
use tokio::time::Instant;

use crate::upstream::PATIENCE;

/// The books of all tenants.
pub struct Books {
    path: PathBuf,
}

/// A record of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// How it ended.
    pub ending: String,
    /// The model that answered, or was asked last.
    pub model: String,
    /// Tokens of prompt and answer.
    pub tokens: (u64, u64),
    /// Tokens charged.
    pub charged: u64,
    /// Tokens that no budget covered.
    pub overrun: u64,
}

/// What a tenant has spent today and this month, and what is set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Account {
    /// Settled today.
    pub day: u64,
    /// Settled this month.
    pub month: u64,
    /// Set aside.
    pub held: u64,
    /// Requests that set it aside.
    pub holds: u64,
}

/// Numbers of the books are never negative.
fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(|number| number.try_into().unwrap())
}

impl Books {
    /// The books of a server that is [stored in](crate::ServerConfig::stored_in) `directory`.
    pub fn of(directory: &Path) -> Self {
        Self { path: directory.join("enigma.db") }
    }

    /// A connection that reads.
    pub fn connect(&self) -> Connection {
        let connection = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
        connection.busy_timeout(PATIENCE).unwrap();
        connection.pragma_update(None, "query_only", true).unwrap();
        connection
    }

    /// The records of a tenant's requests, oldest first.
    pub fn recorded(&self, tenant: &str) -> Vec<Recorded> {
        let connection = self.connect();
        let mut statement = connection
            .prepare(
                "SELECT ending, model, tokens_in, tokens_out, charged, overrun FROM usage WHERE tenant = ? ORDER BY at",
            )
            .unwrap();
        let rows = statement.query_map([tenant], |row| {
            Ok(Recorded {
                ending: row.get(0)?,
                model: row.get(1)?,
                tokens: (number(row, 2)?, number(row, 3)?),
                charged: number(row, 4)?,
                overrun: number(row, 5)?,
            })
        });
        rows.unwrap().map(Result::unwrap).collect()
    }

    /// A tenant's account.
    pub fn account(&self, tenant: &str) -> Account {
        let connection = self.connect();
        let settled = connection.query_row(
            "SELECT day_settled, month_settled FROM ledger_account WHERE tenant = ?",
            [tenant],
            |row| Ok((number(row, 0)?, number(row, 1)?)),
        );
        let (day, month) = match settled {
            Err(rusqlite::Error::QueryReturnedNoRows) => (0, 0),
            found => found.unwrap(),
        };
        let (held, holds) = connection
            .query_row("SELECT coalesce(sum(tokens), 0), count(*) FROM ledger_hold WHERE tenant = ?", [tenant], |row| {
                Ok((number(row, 0)?, number(row, 1)?))
            })
            .unwrap();
        Account { day, month, held, holds }
    }

    /// A tenant's account, when no request of it holds anything any more.
    pub async fn settled(&self, tenant: &str) -> Account {
        let end = Instant::now() + PATIENCE;
        loop {
            let account = self.account(tenant);
            if account.holds == 0 {
                return account;
            }
            assert!(Instant::now() < end, "{tenant} holds tokens still: {account:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Makes the time of every reservation be over, in the file of a server that is not running.
    pub fn expire_all(&self) {
        let connection = Connection::open(&self.path).unwrap();
        connection.execute("UPDATE ledger_hold SET expires_at = 1", []).unwrap();
    }

    /// Asserts that the file is whole, by SQLite's own thorough check.
    pub fn assert_whole(&self) {
        let connection = self.connect();
        let finding: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(finding, "ok");
    }
}
