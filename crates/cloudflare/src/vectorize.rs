//! Vectorize, by its call shape alone: the SDK has no binding for it.

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use async_trait::async_trait;
use enigma_core::PortError;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use worker::Env;
use worker::js_sys::futures::JsFuture;
use worker::js_sys::{Error, JSON, Object, Promise, Reflect};
use worker::send::SendWrapper;
use worker::wasm_bindgen::prelude::*;
use worker::wasm_bindgen::{self, JsCast, JsValue};

use crate::ai::MissingBinding;
use crate::corpus::{IndexTooSmall, Vector, VectorIndex};
use crate::deadline::deadline;

const PORT: &str = "vector index";

/// The binding of the index.
const BINDING: &str = "VECTORIZE";

/// How long a question, or a deletion, may take.
const QUESTION: Duration = Duration::from_secs(5);
/// How long it may take to hand over some megabytes of vectors.
const PUTTING: Duration = Duration::from_secs(15);

/// The most that is asked for: ids alone come by the hundred.
const TOP_K: u32 = 100;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(extends = Object)]
    #[derive(Clone)]
    type RawIndex;
    #[wasm_bindgen(method, catch)]
    fn describe(this: &RawIndex) -> Result<JsValue, JsValue>;
    #[wasm_bindgen(method, catch)]
    fn query(this: &RawIndex, vector: &JsValue, options: &JsValue) -> Result<JsValue, JsValue>;
    #[wasm_bindgen(method, catch)]
    fn upsert(this: &RawIndex, vectors: &JsValue) -> Result<JsValue, JsValue>;
    #[wasm_bindgen(method, catch, js_name = deleteByIds)]
    fn delete_by_ids(this: &RawIndex, ids: &JsValue) -> Result<JsValue, JsValue>;
}

/// An index of Vectorize. It may be kept from one request to the next.
pub(crate) struct Vectorize {
    raw: SendWrapper<RawIndex>,
    /// An index keeps its dimensions for as long as it lives.
    dimensions: OnceLock<u32>,
}

impl fmt::Debug for Vectorize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vectorize")
    }
}

#[derive(Deserialize)]
struct Description {
    dimensions: u32,
}

#[derive(Deserialize)]
struct Found {
    matches: Vec<Match>,
}

#[derive(Deserialize)]
struct Match {
    id: String,
}

impl Vectorize {
    /// The index that `env` calls `VECTORIZE`. What it can do is seen when it is called.
    ///
    /// # Errors
    /// [`MissingBinding`].
    pub(crate) fn from_env(env: &Env) -> Result<Self, MissingBinding> {
        let missing = || MissingBinding { name: BINDING.to_owned() };
        let binding = Reflect::get(env, &JsValue::from_str(BINDING)).map_err(|_| missing())?;
        if binding.is_null() || binding.is_undefined() {
            return Err(missing());
        }
        Ok(Self { raw: SendWrapper::new(binding.unchecked_into()), dimensions: OnceLock::new() })
    }

    /// Calls the binding, and reads what it answers by way of its JSON.
    async fn call(
        &self,
        limit: Duration,
        call: impl FnOnce(&RawIndex) -> Result<JsValue, JsValue>,
    ) -> Result<String, PortError> {
        tracing::debug!(target: "enigma::subrequest", binding = BINDING, port = PORT, "asks Vectorize");
        deadline(PORT, limit, async {
            let called = async {
                let answer = JsFuture::from(Promise::resolve(&call(&self.raw)?)).await?;
                Ok(JSON::stringify(&answer)?.as_string().unwrap_or_default())
            };
            called.await.map_err(|error: JsValue| failed(&error))
        })
        .await
    }
}

#[async_trait]
impl VectorIndex for Vectorize {
    async fn dimensions(&self) -> Result<u32, PortError> {
        if let Some(dimensions) = self.dimensions.get() {
            return Ok(*dimensions);
        }
        let answer = self.call(QUESTION, RawIndex::describe).await?;
        let Description { dimensions } = read(&answer)?;
        Ok(*self.dimensions.get_or_init(|| dimensions))
    }

    async fn put(&self, vectors: Vec<Vector>) -> Result<(), PortError> {
        // As text, so that a number takes the digits that one of 32 bits has, and not those of one of 64.
        let vectors = serde_json::to_string(&vectors).map_err(|error| PortError::unavailable(PORT, error))?;
        self.call(PUTTING, |raw| raw.upsert(&JSON::parse(&vectors)?)).await?;
        Ok(())
    }

    async fn nearest(&self, namespace: &str, vector: &[f32], filter: Option<Value>) -> Result<Vec<String>, PortError> {
        let mut options = Map::from_iter([
            ("topK".to_owned(), json!(TOP_K)),
            ("namespace".to_owned(), json!(namespace)),
            ("returnMetadata".to_owned(), json!("none")),
        ]);
        options.extend(filter.map(|filter| ("filter".to_owned(), filter)));
        let (vector, options) = (json!(vector).to_string(), Value::Object(options).to_string());
        let answer = self.call(QUESTION, |raw| raw.query(&JSON::parse(&vector)?, &JSON::parse(&options)?)).await?;
        let Found { matches } = read(&answer)?;
        Ok(matches.into_iter().map(|it| it.id).collect())
    }

    async fn delete(&self, ids: Vec<String>) -> Result<(), PortError> {
        let ids = json!(ids).to_string();
        self.call(QUESTION, |raw| raw.delete_by_ids(&JSON::parse(&ids)?)).await?;
        Ok(())
    }
}

fn read<'a, T: Deserialize<'a>>(answer: &'a str) -> Result<T, PortError> {
    serde_json::from_str(answer).map_err(|error| PortError::corrupt(PORT, error))
}

fn failed(error: &JsValue) -> PortError {
    let said = error.dyn_ref::<Error>().map_or_else(|| format!("{error:?}"), |error| String::from(error.message()));
    match too_small(&said) {
        Some(error) => PortError::unavailable(PORT, error),
        None => PortError::unavailable(PORT, said),
    }
}

/// What Vectorize says of vectors that it cannot have: `… expected 768 dimensions, and got 1024 dimensions`.
fn too_small(said: &str) -> Option<IndexTooSmall> {
    let number = |after: &str| -> Option<u32> {
        let (_, rest) = said.split_once(after)?;
        rest.trim_start().split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    Some(IndexTooSmall { index: number("expected ")?, vectors: number("and got ")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_of_another_size_is_told_as_such() {
        let said = "VECTOR_UPSERT_ERROR (code = 40012): invalid vector for id=\"a\", expected 768 dimensions, and got 1024 \
            dimensions";
        assert_eq!(too_small(said), Some(IndexTooSmall { index: 768, vectors: 1024 }));
        assert_eq!(too_small("VECTOR_QUERY_ERROR (code = 40025): max top K is 50, but got 51"), None);
        let error = PortError::unavailable(PORT, IndexTooSmall { index: 768, vectors: 1024 });
        let source = std::error::Error::source(&error).unwrap();
        assert!(source.is::<IndexTooSmall>() && source.to_string().contains("768"));
    }
}
