//! All tenants in one document.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::{Problem, Problems, Rules, judged};

/// All tenants of a directory as one JSON document, which the Worker is built with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantBundle {
    /// `{ "tenants": { ID: what its file holds } }`, in the order of the ids.
    pub document: String,
    /// What is odd, but no reason to refuse.
    pub warnings: Vec<Problem>,
}

/// Reads and judges every tenant of `directory`, as [`load`](super::load) does, and puts them into one document.
///
/// # Errors
/// [`Problems`]: everything that is wrong.
pub fn bundle(directory: &Path, rules: Rules<'_>) -> Result<TenantBundle, Problems> {
    let (files, loaded) = judged(directory, rules)?;
    let tenants: BTreeMap<&str, Value> = files
        .iter()
        .map(|file| (file.tenant.id().as_str(), serde_json::from_str(&file.text).expect("a tenant was read from it")))
        .collect();
    Ok(TenantBundle { document: json!({ "tenants": tenants }).to_string(), warnings: loaded.warnings })
}

#[cfg(test)]
mod tests {
    use super::*;
    use enigma_core::tenant::Tenant;
    use std::fs;
    use tempfile::TempDir;

    use crate::tenants::TokenSupport;

    const LENIENT: Rules<'static> = Rules { production: false, serves: None, tokens: TokenSupport::None };

    fn directory(tenants: &[(&str, Value)]) -> TempDir {
        let directory = TempDir::new().unwrap();
        for (name, tenant) in tenants {
            fs::create_dir(directory.path().join(name)).unwrap();
            fs::write(directory.path().join(name).join(super::super::FILE_NAME), tenant.to_string()).unwrap();
        }
        directory
    }

    fn open(id: &str) -> Value {
        json!({ "tenantId": id, "aiModels": { "chat": "m" }, "auth": { "mode": "open" } })
    }

    #[test]
    fn every_tenant_is_in_it_under_its_id() {
        let directory = directory(&[("first", open("b")), ("a", open("a"))]);
        let bundle = bundle(directory.path(), LENIENT).unwrap();
        let read: Value = serde_json::from_str(&bundle.document).unwrap();
        assert_eq!(read, json!({ "tenants": { "a": open("a"), "b": open("b") } }));
        assert!(Tenant::from_json(&read["tenants"]["a"].to_string()).is_ok());
        assert!(matches!(&bundle.warnings[..], [only] if only.field == "tenantId"), "{:?}", bundle.warnings);
    }

    #[test]
    fn there_is_none_of_tenants_that_cannot_be_accepted() {
        let directory = directory(&[("a", open("a"))]);
        let problems = bundle(directory.path(), Rules { production: true, ..LENIENT }).unwrap_err();
        assert!(problems.to_string().contains("open is refused in production"), "{problems}");
    }
}
