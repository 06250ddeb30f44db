//! One text for each JSON value.

use std::fmt::Write;

use serde_json::{Number, Value};

/// The canonical text of a value, after RFC 8785: members in the order of their names' UTF-16 code units, no blanks, and numbers as
/// ECMAScript writes them. Only whole numbers beyond 2^53 keep all their digits, where ECMAScript would round.
///
/// ```
/// use enigma_core::tools::canonical_json;
/// use serde_json::json;
/// assert_eq!(canonical_json(&json!({ "b": [1.0, 1e21], "a": "ü\n" })), r#"{"a":"ü\n","b":[1,1e+21]}"#);
/// ```
pub fn canonical_json(value: &Value) -> String {
    let mut text = String::new();
    write_value(value, &mut text);
    text
}

fn write_value(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) => write_number(number, out),
        Value::String(text) => write_text(text, out),
        Value::Array(values) => {
            out.push('[');
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_value(value, out);
            }
            out.push(']');
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by(|(one, _), (other, _)| one.encode_utf16().cmp(other.encode_utf16()));
            out.push('{');
            for (index, (name, value)) in members.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_text(name, out);
                out.push(':');
                write_value(value, out);
            }
            out.push('}');
        }
    }
}

/// `serde_json` escapes exactly what RFC 8785 says, in the same way.
fn write_text(text: &str, out: &mut String) {
    out.push_str(&serde_json::to_string(text).expect("a text is JSON"));
}

fn write_number(number: &Number, out: &mut String) {
    let Some(float) = number.as_f64().filter(|_| number.is_f64()) else {
        return push(out, format_args!("{number}"));
    };
    let size = float.abs();
    if size == 0.0 {
        // Both zeros are one.
        out.push('0');
    } else if (1e-6..1e21).contains(&size) {
        // Rust's and ECMAScript's digits are both the shortest that read back as the same number.
        push(out, format_args!("{float}"));
    } else {
        let text = format!("{float:e}");
        let sign = if size >= 1e21 { "e+" } else { "e" };
        out.push_str(&text.replacen('e', sign, 1));
    }
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a String takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn the_example_of_the_rfc_comes_out_as_it_says() {
        let value: Value = serde_json::from_str(
            r#"{ "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
                 "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/", "literals": [null, true, false] }"#,
        )
        .unwrap();
        let expected = "{\"literals\":[null,true,false],\"numbers\":[333333333.3333333,1e+30,4.5,0.002,1e-27],\
                        \"string\":\"€$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}";
        assert_eq!(canonical_json(&value), expected);
    }

    #[test]
    fn members_are_in_the_order_of_utf_16() {
        // RFC 8785, section 3.2.3: the euro sign comes before an emoji, whose first unit is a surrogate, and that before U+FB33.
        let value = json!({ "\u{20ac}": 1, "\r": 2, "\u{fb33}": 3, "1": 4, "\u{1f600}": 5, "\u{80}": 6, "\u{f6}": 7 });
        let text = canonical_json(&value);
        let order: Vec<_> = text.chars().filter(char::is_ascii_digit).collect();
        assert_eq!(order.iter().collect::<String>(), "2146715 3".replace(' ', ""));
    }

    #[test]
    fn one_number_has_one_text() {
        for (text, expected) in [
            ("1.0", "1"),
            ("-0.0", "0"),
            ("1e2", "100"),
            ("-1.50", "-1.5"),
            ("1e-7", "1e-7"),
            ("18446744073709551615", "18446744073709551615"),
        ] {
            assert_eq!(canonical_json(&serde_json::from_str(text).unwrap()), expected);
        }
    }

    proptest! {
        #[test]
        fn the_order_of_members_changes_nothing_and_the_text_reads_back(members in proptest::collection::hash_map(".{0,8}", any::<i64>(), 0..8)) {
            let forward: Value = members.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
            let mut backward: Vec<_> = members.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
            backward.reverse();
            let text = canonical_json(&forward);
            prop_assert_eq!(&text, &canonical_json(&backward.into_iter().collect()));
            prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), forward);
        }

        #[test]
        fn every_float_reads_back(number in proptest::num::f64::NORMAL) {
            let text = canonical_json(&json!(number));
            prop_assert_eq!(text.parse::<f64>().unwrap().to_bits(), number.to_bits());
        }
    }
}
