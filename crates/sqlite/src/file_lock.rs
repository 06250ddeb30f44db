//! The lock that keeps two programs from opening one database.
//!
//! SQLite would let both write; but each has its own cache of the ledgers, and they would spend a budget twice.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use crate::error::OpenError;

/// Held as long as the database is open. The system frees it when the process dies.
#[derive(Debug)]
pub(crate) struct FileLock {
    _file: File,
}

impl FileLock {
    /// Locks the database at `path`, which has to be [`resolve`]d.
    pub(crate) fn acquire(path: &Path) -> Result<Self, OpenError> {
        let mut name = OsString::from(path);
        name.push(".lock");
        let file = create(Path::new(&name))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse),
            Err(TryLockError::Error(error)) => Err(OpenError::File(error)),
        }
    }
}

/// Makes the file at `path` if there is none, for nobody but its owner to read, and tells its one true name: two names of one
/// file have one lock.
pub(crate) fn resolve(path: &Path) -> Result<PathBuf, OpenError> {
    create(path)?;
    path.canonicalize().map_err(OpenError::File)
}

fn create(path: &Path) -> Result<File, OpenError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(OpenError::File)
}
