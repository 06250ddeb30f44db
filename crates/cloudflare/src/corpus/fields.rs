//! Metadata as D1 filters it: exactly as [`MetadataFilter::allows`] does.
//!
//! Every text, number, truth value and null of a document's metadata that a filter can name, however deep it lies, is a row of its
//! name and its value. A value is a text that begins with its kind and has the order of what it stands for, so that what is the
//! same, and what is between bounds, are questions about texts.

use std::collections::BTreeSet;

use enigma_core::retrieval::{Condition, Metadata, MetadataFilter};
use serde_json::{Map, Value};

use crate::d1::Param;

/// A longer name is none that a filter can have.
const LONGEST_NAME: usize = 512;

/// The rows that `metadata` make, as a JSON list of pairs.
pub(super) fn rows(metadata: &Metadata) -> String {
    let mut names = BTreeSet::new();
    collect(metadata.fields(), "", &mut names);
    let pair = |name: &String| {
        let value = field(metadata.fields(), name).filter(|value| is_scalar(value))?;
        Some(Value::from(vec![escaped(name), sortable(value)]))
    };
    names.iter().filter_map(pair).collect::<Value>().to_string()
}

/// The names that lead to something, from the root on.
fn collect(fields: &Map<String, Value>, before: &str, names: &mut BTreeSet<String>) {
    for (name, value) in fields {
        let path = format!("{before}{name}");
        if path.len() > LONGEST_NAME {
            continue;
        }
        // Through a name with a dot in it no filter leads.
        if let (Value::Object(inside), false) = (value, name.contains('.')) {
            collect(inside, &format!("{path}."), names);
        }
        names.insert(path);
    }
}

/// The field of that name, or that the name's dots lead to: as the core finds it.
pub(super) fn field<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    if let Some(value) = fields.get(name) {
        return Some(value);
    }
    let (first, rest) = name.split_once('.')?;
    field(fields.get(first)?.as_object()?, rest)
}

fn is_scalar(value: &Value) -> bool {
    !matches!(value, Value::Array(_) | Value::Object(_))
}

/// A text with the order of `value` among those of its kind, and equal to that of the same value only.
fn sortable(value: &Value) -> String {
    match value {
        Value::String(text) => format!("s{}", escaped(text)),
        Value::Bool(truth) => format!("b{truth}"),
        Value::Number(number) => {
            // There is one zero; and negative numbers have the order of their bits turned round.
            let bits = (number.as_f64().unwrap_or_default() + 0.0).to_bits();
            let bits = if bits >> 63 == 0 { bits | 1 << 63 } else { !bits };
            format!("n{bits:016x}")
        }
        Value::Null | Value::Array(_) | Value::Object(_) => "z".to_owned(),
    }
}

/// Without the character at which SQLite's JSON ends; in the same order.
fn escaped(text: &str) -> String {
    text.replace('\u{1}', "\u{1}\u{2}").replace('\0', "\u{1}\u{1}")
}

/// What a filter demands of the version `v`, beginning with ` AND`; `bind` takes a parameter, and tells its name.
pub(super) fn conditions(filter: &MetadataFilter, mut bind: impl FnMut(Param) -> String) -> String {
    let one = |(name, condition): &(String, Condition)| {
        let name = bind(Param::Text(escaped(name)));
        let (negated, test) = match condition {
            Condition::In(values) => ("", one_of(values, &mut bind)),
            Condition::NotIn(values) => ("NOT ", one_of(values, &mut bind)),
            Condition::Range { lower, upper } => ("", between(lower.as_ref(), upper.as_ref(), &mut bind)),
        };
        format!(
            " AND {negated}EXISTS (SELECT 1 FROM corpus_fields f WHERE f.version = v.id AND f.name = {name} AND {test})"
        )
    };
    filter.conditions().iter().map(one).collect()
}

fn one_of(values: &[Value], bind: &mut impl FnMut(Param) -> String) -> String {
    let values: Vec<String> = values.iter().map(sortable).collect();
    let list = bind(Param::Text(Value::from(values).to_string()));
    format!("f.value IN (SELECT value FROM json_each({list}))")
}

type Bound = (Value, bool);

fn between(lower: Option<&Bound>, upper: Option<&Bound>, bind: &mut impl FnMut(Param) -> String) -> String {
    let kind = |bound: Option<&Bound>| bound.map(|(value, _)| if value.is_number() { 'n' } else { 's' });
    let kind = match (kind(lower), kind(upper)) {
        (Some(one), Some(other)) if one != other => return "0".to_owned(),
        (one, other) => one.or(other),
    };
    let Some(kind) = kind else { return "0".to_owned() };
    let mut side = |bound: Option<&Bound>, or_same, other, end: char| match bound {
        Some((value, is_in)) => {
            format!("f.value {} {}", if *is_in { or_same } else { other }, bind(Param::Text(sortable(value))))
        }
        None => format!("f.value {other} '{end}'"),
    };
    // The kind's letter alone is before all of its values, and the next letter after them.
    let next = if kind == 'n' { 'o' } else { 't' };
    let from = side(lower, ">=", ">", kind);
    format!("{from} AND {}", side(upper, "<=", "<", next))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rusqlite::{Connection, params_from_iter};
    use serde_json::json;

    fn database() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(include_str!("../../migrations/0002_corpus.sql")).unwrap();
        connection
    }

    fn allows(connection: &Connection, filter: &MetadataFilter, metadata: &Metadata) -> bool {
        connection.execute("DELETE FROM corpus_fields", []).unwrap();
        let insert = "INSERT INTO corpus_fields (version, name, value)
            SELECT 1, json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?1)";
        connection.execute(insert, [rows(metadata)]).unwrap();
        let mut params = Vec::new();
        let conditions = conditions(filter, |param| {
            params.push(param);
            format!("?{}", params.len())
        });
        let sql = format!("SELECT COUNT(*) FROM (SELECT 1 AS id) v WHERE 1 {conditions}");
        connection.query_row(&sql, params_from_iter(&params), |row| row.get::<_, i64>(0)).unwrap() == 1
    }

    fn scalar() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(json!(null)),
            any::<bool>().prop_map(Value::from),
            (-3i64..3).prop_map(Value::from),
            (-6i32..6).prop_map(|half| json!(f64::from(half) / 2.0)),
            any::<f64>().prop_map(|number| json!(number)),
            any::<i64>().prop_map(Value::from),
            "[ab\u{0}\u{1}\u{2}ä]{0,2}".prop_map(Value::from),
        ]
    }

    fn name() -> impl Strategy<Value = String> {
        "[ab\u{0}]{0,1}(\\.[ab]{0,1}){0,2}"
    }

    fn metadata() -> impl Strategy<Value = Metadata> {
        let value = prop_oneof![4 => scalar(), 1 => prop::collection::vec(scalar(), 0..2).prop_map(Value::from)];
        let value = value.prop_recursive(2, 8, 3, |inner| {
            prop::collection::btree_map(name(), inner, 0..3).prop_map(|fields| json!(fields))
        });
        prop::collection::btree_map(name(), value, 0..4)
            .prop_map(|fields| Metadata::new(fields.into_iter().collect()).unwrap())
    }

    fn filter() -> impl Strategy<Value = MetadataFilter> {
        let list = || prop::collection::vec(scalar(), 1..3);
        let bound = || (prop_oneof![Just("$gt"), Just("$gte")], prop_oneof![Just("$lt"), Just("$lte")]);
        let condition = prop_oneof![
            scalar(),
            scalar().prop_map(|value| json!({ "$ne": value })),
            list().prop_map(|values| json!({ "$in": values })),
            list().prop_map(|values| json!({ "$nin": values })),
            (bound(), scalar(), scalar(), 0..3).prop_map(|((lower, upper), from, to, sides)| match sides {
                0 => json!({ lower: from }),
                1 => json!({ upper: to }),
                _ => json!({ lower: from, upper: to }),
            }),
        ];
        prop::collection::btree_map(name(), condition, 0..3)
            .prop_filter_map("it is a filter", |fields| MetadataFilter::from_json(&json!(fields)).ok())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]
        #[test]
        fn d1_lets_pass_what_the_core_lets_pass(filter in filter(), metadata in metadata()) {
            prop_assert_eq!(allows(&database(), &filter, &metadata), filter.allows(&metadata), "{:?}", rows(&metadata));
        }
    }
}
