//! What is written to standard error.

mod lines;
mod writer;

use std::io::{self, IsTerminal};
use std::sync::{Arc, OnceLock};
use std::{env, panic};

use thiserror::Error;
use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use self::lines::JsonLines;
use self::writer::{Lines, LogWriter};
use crate::config::LogConfig;

/// Where lines go, once there is a log.
static WRITER: OnceLock<Arc<LogWriter>> = OnceLock::new();

/// Why there is no log.
#[derive(Debug, Error)]
pub(crate) enum LogError {
    #[error(transparent)]
    Thread(#[from] io::Error),
    #[error(transparent)]
    Twice(#[from] TryInitError),
}

/// Begins to log.
///
/// # Errors
/// [`LogError`].
pub(crate) fn start(config: &LogConfig) -> Result<(), LogError> {
    let writer = LogWriter::start(io::stderr())?;
    let lines = if config.json {
        JsonLines::new(Arc::clone(&writer)).boxed()
    } else {
        let colours = io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let lines = tracing_subscriber::fmt::layer().with_ansi(colours).with_target(false);
        lines.with_writer(Lines(Arc::clone(&writer))).boxed()
    };
    tracing_subscriber::registry().with(lines).with(filter(config.level)).try_init()?;
    drop(WRITER.set(writer));
    panic::set_hook(Box::new(|panic| {
        // Without the message: it may quote the text that somebody wrote.
        let at = panic.location().map(ToString::to_string);
        tracing::error!(at, "a task has panicked");
    }));
    Ok(())
}

/// Waits until what was logged is written.
pub(crate) fn flush() {
    if let Some(writer) = WRITER.get() {
        writer.flush();
    }
}

/// Of other people's crates only what went wrong: what they say of their work may hold headers and bodies.
fn filter(level: Level) -> Targets {
    Targets::new().with_default(LevelFilter::WARN.min(LevelFilter::from_level(level))).with_target("enigma", level)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_crates_only_warn() {
        let debug = filter(Level::DEBUG);
        assert!(debug.would_enable("enigma_core::model", &Level::DEBUG));
        assert!(debug.would_enable("hyper", &Level::WARN) && !debug.would_enable("hyper", &Level::INFO));
        let error = filter(Level::ERROR);
        assert!(!error.would_enable("hyper", &Level::WARN) && !error.would_enable("enigma_http", &Level::WARN));
    }
}
