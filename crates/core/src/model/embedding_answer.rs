//! From a provider's answer to vectors, in all shapes in use: OpenAI's list of objects, with numbers or with base64, and Workers AI's
//! lists of lists, in `data` or in `response`, bare or in the `result` of Cloudflare's API.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::provider_stream::{ErrorPiece, count, malformed};
use super::{Embeddings, ModelError};

/// Parses the answer of an embedding model.
///
/// ```
/// use enigma_core::model::parse_embeddings;
///
/// let openai = br#"{"data":[{"index":1,"embedding":[0,1]},{"index":0,"embedding":[1,0]}],"usage":{"prompt_tokens":5}}"#;
/// let embeddings = parse_embeddings(openai)?;
/// assert_eq!((embeddings.vectors, embeddings.prompt_tokens), (vec![vec![1.0, 0.0], vec![0.0, 1.0]], Some(5)));
///
/// let workers_ai = br#"{"shape":[2,2],"data":[[1,0],[0,1]],"pooling":"mean"}"#;
/// assert_eq!(parse_embeddings(workers_ai)?.vectors, [[1.0, 0.0], [0.0, 1.0]]);
/// # Ok::<(), enigma_core::model::ModelError>(())
/// ```
///
/// # Errors
/// [`ModelError::Malformed`] when there are no vectors in it, or not the ones that it announces, and the provider's own error when it
/// is one. Whether they are as many as were asked for is not known here.
pub fn parse_embeddings(body: &[u8]) -> Result<Embeddings, ModelError> {
    let mut payload: Payload = serde_json::from_slice(body).map_err(|error| malformed(&error))?;
    if let Some(error) = payload.error.take().or_else(|| payload.errors.take()?.into_iter().next()) {
        return Err(error.into_model_error());
    }
    if let Some(result) = payload.result.take() {
        payload = *result;
    }
    let wrong = |message: &str| ModelError::Malformed { message: message.to_owned() };
    let rows = payload.data.or(payload.response).ok_or_else(|| wrong("the body holds no vectors"))?;
    let vectors = in_order(rows).ok_or_else(|| wrong("the vectors are not numbered one by one"))?;
    // The last two are what counts: some models put a batch of batches before them.
    if let Some([.., count, dimensions]) = payload.shape.as_deref() {
        let is_announced = |vector: &Vec<f32>| vector.len() as u64 == *dimensions;
        if vectors.len() as u64 != *count || !vectors.iter().all(is_announced) {
            return Err(wrong("the vectors are not of the shape that is announced"));
        }
    }
    let usage = payload.usage.and_then(|usage| usage.prompt_tokens.or(usage.total_tokens));
    Ok(Embeddings { vectors, prompt_tokens: usage })
}

/// By their numbers, where they have some: providers may answer in any order.
fn in_order(rows: Vec<Row>) -> Option<Vec<Vec<f32>>> {
    let mut places: Vec<Option<Vec<f32>>> = rows.iter().map(|_| None).collect();
    for (place, row) in rows.into_iter().enumerate() {
        let place = match row.index {
            Some(index) => usize::try_from(index).ok()?,
            None => place,
        };
        if places.get_mut(place)?.replace(row.vector).is_some() {
            return None;
        }
    }
    places.into_iter().collect()
}

#[derive(Deserialize)]
struct Payload {
    data: Option<Vec<Row>>,
    response: Option<Vec<Row>>,
    shape: Option<Vec<u64>>,
    usage: Option<Usage>,
    error: Option<ErrorPiece>,
    errors: Option<Vec<ErrorPiece>>,
    result: Option<Box<Payload>>,
}

#[derive(Deserialize)]
struct Usage {
    #[serde(default, deserialize_with = "count")]
    prompt_tokens: Option<u32>,
    #[serde(default, deserialize_with = "count")]
    total_tokens: Option<u32>,
}

/// A vector, with its number where it has one.
struct Row {
    index: Option<u64>,
    vector: Vec<f32>,
}

#[derive(Deserialize)]
struct Item {
    index: Option<u64>,
    embedding: Numbers,
}

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Rows;

        impl<'de> Visitor<'de> for Rows {
            type Value = Row;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a vector")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, numbers: A) -> Result<Row, A::Error> {
                Ok(Row { index: None, vector: sequence(numbers)? })
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Row, A::Error> {
                let Item { index, embedding } = Item::deserialize(MapAccessDeserializer::new(members))?;
                Ok(Row { index, vector: embedding.0 })
            }
        }

        deserializer.deserialize_any(Rows)
    }
}

/// The numbers of a vector, written as such, or as base64 of 32-bit floats with the least byte first.
struct Numbers(Vec<f32>);

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Forms;

        impl<'de> Visitor<'de> for Forms {
            type Value = Numbers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the numbers of a vector")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, numbers: A) -> Result<Numbers, A::Error> {
                sequence(numbers).map(Numbers)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Numbers, E> {
                let bytes = BASE64_STANDARD.decode(text).map_err(|_| E::custom("not base64"))?;
                let (floats, []) = bytes.as_chunks() else { return Err(E::custom("not 32-bit floats")) };
                Ok(Numbers(floats.iter().map(|float| f32::from_le_bytes(*float)).collect()))
            }
        }

        deserializer.deserialize_any(Forms)
    }
}

fn sequence<'de, A: SeqAccess<'de>>(mut numbers: A) -> Result<Vec<f32>, A::Error> {
    let mut vector = Vec::new();
    while let Some(number) = numbers.next_element()? {
        vector.push(number);
    }
    Ok(vector)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn vectors(body: &str) -> Vec<Vec<f32>> {
        parse_embeddings(body.as_bytes()).unwrap_or_else(|error| panic!("{body}: {error}")).vectors
    }

    fn failure(body: &str) -> ModelError {
        match parse_embeddings(body.as_bytes()) {
            Err(error) => error,
            Ok(embeddings) => panic!("{body}: {embeddings:?}"),
        }
    }

    #[test]
    fn every_shape_in_use_is_understood() {
        for body in [
            r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.5,-1]},{"index":1,"embedding":[2e-1,3]}],"model":"m"}"#,
            r#"{"data":[{"embedding":[0.2,3],"index":1},{"embedding":[0.5,-1.0],"index":0}]}"#,
            r#"{"data":[{"embedding":"AAAAPwAAgL8="},{"embedding":"zcxMPgAAQEA="}]}"#,
            r#"{"shape":[2,2],"data":[[0.5,-1],[0.2,3]],"pooling":"cls"}"#,
            r#"{"shape":[1,2,2],"data":[[0.5,-1],[0.2,3]]}"#,
            r#"{"response":[[0.5,-1],[0.2,3]],"usage":{"prompt_tokens":"many"}}"#,
            r#"{"result":{"shape":[2,2],"data":[[0.5,-1],[0.2,3]]},"success":true,"errors":[],"messages":[]}"#,
            r#"{"data":null,"response":[[0.5,-1],[0.2,3]],"error":null}"#,
        ] {
            assert_eq!(vectors(body), [[0.5, -1.0], [0.2, 3.0]], "{body}");
        }
    }

    #[test]
    fn tokens_are_those_of_the_prompt_or_of_all() {
        let tokens = |usage: &str| {
            let body = format!(r#"{{"data":[[1]],"usage":{usage}}}"#);
            parse_embeddings(body.as_bytes()).unwrap().prompt_tokens
        };
        assert_eq!(tokens(r#"{"prompt_tokens":3,"total_tokens":5}"#), Some(3));
        assert_eq!(tokens(r#"{"total_tokens":5}"#), Some(5));
        assert_eq!(tokens(r#"{"prompt_tokens":-1}"#), None);
        assert_eq!(tokens("null"), None);
    }

    #[test]
    fn what_is_no_vector_is_malformed_and_never_repeated() {
        for body in [
            "",
            "<html>secret</html>",
            "null",
            "[]",
            "{}",
            r#"{"data":"secret"}"#,
            r#"{"data":[{"secret":1}]}"#,
            r#"{"data":[{"embedding":["secret"]}]}"#,
            r#"{"data":[{"embedding":"secret!"}]}"#,
            r#"{"data":[{"embedding":"AAAA"}]}"#,
            r#"{"data":[[1,null]]}"#,
            r#"{"response":[{"id":0,"score":0.5}]}"#,
            r#"{"response":"secret"}"#,
            r#"{"data":[{"index":0,"embedding":[1]},{"index":0,"embedding":[1]}]}"#,
            r#"{"data":[{"index":2,"embedding":[1]},{"index":0,"embedding":[1]}]}"#,
            r#"{"data":[{"index":-1,"embedding":[1]}]}"#,
            r#"{"shape":[2,1],"data":[[1]]}"#,
            r#"{"shape":[1,2],"data":[[1]]}"#,
            r#"{"data":[[1]]"#,
        ] {
            let error = failure(body);
            assert!(matches!(error, ModelError::Malformed { .. }), "{body}: {error}");
            assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
        }
    }

    #[test]
    fn an_error_in_the_place_of_vectors_is_the_providers() {
        let error = failure(r#"{"error":{"message":"no","code":"rate_limit","status":429}}"#);
        assert!(matches!(error, ModelError::RateLimited { .. }), "{error}");
        let error = failure(r#"{"result":null,"success":false,"errors":[{"code":7009,"message":"secret"}]}"#);
        assert!(matches!(&error, ModelError::Unavailable { message, .. } if message == "unnamed error"), "{error:?}");
        let error = failure(r#"{"object":"error","error":"maximum context length is 512 tokens"}"#);
        assert!(matches!(error, ModelError::PromptTooLong), "{error}");
    }

    proptest! {
        #[test]
        fn numbers_survive_and_come_in_the_order_of_their_texts(
            rows in proptest::collection::vec(proptest::collection::vec(any::<f32>(), 1..4), 1..6), rotate in 0usize..6,
        ) {
            prop_assume!(rows.iter().flatten().all(|x| x.is_finite()));
            let mut items: Vec<_> = rows
                .iter()
                .enumerate()
                .map(|(index, row)| {
                    let bytes: Vec<u8> = row.iter().flat_map(|x| x.to_le_bytes()).collect();
                    let numbers = serde_json::json!(row);
                    let embedding = if index % 2 == 0 { numbers } else { BASE64_STANDARD.encode(bytes).into() };
                    serde_json::json!({ "index": index, "embedding": embedding })
                })
                .collect();
            items.rotate_left(rotate % rows.len());
            prop_assert_eq!(vectors(&serde_json::json!({ "data": items }).to_string()), rows);
        }

        #[test]
        fn no_bytes_make_it_panic(body in proptest::collection::vec(any::<u8>(), 0..200), text in "[\\[\\]{}\":,0-9a-z]{0,60}") {
            let _ = parse_embeddings(&body);
            let _ = parse_embeddings(text.as_bytes());
            let _ = parse_embeddings(format!(r#"{{"data":{text}}}"#).as_bytes());
        }
    }
}
