//! The tenants of the configured directory.

use enigma_core::tenant::{Tenant, TenantIndex};
use enigma_memory::MemoryTenantDirectory;
use enigma_operator::tenants::{self, Problems, Rules, TokenSupport};

use crate::config::Config;

/// Reads the files, and judges them by what this server serves.
///
/// # Errors
/// [`Problems`]: everything that is wrong.
pub(crate) fn load(config: &Config) -> Result<TenantIndex, Problems> {
    let serves = |_: &Tenant, model: &_, purpose| config.serves(model, purpose);
    let tokens = TokenSupport::UrlsAndFiles;
    let rules = Rules { production: config.environment.is_production, serves: Some(&serves), tokens };
    let loaded = tenants::load(&config.tenants_directory, rules)?;
    for warning in &loaded.warnings {
        tracing::warn!(file = %warning.file.display(), field = warning.field, "{}", warning.reason);
    }
    Ok(loaded.index)
}

/// Reads the files again. While something is wrong with any of them, everything stays as it was.
///
/// # Errors
/// [`Problems`]: everything that is wrong.
pub(crate) fn reload(config: &Config, directory: &MemoryTenantDirectory) -> Result<(), Problems> {
    let index = load(config)?;
    let count = index.tenants().count();
    directory.replace(index);
    tracing::info!(tenants = count, "tenants read again");
    Ok(())
}

/// Says why they were not taken.
pub(crate) fn refused(Problems(problems): &Problems) {
    for problem in problems {
        tracing::error!(file = %problem.file.display(), field = problem.field, "{}", problem.reason);
    }
    tracing::error!("the tenants stay as they were");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Flags;
    use enigma_core::TenantId;
    use enigma_core::tenant::TenantClaim;
    use std::fs;
    use tempfile::TempDir;

    fn write(directory: &TempDir, id: &str, text: &str) {
        fs::create_dir_all(directory.path().join(id)).unwrap();
        fs::write(directory.path().join(id).join(tenants::FILE_NAME), text).unwrap();
    }

    fn config(directory: &TempDir) -> Config {
        let path = directory.path().to_str().unwrap().to_owned();
        let variables = |name: &str| match name {
            "ENIGMA_TENANTS_DIRECTORY" => Some(path.clone()),
            "ENIGMA_PROVIDERS" => {
                Some("[{ id = 'p', base_url = 'http://127.0.0.1:1/v1', models = { m = 'm' } }]".to_owned())
            }
            "ENVIRONMENT" => Some("production".to_owned()),
            _ => None,
        };
        Config::load(None, &Flags::default(), &variables).unwrap()
    }

    #[test]
    fn tenants_are_judged_by_what_is_served_and_where() {
        let directory = TempDir::new().unwrap();
        write(&directory, "a", r#"{ "tenantId": "a", "aiModels": { "chat": "other" } }"#);
        write(&directory, "b", r#"{ "tenantId": "b", "aiModels": { "chat": "m" }, "auth": { "mode": "open" } }"#);
        let Problems(problems) = load(&config(&directory)).unwrap_err();
        let fields: Vec<_> = problems.iter().map(|problem| problem.field.as_str()).collect();
        assert_eq!(fields, ["aiModels.chat", "auth.mode"]);
    }

    #[test]
    fn a_change_is_taken_over_whole_or_not_at_all() {
        let directory = TempDir::new().unwrap();
        let tenant = |id: &str| format!(r#"{{ "tenantId": "{id}", "aiModels": {{ "chat": "m" }} }}"#);
        write(&directory, "a", &tenant("a"));
        let config = config(&directory);
        let served = MemoryTenantDirectory::new(load(&config).unwrap());
        let has = |id: &str| served.snapshot().find(&TenantClaim::Id(TenantId::new(id).unwrap())).is_some();

        write(&directory, "b", &tenant("b"));
        write(&directory, "c", "{");
        reload(&config, &served).unwrap_err();
        assert!(has("a") && !has("b"));

        fs::remove_dir_all(directory.path().join("c")).unwrap();
        fs::remove_dir_all(directory.path().join("a")).unwrap();
        reload(&config, &served).unwrap();
        assert!(!has("a") && has("b"));
    }
}
