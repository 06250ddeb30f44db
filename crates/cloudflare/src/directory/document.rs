//! Documents of tenants, and what one makes of another.

use std::collections::BTreeMap;
use std::fmt;

use enigma_core::TenantId;
use enigma_core::tenant::{DeploymentRules, Tenant, TenantIndex, TenantProblem, index_all, judge};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// No document of tenants is as long as this; a longer one is something else.
const MAX_BYTES: usize = 4 << 20;

/// Something in a document that cannot be accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// The tenant, or which entry it is where its name cannot be one; empty for the document.
    pub(super) tenant: String,
    /// The field, `.` for the whole.
    pub(super) field: String,
    /// Why it cannot be accepted. Never a key.
    pub(super) reason: String,
}

impl Problem {
    fn new(tenant: impl Into<String>, field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { tenant: tenant.into(), field: field.into(), reason: reason.into() }
    }
}

impl From<TenantProblem> for Problem {
    fn from(problem: TenantProblem) -> Self {
        Self::new(problem.tenant.as_str(), problem.field, problem.reason)
    }
}

/// What a document says of tenants; `None` of those that are not to be.
#[derive(Debug, Clone, Default)]
pub(super) struct Document(BTreeMap<TenantId, Option<Tenant>>);

impl Document {
    /// Reads a document. Everything that is wrong is told at once.
    pub(super) fn read(text: &str) -> Result<Self, Vec<Problem>> {
        if text.len() > MAX_BYTES {
            return Err(vec![Problem::new("", ".", format!("longer than {MAX_BYTES} bytes"))]);
        }
        let raw: Raw<'_> = serde_json::from_str(text).map_err(|error| {
            // Not what the parser says: it may quote what stands there.
            let at = format!("line {}, column {}", error.line(), error.column());
            vec![Problem::new("", ".", format!("must be {{ \"tenants\": {{ ID: TENANT or null }} }}, at {at}"))]
        })?;
        let (mut tenants, mut problems) = (BTreeMap::new(), Vec::new());
        for (n, (id, value)) in raw.tenants.0.into_iter().enumerate() {
            match entry(n, &id, value.get()) {
                Ok((id, tenant)) => {
                    if tenants.insert(id.clone(), tenant).is_some() {
                        problems.push(Problem::new(id.as_str(), ".", "is there twice"));
                    }
                }
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() { Ok(Self(tenants)) } else { Err(problems) }
    }
}

fn entry(n: usize, id: &str, value: &str) -> Result<(TenantId, Option<Tenant>), Problem> {
    let id = TenantId::new(id)
        .map_err(|error| Problem::new(format!("entry {n}"), ".", format!("the name of a tenant {error}")))?;
    if value == "null" {
        return Ok((id, None));
    }
    let tenant = Tenant::from_json(value).map_err(|error| Problem::new(id.as_str(), error.field, error.reason))?;
    if *tenant.id() != id {
        let reason = format!("is {}, but the entry is called {id}", tenant.id());
        return Err(Problem::new(id.as_str(), "tenantId", reason));
    }
    Ok((id, Some(tenant)))
}

/// The tenants of `bundled` as the document `text` changes them, if all of them together can be accepted.
pub(super) fn merge(
    bundled: &Document,
    text: Option<&str>,
    rules: DeploymentRules<'_>,
) -> Result<TenantIndex, Vec<Problem>> {
    let mut tenants = bundled.0.clone();
    if let Some(text) = text {
        tenants.extend(Document::read(text)?.0);
    }
    let tenants: Vec<Tenant> = tenants.into_values().flatten().collect();
    let (index, clashes) = index_all(&tenants);
    let problems = tenants.iter().flat_map(|tenant| judge(tenant, rules));
    let problems: Vec<_> = problems.chain(clashes.into_iter().map(|(_, clash)| clash)).map(Problem::from).collect();
    if problems.is_empty() { Ok(index) } else { Err(problems) }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw<'a> {
    #[serde(borrow)]
    tenants: Entries<'a>,
}

/// As they stand there, one that is there twice included: a map would keep the last without a word.
struct Entries<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("tenants by id")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(Collect)
    }
}

#[cfg(test)]
mod tests;
