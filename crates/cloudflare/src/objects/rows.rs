//! The SQLite database of an object.

use std::cell::Cell;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use enigma_core::Timestamp;
use futures_util::future::try_join;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use worker::wasm_bindgen;
use worker::wasm_bindgen::prelude::*;
use worker::{SqlStorage, SqlStorageValue, State, Storage};

/// The database did not do what it was asked, or holds what cannot be.
#[derive(Debug, Error)]
pub(super) enum RowsError {
    #[error("the object's database failed: {0}")]
    Database(String),
    #[error("the object's database holds what cannot be: {0}")]
    Corrupt(String),
}

impl From<worker::Error> for RowsError {
    fn from(error: worker::Error) -> Self {
        Self::Database(error.to_string())
    }
}

impl From<serde_json::Error> for RowsError {
    fn from(error: serde_json::Error) -> Self {
        // The place only: the text may be a message's.
        Self::Corrupt(format!("{:?} at column {}", error.classify(), error.column()))
    }
}

#[wasm_bindgen]
extern "C" {
    /// The storage's own transactions, which the SDK does not offer: within one nothing else runs, and what throws undoes it.
    #[wasm_bindgen(extends = worker::js_sys::Object)]
    type Transactions;

    #[wasm_bindgen(method, catch, js_name = transactionSync)]
    fn transaction_sync(
        this: &Transactions,
        act: &mut dyn FnMut() -> Result<JsValue, JsValue>,
    ) -> Result<JsValue, JsValue>;
}

/// A number as the database holds it. JavaScript's numbers are exact to 2^53, which no time and no count here reaches.
pub(super) fn number(value: u64) -> SqlStorageValue {
    SqlStorageValue::Integer(i64::try_from(value).unwrap_or(i64::MAX).min((1 << 53) - 1))
}

/// The database of an object, and its alarm.
pub(super) struct Rows {
    storage: Storage,
    sql: SqlStorage,
    /// When the alarm rings, as far as this instance has set it.
    alarm_at: Cell<Option<Timestamp>>,
}

/// A setting that every class keeps: JSON under a name.
const KEPT: &str = "CREATE TABLE IF NOT EXISTS kept (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;";

impl Rows {
    pub(super) fn new(state: &State) -> Self {
        Self { storage: state.storage(), sql: state.storage().sql(), alarm_at: Cell::new(None) }
    }

    /// Makes what is missing of the tables.
    pub(super) fn create(&self, schema: &str) -> Result<(), RowsError> {
        self.run(KEPT, vec![])?;
        self.run(schema, vec![])
    }

    pub(super) fn run(&self, statement: &str, values: Vec<SqlStorageValue>) -> Result<(), RowsError> {
        // A statement runs as its cursor is read.
        self.sql.exec(statement, values)?.to_array::<serde::de::IgnoredAny>()?;
        Ok(())
    }

    pub(super) fn query<T: DeserializeOwned>(
        &self,
        statement: &str,
        values: Vec<SqlStorageValue>,
    ) -> Result<Vec<T>, RowsError> {
        self.sql.exec(statement, values)?.to_array().map_err(|error| RowsError::Corrupt(error.to_string()))
    }

    /// Keeps a value under a name.
    pub(super) fn keep<T: Serialize>(&self, name: &str, value: &T) -> Result<(), RowsError> {
        let value = serde_json::to_string(value)?;
        self.run(
            "INSERT INTO kept (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            vec![name.into(), value.into()],
        )
    }

    /// What is kept under a name.
    pub(super) fn kept<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, RowsError> {
        #[derive(serde::Deserialize)]
        struct Kept {
            value: String,
        }
        let kept = self.query::<Kept>("SELECT value FROM kept WHERE name = ?", vec![name.into()])?.pop();
        Ok(kept.map(|kept| serde_json::from_str(&kept.value)).transpose()?)
    }

    /// Forgets what is kept under a name.
    pub(super) fn drop_kept(&self, name: &str) -> Result<(), RowsError> {
        self.run("DELETE FROM kept WHERE name = ?", vec![name.into()])
    }

    /// Does all of `act`, or nothing.
    pub(super) fn transaction<T>(&self, act: impl FnOnce() -> Result<T, RowsError>) -> Result<T, RowsError> {
        let raw: &JsValue = self.storage.as_raw().as_ref();
        let transactions: &Transactions = raw.unchecked_ref();
        let (mut act, mut outcome) = (Some(act), None);
        // What a panic in it leaves behind is dropped by the caller, who reads the rows anew.
        let mut run = AssertUnwindSafe(|| {
            let Some(act) = act.take() else { return Err(JsValue::from_str("a transaction ran twice")) };
            let result = act();
            // Thrown, so that it is undone; the error itself stays here.
            let thrown = result.as_ref().err().map(|error| JsValue::from_str(&error.to_string()));
            outcome = Some(result);
            thrown.map_or(Ok(JsValue::UNDEFINED), Err)
        });
        let done = transactions.transaction_sync(&mut move || {
            let run = &mut run;
            run.0()
        });
        match (outcome, done) {
            (Some(Err(error)), _) => Err(error),
            (Some(Ok(value)), Ok(_)) => Ok(value),
            (_, Err(thrown)) => Err(RowsError::Database(worker::Error::from(thrown).to_string())),
            (None, Ok(_)) => Err(RowsError::Database("a transaction did not run".to_owned())),
        }
    }

    /// Rings the alarm after `pause`, unless it rings sooner already.
    pub(super) async fn ring_after(&self, pause: Duration, now: Timestamp) -> Result<(), RowsError> {
        let due = now.saturating_add(pause);
        if self.alarm_at.get().is_some_and(|set| now < set && set <= due) {
            return Ok(());
        }
        // Set by an instance that is gone; what is in the past rings at once.
        let set = self.storage.get_alarm().await?.and_then(|at| u64::try_from(at).ok()).map(Timestamp::from_millis);
        if let Some(set) = set.filter(|set| *set <= due) {
            self.alarm_at.set(Some(set));
            return Ok(());
        }
        self.storage.set_alarm(pause).await?;
        self.alarm_at.set(Some(due));
        Ok(())
    }

    /// The alarm has rung.
    pub(super) fn rang(&self) {
        self.alarm_at.set(None);
    }

    /// Deletes everything, the tables and the alarm too: what then is, is nothing. Both are begun at once: a request that comes
    /// meanwhile finds an object in which nothing was ever written.
    pub(super) async fn delete_everything(&self) -> Result<(), RowsError> {
        self.alarm_at.set(None);
        try_join(self.storage.delete_alarm(), self.storage.delete_all()).await?;
        Ok(())
    }
}
