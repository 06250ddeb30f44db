//! What the corpus asks of an index over vectors, and what it puts into it.

use std::str::FromStr;

use async_trait::async_trait;
use enigma_core::PortError;
use enigma_core::retrieval::{Condition, Metadata, MetadataFilter};
use serde::Serialize;
use serde_json::{Map, Value, json};
use thiserror::Error;

use super::fields::field;

/// The most vectors that an index names for one question.
pub(super) const MOST_NAMED: u32 = 100;
/// The most ids of one deletion.
pub(super) const MOST_DELETED: u32 = 100;
/// The most vectors that are put at once, and the most that they may take as text, about.
const MOST_PUT: usize = 500;
const MOST_PUT_BYTES: usize = 4 << 20;
/// What a number of a vector takes as text, at most, about.
const NUMBER_BYTES: usize = 14;
/// The longest filter, in bytes. Vectorize takes 2,048.
const LONGEST_FILTER: usize = 2000;
/// Of a text an index on metadata has so many bytes.
const INDEXED_BYTES: usize = 64;
/// The most indexes on metadata.
const MOST_INDEXES: usize = 10;

/// A vector, as the index keeps it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Vector {
    pub(crate) id: String,
    pub(crate) namespace: String,
    pub(crate) values: Vec<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) metadata: Option<Value>,
}

/// Finds vectors that are near to one. What is written is found later than it was written.
#[async_trait]
pub(crate) trait VectorIndex: Send + Sync {
    /// How many numbers a vector has.
    async fn dimensions(&self) -> Result<u32, PortError>;
    /// Puts vectors, in place of those of the same ids.
    async fn put(&self, vectors: Vec<Vector>) -> Result<(), PortError>;
    /// The ids of the vectors of a namespace that are nearest, at most [`MOST_NAMED`].
    async fn nearest(&self, namespace: &str, vector: &[f32], filter: Option<Value>) -> Result<Vec<String>, PortError>;
    /// Forgets the vectors of these ids, at most [`MOST_DELETED`].
    async fn delete(&self, ids: Vec<String>) -> Result<(), PortError>;
}

/// An index that cannot have the vectors of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "the vector index has {index} dimensions, and the model makes vectors of {vectors}: it needs an index of as many"
)]
pub struct IndexTooSmall {
    /// What the index has.
    pub index: u32,
    /// What a vector would have.
    pub vectors: u32,
}

/// A vector in as many dimensions as an index has. Zeros change neither lengths nor angles.
pub(super) fn widened(vector: &[f32], dimensions: u32) -> Result<Vec<f32>, IndexTooSmall> {
    if vector.len() > dimensions as usize {
        return Err(IndexTooSmall { index: dimensions, vectors: u32::try_from(vector.len()).unwrap_or(u32::MAX) });
    }
    let mut widened = vector.to_vec();
    widened.resize(dimensions as usize, 0.0);
    Ok(widened)
}

/// How many vectors are put at once.
pub(super) fn batch_size(dimensions: u32) -> usize {
    (MOST_PUT_BYTES / (NUMBER_BYTES * dimensions.max(1) as usize)).clamp(1, MOST_PUT)
}

/// What the vector at a place is called. At most 64 bytes: a key has 32.
pub(super) fn vector_id(key: &str, place: u32) -> String {
    format!("{key}:{place}")
}

/// The key and the place again; `None` of what is called otherwise.
pub(super) fn parsed_id(id: &str) -> Option<(&str, u32)> {
    let (key, place) = id.rsplit_once(':')?;
    Some((key, place.parse().ok()?))
}

/// The kind of values that an index on metadata has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    Truth,
}

impl Kind {
    fn is_of(self, value: &Value) -> bool {
        match self {
            Self::Text => value.is_string(),
            Self::Number => value.is_number(),
            Self::Truth => value.is_boolean(),
        }
    }
}

/// The metadata that the vector index can filter by: those for which indexes were made before the vectors came.
///
/// ```
/// use enigma_cloudflare::MetadataIndexes;
/// assert!("lang:string, year:number, draft:boolean".parse::<MetadataIndexes>().is_ok());
/// assert!("lang".parse::<MetadataIndexes>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MetadataIndexes(Vec<(String, Kind)>);

/// A list of indexes that cannot be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("must be at most 10 of NAME:string, NAME:number and NAME:boolean, separated by commas, none within another")]
pub struct InvalidIndexes;

impl FromStr for MetadataIndexes {
    type Err = InvalidIndexes;

    fn from_str(list: &str) -> Result<Self, InvalidIndexes> {
        let mut indexes: Vec<(String, Kind)> = Vec::new();
        for item in list.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let (name, kind) = item.rsplit_once(':').ok_or(InvalidIndexes)?;
            let kind = match kind.trim() {
                "string" => Kind::Text,
                "number" => Kind::Number,
                "boolean" => Kind::Truth,
                _ => return Err(InvalidIndexes),
            };
            let name = name.trim();
            let is_name = (1..=512).contains(&name.len()) && !name.contains('"');
            let is_path = name.split('.').all(|key| !key.is_empty() && !key.starts_with('$'));
            let is_apart = indexes.iter().all(|(other, _)| {
                other != name && !other.starts_with(&format!("{name}.")) && !name.starts_with(&format!("{other}."))
            });
            if !is_name || !is_path || !is_apart || indexes.len() == MOST_INDEXES {
                return Err(InvalidIndexes);
            }
            indexes.push((name.to_owned(), kind));
        }
        Ok(Self(indexes))
    }
}

impl MetadataIndexes {
    /// What of a document's metadata its vectors carry; `None` where that is nothing.
    pub(super) fn carried(&self, metadata: &Metadata) -> Option<Value> {
        let mut carried = Map::new();
        for (name, kind) in &self.0 {
            let Some(value) = field(metadata.fields(), name).filter(|value| kind.is_of(value)) else { continue };
            // No index has more of it.
            let value = value.as_str().map_or_else(|| value.clone(), |text| json!(beginning(text)));
            insert(&mut carried, name, value);
        }
        (!carried.is_empty()).then_some(Value::Object(carried))
    }

    /// A filter that lets pass whatever `filter` does, and perhaps more; `None` where the index cannot tell.
    ///
    /// That something is not a value is not asked: of fields that are missing, indexes do not say that.
    pub(super) fn pushed(&self, filter: &MetadataFilter) -> Option<Value> {
        let mut pushed = Map::new();
        for (name, condition) in filter.conditions() {
            let Some((_, kind)) = self.0.iter().find(|(indexed, _)| indexed == name) else { continue };
            let fits = |value: &Value| kind.is_of(value) && value.as_str().is_none_or(|it| it.len() < INDEXED_BYTES);
            let asked = match condition {
                Condition::In(values) if values.iter().all(fits) => json!({ "$in": values }),
                Condition::Range { lower, upper } => {
                    let bounds = [(lower, "$gte", "$gt"), (upper, "$lte", "$lt")];
                    let given = || bounds.iter().filter_map(|(it, same, other)| Some((it.as_ref()?, *same, *other)));
                    if !given().all(|((value, _), ..)| fits(value)) {
                        continue;
                    }
                    let asked = given().map(|((value, is_in), same, other)| {
                        ((if *is_in { same } else { other }).to_owned(), value.clone())
                    });
                    Value::Object(asked.collect())
                }
                _ => continue,
            };
            pushed.insert(name.clone(), asked);
            if Value::Object(pushed.clone()).to_string().len() > LONGEST_FILTER {
                pushed.remove(name);
            }
        }
        (!pushed.is_empty()).then_some(Value::Object(pushed))
    }
}

/// Puts a value where the dots of its name lead to.
fn insert(fields: &mut Map<String, Value>, name: &str, value: Value) {
    let Some((first, rest)) = name.split_once('.') else {
        fields.insert(name.to_owned(), value);
        return;
    };
    if let Value::Object(inside) = fields.entry(first).or_insert_with(|| json!({})) {
        insert(inside, rest, value);
    }
}

/// As much of a text as an index on metadata has.
fn beginning(text: &str) -> &str {
    &text[..text.floor_char_boundary(INDEXED_BYTES)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(value: &Value) -> Metadata {
        Metadata::new(value.as_object().unwrap().clone()).unwrap()
    }

    fn filter(value: &Value) -> MetadataFilter {
        MetadataFilter::from_json(value).unwrap()
    }

    fn indexes() -> MetadataIndexes {
        "lang:string, year:number,draft:boolean, owner.team:string, owner.size:number".parse().unwrap()
    }

    #[test]
    fn lists_of_indexes_are_checked() {
        assert_eq!("".parse(), Ok(MetadataIndexes::default()));
        let many: Vec<String> = (0..11).map(|number| format!("n{number}:number")).collect();
        assert!(many[..10].join(",").parse::<MetadataIndexes>().is_ok());
        let wrong = ["lang", "lang:text", ":string", "a..b:string", "$a:string", "a\"b:string", "a:string,a:number"];
        for list in wrong.into_iter().chain(["a:string,a.b:string", "a.b:string,a:string", &many.join(",")]) {
            assert_eq!(list.parse::<MetadataIndexes>(), Err(InvalidIndexes), "{list}");
        }
    }

    #[test]
    fn vectors_carry_what_has_an_index_and_is_of_its_kind() {
        let all = json!({
            "lang": "en", "year": "2020", "draft": false, "owner": { "team": "é".repeat(40), "size": 2, "x": 1 }, "other": 1
        });
        let carried = json!({ "lang": "en", "draft": false, "owner": { "team": "é".repeat(32), "size": 2 } });
        assert_eq!(indexes().carried(&metadata(&all)), Some(carried));
        assert_eq!(indexes().carried(&metadata(&json!({ "lang": null, "other": 1 }))), None);
        let dotted = metadata(&json!({ "owner.team": "red" }));
        assert_eq!(indexes().carried(&dotted), Some(json!({ "owner": { "team": "red" } })));
        assert_eq!(MetadataIndexes::default().carried(&dotted), None);
    }

    #[test]
    fn what_an_index_can_tell_is_asked_of_it() {
        let long = "x".repeat(64);
        let cases = [
            (json!({ "lang": "en" }), json!({ "lang": { "$in": ["en"] } })),
            (json!({ "lang": { "$in": ["en", "de"] }, "other": 1 }), json!({ "lang": { "$in": ["en", "de"] } })),
            (json!({ "year": { "$gt": 1, "$lte": 2 } }), json!({ "year": { "$gt": 1, "$lte": 2 } })),
            (json!({ "year": { "$gte": 1 } }), json!({ "year": { "$gte": 1 } })),
            (
                json!({ "owner.team": "red", "draft": true }),
                json!({ "owner.team": { "$in": ["red"] }, "draft": { "$in": [true] } }),
            ),
            (json!({ "lang": { "$ne": "en" } }), Value::Null),
            (json!({ "lang": { "$in": ["en", null] } }), Value::Null),
            (json!({ "lang": long }), Value::Null),
            (json!({ "year": { "$gt": "1" } }), Value::Null),
            (json!({ "other": 1 }), Value::Null),
            (json!({}), Value::Null),
        ];
        for (asked, expected) in cases {
            assert_eq!(indexes().pushed(&filter(&asked)).unwrap_or_default(), expected, "{asked}");
        }
        let many: Vec<String> = (0..64).map(|number| format!("{number:060}")).collect();
        assert_eq!(indexes().pushed(&filter(&json!({ "lang": { "$in": many } }))), None, "it is too long");
    }

    #[test]
    fn ids_are_short_and_can_be_read_again() {
        let key = "0123456789abcdef0123456789abcdef";
        let id = vector_id(key, (1 << 20) - 1);
        assert!(id.len() <= 64);
        assert_eq!(parsed_id(&id), Some((key, (1 << 20) - 1)));
        assert_eq!([parsed_id("x"), parsed_id("x:"), parsed_id("x:-1"), parsed_id("")], [None; 4]);
    }

    #[test]
    fn vectors_are_widened_and_never_cut() {
        assert_eq!(widened(&[1.0], 3), Ok(vec![1.0, 0.0, 0.0]));
        assert_eq!(widened(&[1.0; 4], 3), Err(IndexTooSmall { index: 3, vectors: 4 }));
        assert_eq!([batch_size(1), batch_size(1024), batch_size(1536), batch_size(u32::MAX)], [500, 292, 195, 1]);
    }
}
