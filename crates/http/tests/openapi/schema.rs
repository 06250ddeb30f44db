//! As much of JSON Schema as the document uses.

use std::collections::BTreeMap;

use serde_json::Value;

/// What a `$ref` leads to, or the value itself.
pub(crate) fn resolve<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value.get("$ref").and_then(Value::as_str) {
        Some(target) => {
            let pointer = target.strip_prefix('#').unwrap_or_else(|| panic!("{target} leads out of the document"));
            document.pointer(pointer).unwrap_or_else(|| panic!("{target} leads nowhere"))
        }
        None => value,
    }
}

/// What is wrong with `value`. Fields that the schema does not list are wrong: the document is to have all of them.
pub(crate) fn problems(document: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check(document, schema, value, "", &mut found);
    found
}

fn check(document: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    let schema = resolve(document, schema);
    let mut wrong = |what: String| found.push(format!("{at}: {what}"));
    if let Some(branches) = schema["oneOf"].as_array() {
        let fitting = branches.iter().filter(|branch| problems(document, branch, value).is_empty()).count();
        if fitting != 1 {
            wrong(format!("fits {fitting} of the branches"));
        }
    }
    if let Some(expected) = schema.get("const").filter(|expected| *expected != value) {
        wrong(format!("is {value} and not {expected}"));
    }
    if let Some(choices) = schema["enum"].as_array().filter(|choices| !choices.contains(value)) {
        wrong(format!("{value} is not one of {choices:?}"));
    }
    if let Some(expected) = schema.get("type").filter(|expected| !is_a(value, expected)) {
        wrong(format!("{value} is not a {expected}"));
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if value.get(name).is_none() {
            wrong(format!("{name} is missing"));
        }
    }
    if let (Some(properties), Some(object)) = (schema["properties"].as_object(), value.as_object()) {
        for (name, member) in object {
            match properties.get(name) {
                Some(schema) => check(document, schema, member, &format!("{at}.{name}"), found),
                None => found.push(format!("{at}.{name}: is not in the document")),
            }
        }
    }
    if let (Some(items), Some(list)) = (schema.get("items"), value.as_array()) {
        for (index, member) in list.iter().enumerate() {
            check(document, items, member, &format!("{at}[{index}]"), found);
        }
    }
}

fn is_a(value: &Value, expected: &Value) -> bool {
    match expected.as_str() {
        Some("string") => value.is_string(),
        Some("integer") => value.is_u64() || value.is_i64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("null") => value.is_null(),
        _ => expected.as_array().is_some_and(|choices| choices.iter().any(|choice| is_a(value, choice))),
    }
}

/// Every field of a schema, as `messages[].role`, and whether the platform reads it.
pub(crate) fn fields(document: &Value, schema: &Value) -> BTreeMap<String, bool> {
    let mut found = BTreeMap::new();
    collect(document, schema, "", &mut found);
    found
}

fn collect(document: &Value, schema: &Value, at: &str, found: &mut BTreeMap<String, bool>) {
    let schema = resolve(document, schema);
    for branch in schema["oneOf"].as_array().into_iter().flatten() {
        collect(document, branch, at, found);
    }
    if let Some(items) = schema.get("items") {
        collect(document, items, &format!("{at}[]"), found);
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
        found.insert(path.clone(), property["x-not-read"] != true);
        collect(document, property, &path, found);
    }
}
