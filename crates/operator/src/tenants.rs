//! Tenants from files: `DIRECTORY/NAME/tenant.config.json`.
//!
//! Everything that is wrong is told at once, each with file, field and reason, so that nobody has to start a server once per
//! mistake. What a tenant's own fields may hold, and what only many tenants, or a deployment, can get wrong, is the core's to
//! say; here it is told of files.

mod bundle;
mod judge;
mod problem;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use enigma_core::tenant::{DeploymentRules as Rules, Serves, TokenSupport, is_production};
use enigma_core::tenant::{Tenant, TenantIndex};

pub use self::bundle::{TenantBundle, bundle};
pub use self::problem::{Problem, Problems};

/// The name of a tenant's file in its directory.
pub const FILE_NAME: &str = "tenant.config.json";

/// No tenant's file is as long as this; a longer one is something else.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// A tenant, and the file that it comes from.
#[derive(Debug, Clone)]
pub struct TenantFile {
    /// The file.
    pub path: PathBuf,
    /// The name of its directory.
    pub directory: String,
    /// What it holds.
    pub tenant: Tenant,
    /// The same, as it stands there.
    pub text: String,
}

/// All tenants of a directory.
#[derive(Debug)]
pub struct LoadedTenants {
    /// The tenants, for look-ups.
    pub index: TenantIndex,
    /// What is odd, but no reason to refuse.
    pub warnings: Vec<Problem>,
}

impl LoadedTenants {
    /// The tenants, by id.
    pub fn tenants(&self) -> Vec<Arc<Tenant>> {
        let mut tenants: Vec<_> = self.index.tenants().cloned().collect();
        tenants.sort_unstable_by(|a, b| a.id().cmp(b.id()));
        tenants
    }
}

/// Reads and judges every tenant of `directory`.
///
/// # Errors
/// [`Problems`]: everything that is wrong.
pub fn load(directory: &Path, rules: Rules<'_>) -> Result<LoadedTenants, Problems> {
    judged(directory, rules).map(|(_, loaded)| loaded)
}

fn judged(directory: &Path, rules: Rules<'_>) -> Result<(Vec<TenantFile>, LoadedTenants), Problems> {
    let (files, mut problems) = read(directory);
    for file in &files {
        problems.extend(judge::tenant(file, rules));
    }
    let warnings = files.iter().flat_map(judge::oddities).collect();
    let (index, conflicts) = judge::index(&files);
    problems.extend(conflicts);
    if problems.is_empty() { Ok((files, LoadedTenants { index, warnings })) } else { Err(Problems(problems)) }
}

/// Every tenant's file that can be read, in the order of the directories' names, and what is wrong with the others.
fn read(directory: &Path) -> (Vec<TenantFile>, Vec<Problem>) {
    let names = match names(directory) {
        Ok(names) if names.is_empty() => {
            return (vec![], vec![Problem::new(directory, ".", "there is no tenant in it")]);
        }
        Ok(names) => names,
        Err(error) => return (vec![], vec![Problem::new(directory, ".", format!("cannot be read: {error}"))]),
    };
    let mut files = Vec::with_capacity(names.len());
    let mut problems = Vec::new();
    for name in names {
        let path = directory.join(&name).join(FILE_NAME);
        match contents(&path).map(|text| (Tenant::from_json(&text), text)) {
            Ok((Ok(tenant), text)) => files.push(TenantFile { path, directory: name, tenant, text }),
            Ok((Err(error), _)) => problems.push(Problem::new(&path, error.field, error.reason)),
            Err(error) => problems.push(Problem::new(&path, ".", format!("cannot be read: {error}"))),
        }
    }
    (files, problems)
}

/// The directories in `directory`. Hidden ones are not tenants' but tools'.
fn names(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // A symbolic link counts as what it leads to: mounted configuration is made of them.
        if !name.starts_with('.') && fs::metadata(entry.path()).is_ok_and(|metadata| metadata.is_dir()) {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn contents(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {MAX_FILE_BYTES} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
