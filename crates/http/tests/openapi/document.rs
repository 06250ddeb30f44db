//! The document alone, against what the crate exports.

use std::collections::BTreeSet;

use enigma_http::{ErrorCode, ROUTES};
use serde_json::Value;

use crate::schema::{problems, resolve};
use crate::support::document;

const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

/// Method, path and description of each operation.
pub(crate) fn operations(document: &Value) -> Vec<(String, &str, &Value)> {
    let paths = document["paths"].as_object().unwrap().iter();
    paths
        .flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().iter().filter(|(name, _)| METHODS.contains(&name.as_str()));
            methods.map(move |(method, operation)| (method.to_ascii_uppercase(), path.as_str(), operation))
        })
        .collect()
}

fn visit<'a>(value: &'a Value, see: &mut impl FnMut(&'a Value)) {
    see(value);
    match value {
        Value::Array(list) => list.iter().for_each(|member| visit(member, see)),
        Value::Object(object) => object.values().for_each(|member| visit(member, see)),
        _ => {}
    }
}

#[test]
fn it_has_every_route_and_no_other() {
    let document = document();
    let described: BTreeSet<_> =
        operations(&document).into_iter().map(|(method, path, _)| (method, path.to_owned())).collect();
    let served: BTreeSet<_> = ROUTES.iter().map(|(method, path)| ((*method).to_owned(), (*path).to_owned())).collect();
    assert_eq!(described, served);
}

#[test]
fn every_reference_leads_somewhere_and_every_component_is_used() {
    let document = document();
    let mut targets = BTreeSet::new();
    visit(&document, &mut |value| {
        if let Some(target) = value.get("$ref").and_then(Value::as_str) {
            resolve(&document, value);
            targets.insert(target.to_owned());
        }
    });
    for kind in ["parameters", "headers", "schemas"] {
        for name in document["components"][kind].as_object().unwrap().keys() {
            assert!(targets.contains(&format!("#/components/{kind}/{name}")), "{kind}/{name} is used nowhere");
        }
    }
}

#[test]
fn it_has_every_error_code_and_no_other() {
    let document = document();
    let described: Vec<_> = document["components"]["schemas"]["ErrorCode"]["enum"].as_array().unwrap().iter().collect();
    let known: Vec<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(described, known);
}

#[test]
fn codes_are_listed_under_their_own_status_and_each_somewhere() {
    let document = document();
    let mut listed = BTreeSet::from([ErrorCode::MethodNotAllowed.as_str()]);
    for (method, path, operation) in operations(&document) {
        for (status, response) in operation["responses"].as_object().unwrap() {
            let codes = response["x-error-codes"].as_array();
            assert_eq!(codes.is_some(), !status.starts_with('2'), "{method} {path} {status}");
            for text in codes.into_iter().flatten() {
                let code = ErrorCode::ALL.iter().find(|code| *text == code.as_str()).unwrap();
                assert_eq!(code.status().as_str(), status, "{method} {path}: {text}");
                listed.insert(code.as_str());
            }
        }
    }
    assert_eq!(listed.len(), ErrorCode::ALL.len(), "some code is listed by no operation: {listed:?}");
}

#[test]
fn path_parameters_are_those_of_the_path() {
    let document = document();
    for (method, path, operation) in operations(&document) {
        let in_path: BTreeSet<_> =
            path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let described: BTreeSet<_> = parameters
            .map(|parameter| resolve(&document, parameter))
            .filter(|parameter| parameter["in"] == "path")
            .map(|parameter| parameter["name"].as_str().unwrap())
            .collect();
        assert_eq!(described, in_path, "{method} {path}");
    }
}

#[test]
fn examples_keep_to_their_schemas() {
    let document = document();
    for (method, path, operation) in operations(&document) {
        let media = &operation["requestBody"]["content"]["application/json"];
        for (name, example) in media["examples"].as_object().into_iter().flatten() {
            let found = problems(&document, &media["schema"], &example["value"]);
            assert!(found.is_empty(), "{method} {path}, {name}: {found:#?}");
        }
    }
}

#[test]
fn the_version_is_the_crates() {
    assert_eq!(document()["info"]["version"], env!("CARGO_PKG_VERSION"));
}
