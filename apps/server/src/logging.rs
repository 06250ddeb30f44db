//! What is written to standard error.

use std::io::{self, IsTerminal};
use std::{env, panic};

use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::config::LogConfig;

/// Begins to log.
///
/// # Errors
/// When there is a log already.
pub(crate) fn start(config: &LogConfig) -> Result<(), TryInitError> {
    let colours = io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines = tracing_subscriber::fmt::layer().with_ansi(colours).with_writer(io::stderr);
    let lines = if config.json {
        lines.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed()
    } else {
        lines.with_target(false).boxed()
    };
    tracing_subscriber::registry().with(lines.with_filter(filter(config.level))).try_init()?;
    panic::set_hook(Box::new(|panic| {
        // Without the message: it may quote the text that somebody wrote.
        let at = panic.location().map(ToString::to_string);
        tracing::error!(at, "a task has panicked");
    }));
    Ok(())
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
