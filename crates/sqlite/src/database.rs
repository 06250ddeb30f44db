//! The database: one file, one writer, some readers.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use enigma_core::ledger::Ledger;
use enigma_core::{PortError, TenantId};
use rusqlite::Transaction;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::batch::Batch;
use crate::connection;
use crate::corpus::CodesAtHand;
use crate::error::{OpenError, StoreError};
use crate::file_lock::{self, FileLock};
use crate::histories::Histories;
use crate::ledgers::{self, Beside, Ledgers, Written};
use crate::options::Options;
use crate::readers::Readers;
use crate::writer::{Counters, Message, Task, Upkeep, Work, Writer};

/// An open database. Clones are handles of the same one.
///
/// Everything is written by one thread. Writes that wait at the same time share a transaction, and each is answered when that
/// is committed: what was acknowledged survives the death of the process. Reads run beside it, on tokio's blocking threads, so
/// they need a tokio runtime, with its timer.
///
/// The last handle that is dropped waits until what was queued is written and the file is closed. Async code calls
/// [`close`](Self::close) instead, and does not block its thread.
#[derive(Clone)]
pub struct Database {
    inner: Arc<Inner>,
}

struct Inner {
    /// Taken by `drop` only.
    messages: Option<mpsc::Sender<Message>>,
    thread: Option<JoinHandle<()>>,
    readers: Arc<Readers>,
    ledgers: Ledgers,
    /// Held by whoever reads a ledger.
    loading: Mutex<()>,
    histories: Histories,
    codes: Arc<CodesAtHand>,
    /// Whether the index of words may hold what was removed from it.
    has_removed_words: AtomicBool,
    counters: Arc<Counters>,
    closed: watch::Receiver<bool>,
}

/// How long the queue may be full before what can be refused is refused.
const FULL_FOR: Duration = Duration::from_secs(1);

/// What is done when the writer's queue is full.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Room {
    /// It waits for a moment, and is refused when that does not help.
    Soon,
    /// Until there is room, it waits.
    Awaited,
}

/// What a database has done since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Pieces of work that were done by the writer, failed ones included.
    pub jobs: u64,
    /// Pieces of work that failed alone.
    pub failed_jobs: u64,
    /// Transactions that were committed.
    pub commits: u64,
    /// Transactions that failed, with all the work in them.
    pub failed_commits: u64,
    /// The most pieces of work that have shared a transaction.
    pub largest_group: u64,
    /// Pieces of work in the queue right now.
    pub queued: u64,
}

impl Database {
    /// Opens the database at `path`, or makes a new one there; the directory has to exist. Beside it lie a `.lock` file, which
    /// stays, and SQLite's own `-wal` and `-shm` files.
    ///
    /// It blocks while it reads, and while it migrates an older file.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(path: impl AsRef<Path>, options: &Options) -> Result<Self, OpenError> {
        options.check()?;
        let path = file_lock::resolve(path.as_ref())?;
        let lock = FileLock::acquire(&path)?;
        let connection = connection::open_writer(&path, options)?;
        let readers =
            (0..options.readers).map(|_| connection::open_reader(&path, options)).collect::<Result<Vec<_>, _>>()?;

        let (sender, messages) = mpsc::channel(options.queue_length);
        let (closed_sender, closed) = watch::channel(false);
        let counters = Arc::<Counters>::default();
        let writer = Writer {
            connection,
            batch: Batch::default(),
            counters: Arc::clone(&counters),
            group_size: options.group_size,
            last_group: 0,
            messages,
            lock,
            closed: closed_sender,
        };
        let thread =
            thread::Builder::new().name("sqlite-writer".into()).spawn(|| writer.run()).map_err(OpenError::Thread)?;
        let readers = Readers::new(readers, options.waiting_reads, options.waiting_timeout);
        let inner = Inner {
            messages: Some(sender),
            thread: Some(thread),
            readers,
            ledgers: Ledgers::default(),
            loading: Mutex::default(),
            histories: Histories::new(options.history_bytes),
            codes: Arc::new(CodesAtHand::new(options.vector_bytes)),
            // Nobody knows what the last process did.
            has_removed_words: AtomicBool::new(true),
            counters,
            closed,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Writes what is queued, moves the log into the database and closes the file; then another program can open it. Whatever
    /// is asked of any handle afterwards is refused as unavailable.
    pub async fn close(&self) {
        self.inner.readers.close_and_wait().await;
        // Errors of both mean that the thread has stopped already.
        drop(self.send(Message::Close).await);
        drop(self.inner.closed.clone().wait_for(|closed| *closed).await);
    }

    /// Waits until all that was to be written before is written.
    ///
    /// # Errors
    /// [`PortError`] when it could not be.
    pub async fn flush(&self) -> Result<(), PortError> {
        self.write(|_| Ok(())).await.map_err(|error| error.into_port("database"))
    }

    /// What has been done so far.
    pub fn stats(&self) -> Stats {
        let counters = &self.inner.counters;
        let queued = self.inner.messages.as_ref().map_or(0, |sender| sender.max_capacity() - sender.capacity());
        Stats {
            jobs: counters.jobs.load(Ordering::Relaxed),
            failed_jobs: counters.failed_jobs.load(Ordering::Relaxed),
            commits: counters.commits.load(Ordering::Relaxed),
            failed_commits: counters.failed_commits.load(Ordering::Relaxed),
            largest_group: counters.largest_group.load(Ordering::Relaxed),
            queued: queued as u64,
        }
    }

    /// Has `function` done by the writer; returns when that is committed. It is done even if the caller stops waiting.
    pub(crate) async fn write<T, F>(&self, function: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Work<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let (message, answer) = Task::message(function);
        self.send(message).await?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Changes the ledger of `tenant`, and has that written after all changes before it. What `operation` decides holds at once;
    /// the second part of the outcome is there when it is awaited that the change is written.
    pub(crate) async fn change<T>(
        &self,
        tenant: &TenantId,
        room: Room,
        operation: impl FnOnce(&mut Ledger) -> (T, Beside),
    ) -> Result<(T, Option<Written>), StoreError> {
        let ledgers = &self.inner.ledgers;
        if !ledgers.has(tenant) {
            // One reads and the others wait for that, or the first requests after a start would all read the same.
            let _reading = self.inner.loading.lock().await;
            if !ledgers.has(tenant) {
                let asked = tenant.clone();
                let ledger = self.read(move |rows| ledgers::load(rows, &asked)).await?;
                ledgers.insert(tenant, ledger);
            }
        }
        let messages = self.inner.messages.as_ref().ok_or(StoreError::Closed)?;
        let place = match room {
            Room::Soon => timeout(FULL_FOR, messages.reserve()).await.map_err(|_| StoreError::Busy)?,
            Room::Awaited => messages.reserve().await,
        };
        let place = place.map_err(|_| StoreError::Closed)?;
        ledgers.change(tenant, place, operation)
    }

    /// What is at hand of sessions' histories.
    pub(crate) fn histories(&self) -> &Histories {
        &self.inner.histories
    }

    /// What is at hand of vectors.
    pub(crate) fn codes_at_hand(&self) -> Arc<CodesAtHand> {
        Arc::clone(&self.inner.codes)
    }

    /// Whether what was to be written last could not be.
    pub(crate) fn is_failing(&self) -> bool {
        self.inner.counters.is_failing.load(Ordering::Relaxed)
    }

    /// Has `function` done by a reader.
    pub(crate) async fn read<T, F>(&self, function: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        self.inner.readers.read(function).await
    }

    /// Has `function` done by a reader, of which searches leave some to others.
    pub(crate) async fn search<T, F>(&self, function: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        self.inner.readers.search(function).await
    }

    /// Words were removed from their index.
    pub(crate) fn words_were_removed(&self) {
        self.inner.has_removed_words.store(true, Ordering::Relaxed);
    }

    /// Whether words were removed since this was asked last, or since the database was opened.
    pub(crate) fn take_removed_words(&self) -> bool {
        self.inner.has_removed_words.swap(false, Ordering::Relaxed)
    }

    /// Has upkeep done by the writer, between two transactions.
    pub(crate) async fn keep_up(&self, upkeep: Upkeep) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Upkeep(upkeep, reply)).await?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    async fn send(&self, message: Message) -> Result<(), StoreError> {
        let messages = self.inner.messages.as_ref().ok_or(StoreError::Closed)?;
        messages.send(message).await.map_err(|_| StoreError::Closed)
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.readers.close();
        drop(self.messages.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the writer's thread panicked");
        }
    }
}

#[cfg(test)]
mod tests;
