//! Durable adapters of [enigma-core](enigma_core)'s ports in one SQLite file.
//!
//! What it is: a [`Database`] with one thread that writes, in transactions that jobs share, and some connections that read; and
//! an adapter for each port that has to remember something. They are shells: what is decided is decided by the core.
//!
//! What it is not: a database that several servers share. Two programs cannot open one file.
//!
//! ```no_run
//! use enigma_sqlite::{Database, Options, SqliteSessionStore, SqliteTokenLedger};
//!
//! let database = Database::open("enigma.db", &Options::default())?;
//! let sessions = SqliteSessionStore::new(database.clone());
//! let ledger = SqliteTokenLedger::new(database.clone());
//! # Ok::<(), enigma_sqlite::OpenError>(())
//! ```

mod audit_log;
mod batch;
mod cache;
mod columns;
mod connection;
mod corpus;
mod database;
mod error;
mod file_lock;
mod histories;
mod idempotency_store;
mod ledgers;
mod maintenance;
mod migrations;
mod options;
mod readers;
mod request_books;
mod session_index;
mod session_rows;
mod session_store;
mod session_turns;
mod sql;
mod telemetry;
mod token_ledger;
mod writer;

pub use audit_log::{SqliteAuditLog, read_audit_records};
pub use cache::SqliteCache;
pub use corpus::SqliteCorpus;
pub use database::{Database, Stats};
pub use error::OpenError;
pub use idempotency_store::SqliteIdempotencyStore;
pub use maintenance::{SqliteMaintenance, Swept};
pub use options::{Options, Synchronous};
pub use request_books::SqliteRequestBooks;
pub use session_index::SqliteSessionIndex;
pub use session_store::SqliteSessionStore;
pub use session_turns::SqliteSessionTurns;
pub use telemetry::SqliteTelemetry;
pub use token_ledger::SqliteTokenLedger;
