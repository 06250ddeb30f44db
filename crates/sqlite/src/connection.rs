//! Opens connections, all with the same settings.

use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::error::OpenError;
use crate::migrations;
use crate::options::Options;

/// Statements that a connection keeps prepared; more than there are.
const PREPARED: usize = 128;

/// Opens the connection that writes, and brings the schema up to date.
pub(crate) fn open_writer(path: &Path, options: &Options) -> Result<Connection, OpenError> {
    let mut connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE, options)?;
    // Before anything is changed: the file may be another program's.
    migrations::check(&connection, migrations::ALL)?;
    // Pages that are no longer used can then be given back. It has to come before the first table.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" {
        return Err(OpenError::Sqlite(rusqlite::Error::InvalidQuery));
    }
    connection.pragma_update(None, "synchronous", options.synchronous.as_str())?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update_and_check(None, "journal_size_limit", options.journal_size_limit, |_| Ok(()))?;
    // What is deleted is overwritten. `FAST` would leave long texts behind: their overflow pages become free pages as they are.
    connection.pragma_update_and_check(None, "secure_delete", "ON", |_| Ok(()))?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    if options.verify {
        verify(&connection)?;
    }
    migrations::migrate(&mut connection, migrations::ALL)?;
    Ok(connection)
}

/// Opens a connection that only reads.
pub(crate) fn open_reader(path: &Path, options: &Options) -> Result<Connection, OpenError> {
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_ONLY, options)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

fn open(path: &Path, access: OpenFlags, options: &Options) -> Result<Connection, OpenError> {
    // Without `SQLITE_OPEN_URI`, so that a path is a path.
    let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(options.busy_timeout)?;
    connection.set_prepared_statement_cache_capacity(PREPARED);
    connection.pragma_update(None, "trusted_schema", false)?;
    Ok(connection)
}

fn verify(connection: &Connection) -> Result<(), OpenError> {
    let finding: String = connection.pragma_query_value(None, "quick_check", |row| row.get(0))?;
    if finding == "ok" { Ok(()) } else { Err(OpenError::Damaged(finding.into())) }
}
