//! How domain types are written into columns and read back. What cannot have been written is an error, never a guess.

use std::time::Duration;

use enigma_core::idempotency::Fingerprint;
use enigma_core::model::Role;
use enigma_core::retrieval::DocumentId;
use enigma_core::tools::{AuditOutcome, ParamsHash};
use enigma_core::usage::Ending;
use enigma_core::{
    AuditId, MessageId, ModelId, ProviderId, RequestId, SessionId, TenantId, Timestamp, ToolName, TraceId, UserId,
    VersionId,
};
use rusqlite::Row;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use uuid::Uuid;

/// A domain value as a column.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Col<T>(pub(crate) T);

/// Reads a column as a domain value.
pub(crate) fn get<T>(row: &Row<'_>, index: usize) -> rusqlite::Result<T>
where
    Col<T>: FromSql,
{
    row.get::<_, Col<T>>(index).map(|column| column.0)
}

/// Reads a column that may be empty as a domain value.
pub(crate) fn get_optional<T>(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<T>>
where
    Col<T>: FromSql,
{
    Ok(row.get::<_, Option<Col<T>>>(index)?.map(|column| column.0))
}

/// The place after a session, or the place before all of them: the empty string of bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct After<'a>(pub(crate) Option<&'a SessionId>);

impl ToSql for After<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(self.0.map_or(&[][..], |session| session.as_bytes())))
    }
}

fn unknown(what: &'static str) -> FromSqlError {
    FromSqlError::other(Unknown(what))
}

/// A text that none of our types has. The text itself is left out: it may be anything.
#[derive(Debug, thiserror::Error)]
#[error("the column does not hold a {0}")]
struct Unknown(&'static str);

macro_rules! uuid_columns {
    ($($name:ident),*) => { $(
        impl ToSql for Col<&$name> {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                Ok(ToSqlOutput::from(self.0.as_bytes().as_slice()))
            }
        }
        impl FromSql for Col<$name> {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                <[u8; 16]>::column_result(value).map(|bytes| Self($name::new(Uuid::from_bytes(bytes))))
            }
        }
    )* };
}
uuid_columns!(SessionId, MessageId, RequestId, VersionId, AuditId);

macro_rules! text_columns {
    ($($name:ident),*) => { $(
        impl ToSql for Col<&$name> {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                Ok(ToSqlOutput::from(self.0.as_str()))
            }
        }
        impl FromSql for Col<$name> {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                $name::new(value.as_str()?).map(Self).map_err(|_| unknown(stringify!($name)))
            }
        }
    )* };
}
text_columns!(UserId, ModelId, ProviderId, TraceId, DocumentId, ToolName);

// A tenant is asked for and never read back.
impl ToSql for Col<&TenantId> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(self.0.as_str()))
    }
}

impl ToSql for Col<&Fingerprint> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(self.0.bytes().as_slice()))
    }
}

impl FromSql for Col<Fingerprint> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        <[u8; 32]>::column_result(value).map(|bytes| Self(Fingerprint::from_bytes(bytes)))
    }
}

impl ToSql for Col<&ParamsHash> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(self.0.bytes().as_slice()))
    }
}

impl FromSql for Col<ParamsHash> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        <[u8; 32]>::column_result(value).map(|bytes| Self(ParamsHash::from_bytes(bytes)))
    }
}

impl ToSql for Col<AuditOutcome> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(self.0.as_str()))
    }
}

impl FromSql for Col<AuditOutcome> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        AuditOutcome::parse(value.as_str()?).map(Self).ok_or_else(|| unknown("outcome"))
    }
}

/// Times that SQLite's integers cannot hold are 292 million years away; they become the last one that it can hold.
impl ToSql for Col<Timestamp> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(i64::try_from(self.0.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl FromSql for Col<Timestamp> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Ok(Self(Timestamp::from_millis(unsigned(value)?)))
    }
}

impl ToSql for Col<u64> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        signed(self.0)
    }
}

impl FromSql for Col<u64> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        unsigned(value).map(Self)
    }
}

/// A length of time, in microseconds.
impl ToSql for Col<Duration> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        signed(self.0.as_micros())
    }
}

impl FromSql for Col<Duration> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Ok(Self(Duration::from_micros(unsigned(value)?)))
    }
}

impl ToSql for Col<Role> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(self.0.as_str()))
    }
}

impl FromSql for Col<Role> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        const ALL: [Role; 4] = [Role::System, Role::User, Role::Assistant, Role::Tool];
        let text = value.as_str()?;
        ALL.into_iter().find(|role| role.as_str() == text).map(Self).ok_or_else(|| unknown("role"))
    }
}

impl ToSql for Col<Ending> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(self.0.as_str()))
    }
}

impl FromSql for Col<Ending> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        const ALL: [Ending; 5] =
            [Ending::Finished, Ending::Failed, Ending::TimedOut, Ending::ClientGone, Ending::ShutDown];
        let text = value.as_str()?;
        ALL.into_iter().find(|ending| ending.as_str() == text).map(Self).ok_or_else(|| unknown("ending"))
    }
}

fn signed<N>(number: N) -> rusqlite::Result<ToSqlOutput<'static>>
where
    i64: TryFrom<N>,
    <i64 as TryFrom<N>>::Error: std::error::Error + Send + Sync + 'static,
{
    match i64::try_from(number) {
        Ok(number) => Ok(ToSqlOutput::from(number)),
        Err(error) => Err(rusqlite::Error::ToSqlConversionFailure(error.into())),
    }
}

fn unsigned(value: ValueRef<'_>) -> FromSqlResult<u64> {
    let number = value.as_i64()?;
    u64::try_from(number).map_err(|_| FromSqlError::OutOfRange(number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::Connection;

    #[test]
    fn what_cannot_have_been_written_is_not_read() {
        let connection = Connection::open_in_memory().unwrap();
        let read = |sql: &str, get: fn(&Row<'_>) -> rusqlite::Result<()>| connection.query_row(sql, [], get);
        assert!(read("SELECT -1", |row| get::<u64>(row, 0).map(drop)).is_err());
        assert!(read("SELECT -1", |row| get::<Timestamp>(row, 0).map(drop)).is_err());
        assert!(read("SELECT 'nobody'", |row| get::<Role>(row, 0).map(drop)).is_err());
        assert!(read("SELECT 'never'", |row| get::<Ending>(row, 0).map(drop)).is_err());
        assert!(read("SELECT ''", |row| get::<UserId>(row, 0).map(drop)).is_err());
        assert!(read("SELECT x'00'", |row| get::<SessionId>(row, 0).map(drop)).is_err());
        assert!(read("SELECT NULL", |row| get::<SessionId>(row, 0).map(drop)).is_err());
    }

    #[test]
    fn numbers_beyond_the_column_are_refused_and_times_end_at_its_end() {
        let connection = Connection::open_in_memory().unwrap();
        let number = |n: u64| connection.query_row("SELECT ?1", [Col(n)], |row| get::<u64>(row, 0));
        assert_eq!(number(i64::MAX as u64), Ok(i64::MAX as u64));
        assert!(number(i64::MAX as u64 + 1).is_err());
        let end = Timestamp::from_millis(u64::MAX);
        let read = connection.query_row("SELECT ?1", [Col(end)], |row| get::<Timestamp>(row, 0));
        assert_eq!(read, Ok(Timestamp::from_millis(i64::MAX as u64)));
    }
}
