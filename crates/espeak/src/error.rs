//! Why there is no engine.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why there is no engine.
#[derive(Debug, Error)]
pub enum DetectError {
    /// There is no such program.
    #[error("{} is not installed", .0.display())]
    NotInstalled(PathBuf),
    /// It does not run.
    #[error("{} does not run", .0.display())]
    DoesNotRun(PathBuf, #[source] io::Error),
    /// It says or writes something else than it should.
    #[error("{program} cannot be used: {reason}", program = .0.display(), reason = .1)]
    NotUsable(PathBuf, String),
}
