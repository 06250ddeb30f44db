//! Reading a JSON body field by field, so that everything that is wrong with it is named at once.

use std::fmt::Display;

use enigma_core::InvalidId;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::error::ApiError;

/// A place in a body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum Step {
    Field(&'static str),
    Index(usize),
}

/// Something that is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Issue {
    path: Vec<Step>,
    pub(crate) message: String,
}

impl Issue {
    pub(crate) fn new(field: &'static str, message: impl Into<String>) -> Self {
        Self { path: vec![Step::Field(field)], message: message.into() }
    }

    /// The path in the form `messages[0].role`.
    pub(crate) fn path_text(&self) -> String {
        let mut text = String::new();
        for step in &self.path {
            match step {
                Step::Field(name) if text.is_empty() => text.push_str(name),
                Step::Field(name) => text.extend([".", name]),
                Step::Index(index) => text.extend(["[", &index.to_string(), "]"]),
            }
        }
        text
    }
}

impl Serialize for Issue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut issue = serializer.serialize_struct("Issue", 2)?;
        issue.serialize_field("path", &self.path)?;
        issue.serialize_field("message", &self.message)?;
        issue.end()
    }
}

/// How many issues are told at most. A list of wrong members is short to write, and each issue is long: without a bound a small
/// body would have a huge answer.
pub(crate) const MAX_ISSUES: usize = 64;

/// What is wrong so far.
#[derive(Debug, Default)]
pub(crate) struct Issues(Vec<Issue>);

impl Issues {
    pub(crate) fn add(&mut self, issue: Issue) {
        if self.0.len() < MAX_ISSUES {
            self.0.push(issue);
        }
    }

    /// Ends the reading: an error if anything was wrong.
    pub(crate) fn check(self) -> Result<(), ApiError> {
        if self.0.is_empty() { Ok(()) } else { Err(ApiError::invalid(&self.0)) }
    }
}

/// In an object with no more members than these, looking at each is cheaper than hashing the name.
const FEW_MEMBERS: usize = 16;

/// An object of a body. A getter takes note of what is wrong and returns `None`; a field that is absent or `null` is `None`
/// too, and only wrong where it is required.
pub(crate) struct Fields<'a> {
    object: &'a Map<String, Value>,
    path: Vec<Step>,
}

impl<'a> Fields<'a> {
    /// The body as an object.
    pub(crate) fn of_body(body: &'a Value, issues: &mut Issues) -> Option<Self> {
        let object = body.as_object();
        if object.is_none() {
            issues.add(Issue { path: Vec::new(), message: "must be an object".to_owned() });
        }
        object.map(|object| Self { object, path: Vec::new() })
    }

    pub(crate) fn wrong(&self, name: &'static str, message: impl Into<String>, issues: &mut Issues) {
        let mut path = self.path.clone();
        path.push(Step::Field(name));
        issues.add(Issue { path, message: message.into() });
    }

    pub(crate) fn value(&self, name: &'static str) -> Option<&'a Value> {
        let value = if self.object.len() <= FEW_MEMBERS {
            self.object.iter().find_map(|(key, value)| (key == name).then_some(value))
        } else {
            self.object.get(name)
        };
        value.filter(|value| !value.is_null())
    }

    pub(crate) fn required<T>(&self, name: &'static str, value: Option<T>, issues: &mut Issues) -> Option<T> {
        if self.value(name).is_none() {
            self.wrong(name, "is required", issues);
        }
        value
    }

    fn typed<T>(
        &self,
        name: &'static str,
        expected: impl Display,
        issues: &mut Issues,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.value(name)?;
        let read = read(value);
        if read.is_none() {
            self.wrong(name, format!("must be {expected}"), issues);
        }
        read
    }

    pub(crate) fn text(&self, name: &'static str, issues: &mut Issues) -> Option<&'a str> {
        self.typed(name, "a string", issues, Value::as_str)
    }

    /// A text of `least` to `most` characters.
    pub(crate) fn text_within(
        &self,
        name: &'static str,
        least: usize,
        most: usize,
        issues: &mut Issues,
    ) -> Option<&'a str> {
        let text = self.text(name, issues)?;
        if (least..=most).contains(&text.chars().count()) {
            return Some(text);
        }
        self.wrong(name, format!("must have {least} to {most} characters"), issues);
        None
    }

    /// A name of some kind.
    pub(crate) fn parsed<T: std::str::FromStr<Err = InvalidId>>(
        &self,
        name: &'static str,
        issues: &mut Issues,
    ) -> Option<T> {
        match self.text(name, issues)?.parse() {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                self.wrong(name, error.to_string(), issues);
                None
            }
        }
    }

    pub(crate) fn boolean(&self, name: &'static str, issues: &mut Issues) -> Option<bool> {
        self.typed(name, "true or false", issues, Value::as_bool)
    }

    pub(crate) fn number_within(&self, name: &'static str, least: f64, most: f64, issues: &mut Issues) -> Option<f64> {
        self.typed(name, format_args!("a number from {least} to {most}"), issues, |value| {
            value.as_f64().filter(|number| (least..=most).contains(number))
        })
    }

    pub(crate) fn integer_within(&self, name: &'static str, least: u64, most: u64, issues: &mut Issues) -> Option<u64> {
        self.typed(name, format_args!("a whole number from {least} to {most}"), issues, |value| {
            value.as_u64().filter(|number| (least..=most).contains(number))
        })
    }

    pub(crate) fn integer(&self, name: &'static str, issues: &mut Issues) -> Option<i64> {
        self.typed(name, "a whole number", issues, Value::as_i64)
    }

    pub(crate) fn list(&self, name: &'static str, issues: &mut Issues) -> Option<&'a [Value]> {
        self.typed(name, "a list", issues, |value| value.as_array().map(Vec::as_slice))
    }

    /// A list's members that are objects; the others are taken note of.
    pub(crate) fn objects(&self, name: &'static str, issues: &mut Issues) -> Option<Vec<Fields<'a>>> {
        let list = self.list(name, issues)?;
        let mut objects = Vec::with_capacity(list.len());
        for (index, value) in list.iter().enumerate() {
            let mut path = self.path.clone();
            path.extend([Step::Field(name), Step::Index(index)]);
            match value.as_object() {
                Some(object) => objects.push(Fields { object, path }),
                None => issues.add(Issue { path, message: "must be an object".to_owned() }),
            }
        }
        Some(objects)
    }

    pub(crate) fn object(&self, name: &'static str, issues: &mut Issues) -> Option<Fields<'a>> {
        let object = self.typed(name, "an object", issues, Value::as_object)?;
        let mut path = self.path.clone();
        path.push(Step::Field(name));
        Some(Fields { object, path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn everything_that_is_wrong_is_named_with_its_place() {
        let body = json!({ "a": 1, "list": [{ "b": "" }, 3], "c": null });
        let mut issues = Issues::default();
        let fields = Fields::of_body(&body, &mut issues).unwrap();
        assert_eq!(fields.text("a", &mut issues), None);
        assert_eq!(fields.text("c", &mut issues), None, "null is absent");
        let c = fields.text("c", &mut issues);
        assert_eq!(fields.required("c", c, &mut issues), None);
        let members = fields.objects("list", &mut issues).unwrap();
        assert_eq!(members[0].text_within("b", 1, 5, &mut issues), None);
        assert_eq!(fields.integer_within("a", 2, 3, &mut issues), None);
        assert_eq!(
            serde_json::to_value(&issues.0).unwrap(),
            json!([
                { "path": ["a"], "message": "must be a string" },
                { "path": ["c"], "message": "is required" },
                { "path": ["list", 1], "message": "must be an object" },
                { "path": ["list", 0, "b"], "message": "must have 1 to 5 characters" },
                { "path": ["a"], "message": "must be a whole number from 2 to 3" },
            ])
        );
        assert_eq!(issues.0[3].path_text(), "list[0].b");
    }
    #[test]
    fn a_small_body_has_no_huge_list_of_issues() {
        let body = json!({ "list": vec![0; 10_000] });
        let mut issues = Issues::default();
        let fields = Fields::of_body(&body, &mut issues).unwrap();
        assert!(fields.objects("list", &mut issues).unwrap().is_empty());
        assert_eq!(issues.0.len(), MAX_ISSUES);
        assert_eq!(issues.0[MAX_ISSUES - 1].path_text(), "list[63]");
        assert!(issues.check().is_err());
    }
}
