//! Versions of the protocol, and what each asks of a request.
//!
//! Up to 2025-11-25 a client shakes hands (`initialize`), and names the version that was agreed on in a header from then on. Since
//! 2026-07-28 there is no handshake: each request says in its `_meta` which version it is of, and repeats in headers what
//! intermediaries route by.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value, json};

use super::json_rpc::{INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, PARSE_ERROR, Request, RpcError};

/// Every version that is spoken, the oldest first.
pub(crate) const VERSIONS: [&str; 5] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", MODERN];
/// The newest version.
const MODERN: &str = "2026-07-28";
/// The newest version that a handshake can agree on.
const NEWEST_BY_HANDSHAKE: &str = "2025-11-25";

/// Headers and body do not say the same.
pub(crate) const HEADER_MISMATCH: i32 = -32020;
/// The version is none that is spoken here.
pub(crate) const UNSUPPORTED_VERSION: i32 = -32022;
/// There is no such resource, up to 2025-11-25.
const RESOURCE_NOT_FOUND: i32 = -32002;

const VERSION_HEADER: &str = "mcp-protocol-version";
const METHOD_HEADER: &str = "mcp-method";
const NAME_HEADER: &str = "mcp-name";
const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
const META_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
const META_SERVER: &str = "io.modelcontextprotocol/serverInfo";

/// Whether there was a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Era {
    /// Up to 2025-11-25.
    Handshake,
    /// From 2026-07-28 on.
    Modern,
}

/// For how long a client may keep a result, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lifetime(pub(crate) u64);

impl Era {
    /// Tells which version a request is of, and checks what that version asks of it.
    ///
    /// # Errors
    /// Where it is of no version that is spoken, or contradicts itself.
    pub(crate) fn of(headers: &HeaderMap, request: &Request) -> Result<Self, RpcError> {
        let header = single(headers, VERSION_HEADER)?;
        if request.method == "initialize" {
            // The handshake is where the version is agreed on.
            return Ok(Self::Handshake);
        }
        let named = request.params.get("_meta").and_then(|meta| meta.get(META_VERSION));
        let is_modern = named.is_some() || header == Some(MODERN) || request.method == "server/discover";
        if is_modern {
            return check_modern(headers, header, request).map(|()| Self::Modern);
        }
        match header {
            // Before there was the header; no version before it asked for it.
            None => Ok(Self::Handshake),
            Some(version) if VERSIONS.contains(&version) => Ok(Self::Handshake),
            Some(version) => Err(unsupported(version)),
        }
    }

    /// The HTTP status of an answer with this error. A client that shook hands reads the body of a 200 only.
    pub(crate) const fn status(self, error: &RpcError) -> StatusCode {
        match (self, error.code) {
            (_, PARSE_ERROR | INVALID_REQUEST | HEADER_MISMATCH | UNSUPPORTED_VERSION)
            | (Self::Modern, INVALID_PARAMS) => StatusCode::BAD_REQUEST,
            (Self::Modern, METHOD_NOT_FOUND) => StatusCode::NOT_FOUND,
            _ => StatusCode::OK,
        }
    }

    /// A result as the version has it: since 2026-07-28 it says that it is whole, who has made it, and how long it may be kept.
    pub(crate) fn dressed(self, mut result: Value, lifetime: Option<Lifetime>) -> Value {
        if self == Self::Modern {
            result["resultType"] = "complete".into();
            result["_meta"] = json!({ META_SERVER: server_info() });
            if let Some(Lifetime(millis)) = lifetime {
                result["ttlMs"] = millis.into();
                // What a caller sees depends on its credentials.
                result["cacheScope"] = "private".into();
            }
        }
        result
    }

    /// What is said of a resource that is not there.
    pub(crate) fn resource_not_found(self, uri: &str) -> RpcError {
        let code = if self == Self::Modern { INVALID_PARAMS } else { RESOURCE_NOT_FOUND };
        RpcError { data: Some(json!({ "uri": uri })), ..RpcError::new(code, "Resource not found") }
    }
}

/// The version that a handshake agrees on: the client's, if it is one, else our newest.
pub(crate) fn agreed(params: &Map<String, Value>) -> Result<&'static str, RpcError> {
    let Some(Value::String(asked)) = params.get("protocolVersion") else {
        return Err(RpcError::invalid_params("protocolVersion must be a text"));
    };
    let known = VERSIONS.into_iter().find(|version| version == asked && *version != MODERN);
    Ok(known.unwrap_or(NEWEST_BY_HANDSHAKE))
}

/// Who answers.
pub(crate) fn server_info() -> Value {
    json!({ "name": "crispy-enigma", "version": env!("CARGO_PKG_VERSION") })
}

fn check_modern(headers: &HeaderMap, version: Option<&str>, request: &Request) -> Result<(), RpcError> {
    let meta = request.params.get("_meta").and_then(Value::as_object);
    let missing: Vec<&str> = [META_VERSION, META_CAPABILITIES]
        .into_iter()
        .filter(|key| !meta.is_some_and(|it| it.contains_key(*key)))
        .collect();
    if !missing.is_empty() {
        return Err(RpcError::invalid_params(format!("params._meta lacks {}", missing.join(" and "))));
    }
    let named = meta.and_then(|meta| meta[META_VERSION].as_str());
    if named.is_none() || version != named {
        return Err(mismatch("MCP-Protocol-Version does not say what params._meta says"));
    }
    if single(headers, METHOD_HEADER)? != Some(&request.method) {
        return Err(mismatch("Mcp-Method does not name the method"));
    }
    let name = match request.method.as_str() {
        "tools/call" | "prompts/get" => request.params.get("name"),
        "resources/read" => request.params.get("uri"),
        _ => None,
    };
    if let Some(Value::String(name)) = name
        && single(headers, NAME_HEADER)?.and_then(decoded).as_deref() != Some(name)
    {
        return Err(mismatch("Mcp-Name does not name what is asked for"));
    }
    match named {
        Some(MODERN) | None => Ok(()),
        Some(version) => Err(unsupported(version)),
    }
}

/// The value of a header. One that is there twice, or is no text, is as bad as a wrong one.
fn single<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<Option<&'a str>, RpcError> {
    let mut values = headers.get_all(name).iter();
    let Some(first) = values.next() else { return Ok(None) };
    match (first.to_str(), values.next()) {
        (Ok(text), None) => Ok(Some(text)),
        _ => Err(mismatch(format!("{name} must be there once, in ASCII"))),
    }
}

/// A header's text: as it is, or what is encoded in `=?base64?…?=`.
fn decoded(text: &str) -> Option<String> {
    match text.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) {
        Some(encoded) => String::from_utf8(STANDARD.decode(encoded).ok()?).ok(),
        None => Some(text.to_owned()),
    }
}

fn mismatch(message: impl Into<std::borrow::Cow<'static, str>>) -> RpcError {
    RpcError::new(HEADER_MISMATCH, message)
}

fn unsupported(version: &str) -> RpcError {
    let data = json!({ "supported": VERSIONS, "requested": version });
    RpcError { data: Some(data), ..RpcError::new(UNSUPPORTED_VERSION, "Unsupported protocol version") }
}

#[cfg(test)]
mod tests {
    use super::super::json_rpc::Id;
    use super::*;
    use http::{HeaderName, HeaderValue};

    fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in all {
            headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn request(method: &str, params: Value) -> Request {
        let Value::Object(params) = params else { panic!("params are an object") };
        Request { id: Id::Number(1.into()), method: method.to_owned(), params }
    }

    fn meta(version: &str) -> Value {
        json!({ META_VERSION: version, META_CAPABILITIES: {} })
    }

    fn code(of: Result<Era, RpcError>) -> i32 {
        of.unwrap_err().code
    }

    #[test]
    fn a_handshake_agrees_on_a_version_that_both_know() {
        let agree = |version: Value| agreed(json!({ "protocolVersion": version }).as_object().unwrap());
        for version in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
            assert_eq!(agree(version.into()), Ok(version));
        }
        for other in ["2026-07-28", "2099-01-01", "", "nonsense"] {
            assert_eq!(agree(other.into()), Ok("2025-11-25"), "{other}");
        }
        assert_eq!(agree(json!(1)).unwrap_err().code, INVALID_PARAMS);
        assert!(agreed(&Map::new()).is_err());
    }

    #[test]
    fn versions_with_a_handshake_are_told_by_the_header() {
        let ping = || request("ping", json!({}));
        assert_eq!(Era::of(&headers(&[]), &ping()), Ok(Era::Handshake));
        for version in &VERSIONS[..4] {
            assert_eq!(Era::of(&headers(&[(VERSION_HEADER, version)]), &ping()), Ok(Era::Handshake));
        }
        for bad in ["2025-11-26", "1.0", ""] {
            let error = Era::of(&headers(&[(VERSION_HEADER, bad)]), &ping()).unwrap_err();
            assert_eq!((error.code, &error.data.unwrap()["requested"]), (UNSUPPORTED_VERSION, &json!(bad)));
        }
        let twice = headers(&[(VERSION_HEADER, "2025-11-25"), (VERSION_HEADER, "2025-11-25")]);
        assert_eq!(code(Era::of(&twice, &ping())), HEADER_MISMATCH);
        let handshake = request("initialize", json!({ "protocolVersion": "2025-11-25" }));
        assert_eq!(Era::of(&headers(&[(VERSION_HEADER, "2026-07-28")]), &handshake), Ok(Era::Handshake));
    }

    #[test]
    fn since_then_each_request_speaks_for_itself_and_its_headers_agree() {
        let call = |name: &str| request("tools/call", json!({ "name": name, "_meta": meta(MODERN) }));
        let good = [(VERSION_HEADER, MODERN), (METHOD_HEADER, "tools/call"), (NAME_HEADER, "summarize")];
        assert_eq!(Era::of(&headers(&good), &call("summarize")), Ok(Era::Modern));
        assert_eq!(code(Era::of(&headers(&good), &call("other"))), HEADER_MISMATCH);
        let coded = [good[0], good[1], (NAME_HEADER, "=?base64?w7xiZXI=?=")];
        assert_eq!(Era::of(&headers(&coded), &call("über")), Ok(Era::Modern));
        let broken = [good[0], good[1], (NAME_HEADER, "=?base64?!?=")];
        assert_eq!(code(Era::of(&headers(&broken), &call("=?base64?!?="))), HEADER_MISMATCH);
        for without in 0..3 {
            let mut some = good.to_vec();
            some.remove(without);
            assert_eq!(code(Era::of(&headers(&some), &call("summarize"))), HEADER_MISMATCH, "{without}");
            let twice = [&good[..], &good[without..=without]].concat();
            assert_eq!(code(Era::of(&headers(&twice), &call("summarize"))), HEADER_MISMATCH, "{without} twice");
        }
        let list = |meta: Value| request("tools/list", json!({ "_meta": meta }));
        let of_list = headers(&[(VERSION_HEADER, MODERN), (METHOD_HEADER, "tools/list")]);
        for bad in
            [json!({}), json!(null), json!([]), json!({ META_VERSION: MODERN }), json!({ META_CAPABILITIES: {} })]
        {
            assert_eq!(code(Era::of(&of_list, &list(bad.clone()))), INVALID_PARAMS, "{bad}");
        }
        assert_eq!(code(Era::of(&of_list, &list(json!({ META_VERSION: 3, META_CAPABILITIES: {} })))), HEADER_MISMATCH);
        let future = headers(&[(VERSION_HEADER, "2099-01-01"), (METHOD_HEADER, "tools/list")]);
        let error = Era::of(&future, &list(meta("2099-01-01"))).unwrap_err();
        assert_eq!(
            (error.code, error.data.unwrap()),
            (UNSUPPORTED_VERSION, json!({ "supported": VERSIONS, "requested": "2099-01-01" }))
        );
        assert_eq!(code(Era::of(&headers(&[]), &request("server/discover", json!({})))), INVALID_PARAMS);
    }

    #[test]
    fn each_era_has_its_statuses_and_dress() {
        let error = |code| RpcError::new(code, "");
        assert_eq!(Era::Handshake.status(&error(METHOD_NOT_FOUND)), StatusCode::OK);
        assert_eq!(Era::Modern.status(&error(METHOD_NOT_FOUND)), StatusCode::NOT_FOUND);
        assert_eq!(Era::Handshake.status(&error(INVALID_PARAMS)), StatusCode::OK);
        assert_eq!(Era::Modern.status(&error(INVALID_PARAMS)), StatusCode::BAD_REQUEST);
        assert_eq!(Era::Handshake.status(&error(UNSUPPORTED_VERSION)), StatusCode::BAD_REQUEST);
        assert_eq!(Era::Handshake.dressed(json!({ "tools": [] }), Some(Lifetime(5))), json!({ "tools": [] }));
        let dressed = Era::Modern.dressed(json!({ "tools": [] }), Some(Lifetime(5)));
        assert_eq!(
            (&dressed["resultType"], &dressed["ttlMs"], &dressed["cacheScope"]),
            (&json!("complete"), &json!(5), &json!("private"))
        );
    }
}
