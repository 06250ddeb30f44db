//! Where data is kept: the adapters of every port that remembers something.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use enigma_core::books::ComposedBooks;
use enigma_core::ports::{
    AuditLog, Cache, Corpus, IdempotencyStore, RateLimiter, RequestBooks, SessionIndex, SessionStore, SessionTurns,
    StreamSlots, Telemetry, TokenLedger, TurnQueue,
};
use enigma_core::turns::QueuedTurns;
use enigma_core::{PortError, Timestamp};
use enigma_memory::{
    MemoryAuditLog, MemoryCache, MemoryCorpus, MemoryIdempotencyStore, MemorySessionIndex, MemorySessionStore,
    MemoryTelemetry, MemoryTokenLedger,
};
use enigma_sqlite::{
    Database, OpenError, Options, SqliteAuditLog, SqliteCache, SqliteCorpus, SqliteIdempotencyStore, SqliteMaintenance,
    SqliteRequestBooks, SqliteSessionIndex, SqliteSessionStore, SqliteSessionTurns, SqliteTelemetry, SqliteTokenLedger,
    Synchronous,
};

use crate::config;

/// How long records of usage are kept, in days: a year, and what a bill may be late.
const USAGE_DAYS: u32 = 400;

/// Reads that may wait: as many as there can be. What is in work at once is bounded before it gets here, and for each tenant; a
/// line that could be full would refuse all tenants for the flood of one.
const WAITING_READS: usize = 1_000_000;

/// The stores of a server.
#[derive(Clone)]
pub(crate) struct Stores {
    pub(crate) sessions: Arc<dyn SessionStore>,
    pub(crate) index: Arc<dyn SessionIndex>,
    pub(crate) ledger: Arc<dyn TokenLedger>,
    pub(crate) idempotency: Arc<dyn IdempotencyStore>,
    pub(crate) telemetry: Arc<dyn Telemetry>,
    pub(crate) corpus: Arc<dyn Corpus>,
    pub(crate) cache: Arc<dyn Cache>,
    pub(crate) audit: Arc<dyn AuditLog>,
    pub(crate) durable: Option<Durable>,
}

/// What a file needs beyond the ports.
#[derive(Clone)]
pub(crate) struct Durable {
    pub(crate) database: Database,
    pub(crate) maintenance: SqliteMaintenance,
    /// When the file was last written before it was opened, by the file system's word.
    pub(crate) written: Option<Timestamp>,
    /// How often the file is written anew.
    pub(crate) rebuild_every: Option<Duration>,
}

/// Opens what is configured. It blocks while it reads.
///
/// # Errors
/// [`OpenError`].
pub(crate) fn open(storage: &config::Storage) -> Result<Stores, OpenError> {
    match storage {
        config::Storage::Memory => Ok(memory()),
        config::Storage::File { path, synchronous, rebuild_every } => file(path, *synchronous, *rebuild_every),
    }
}

fn memory() -> Stores {
    Stores {
        sessions: Arc::new(MemorySessionStore::default()),
        index: Arc::new(MemorySessionIndex::default()),
        ledger: Arc::new(MemoryTokenLedger::default()),
        idempotency: Arc::new(MemoryIdempotencyStore::default()),
        telemetry: Arc::new(MemoryTelemetry::default()),
        corpus: Arc::new(MemoryCorpus::default()),
        cache: Arc::new(MemoryCache::default()),
        audit: Arc::new(MemoryAuditLog::default()),
        durable: None,
    }
}

fn file(path: &Path, synchronous: Synchronous, rebuild_every: Option<Duration>) -> Result<Stores, OpenError> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(OpenError::File)?;
    }
    let written = last_written(path);
    let database = Database::open(path, &Options { synchronous, waiting_reads: WAITING_READS, ..Options::default() })?;
    Ok(Stores {
        sessions: Arc::new(SqliteSessionStore::new(database.clone())),
        index: Arc::new(SqliteSessionIndex::new(database.clone())),
        ledger: Arc::new(SqliteTokenLedger::new(database.clone())),
        idempotency: Arc::new(SqliteIdempotencyStore::new(database.clone())),
        telemetry: Arc::new(SqliteTelemetry::new(database.clone())),
        corpus: Arc::new(SqliteCorpus::new(database.clone())),
        cache: Arc::new(SqliteCache::new(database.clone())),
        audit: Arc::new(SqliteAuditLog::new(database.clone())),
        durable: Some(Durable {
            maintenance: SqliteMaintenance::new(database.clone(), USAGE_DAYS),
            database,
            written,
            rebuild_every,
        }),
    })
}

/// When a database, or its log, was written last; `None` for one that is new.
fn last_written(path: &Path) -> Option<Timestamp> {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let of = |path: &Path| {
        let modified = std::fs::metadata(path).ok().filter(|file| file.len() > 0)?.modified().ok()?;
        let since = modified.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(Timestamp::from_millis(0).saturating_add(since))
    };
    of(path).max(of(Path::new(&log)))
}

impl Stores {
    /// The books of requests: what is durable of them in the file, if there is one.
    pub(crate) fn books(&self, limiter: Arc<dyn RateLimiter>, slots: Arc<dyn StreamSlots>) -> Arc<dyn RequestBooks> {
        match &self.durable {
            Some(Durable { database, .. }) => Arc::new(SqliteRequestBooks::new(limiter, slots, database.clone())),
            None => Arc::new(ComposedBooks::new(limiter, slots, Arc::clone(&self.ledger), Arc::clone(&self.telemetry))),
        }
    }

    /// The turns of sessions, in the order of `queue`.
    pub(crate) fn turns(&self, queue: Arc<dyn TurnQueue>) -> Arc<dyn SessionTurns> {
        match &self.durable {
            Some(Durable { database, .. }) => Arc::new(SqliteSessionTurns::new(queue, database.clone())),
            None => Arc::new(QueuedTurns::new(queue, Arc::clone(&self.sessions), Arc::clone(&self.index))),
        }
    }

    /// Whether the stores answer: one read, and one piece of work in the line of the writes, that changes nothing.
    ///
    /// # Errors
    /// [`PortError`] when they do not.
    pub(crate) async fn probe(&self) -> Result<(), PortError> {
        let nobody = enigma_core::TenantId::new("readiness-probe").expect("it keeps to the alphabet");
        self.index.list(&nobody, None, Timestamp::from_millis(0), None, 1).await?;
        match &self.durable {
            Some(Durable { database, .. }) => database.flush().await,
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_kinds_of_storage_answer_and_a_closed_file_does_not() {
        open(&config::Storage::Memory).unwrap().probe().await.unwrap();
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("not/yet/there.db");
        let stores = open(&config::Storage::File { path, synchronous: Synchronous::Off, rebuild_every: None }).unwrap();
        stores.probe().await.unwrap();
        stores.durable.as_ref().unwrap().database.close().await;
        assert!(stores.probe().await.is_err());
    }
}
