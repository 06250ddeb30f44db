//! Documents as resources: `document:///NAME`, the name percent-encoded.

use std::fmt::Write;

use enigma_core::retrieval::{DocumentId, DocumentPage, DocumentSummary};
use serde_json::{Map, Value, json};

use super::json_rpc::RpcError;

/// What every address begins with. There is no authority: whose document it is the credentials say, and nothing else.
const PREFIX: &str = "document:///";
/// The documents of a page.
pub(crate) const PAGE: u32 = 100;
const TYPE: &str = "text/plain";

/// The address of a document.
pub(crate) fn uri(document: &DocumentId) -> String {
    let mut uri = PREFIX.to_owned();
    for byte in document.as_str().bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => uri.push(byte.into()),
            _ => write!(uri, "%{byte:02X}").expect("a text takes what is written to it"),
        }
    }
    uri
}

/// The document of an address; `None` where it is none of a document.
pub(crate) fn document(uri: &str) -> Option<DocumentId> {
    let mut rest = uri.strip_prefix(PREFIX)?.bytes();
    let mut bytes = Vec::with_capacity(rest.len());
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => hexadecimal(rest.next()?)? << 4 | hexadecimal(rest.next()?)?,
            // A query or a fragment is no part of a name.
            b'?' | b'#' => return None,
            byte => byte,
        });
    }
    DocumentId::new(&String::from_utf8(bytes).ok()?).ok()
}

fn hexadecimal(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Where the page begins that `params` ask for.
///
/// # Errors
/// For a cursor that was never given.
pub(crate) fn cursor(params: &Map<String, Value>) -> Result<Option<DocumentId>, RpcError> {
    match params.get("cursor") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => match DocumentId::new(text) {
            Ok(after) => Ok(Some(after)),
            Err(_) => Err(no_cursor()),
        },
        Some(_) => Err(no_cursor()),
    }
}

/// What comes in one page has no other.
///
/// # Errors
/// For any cursor.
pub(crate) fn no_further_page(params: &Map<String, Value>) -> Result<(), RpcError> {
    match params.get("cursor") {
        None | Some(Value::Null) => Ok(()),
        Some(_) => Err(no_cursor()),
    }
}

fn no_cursor() -> RpcError {
    RpcError::invalid_params("cursor must be the nextCursor of an earlier page")
}

/// The result of `resources/list`.
pub(crate) fn listed(page: &DocumentPage) -> Value {
    let resources: Vec<Value> = page.documents.iter().map(told).collect();
    let mut result = json!({ "resources": resources });
    if let Some(next) = &page.next {
        result["nextCursor"] = next.as_str().into();
    }
    result
}

fn told(summary: &DocumentSummary) -> Value {
    let document = &summary.document;
    let mut told = json!({
        "uri": uri(&document.id),
        "name": document.id,
        "mimeType": TYPE,
        "annotations": { "lastModified": summary.updated_at.to_rfc3339() },
    });
    if let Some(title) = &document.title {
        told["title"] = title.as_str().into();
    }
    if let Some(source) = &document.source {
        told["description"] = source.as_str().into();
    }
    told
}

/// The result of `resources/templates/list`.
pub(crate) fn templates() -> Value {
    json!({ "resourceTemplates": [{
        "uriTemplate": "document:///{docId}",
        "name": "document",
        "title": "Document",
        "description": "The text of a document, by its docId, as /documents and the sources of searches name it.",
        "mimeType": TYPE,
    }] })
}

/// The address that `resources/read` asks for.
///
/// # Errors
/// Where it is no text.
pub(crate) fn asked(params: &Map<String, Value>) -> Result<&str, RpcError> {
    params.get("uri").and_then(Value::as_str).ok_or_else(|| RpcError::invalid_params("uri must be a text"))
}

/// The result of `resources/read`.
pub(crate) fn read(uri: &str, text: &str) -> Value {
    json!({ "contents": [{ "uri": uri, "mimeType": TYPE, "text": text }] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_an_address_that_leads_back() {
        for name in [
            "a",
            "guides/Getting started.md",
            "Überblick 世界 🦀",
            "100%?&=+:@",
            "../../etc/passwd",
            "%2F",
            "a;b,c|d\\e",
        ] {
            let id = DocumentId::new(name).unwrap();
            let address = uri(&id);
            assert!(address.is_ascii() && !address.contains([' ', '"']), "{address}");
            assert_eq!(document(&address), Some(id), "{address}");
        }
        assert_eq!(uri(&DocumentId::new("a b/c").unwrap()), "document:///a%20b%2Fc");
    }

    #[test]
    fn addresses_may_be_written_otherwise_and_nothing_else_is_one() {
        let id = |name: &str| DocumentId::new(name).ok();
        assert_eq!(document("document:///guides/a.md"), id("guides/a.md"));
        assert_eq!(document("document:///%67uides%2fa.md"), id("guides/a.md"));
        for bad in [
            "",
            "document:///",
            "document://acme/a",
            "document:/a",
            "Document:///a",
            "file:///etc/passwd",
            "https://example.com/a",
            "document:///a?b",
            "document:///a#b",
            "document:///a%",
            "document:///a%2",
            "document:///a%zz",
            "document:///a%+1",
            "document:///%ff",
            "document:///%00",
            "document:///%5Ba",
        ] {
            assert_eq!(document(bad), None, "{bad}");
        }
        assert_eq!(document(&format!("document:///{}", "x".repeat(100_000))), None);
    }

    #[test]
    fn a_cursor_is_one_that_was_given() {
        let of = |value: Value| cursor(json!({ "cursor": value }).as_object().unwrap());
        assert_eq!(of(json!(null)), Ok(None));
        assert_eq!(of(json!("guides/a.md")).unwrap().unwrap().as_str(), "guides/a.md");
        for bad in [json!(3), json!(""), json!("\u{0}"), json!(["a"])] {
            assert!(of(bad.clone()).is_err(), "{bad}");
        }
        assert!(no_further_page(json!({ "cursor": "a" }).as_object().unwrap()).is_err());
        assert!(no_further_page(&Map::new()).is_ok());
    }
}
