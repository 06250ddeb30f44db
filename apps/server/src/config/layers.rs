//! Flags over variables over the file over the defaults, in one table that remembers who said what.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::ConfigProblem;
use crate::settings::{Kind, SETTINGS, Setting};

/// The section whose presence alone switches something on.
const OPTIONAL_SECTION: &str = "ondevice";

/// Who said something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// Nobody.
    Default,
    /// The demo mode.
    Demo,
    /// The file.
    File(PathBuf),
    /// A variable.
    Environment(&'static str),
    /// A flag, without its dashes.
    Flag(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("configuration"),
            Self::Demo => f.write_str("demo"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag --{name}"),
        }
    }
}

/// The configuration while it is put together.
pub(super) struct Layers {
    table: Table,
    base: Source,
    overrides: BTreeMap<&'static str, Source>,
}

impl Layers {
    /// Begins with what the file says, or the demo.
    pub(super) fn new(table: Table, base: Source) -> Self {
        Self { table, base, overrides: BTreeMap::new() }
    }

    /// Reads a file.
    pub(super) fn from_file(path: &Path) -> Result<Self, ConfigProblem> {
        let source = Source::File(path.to_owned());
        let problem = |reason| ConfigProblem { source: source.clone(), field: ".".to_owned(), reason };
        let text = std::fs::read_to_string(path).map_err(|error| problem(format!("cannot be read: {error}")))?;
        let table = text.parse().map_err(|error: toml::de::Error| {
            // Without the line itself: it may hold what was not meant to be shown.
            let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
            problem(format!("line {line}: {}", error.message()))
        })?;
        Ok(Self::new(table, source))
    }

    /// Puts one text over what was said before.
    pub(super) fn set(&mut self, setting: &'static Setting, text: &str, source: Source) -> Result<(), ConfigProblem> {
        match value(setting.kind, text) {
            Ok(value) => {
                self.insert(setting.key, value);
                self.overrides.insert(setting.key, source);
                Ok(())
            }
            Err(reason) => Err(ConfigProblem { source, field: setting.key.to_owned(), reason }),
        }
    }

    /// Adds the defaults of what nobody has said anything of.
    pub(super) fn with_defaults(mut self) -> Self {
        let optional = self.table.contains_key(OPTIONAL_SECTION);
        for setting in SETTINGS {
            if self.get(setting.key).is_some() || (setting.section() == OPTIONAL_SECTION && !optional) {
                continue;
            }
            if let Some(default) = setting.default {
                let value = value(setting.kind, default).expect("the tests parse every default");
                self.insert(setting.key, value);
            }
        }
        self
    }

    /// The whole.
    pub(super) fn table(&self) -> Table {
        self.table.clone()
    }

    /// Who said `field`, or what it is a part of.
    pub(super) fn source_of(&self, field: &str) -> Source {
        let said = |key: &&'static str| {
            field.strip_prefix(*key).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        let over = self.overrides.iter().find(|(key, _)| said(key)).map(|(_, source)| source.clone());
        over.unwrap_or_else(|| self.base.clone())
    }

    fn get(&self, key: &str) -> Option<&Value> {
        match key.split_once('.') {
            None => self.table.get(key),
            Some((section, key)) => self.table.get(section)?.get(key),
        }
    }

    /// Where a section's name stands for something else, nothing is put: reading the table will say so.
    fn insert(&mut self, key: &'static str, value: Value) {
        let (table, key) = match key.split_once('.') {
            None => (Some(&mut self.table), key),
            Some((section, key)) => {
                let section = self.table.entry(section).or_insert_with(|| Value::Table(Table::new()));
                (section.as_table_mut(), key)
            }
        };
        if let Some(table) = table {
            table.insert(key.to_owned(), value);
        }
    }
}

fn value(kind: Kind, text: &str) -> Result<Value, String> {
    let text = text.trim();
    match kind {
        Kind::Text => Ok(Value::String(text.to_owned())),
        Kind::Number => text.parse().map(Value::Integer).map_err(|_| "must be a whole number".to_owned()),
        Kind::Switch => text.parse().map(Value::Boolean).map_err(|_| "must be true or false".to_owned()),
        Kind::List => {
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            Ok(Value::Array(parts.map(|part| Value::String(part.to_owned())).collect()))
        }
        Kind::Toml => {
            let mut table: Table = format!("value = {text}")
                .parse()
                .map_err(|error: toml::de::Error| format!("must be a TOML value: {}", error.message()))?;
            table.remove("value").ok_or_else(|| "must be a TOML value".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_can_be_parsed() {
        for setting in SETTINGS {
            if let Some(default) = setting.default {
                assert!(value(setting.kind, default).is_ok(), "{}", setting.key);
            }
        }
    }

    #[test]
    fn texts_become_values_of_their_kind() {
        let strings = |texts: &[&str]| Value::Array(texts.iter().map(|text| Value::from(*text)).collect());
        assert_eq!(value(Kind::List, " a, b,,"), Ok(strings(&["a", "b"])));
        assert_eq!(value(Kind::Number, "12"), Ok(Value::Integer(12)));
        assert_eq!(value(Kind::Switch, "true"), Ok(Value::Boolean(true)));
        assert_eq!(value(Kind::Toml, "[{ id = \"a\" }]").unwrap()[0]["id"].as_str(), Some("a"));
        for (kind, text) in [(Kind::Number, "1.5"), (Kind::Switch, "yes"), (Kind::Toml, "[")] {
            assert!(value(kind, text).is_err(), "{text}");
        }
    }
}
