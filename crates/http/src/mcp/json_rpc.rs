//! JSON-RPC 2.0, as far as the Model Context Protocol has it: single messages, ids that are texts or whole numbers, parameters that
//! are objects.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::error::Category;
use serde_json::{Map, Number, Value, json};

use crate::error::{ApiError, ErrorCode};

pub(crate) const PARSE_ERROR: i32 = -32700;
pub(crate) const INVALID_REQUEST: i32 = -32600;
pub(crate) const METHOD_NOT_FOUND: i32 = -32601;
pub(crate) const INVALID_PARAMS: i32 = -32602;
pub(crate) const INTERNAL_ERROR: i32 = -32603;
/// The platform refuses, for a reason of its own that `data.code` names. From the range that the protocol leaves to servers.
pub(crate) const REFUSED: i32 = -32010;

/// The longest id that is told again, in bytes.
const MAX_ID_BYTES: usize = 256;

/// What an answer says to tell which request it is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum Id {
    Number(Number),
    Text(String),
}

impl Id {
    fn of(value: Value) -> Option<Self> {
        match value {
            // Fractions, and numbers that are larger than anything counts.
            Value::Number(number) if number.is_f64() => None,
            Value::Number(number) => Some(Self::Number(number)),
            Value::String(text) if text.len() <= MAX_ID_BYTES => Some(Self::Text(text)),
            _ => None,
        }
    }
}

/// A message from a client.
#[derive(Debug, PartialEq)]
pub(crate) enum Message {
    /// Wants an answer.
    Request(Request),
    /// Wants none.
    Notification,
}

/// A request.
#[derive(Debug, PartialEq)]
pub(crate) struct Request {
    pub(crate) id: Id,
    pub(crate) method: String,
    /// Empty where there are none.
    pub(crate) params: Map<String, Value>,
}

/// Why a request has no result.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct RpcError {
    pub(crate) code: i32,
    pub(crate) message: Cow<'static, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) data: Option<Value>,
}

impl RpcError {
    pub(crate) fn new(code: i32, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), data: None }
    }

    pub(crate) fn invalid_params(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(INVALID_PARAMS, message)
    }
}

/// A body that is no message, with the id to answer under where it has one.
#[derive(Debug, PartialEq)]
pub(crate) struct Malformed {
    pub(crate) id: Option<Id>,
    pub(crate) error: RpcError,
}

/// The members of a message. A member that is there twice is refused: two readers on the way could each believe another one.
#[derive(Deserialize)]
struct Envelope {
    jsonrpc: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    id: Option<Value>,
    method: Option<Value>,
    params: Option<Value>,
}

/// `null` is not nothing here.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// Reads a message.
///
/// # Errors
/// [`Malformed`] with [`PARSE_ERROR`] for what is no JSON, and [`INVALID_REQUEST`] for what is no single message.
pub(crate) fn parse(body: &[u8]) -> Result<Message, Box<Malformed>> {
    let malformed = |id, code, message| Box::new(Malformed { id, error: RpcError::new(code, message) });
    // Serde would take the members of a list for those of an object.
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
        return Err(malformed(None, INVALID_REQUEST, "Batches are not supported: send one message a request"));
    }
    let Envelope { jsonrpc, id, method, params } =
        serde_json::from_slice(body).map_err(|error| match error.classify() {
            Category::Data => malformed(None, INVALID_REQUEST, "The body must be one JSON-RPC message"),
            Category::Io | Category::Syntax | Category::Eof => {
                malformed(None, PARSE_ERROR, "The body is not valid JSON")
            }
        })?;
    let is_notification = id.is_none();
    let id = id.and_then(Id::of);
    if id.is_none() && !is_notification {
        let message = "id must be a whole number, or a text of at most 256 bytes";
        return Err(malformed(None, INVALID_REQUEST, message));
    }
    let invalid = |message| malformed(id.clone(), INVALID_REQUEST, message);
    if jsonrpc != Some(Value::from("2.0")) {
        return Err(invalid("jsonrpc must be \"2.0\""));
    }
    let Some(Value::String(method)) = method else {
        // An answer too: nothing was asked.
        return Err(invalid("method must be a text"));
    };
    let params = match params {
        None => Map::new(),
        Some(Value::Object(params)) => params,
        Some(_) => return Err(invalid("params must be an object")),
    };
    Ok(id.map_or(Message::Notification, |id| Message::Request(Request { id, method, params })))
}

/// The body of an answer.
pub(crate) fn answered(id: Option<&Id>, outcome: Result<Value, &RpcError>) -> Value {
    match outcome {
        Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
        Err(error) => json!({ "jsonrpc": "2.0", "id": id, "error": error }),
    }
}

/// The body of an answer that refuses for a reason of the platform's own.
pub(crate) fn refusal(id: Option<&Id>, error: &ApiError, trace: &str) -> Value {
    let code = match error.code {
        ErrorCode::InvalidJson => PARSE_ERROR,
        ErrorCode::InvalidRequest => INVALID_PARAMS,
        ErrorCode::MethodNotAllowed
        | ErrorCode::NotAcceptable
        | ErrorCode::PayloadTooLarge
        | ErrorCode::UnsupportedMediaType => INVALID_REQUEST,
        code if code.status().is_server_error() => INTERNAL_ERROR,
        _ => REFUSED,
    };
    let mut data = json!({ "code": error.code.as_str(), "traceId": trace });
    if let Some(details) = &error.details {
        data["details"] = Value::clone(details);
    }
    answered(id, Err(&RpcError { data: Some(data), ..RpcError::new(code, error.message.clone()) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(body: &str) -> (i32, Option<Id>) {
        let malformed = parse(body.as_bytes()).unwrap_err();
        (malformed.error.code, malformed.id)
    }

    #[test]
    fn messages_are_told_apart() {
        let request = parse(br#" {"jsonrpc":"2.0","id":7,"method":"ping","more":[1]} "#).unwrap();
        let expected = Request { id: Id::Number(7.into()), method: "ping".to_owned(), params: Map::new() };
        assert_eq!(request, Message::Request(expected));
        let body = br#"{"jsonrpc":"2.0","method":"notifications/initialized","params":null}"#;
        assert_eq!(parse(body).unwrap(), Message::Notification);
    }

    #[test]
    fn ids_are_texts_or_whole_numbers() {
        for good in ["0", "-9223372036854775808", "18446744073709551615", "\"\"", "\"a\\u0000\\ud83e\\udd80\""] {
            let body = format!(r#"{{"jsonrpc":"2.0","id":{good},"method":"ping"}}"#);
            let Ok(Message::Request(request)) = parse(body.as_bytes()) else { panic!("{good}") };
            let told: Value = serde_json::to_value(&request.id).unwrap();
            assert_eq!(told, serde_json::from_str::<Value>(good).unwrap(), "it is told again as it was");
        }
        let long = format!("\"{}\"", "x".repeat(MAX_ID_BYTES + 1));
        for bad in ["null", "1.5", "1e3", "18446744073709551616", "1e999999", "true", "[1]", "{}", &long] {
            let body = format!(r#"{{"jsonrpc":"2.0","id":{bad},"method":"ping"}}"#);
            assert!(matches!(code(&body), (INVALID_REQUEST | PARSE_ERROR, None)), "{bad}");
        }
    }

    #[test]
    fn what_is_no_json_and_what_is_no_message_are_told_apart() {
        let deep = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{}"#, "[".repeat(100_000));
        for bad in ["", "{", "nonsense", "{\"id\":1,}", "\u{feff}{}", &deep, "{} {}"] {
            assert_eq!(code(bad), (PARSE_ERROR, None), "{}", &bad[..bad.len().min(40)]);
        }
        for bad in [
            "3",
            "\"text\"",
            "null",
            "[]",
            r#"["2.0",1,"ping",null]"#,
            r#" [{"jsonrpc":"2.0","id":1,"method":"ping"}]"#,
            r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","method":"ping","method":"tools/call","id":1}"#,
        ] {
            assert_eq!(code(bad), (INVALID_REQUEST, None), "{bad}");
        }
        for bad in [
            r#"{"id":"a","method":"ping"}"#,
            r#"{"jsonrpc":"1.0","id":"a","method":"ping"}"#,
            r#"{"jsonrpc":2.0,"id":"a","method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":"a"}"#,
            r#"{"jsonrpc":"2.0","id":"a","result":{}}"#,
            r#"{"jsonrpc":"2.0","id":"a","method":3}"#,
            r#"{"jsonrpc":"2.0","id":"a","method":"ping","params":[]}"#,
            r#"{"jsonrpc":"2.0","id":"a","method":"ping","params":"x"}"#,
        ] {
            assert_eq!(code(bad), (INVALID_REQUEST, Some(Id::Text("a".to_owned()))), "{bad}");
        }
    }

    #[test]
    fn refusals_keep_the_platforms_code() {
        let error = ApiError::new(ErrorCode::RateLimited);
        let body = refusal(Some(&Id::Number(1.into())), &error, "t-1");
        assert_eq!((&body["id"], &body["error"]["code"]), (&json!(1), &json!(REFUSED)));
        assert_eq!(body["error"]["data"], json!({ "code": "rate_limited", "traceId": "t-1" }));
        let body = refusal(None, &ApiError::new(ErrorCode::Unavailable), "t-1");
        assert_eq!((&body["id"], &body["error"]["code"]), (&Value::Null, &json!(INTERNAL_ERROR)));
    }
}
