//! JSON in what a model has written.

use serde_json::{Deserializer, Value};

/// How many objects of an answer are looked at.
const MAX_OBJECTS: usize = 16;
/// How many braces are tried as the beginning of one.
const MAX_STARTS: usize = 512;

/// The JSON objects in a model's answer, in their order: the answer itself when it is one, or those that stand in it, in code fences
/// or among prose. An object within another is not told of by itself.
///
/// What comes back is JSON and nothing more is known of it; whoever asked checks it strictly. The work is bounded, whatever the
/// answer: a place that is tried either fails within a few characters, or within JSON's depth limit, or is skipped as a whole.
///
/// ```
/// use enigma_core::tools::json_objects;
/// let answer = "Sure! Here it is:\n```json\n{\"a\": [1]}\n```\nAnything else?";
/// assert_eq!(json_objects(answer), [serde_json::json!({ "a": [1] })]);
/// ```
pub fn json_objects(answer: &str) -> Vec<Value> {
    let (mut objects, mut rest, mut starts) = (Vec::new(), answer, 0);
    while let Some(start) = rest.find('{') {
        starts += 1;
        if starts > MAX_STARTS || objects.len() == MAX_OBJECTS {
            break;
        }
        rest = &rest[start..];
        let mut stream = Deserializer::from_str(rest).into_iter::<Value>();
        match stream.next() {
            Some(Ok(object)) => {
                objects.push(object);
                rest = &rest[stream.byte_offset()..];
            }
            _ => rest = &rest[1..],
        }
    }
    objects
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn objects_are_found_wherever_a_model_puts_them() {
        let object = json!({ "a": "b" });
        for answer in [
            "{\"a\":\"b\"}",
            "  \n{ \"a\" : \"b\" }\n",
            "```json\n{\"a\":\"b\"}\n```",
            "```\n{\"a\":\"b\"}",
            "Here {you} go: {\"a\":\"b\"}. Done {",
            "<think>maybe {x: 1}?</think>{\"a\":\"b\"}",
            "[{\"a\":\"b\"}]",
            "\u{feff}{\"a\":\"b\"}\u{0}",
            "{{\"a\":\"b\"}",
        ] {
            assert_eq!(json_objects(answer), std::slice::from_ref(&object), "{answer}");
        }
        assert_eq!(json_objects("{\"a\":{\"b\":1}} {\"c\":2}"), [json!({ "a": { "b": 1 } }), json!({ "c": 2 })]);
        for nothing in ["", "none", "{", "}", "{a: 1}", "{\"a\":", "{\"a\":\"b", "[1, 2]"] {
            assert_eq!(json_objects(nothing), [] as [Value; 0], "{nothing}");
        }
    }

    #[test]
    fn hostile_answers_take_little_time() {
        for piece in ["{", "{\"a\":", "{\"a\":[", "{\"", "{\"a\":\"\\\"", "[{", "{\"a\":{},"] {
            let answer = piece.repeat(1_000_000 / piece.len());
            assert!(json_objects(&answer).len() <= MAX_OBJECTS);
        }
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_fail_and_what_it_finds_is_in_the_answer(before in "[^{]{0,40}", name in "[a-z]{1,8}", after in ".{0,40}") {
            let object = json!({ name: [1, null, "x}"] });
            let found = json_objects(&format!("{before}{object}{after}"));
            prop_assert_eq!(&found[0], &object);
        }

        #[test]
        fn any_text_at_all(answer in "[{}\"\\\\:,a\\[\\] 1]{0,200}") {
            for object in json_objects(&answer) {
                prop_assert!(object.is_object());
            }
        }
    }
}
