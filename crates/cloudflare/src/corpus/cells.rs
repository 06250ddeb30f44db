//! Rows of D1.

use enigma_core::PortError;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::PORT;
use crate::d1::whole;

/// A row, by the names of its columns.
pub(super) type Row = Map<String, Value>;

pub(super) fn corrupt(what: &'static str) -> PortError {
    PortError::corrupt(PORT, what)
}

/// Reads a row's cells. What is of another kind than it has to be cannot have been written here.
pub(super) trait Cells {
    fn text(&self, name: &str) -> Result<&str, PortError>;
    fn optional_text(&self, name: &str) -> Option<String>;
    fn number(&self, name: &str) -> Result<u64, PortError>;
    fn optional_number(&self, name: &str) -> Result<Option<u64>, PortError>;
    fn small(&self, name: &str) -> Result<u32, PortError>;
    fn json<T: DeserializeOwned>(&self, name: &str) -> Result<T, PortError>;
}

impl Cells for Row {
    fn text(&self, name: &str) -> Result<&str, PortError> {
        self.get(name).and_then(Value::as_str).ok_or_else(|| corrupt("a text is none"))
    }

    fn optional_text(&self, name: &str) -> Option<String> {
        self.get(name).and_then(Value::as_str).map(str::to_owned)
    }

    fn number(&self, name: &str) -> Result<u64, PortError> {
        self.optional_number(name)?.ok_or_else(|| corrupt("a number is missing"))
    }

    fn optional_number(&self, name: &str) -> Result<Option<u64>, PortError> {
        self.get(name).and_then(Value::as_f64).map(|number| whole(PORT, number)).transpose()
    }

    fn small(&self, name: &str) -> Result<u32, PortError> {
        u32::try_from(self.number(name)?).map_err(|_| corrupt("a number is too large"))
    }

    fn json<T: DeserializeOwned>(&self, name: &str) -> Result<T, PortError> {
        serde_json::from_str(self.text(name)?).map_err(|error| PortError::corrupt(PORT, error))
    }
}
