//! The database: one file, one writer, some readers.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};

use rusqlite::Transaction;
use tokio::sync::{mpsc, oneshot, watch};

use crate::connection;
use crate::error::{OpenError, StoreError};
use crate::file_lock::{self, FileLock};
use crate::ledgers::Ledgers;
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
    counters: Arc<Counters>,
    closed: watch::Receiver<bool>,
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
            ledgers: Ledgers::default(),
            counters: Arc::clone(&counters),
            group_size: options.group_size,
            messages,
            lock,
            closed: closed_sender,
        };
        let thread =
            thread::Builder::new().name("sqlite-writer".into()).spawn(|| writer.run()).map_err(OpenError::Thread)?;
        let readers = Readers::new(readers, options.waiting_reads, options.waiting_timeout);
        Ok(Self { inner: Arc::new(Inner { messages: Some(sender), thread: Some(thread), readers, counters, closed }) })
    }

    /// Writes what is queued, moves the log into the database and closes the file; then another program can open it. Whatever
    /// is asked of any handle afterwards is refused as unavailable.
    pub async fn close(&self) {
        self.inner.readers.close_and_wait().await;
        // Errors of both mean that the thread has stopped already.
        drop(self.send(Message::Close).await);
        drop(self.inner.closed.clone().wait_for(|closed| *closed).await);
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
        F: FnOnce(&mut Work<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let (message, answer) = Task::message(function);
        self.send(message).await?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Has `function` done by a reader.
    pub(crate) async fn read<T, F>(&self, function: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        self.inner.readers.read(function).await
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
