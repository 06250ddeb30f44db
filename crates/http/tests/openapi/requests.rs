//! The fields of bodies: what is documented is read, and what is read is documented.

use std::collections::{BTreeMap, BTreeSet};

use http::StatusCode;
use serde_json::{Value, json};

use crate::schema::fields;
use crate::support::{Host, document};

/// A route that takes a body, and the source of its parser.
struct Route {
    path: &'static str,
    parser: &'static str,
}

const ROUTES: [Route; 8] = [
    Route { path: "/chat", parser: include_str!("../../src/routes/chat.rs") },
    Route { path: "/ingest", parser: include_str!("../../src/routes/ingest.rs") },
    Route { path: "/search", parser: include_str!("../../src/routes/search.rs") },
    Route { path: "/tools/execute", parser: include_str!("../../src/routes/tools.rs") },
    Route { path: "/tts", parser: include_str!("../../src/routes/speech.rs") },
    Route { path: "/v1/audio/speech", parser: include_str!("../../src/openai/speech.rs") },
    Route { path: "/v1/embeddings", parser: include_str!("../../src/openai/embeddings.rs") },
    Route { path: "/v1/chat/completions", parser: include_str!("../../src/openai/request.rs") },
];

/// One field of the example that has all of them.
struct Place {
    /// In the schema, such as `messages[].role`.
    field: String,
    /// In the example, as errors name it, such as `messages[0].role`.
    path: String,
    /// The same as a JSON pointer.
    pointer: String,
}

fn places(value: &Value, at: &Place, known: &BTreeMap<String, bool>, found: &mut Vec<Place>) {
    let dot = |path: &str| if path.is_empty() { String::new() } else { format!("{path}.") };
    match value {
        Value::Object(object) => {
            for (name, member) in object {
                let field = format!("{}{name}", dot(&at.field));
                // Below a field that the platform passes on as it is, nothing is known.
                if known.contains_key(&field) {
                    let path = format!("{}{name}", dot(&at.path));
                    let place = Place { field, path, pointer: format!("{}/{name}", at.pointer) };
                    places(member, &place, known, found);
                    found.push(place);
                }
            }
        }
        Value::Array(list) => {
            for (index, member) in list.iter().enumerate() {
                let place = Place {
                    field: format!("{}[]", at.field),
                    path: format!("{}[{index}]", at.path),
                    pointer: format!("{}/{index}", at.pointer),
                };
                places(member, &place, known, found);
            }
        }
        _ => {}
    }
}

/// The places that an error complains about.
fn complaints(error: &Value) -> Vec<String> {
    let Some(issues) = error["details"]["issues"].as_array() else {
        return error["param"].as_str().map(str::to_owned).into_iter().collect();
    };
    let text = |path: &Value| {
        let mut text = String::new();
        for step in path.as_array().unwrap() {
            match step.as_str() {
                Some(name) if text.is_empty() => text.push_str(name),
                Some(name) => text.extend([".", name]),
                None => text.extend(["[", &step.to_string(), "]"]),
            }
        }
        text
    };
    issues.iter().map(|issue| text(&issue["path"])).collect()
}

#[tokio::test]
async fn every_documented_field_is_read() {
    let document = document();
    for Route { path, .. } in ROUTES {
        let media = &document["paths"][path]["post"]["requestBody"]["content"]["application/json"];
        let known = fields(&document, &media["schema"]);
        let example = &media["examples"]["everyField"]["value"];
        let mut found = Vec::new();
        let root = Place { field: String::new(), path: String::new(), pointer: String::new() };
        places(example, &root, &known, &mut found);
        let shown: BTreeSet<_> = found.iter().map(|place| &place.field).collect();
        assert_eq!(shown, known.keys().collect(), "{path}: the example is to show every field");

        for place in found {
            let mut body = example.clone();
            let value = body.pointer_mut(&place.pointer).unwrap();
            // No field takes a number and a text, so one of both is of the wrong type.
            *value = if value.is_number() { json!("x") } else { json!(7) };
            let host = Host::new();
            host.will_answer();
            let answer = host.send("POST", path, &[], &body.to_string()).await;
            let (is_read, field) = (known[&place.field], &place.field);
            assert_eq!(answer.status == StatusCode::BAD_REQUEST, is_read, "{path}: {field}: {}", answer.text);
            if is_read {
                let named = complaints(&answer.json()["error"]);
                assert!(named.iter().any(|name| place.path.starts_with(name.as_str())), "{path}: {field}: {named:?}");
            }
        }
    }
}

/// The names of fields in calls of the parsers' getters, such as `text("role"`.
fn read_by(source: &str) -> BTreeSet<&str> {
    const GETTERS: [&str; 12] = [
        "boolean",
        "cap",
        "integer",
        "integer_within",
        "list",
        "number_within",
        "object",
        "objects",
        "parsed",
        "text",
        "text_within",
        "value",
    ];
    let code = source.split("#[cfg(test)]").next().unwrap_or_default();
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices('"') {
        let Some(call) = code[..at].trim_end().strip_suffix('(') else { continue };
        let getter = call.rsplit(|c: char| c != '_' && !c.is_ascii_alphanumeric()).next().unwrap_or_default();
        if GETTERS.contains(&getter) {
            names.extend(code[at + 1..].split('"').next());
        }
    }
    names
}

#[test]
fn every_field_that_a_parser_reads_is_documented() {
    let document = document();
    for Route { path, parser } in ROUTES {
        let schema = &document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"];
        let known = fields(&document, schema);
        let read = known.iter().filter(|(_, is_read)| **is_read).map(|(field, _)| field);
        let documented: BTreeSet<_> = read.map(|field| field.rsplit('.').next().unwrap_or(field)).collect();
        assert_eq!(read_by(parser), documented, "{path}");
    }
}
