//! What all adapters to D1 have in common: statements, their parameters, and the numbers of JavaScript.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use enigma_core::{PortError, Timestamp};
use serde::de::DeserializeOwned;
use worker::wasm_bindgen::JsValue;
use worker::{D1Database, D1PreparedStatement, Env};

use crate::deadline::deadline;

/// The binding of the database.
const BINDING: &str = "DB";

/// The largest whole number that JavaScript counts exactly: D1's numbers are JavaScript's.
pub(crate) const MOST: u64 = (1 << 53) - 1;

/// A parameter.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Param {
    Text(String),
    Number(f64),
    Null,
}

/// A statement and its parameters, in their order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Statement {
    pub(crate) sql: Cow<'static, str>,
    pub(crate) params: Vec<Param>,
}

impl Statement {
    pub(crate) fn new(sql: impl Into<Cow<'static, str>>, params: Vec<Param>) -> Self {
        Self { sql: sql.into(), params }
    }
}

/// A database, on behalf of one port.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    port: &'static str,
    database: Arc<D1Database>,
}

impl Database {
    /// The database that `env` calls `DB`.
    ///
    /// # Errors
    /// [`PortError`] when there is no such binding, or it is no D1 database.
    pub(crate) fn from_env(env: &Env, port: &'static str) -> Result<Self, PortError> {
        Ok(Self { port, database: Arc::new(env.d1(BINDING).map_err(|error| failed(port, &error))?) })
    }

    fn prepare(&self, statement: &Statement) -> Result<D1PreparedStatement, PortError> {
        let params: Vec<JsValue> = statement.params.iter().map(js).collect();
        self.database.prepare(&*statement.sql).bind(&params).map_err(|error| failed(self.port, &error))
    }

    fn tell(&self) {
        // One line for each call, by which the calls of a request are counted.
        tracing::debug!(target: "enigma::subrequest", binding = BINDING, port = self.port, "asks D1");
    }

    /// Runs one statement, for at most `limit`.
    pub(crate) async fn run(&self, statement: &Statement, limit: Duration) -> Result<(), PortError> {
        self.tell();
        deadline(self.port, limit, async {
            self.prepare(statement)?.run().await.map_err(|error| failed(self.port, &error))?;
            Ok(())
        })
        .await
    }

    /// The rows of one statement.
    pub(crate) async fn rows<R: DeserializeOwned>(
        &self,
        statement: &Statement,
        limit: Duration,
    ) -> Result<Vec<R>, PortError> {
        self.tell();
        deadline(self.port, limit, async {
            let result = self.prepare(statement)?.all().await.map_err(|error| failed(self.port, &error))?;
            result.results().map_err(|error| PortError::corrupt(self.port, error.to_string()))
        })
        .await
    }

    /// Runs all of the statements or none, and tells the rows of each.
    pub(crate) async fn batch<R: DeserializeOwned>(
        &self,
        statements: &[Statement],
        limit: Duration,
    ) -> Result<Vec<Vec<R>>, PortError> {
        self.tell();
        deadline(self.port, limit, async {
            let prepared = statements.iter().map(|statement| self.prepare(statement)).collect::<Result<_, _>>()?;
            let results = self.database.batch(prepared).await.map_err(|error| failed(self.port, &error))?;
            let rows = results.iter().map(worker::D1Result::results);
            rows.collect::<Result<_, _>>().map_err(|error| PortError::corrupt(self.port, error.to_string()))
        })
        .await
    }
}

fn js(param: &Param) -> JsValue {
    match param {
        Param::Text(text) => JsValue::from_str(text),
        Param::Number(number) => JsValue::from_f64(*number),
        Param::Null => JsValue::NULL,
    }
}

/// The SDK's own text for D1's errors is a dump of an object; what D1 said is inside.
fn failed(port: &'static str, error: &worker::Error) -> PortError {
    let said = match error {
        worker::Error::D1(error) => error.cause(),
        other => other.to_string(),
    };
    PortError::unavailable(port, said)
}

pub(crate) fn text(value: &(impl ToString + ?Sized)) -> Param {
    Param::Text(value.to_string())
}

/// What lies behind the end of JavaScript's numbers counts as their end.
pub(crate) fn time(at: Timestamp) -> Param {
    Param::Number(exact(at.as_millis().min(MOST)))
}

pub(crate) fn number(port: &'static str, value: u64) -> Result<Param, PortError> {
    if value > MOST {
        return Err(PortError::unavailable(port, "a number is larger than D1 can keep"));
    }
    Ok(Param::Number(exact(value)))
}

#[expect(clippy::cast_precision_loss, reason = "all callers give numbers up to 2^53, which are exact")]
pub(crate) fn exact(value: u64) -> f64 {
    value as f64
}

/// A number of D1's that is one of ours.
pub(crate) fn whole(port: &'static str, value: f64) -> Result<u64, PortError> {
    if value.fract() != 0.0 || !(0.0..=exact(MOST)).contains(&value) {
        return Err(PortError::corrupt(port, "a number is not a whole one, or out of range"));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is whole, and in range")]
    Ok(value as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rusqlite::ToSql;
    use rusqlite::types::{ToSqlOutput, ValueRef};

    /// As D1 takes them: numbers are JavaScript's.
    impl ToSql for Param {
        fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
            Ok(ToSqlOutput::Borrowed(match self {
                Self::Text(text) => ValueRef::Text(text.as_bytes()),
                Self::Number(number) => ValueRef::Real(*number),
                Self::Null => ValueRef::Null,
            }))
        }
    }

    #[test]
    fn a_number_that_would_not_come_back_as_it_was_is_refused_and_a_time_ends_at_the_end() {
        assert!(number("p", MOST).is_ok() && number("p", MOST + 1).is_err());
        assert_eq!(time(Timestamp::from_millis(u64::MAX)), time(Timestamp::from_millis(MOST)));
    }

    proptest! {
        #[test]
        fn numbers_come_back_as_they_were(value in 0..=MOST) {
            prop_assert_eq!(whole("p", exact(value)).unwrap(), value);
        }
    }
}
