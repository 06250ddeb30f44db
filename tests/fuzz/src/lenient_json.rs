//! What models write where JSON was asked for.

use enigma_core::tools::{canonical_json, json_objects};
use serde_json::Value;

/// Looks for objects in an answer.
pub fn lenient_json(input: &[u8]) {
    let answer = String::from_utf8_lossy(input);
    let found = json_objects(&answer);
    assert!(found.len() <= 16, "{} objects", found.len());
    for object in &found {
        assert!(object.is_object(), "it is no object: {object}");
        let fenced = format!("Here you are:\n```json\n{object}\n```\n");
        assert_eq!(json_objects(&fenced), std::slice::from_ref(object), "in a fence it is another one");
        let canonical = canonical_json(object);
        let read: Value = serde_json::from_str(&canonical).unwrap_or_else(|error| panic!("{error}: {canonical}"));
        assert_eq!(canonical_json(&read), canonical, "its canonical text is not canonical");
    }
}
