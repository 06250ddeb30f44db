//! What has to be done from time to time.

use std::time::Duration;

use enigma_core::ports::{AuditLog, Corpus, SessionStore};
use enigma_core::retrieval::GIVEN_UP_AFTER;
use enigma_core::session::Retention;
use enigma_core::{PortError, TenantId, Timestamp};
use rusqlite::Connection;

use crate::audit_log::SqliteAuditLog;
use crate::cache::SqliteCache;
use crate::corpus::SqliteCorpus;
use crate::database::Database;
use crate::error::StoreError;
use crate::idempotency_store::SqliteIdempotencyStore;
use crate::session_index::SqliteSessionIndex;
use crate::session_store::SqliteSessionStore;
use crate::sql;
use crate::telemetry::SqliteTelemetry;
use crate::writer::Upkeep;

const PORT: &str = "database";

/// Rows that one job removes, so that other writers wait no longer than that takes.
const ROWS_AT_ONCE: u32 = 1_000;

/// Free pages that one job gives back.
const PAGES_AT_ONCE: u32 = 1_000;

/// Pages of the index of words that one job puts together.
const WORD_PAGES_AT_ONCE: i32 = 200;

/// Removes what has had its time, and gives its room back. The app calls it from time to time; it has no clock and no timer.
#[derive(Debug, Clone)]
pub struct SqliteMaintenance {
    database: Database,
    usage_days: u32,
    sessions: SqliteSessionStore,
    index: SqliteSessionIndex,
    idempotency: SqliteIdempotencyStore,
    telemetry: SqliteTelemetry,
    corpus: SqliteCorpus,
    cache: SqliteCache,
    audit: SqliteAuditLog,
}

/// What a sweep has removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Messages.
    pub messages: u64,
    /// Entries of the list of sessions, of sessions whose messages have all gone.
    pub listed_sessions: u64,
    /// Idempotency keys with their answers.
    pub idempotency_keys: u64,
    /// Usage records.
    pub usage_records: u64,
    /// Chunks of documents that were not published, or are no more.
    pub chunks: u64,
    /// Answers to searches.
    pub answers: u64,
    /// Audit records of tools.
    pub audit_records: u64,
}

impl Swept {
    /// All together.
    pub fn total(&self) -> u64 {
        let Self { messages, listed_sessions, idempotency_keys, usage_records, chunks, answers, audit_records } = self;
        messages + listed_sessions + idempotency_keys + usage_records + chunks + answers + audit_records
    }
}

impl SqliteMaintenance {
    /// Keeps usage records for `usage_days` days.
    pub fn new(database: Database, usage_days: u32) -> Self {
        Self {
            sessions: SqliteSessionStore::new(database.clone()),
            index: SqliteSessionIndex::new(database.clone()),
            idempotency: SqliteIdempotencyStore::new(database.clone()),
            telemetry: SqliteTelemetry::new(database.clone()),
            corpus: SqliteCorpus::new(database.clone()),
            cache: SqliteCache::new(database.clone()),
            audit: SqliteAuditLog::new(database.clone()),
            database,
            usage_days,
        }
    }

    /// Removes what of `tenant` has had its time, in small steps between which others write.
    ///
    /// # Errors
    /// [`PortError`]; what was removed until then stays removed.
    pub async fn sweep(&self, tenant: &TenantId, retention: &Retention, now: Timestamp) -> Result<Swept, PortError> {
        let sessions_since = retention.cutoff(now);
        let usage_since = now.saturating_sub(Duration::from_secs(u64::from(self.usage_days) * 86_400));
        Ok(Swept {
            messages: self.sessions.sweep(tenant, retention, now).await?,
            listed_sessions: until_done(|| self.index.remove_old(tenant, sessions_since, ROWS_AT_ONCE)).await?,
            idempotency_keys: until_done(|| self.idempotency.remove_expired(tenant, now, ROWS_AT_ONCE)).await?,
            usage_records: until_done(|| self.telemetry.remove_old(tenant, usage_since, ROWS_AT_ONCE)).await?,
            chunks: self.corpus.sweep(tenant, now.saturating_sub(GIVEN_UP_AFTER)).await?,
            answers: until_done(|| self.cache.remove_expired(tenant, now, ROWS_AT_ONCE)).await?,
            audit_records: self.audit.sweep(tenant, now).await?,
        })
    }

    /// Gives free pages back to the file system and cuts the log to nothing, in steps between which others write. To be called
    /// after the sweeps.
    ///
    /// What was deleted has been overwritten where it was, and is in the log no longer. Yet copies may be left: SQLite moves
    /// rows between pages to keep those filled, and does not overwrite where they came from. [`rebuild`](Self::rebuild) leaves
    /// none.
    ///
    /// # Errors
    /// [`PortError`]; nothing is lost, and a later call may succeed.
    pub async fn compact(&self) -> Result<(), PortError> {
        self.shrink().await.map_err(|error| error.into_port(PORT))
    }

    /// Writes the whole database anew and cuts the log to nothing: of what was deleted before, nothing is left in any file.
    ///
    /// Writers wait for as long as that takes, and meanwhile it needs twice the room on the disk, part of it where SQLite keeps
    /// its temporary files (`SQLITE_TMPDIR`). For quiet hours.
    ///
    /// # Errors
    /// [`PortError`]; nothing is lost, and a later call may succeed.
    pub async fn rebuild(&self) -> Result<(), PortError> {
        self.database.keep_up(Upkeep::Rebuild).await.map_err(|error| error.into_port(PORT))
    }

    async fn shrink(&self) -> Result<(), StoreError> {
        self.forget_words().await?;
        while self.database.write(|work| vacuum(work.connection)).await? {}
        self.database.keep_up(Upkeep::Checkpoint).await
    }

    /// Puts the index of words together, if words were removed: until then it has both, that they were there and that they are not.
    async fn forget_words(&self) -> Result<(), StoreError> {
        if !self.database.take_removed_words() {
            return Ok(());
        }
        let mut pages = -WORD_PAGES_AT_ONCE;
        loop {
            match self.database.write(move |work| merge_words(work.connection, pages)).await {
                Ok(true) => pages = WORD_PAGES_AT_ONCE,
                Ok(false) => return Ok(()),
                Err(error) => {
                    self.database.words_were_removed();
                    return Err(error);
                }
            }
        }
    }
}

/// Takes another step; whether it did anything.
fn merge_words(connection: &Connection, pages: i32) -> Result<bool, StoreError> {
    let before = connection.total_changes();
    connection.prepare_cached(sql::WORDS_MERGE)?.execute([pages])?;
    // The statement itself counts as one change.
    Ok(connection.total_changes() > before + 1)
}

/// Repeats a removal until it finds less than it may take at once; tells how many rows went in all.
async fn until_done<F>(remove: impl Fn() -> F) -> Result<u64, PortError>
where
    F: Future<Output = Result<u64, PortError>>,
{
    let mut total = 0;
    loop {
        let removed = remove().await?;
        total += removed;
        if removed < u64::from(ROWS_AT_ONCE) {
            return Ok(total);
        }
    }
}

/// Gives some free pages back; whether there are more.
fn vacuum(connection: &Connection) -> Result<bool, StoreError> {
    let free = || connection.pragma_query_value(None, "freelist_count", |row| row.get::<_, u32>(0));
    let before = free()?;
    // Each step gives one page back.
    let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({PAGES_AT_ONCE})"))?;
    let mut steps = statement.query([])?;
    while steps.next()?.is_some() {}
    drop(steps);
    let after = free()?;
    Ok(after > 0 && after < before)
}
