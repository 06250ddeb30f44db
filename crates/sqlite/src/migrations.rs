//! Brings a file's schema up to date. `user_version` tells which migrations it has had.

use rusqlite::{Connection, TransactionBehavior};

use crate::error::OpenError;

/// Marks a file as ours: "enig".
const APPLICATION_ID: i64 = 0x656e_6967;

/// The migrations in their order. What was released is never changed; a change is a new one.
pub(crate) const ALL: &[&str] = &[
    include_str!("migrations/0001.sql"),
    include_str!("migrations/0002.sql"),
    include_str!("migrations/0003.sql"),
    include_str!("migrations/0004.sql"),
    include_str!("migrations/0005.sql"),
];

/// Refuses a file that another program, or a newer version of this one, has written; tells the schema of one that is ours.
pub(crate) fn check(connection: &Connection, migrations: &[&str]) -> Result<i64, OpenError> {
    let is_ours = pragma(connection, "application_id")? == APPLICATION_ID;
    let things: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if !is_ours && things > 0 {
        return Err(OpenError::Foreign);
    }
    let found = pragma(connection, "user_version")?;
    let known = i64::try_from(migrations.len()).unwrap_or(i64::MAX);
    if found > known { Err(OpenError::NewerSchema { found, known }) } else { Ok(found) }
}

/// Runs the migrations that the file has not had, each in a transaction of its own.
pub(crate) fn migrate(connection: &mut Connection, migrations: &[&str]) -> Result<(), OpenError> {
    let found = check(connection, migrations)?;
    for (migration, to) in migrations.iter().zip(1..).skip_while(|(_, to)| *to <= found) {
        run(connection, migration, to).map_err(|source| OpenError::Migration { to, source })?;
    }
    Ok(())
}

fn run(connection: &mut Connection, migration: &str, to: i64) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(migration)?;
    transaction.pragma_update(None, "user_version", to)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.commit()
}

fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, name, |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(connection: &Connection) -> i64 {
        pragma(connection, "user_version").unwrap()
    }

    #[test]
    fn each_migration_runs_once_and_a_failed_one_changes_nothing() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, &["CREATE TABLE a (x)"]).unwrap();
        let steps = ["CREATE TABLE a (x)", "CREATE TABLE b (x)", "CREATE TABLE c (x); CREATE TABLE a (x)"];
        let error = migrate(&mut connection, &steps).unwrap_err();
        assert!(matches!(error, OpenError::Migration { to: 3, .. }), "{error}");
        assert_eq!(version(&connection), 2);
        assert!(connection.prepare("SELECT * FROM b").is_ok());
        assert!(connection.prepare("SELECT * FROM c").is_err());
    }

    #[test]
    fn a_newer_schema_and_another_programs_file_are_refused() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, &["CREATE TABLE a (x)", "CREATE TABLE b (x)"]).unwrap();
        let error = migrate(&mut connection, &["CREATE TABLE a (x)"]).unwrap_err();
        assert!(matches!(error, OpenError::NewerSchema { found: 2, known: 1 }), "{error}");

        let mut foreign = Connection::open_in_memory().unwrap();
        foreign.execute_batch("CREATE TABLE notes (x)").unwrap();
        assert!(matches!(migrate(&mut foreign, ALL), Err(OpenError::Foreign)));
        assert_eq!(version(&foreign), 0);
    }

    #[test]
    fn every_primary_key_and_every_index_begins_with_the_tenant() {
        // What belongs to the index of words is the index's own; its words begin with the tenant.
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, ALL).unwrap();
        let first_columns: Vec<(String, String)> = connection
            .prepare(
                "SELECT l.name, i.name FROM pragma_table_list AS t, pragma_index_list(t.name) AS l, pragma_index_info(l.name) AS i
                 WHERE t.schema = 'main' AND t.type <> 'shadow' AND t.name NOT LIKE 'sqlite_%' AND i.seqno = 0",
            )
            .unwrap()
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
            .collect::<rusqlite::Result<_>>()
            .unwrap();
        assert!(first_columns.len() >= 7, "a primary key of each table: {first_columns:?}");
        for (index, column) in first_columns {
            assert_eq!(column, "tenant", "{index}");
        }
    }

    #[test]
    fn every_statement_fits_the_schema_and_is_answered_by_an_index() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, ALL).unwrap();
        let words =
            [("WORDS_ADD", crate::sql::WORDS_ADD.as_str()), ("WORDS_DELETE", crate::sql::WORDS_DELETE.as_str())];
        for (name, sql) in crate::sql::ALL.iter().chain(&words) {
            let mut explained = connection
                .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            // Its parameters have no values; the plan is the same for all.
            let plan: Vec<String> =
                explained.raw_query().mapped(|row| row.get(3)).collect::<rusqlite::Result<_>>().unwrap();
            for step in &plan {
                // The index of words is asked for one word: fts5vocab says so by this bit.
                let (_, index) = step.split_once("VIRTUAL TABLE INDEX ").unwrap_or_default();
                let by_word = index.trim_end_matches(':').parse::<u32>().is_ok_and(|index| index & 0x100 != 0);
                let full_scan = step.starts_with("SCAN") && !step.starts_with("SCAN CONSTANT ROW") && !by_word;
                assert!(!full_scan && !step.contains("TEMP B-TREE"), "{name}: {step}");
            }
        }
    }
}
