//! The tenants of the configured directory: read at the start, and again at every SIGHUP, so that a key is revoked without
//! ending anybody's answer.

use std::io;

use enigma_core::tenant::{Tenant, TenantIndex};
use enigma_memory::MemoryTenantDirectory;
use enigma_operator::tenants::{self, Problems, Rules, TokenSupport};

use crate::config::Config;

/// Reads the files, and judges them by what this server serves.
///
/// # Errors
/// [`Problems`]: everything that is wrong.
pub(crate) fn load(config: &Config) -> Result<TenantIndex, Problems> {
    let serves = |_: &Tenant, model: &_| config.serves(model);
    let tokens = TokenSupport::UrlsAndFiles;
    let rules = Rules { production: config.environment.is_production, serves: Some(&serves), tokens };
    let loaded = tenants::load(&config.tenants_directory, rules)?;
    for warning in &loaded.warnings {
        tracing::warn!(file = %warning.file.display(), field = warning.field, "{}", warning.reason);
    }
    Ok(loaded.index)
}

/// Reads the files again. While something is wrong with any of them, everything stays as it was.
fn reload(config: &Config, directory: &MemoryTenantDirectory) {
    match load(config) {
        Ok(index) => {
            let count = index.tenants().count();
            directory.replace(index);
            tracing::info!(tenants = count, "tenants read again");
        }
        Err(Problems(problems)) => {
            for problem in &problems {
                tracing::error!(file = %problem.file.display(), field = problem.field, "{}", problem.reason);
            }
            tracing::error!("the tenants stay as they were");
        }
    }
}

/// The signal that asks for it.
pub(crate) struct Reloads {
    #[cfg(unix)]
    hangup: tokio::signal::unix::Signal,
}

impl Reloads {
    /// Listens for it from now on.
    ///
    /// # Errors
    /// When the system refuses.
    #[cfg(unix)]
    pub(crate) fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { hangup: signal(SignalKind::hangup())? })
    }

    /// Reads the files as often as it is asked to.
    #[cfg(unix)]
    pub(crate) async fn serve(&mut self, config: &Config, directory: &MemoryTenantDirectory) {
        while self.hangup.recv().await.is_some() {
            reload(config, directory);
        }
        std::future::pending::<()>().await;
    }

    /// There is no such signal.
    ///
    /// # Errors
    /// Never.
    #[cfg(not(unix))]
    #[expect(clippy::unnecessary_wraps, reason = "on Unix the system can refuse")]
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    /// Waits for ever.
    #[cfg(not(unix))]
    pub(crate) async fn serve(&mut self, _config: &Config, _directory: &MemoryTenantDirectory) {
        std::future::pending::<()>().await;
    }
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
        reload(&config, &served);
        assert!(has("a") && !has("b"));

        fs::remove_dir_all(directory.path().join("c")).unwrap();
        fs::remove_dir_all(directory.path().join("a")).unwrap();
        reload(&config, &served);
        assert!(!has("a") && has("b"));
    }
}
