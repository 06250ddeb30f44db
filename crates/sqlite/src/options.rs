//! How a database is opened.

use std::time::Duration;

use crate::error::OpenError;

/// The largest number that makes sense for any of the options.
pub(crate) const MOST: usize = 1_000_000;

/// When SQLite waits until the disk has what was written.
///
/// Whatever it is, what was acknowledged survives the death of the process. The difference is what a crash of the system, or a
/// loss of power, may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Synchronous {
    /// Never: a crash of the system may take everything. For tests.
    Off,
    /// At checkpoints: a crash of the system may take the latest commits, and leaves the database whole.
    #[default]
    Normal,
    /// At every commit: a crash of the system takes nothing that was acknowledged.
    Full,
    /// As [`Full`](Self::Full), and after a change of the directory as well.
    Extra,
}

impl Synchronous {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "OFF",
            Self::Normal => "NORMAL",
            Self::Full => "FULL",
            Self::Extra => "EXTRA",
        }
    }
}

/// How a database is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// When SQLite waits for the disk.
    pub synchronous: Synchronous,
    /// Connections to read with.
    pub readers: usize,
    /// Reads that may wait for a connection; one more is refused.
    pub waiting_reads: usize,
    /// How long a read may wait for a connection; then it is refused.
    pub waiting_timeout: Duration,
    /// Writes that may be queued; one more waits until there is room.
    pub queue_length: usize,
    /// Writes that may share a transaction.
    pub group_size: usize,
    /// Bytes of the newest messages of sessions that are kept at hand, so that the next turn need not read them.
    pub history_bytes: usize,
    /// Bytes of vectors, in short, that are kept at hand, so that the next search need not read them: 40 MB for 100,000 vectors of
    /// 384 dimensions.
    pub vector_bytes: usize,
    /// How long SQLite waits for a lock, such as one that a backup program holds.
    pub busy_timeout: Duration,
    /// The size that the write-ahead log is cut back to when it was longer.
    pub journal_size_limit: u32,
    /// Whether the whole file is checked for damage while opening; that takes time with its size.
    pub verify: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            synchronous: Synchronous::default(),
            readers: 4,
            waiting_reads: 1024,
            waiting_timeout: Duration::from_secs(10),
            queue_length: 4096,
            group_size: 1024,
            history_bytes: 16 << 20,
            vector_bytes: 64 << 20,
            busy_timeout: Duration::from_secs(5),
            journal_size_limit: 16 * 1024 * 1024,
            verify: false,
        }
    }
}

impl Options {
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let numbers = [
            ("readers", self.readers),
            ("waiting_reads", self.waiting_reads),
            ("queue_length", self.queue_length),
            ("group_size", self.group_size),
        ];
        match numbers.into_iter().find(|(_, number)| !(1..=MOST).contains(number)) {
            Some((name, _)) => Err(OpenError::Option(name)),
            None => Ok(()),
        }
    }
}
