//! The model hub: one file over HTTP, continued where an earlier try broke off.

use std::error::Error as StdError;
use std::io;
use std::path::Path;
use std::time::Duration;

use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Client, Response, StatusCode};
use thiserror::Error;
use tokio::fs::{self, File};
use tokio::io::AsyncWriteExt;

use super::WeightFile;
use super::pull::{Progress, Stage, is_correct};

/// A hub that cannot be reached is given up soon, as there is another source.
const CONNECT: Duration = Duration::from_secs(5);
/// The longest silence in the middle of a file.
const SILENCE: Duration = Duration::from_secs(30);

/// Why the hub did not give the file.
#[derive(Debug, Error)]
pub enum HubError {
    /// It cannot be reached, or the connection broke. What has come is kept for the next try.
    #[error("the connection failed")]
    Connection(#[source] Box<dyn StdError + Send + Sync>),
    /// It answered with something else than the file.
    #[error("it answered with status {0}")]
    Status(u16),
    /// What came is not the file that was expected. It was removed.
    #[error("the file has another size or SHA-256 than expected")]
    Checksum,
    /// The file cannot be written.
    #[error("cannot write the file")]
    Disk(#[from] io::Error),
}

impl From<reqwest::Error> for HubError {
    fn from(error: reqwest::Error) -> Self {
        Self::Connection(Box::new(error))
    }
}

/// Loads the whole file into `part`, which is correct afterwards.
pub(super) async fn fetch(
    wanted: &WeightFile,
    address: &str,
    part: &Path,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<(), HubError> {
    // An error means that the process has chosen a provider already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder().connect_timeout(CONNECT).read_timeout(SILENCE).build()?;
    let address = format!("{address}/{}", wanted.hub_path);

    let mut have = size(part).await?;
    if have > wanted.bytes {
        fs::remove_file(part).await?;
        have = 0;
    }
    if have < wanted.bytes {
        let request = client.get(&address);
        let request = if have > 0 { request.header(RANGE, format!("bytes={have}-")) } else { request };
        let response = request.send().await?;
        let start = start(&response, have)?;
        save(response, wanted, start, part, progress).await?;
    }
    if is_correct(part, wanted, progress).await? {
        Ok(())
    } else {
        fs::remove_file(part).await?;
        Err(HubError::Checksum)
    }
}

async fn size(path: &Path) -> Result<u64, io::Error> {
    match fs::metadata(path).await {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

/// The byte of the file that the answer begins with. A server may ignore a range, and send everything.
fn start(response: &Response, asked: u64) -> Result<u64, HubError> {
    let status = response.status();
    let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
    match status {
        StatusCode::OK => Ok(0),
        StatusCode::PARTIAL_CONTENT if range.is_some_and(|range| range.starts_with(&format!("bytes {asked}-"))) => {
            Ok(asked)
        }
        _ => Err(HubError::Status(status.as_u16())),
    }
}

async fn save(
    mut response: Response,
    wanted: &WeightFile,
    start: u64,
    part: &Path,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<(), HubError> {
    let step = |done| progress(Progress { stage: Stage::Hub, done, total: Some(wanted.bytes) });
    let mut file = File::options().create(true).write(true).truncate(false).open(part).await?;
    file.set_len(start).await?;
    tokio::io::AsyncSeekExt::seek(&mut file, io::SeekFrom::Start(start)).await?;
    let mut done = start;
    step(done);
    let result = loop {
        match response.chunk().await {
            Ok(Some(chunk)) => {
                done += chunk.len() as u64;
                if done > wanted.bytes {
                    break Err(HubError::Checksum);
                }
                file.write_all(&chunk).await?;
                step(done);
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error.into()),
        }
    };
    file.flush().await?;
    file.sync_all().await?;
    drop(file);
    if matches!(result, Err(HubError::Checksum)) {
        fs::remove_file(part).await?;
    }
    result
}
