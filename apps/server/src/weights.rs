//! The on-device models: their weights are fetched where they are missing, and loaded.

use std::path::PathBuf;
use std::sync::Mutex;

use enigma_ondevice::weights::{Progress, PullError, Sources, Stage, pull};
use enigma_ondevice::{LoadError, OnDeviceEmbedder, OnDeviceEmbedderOptions, OnDeviceModel, OnDeviceOptions};
use enigma_operator::progress::DownloadBar;
use thiserror::Error;
use tokio::task::spawn_blocking;

use crate::config::{LocalModel, OnDeviceConfig};

/// Prompt and answer together: as much as SmolLM2 was trained for.
const CONTEXT_TOKENS: usize = 8192;

/// Why there is no model.
#[derive(Debug, Error)]
pub(crate) enum OnDeviceError {
    #[error("the weights of {0} are not in {1}, and ondevice.pull is false")]
    Missing(String, PathBuf),
    #[error("the weights of {0} cannot be fetched")]
    Pull(String, #[source] PullError),
    #[error("the on-device model {0} cannot be loaded")]
    Load(String, #[source] LoadError),
    #[error("the thread that loads an on-device model has died")]
    Died,
}

/// How a download is shown.
pub(crate) enum Show {
    /// A line of the log for each stage.
    Log,
    /// A bar.
    Bar,
}

/// The models of this process, ready to work.
#[derive(Default)]
pub(crate) struct OnDevice {
    pub(crate) chat: Option<OnDeviceModel>,
    pub(crate) embedder: Option<OnDeviceEmbedder>,
}

/// The models that are configured.
///
/// # Errors
/// [`OnDeviceError`].
pub(crate) async fn load(config: &OnDeviceConfig, show: &Show) -> Result<OnDevice, OnDeviceError> {
    let mut ondevice = OnDevice::default();
    if let Some(section) = &config.chat {
        let options = OnDeviceOptions {
            conversations: section.conversations,
            queue: section.queue,
            context: CONTEXT_TOKENS,
            ..OnDeviceOptions::default()
        };
        let path = fetch(config, &section.local, show).await?;
        ondevice.chat = Some(started(&section.local, move || OnDeviceModel::load(&path, options)).await?);
    }
    if let Some(local) = &config.embeddings {
        let options = OnDeviceEmbedderOptions::default();
        let path = fetch(config, local, show).await?;
        ondevice.embedder = Some(started(local, move || OnDeviceEmbedder::load(&path, options)).await?);
    }
    Ok(ondevice)
}

async fn started<T: Send + 'static>(
    local: &LocalModel,
    load: impl FnOnce() -> Result<T, LoadError> + Send + 'static,
) -> Result<T, OnDeviceError> {
    tracing::info!(model = %local.model, "loading an on-device model");
    let loaded = spawn_blocking(load).await.map_err(|_| OnDeviceError::Died)?;
    loaded.map_err(|error| OnDeviceError::Load(local.model.to_string(), error))
}

/// Where the model is, once all its files are there.
async fn fetch(config: &OnDeviceConfig, local: &LocalModel, show: &Show) -> Result<PathBuf, OnDeviceError> {
    let LocalModel { model, weights } = local;
    if !config.pull {
        let is_there = weights.files.iter().all(|file| config.directory.join(file.path).is_file());
        let missing = || OnDeviceError::Missing(model.to_string(), config.directory.clone());
        return if is_there { Ok(weights.path(&config.directory)) } else { Err(missing()) };
    }
    let sources = Sources::default();
    let pulled = match show {
        Show::Log => {
            let last = Mutex::new(None);
            let log = |progress: Progress| {
                let mut last = last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                if last.replace(progress.stage) != Some(progress.stage) {
                    let stage = name(progress.stage);
                    tracing::info!(%model, stage, bytes = progress.total, "weights of an on-device model");
                }
            };
            pull(weights, &config.directory, &sources, &log).await
        }
        Show::Bar => {
            let bar = DownloadBar::new();
            let draw = |progress: Progress| bar.show(name(progress.stage), progress.done, progress.total);
            pull(weights, &config.directory, &sources, &draw).await
        }
    };
    pulled.map_err(|error| OnDeviceError::Pull(model.to_string(), error))
}

fn name(stage: Stage) -> &'static str {
    match stage {
        Stage::Hub => "model hub",
        Stage::Pip => "pip",
        Stage::Unpack => "unpacking",
        Stage::Verify => "verifying",
    }
}
