//! Conditions on the metadata of documents, in the language of Vectorize.

use serde_json::{Map, Value};
use thiserror::Error;

use super::Metadata;

/// The most fields that a filter may name.
const MAX_FIELDS: usize = 8;
/// The most values that a condition may list.
const MAX_VALUES: usize = 64;
/// The longest name of a field, in bytes.
const MAX_NAME: usize = 512;

/// A filter that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{reason}")]
pub struct FilterError {
    /// Where, from the filter on.
    pub path: Vec<String>,
    /// Why.
    pub reason: &'static str,
}

/// What a field has to be. A field that is missing, or no text, number, truth value or null, is none of it but
/// [`NotIn`](Condition::NotIn).
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// One of these.
    In(Vec<Value>),
    /// None of these.
    NotIn(Vec<Value>),
    /// Between bounds, each with whether it belongs to what is allowed; texts by their bytes, numbers by size.
    Range {
        /// Not below.
        lower: Option<(Value, bool)>,
        /// Not above.
        upper: Option<(Value, bool)>,
    },
}

/// What the metadata of a document have to be; all conditions have to hold.
///
/// ```
/// use enigma_core::retrieval::{Metadata, MetadataFilter};
/// use serde_json::json;
///
/// let filter = MetadataFilter::from_json(&json!({ "lang": "en", "year": { "$gte": 2020 } })).unwrap();
/// let of = |value: serde_json::Value| Metadata::new(value.as_object().unwrap().clone()).unwrap();
/// assert!(filter.allows(&of(json!({ "lang": "en", "year": 2024 }))));
/// assert!(!filter.allows(&of(json!({ "lang": "en" }))));
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MetadataFilter {
    conditions: Vec<(String, Condition)>,
}

impl MetadataFilter {
    /// Reads `{ field: value }` and `{ field: { operator: value } }` with the operators `$eq`, `$ne`, `$in`, `$nin`, `$lt`, `$lte`,
    /// `$gt` and `$gte`. A dot in a field's name leads into an object.
    ///
    /// # Errors
    /// [`FilterError`].
    pub fn from_json(filter: &Value) -> Result<Self, FilterError> {
        let error =
            |path: &[&str], reason| FilterError { path: path.iter().map(|&it| it.to_owned()).collect(), reason };
        let fields = filter.as_object().ok_or_else(|| error(&[], "must be an object"))?;
        if fields.len() > MAX_FIELDS {
            return Err(error(&[], "must name at most 8 fields"));
        }
        let mut conditions = Vec::with_capacity(fields.len());
        for (name, value) in fields {
            let is_name = (1..=MAX_NAME).contains(&name.len()) && !name.starts_with('$') && !name.contains('"');
            if !is_name {
                return Err(error(&[name], "must be 1 to 512 bytes without quotes, and not begin with $"));
            }
            let condition = match value {
                Value::Object(operators) => read_operators(operators)
                    .map_err(|(operator, reason)| error(&[&[&**name], &*operator].concat(), reason))?,
                Value::Array(_) => return Err(error(&[name], "must be a value or an object of operators")),
                value => Condition::In(vec![value.clone()]),
            };
            conditions.push((name.clone(), condition));
        }
        Ok(Self { conditions })
    }

    /// Whether it lets everything pass.
    pub fn is_empty(&self) -> bool {
        self.conditions.is_empty()
    }

    /// The conditions, by the names of their fields.
    pub fn conditions(&self) -> &[(String, Condition)] {
        &self.conditions
    }

    /// Whether a document of these metadata passes.
    pub fn allows(&self, metadata: &Metadata) -> bool {
        self.conditions.iter().all(|(name, condition)| condition.allows(field(metadata.fields(), name)))
    }
}

/// The field of that name, or that the name's dots lead to.
fn field<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    if let Some(value) = fields.get(name) {
        return Some(value);
    }
    let (first, rest) = name.split_once('.')?;
    field(fields.get(first)?.as_object()?, rest)
}

impl Condition {
    /// Whether `value` fulfils it.
    pub fn allows(&self, value: Option<&Value>) -> bool {
        let value = value.filter(|value| is_scalar(value));
        match self {
            Self::In(values) => value.is_some_and(|value| values.iter().any(|it| same(it, value))),
            Self::NotIn(values) => !value.is_some_and(|value| values.iter().any(|it| same(it, value))),
            Self::Range { lower, upper } => value.is_some_and(|value| {
                let above = lower.as_ref().is_none_or(|(bound, is_in)| is_less(bound, value, *is_in));
                above && upper.as_ref().is_none_or(|(bound, is_in)| is_less(value, bound, *is_in))
            }),
        }
    }
}

fn is_scalar(value: &Value) -> bool {
    !matches!(value, Value::Array(_) | Value::Object(_))
}

/// Numbers are the same by size, however they are written.
fn same(one: &Value, other: &Value) -> bool {
    match (one.as_f64(), other.as_f64()) {
        (Some(one), Some(other)) => one.partial_cmp(&other).is_some_and(std::cmp::Ordering::is_eq),
        _ => one == other,
    }
}

fn is_less(one: &Value, other: &Value, or_same: bool) -> bool {
    let order = match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64().partial_cmp(&other.as_f64()),
        (Value::String(one), Value::String(other)) => Some(one.cmp(other)),
        _ => None,
    };
    order.is_some_and(|order| order.is_lt() || or_same && order.is_eq())
}

fn read_operators(operators: &Map<String, Value>) -> Result<Condition, (Vec<&str>, &'static str)> {
    let scalar = |operator, value: &Value| match value {
        value if is_scalar(value) => Ok(value.clone()),
        _ => Err((vec![operator], "must be a text, a number, true, false or null")),
    };
    let list = |operator, value: &Value| match value.as_array() {
        Some(values) if !values.is_empty() && values.len() <= MAX_VALUES && values.iter().all(is_scalar) => {
            Ok(values.clone())
        }
        _ => Err((vec![operator], "must be a list of 1 to 64 texts, numbers, truth values or nulls")),
    };
    let bound = |value: &Value, is_in| match value {
        Value::Number(_) | Value::String(_) => Ok((value.clone(), is_in)),
        _ => Err("must be a number or a text"),
    };
    let mut iter = operators.iter();
    let only = match (iter.next(), iter.next()) {
        (None, _) => return Err((vec![], "must have an operator")),
        (Some(only), None) => Some((only.0.as_str(), only.1)),
        _ => None,
    };
    match only {
        Some(("$eq", value)) => return Ok(Condition::In(vec![scalar("$eq", value)?])),
        Some(("$ne", value)) => return Ok(Condition::NotIn(vec![scalar("$ne", value)?])),
        Some(("$in", value)) => return Ok(Condition::In(list("$in", value)?)),
        Some(("$nin", value)) => return Ok(Condition::NotIn(list("$nin", value)?)),
        _ => {}
    }
    let (mut lower, mut upper) = (None, None);
    for (operator, value) in operators {
        let (side, is_in) = match operator.as_str() {
            "$gt" => (&mut lower, false),
            "$gte" => (&mut lower, true),
            "$lt" => (&mut upper, false),
            "$lte" => (&mut upper, true),
            "$eq" | "$ne" | "$in" | "$nin" => return Err((vec![operator], "must stand alone")),
            _ => return Err((vec![operator], "must be $eq, $ne, $in, $nin, $lt, $lte, $gt or $gte")),
        };
        let bound = bound(value, is_in).map_err(|reason| (vec![operator.as_str()], reason))?;
        if side.replace(bound).is_some() {
            return Err((vec![operator], "must not meet another bound of its side"));
        }
    }
    Ok(Condition::Range { lower, upper })
}
