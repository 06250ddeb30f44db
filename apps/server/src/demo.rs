//! The demo mode: a tenant, a key and a model without any configuration.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use enigma_core::ModelId;
use enigma_core::tenant::{KeyHash, Tenant, TenantConfigError, TenantConflict, TenantIndex};
use enigma_operator::keys::{NewKey, NoRandomness};
use serde_json::json;
use thiserror::Error;
use toml::Table;
use uuid::Uuid;

/// Where the demo keeps what it has, from the working directory.
pub(crate) const DIRECTORY: &str = ".enigma/demo";

/// What embeds its documents.
const EMBEDDER: &str = "all-minilm-l6-v2";

const KEY_PREFIX: &str = "enigma_demo_";

/// Why there is no demo.
#[derive(Debug, Error)]
pub(crate) enum DemoError {
    #[error("cannot use {}", .0.display())]
    Disk(PathBuf, #[source] io::Error),
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
    #[error("the demo's tenant cannot be made")]
    Tenant(#[from] TenantConfigError),
    #[error("the demo's tenant cannot be made")]
    Conflict(#[from] TenantConflict),
}

/// What the demo says where flags and variables say nothing. A small model is shown less history than a large one.
pub(crate) fn settings(directory: &Path) -> Table {
    let database = directory.join("enigma.db").to_string_lossy().into_owned();
    Table::from_iter([
        ("storage".to_owned(), Table::from_iter([("database".to_owned(), database.into())]).into()),
        ("ondevice".to_owned(), Table::from_iter([("embedding_model_id".to_owned(), EMBEDDER.into())]).into()),
        ("log".to_owned(), Table::from_iter([("format".to_owned(), "text".into())]).into()),
        (
            "chat".to_owned(),
            Table::from_iter([
                ("max_history_tokens".to_owned(), 2048.into()),
                ("default_max_tokens".to_owned(), 512.into()),
            ])
            .into(),
        ),
    ])
}

/// The key that opens the demo's tenant: the one of the last time, so that a line that was pasted once works again.
///
/// # Errors
/// [`DemoError`].
pub(crate) fn key(directory: &Path) -> Result<String, DemoError> {
    let path = directory.join("key");
    let disk = |source| DemoError::Disk(path.clone(), source);
    match fs::read_to_string(&path) {
        Ok(text) if is_key(text.trim()) => return Ok(text.trim().to_owned()),
        Ok(_) => fs::remove_file(&path).map_err(disk)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(disk(error)),
    }
    let key = NewKey::generate(KEY_PREFIX)?;
    fs::create_dir_all(directory).map_err(disk)?;
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&path).map_err(disk)?;
    writeln!(file, "{}", key.secret()).map_err(disk)?;
    Ok(key.secret().to_owned())
}

fn is_key(text: &str) -> bool {
    let digits = text.strip_prefix(KEY_PREFIX).unwrap_or_default();
    digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The demo's only tenant.
///
/// # Errors
/// [`DemoError`].
pub(crate) fn tenants(key: &str, chat: &ModelId, embeddings: Option<&ModelId>) -> Result<TenantIndex, DemoError> {
    let file = json!({
        "tenantId": "demo",
        "aiModels": { "chat": chat, "embeddings": embeddings },
        "apiKeys": [{ "id": "demo", "hash": KeyHash::of(key).to_string() }],
    });
    Ok(TenantIndex::new([Tenant::from_json(&file.to_string())?])?)
}

/// What to paste.
pub(crate) fn invitation(address: SocketAddr, key: &str, model: &ModelId, session: Uuid) -> String {
    format!(
        r#"
Ask it something (paste the line; the answer comes as it is made):

curl -N http://{address}/chat -H 'x-api-key: {key}' -H 'content-type: application/json' -d '{{"sessionId":"{session}","message":"Why is the sky blue?"}}'

Any OpenAI SDK works too:

export OPENAI_BASE_URL=http://{address}/v1 OPENAI_API_KEY={key}   # model: {model}
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Flags;
    use crate::config::Config;
    use enigma_core::tenant::TenantClaim;

    #[test]
    fn a_key_is_made_once_and_kept_from_others() {
        let directory = tempfile::TempDir::new().unwrap();
        let directory = directory.path().join("demo");
        let first = key(&directory).unwrap();
        assert!(is_key(&first));
        assert_eq!(key(&directory).unwrap(), first);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(directory.join("key")).unwrap().permissions().mode() & 0o777, 0o600);
        }
        fs::write(directory.join("key"), "enigma_demo_cut").unwrap();
        assert_ne!(key(&directory).unwrap(), first);
    }

    #[test]
    fn the_demo_needs_no_configuration_and_its_key_opens_its_tenant() {
        let config = Config::demo(settings(Path::new("d")), &Flags::default(), &|_| None).unwrap();
        let section = config.ondevice.unwrap();
        let (model, embedder) = (section.chat.unwrap().local.model, section.embeddings.unwrap().model);
        let key = format!("{KEY_PREFIX}{}", "0".repeat(64));
        let tenants = tenants(&key, &model, Some(&embedder)).unwrap();
        let tenant = tenants.find(&TenantClaim::Key(KeyHash::of(&key))).unwrap();
        assert_eq!(tenant.embedding_model(), Some(&embedder));

        let text = invitation("127.0.0.1:8080".parse().unwrap(), &key, &model, Uuid::nil());
        let line = text.lines().find(|line| line.starts_with("curl -N ")).unwrap();
        assert!(line.contains(&key) && line.contains("http://127.0.0.1:8080/chat"));
        let body = line.split(" -d '").nth(1).unwrap().trim_end_matches('\'');
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["sessionId"], Uuid::nil().to_string());
    }
}
