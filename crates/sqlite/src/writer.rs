//! The one thread that writes. Jobs that wait together share a transaction.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot, watch};

use crate::batch::{Batch, Entry};
use crate::error::StoreError;
use crate::file_lock::FileLock;

/// Pieces of work in a transaction from which on it is worth waiting for more.
const CROWD: usize = 4;
/// How long that is.
const GATHERING: Duration = Duration::from_micros(500);
/// How long what nobody waits for may lie, if nothing else comes.
const PATIENCE: Duration = Duration::from_millis(5);
/// In how many steps: a wake-up may be for nothing.
const PATIENT_STEPS: u32 = 4;

/// What a job works with.
pub(crate) struct Work<'a> {
    pub(crate) connection: &'a Connection,
}

/// What the writer is told.
pub(crate) enum Message {
    /// Do this, and answer when it is committed.
    Job(Box<dyn Job>),
    /// Write this change of a tenant's books.
    Entry(Box<Entry>),
    /// Do this when what has come before is committed.
    Upkeep(Upkeep, oneshot::Sender<Result<(), StoreError>>),
    /// Do what has come before this, and stop.
    Close,
}

/// What is done between transactions.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Upkeep {
    /// Move what was committed from the log into the database, and cut the log to nothing.
    Checkpoint,
    /// Write the whole database anew, and then the same.
    Rebuild,
}

/// A piece of work that is written whole or not at all.
pub(crate) trait Job: Send {
    /// Does the work, and keeps the answer; whether it succeeded.
    fn run(&mut self, work: &Work<'_>) -> bool;

    /// Gives the answer, now that it is known whether the transaction was committed.
    fn answer(self: Box<Self>, committed: &Result<(), Arc<rusqlite::Error>>);
}

/// A job made of a function.
pub(crate) struct Task<T, F> {
    function: Option<F>,
    outcome: Result<T, StoreError>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Task<T, F>
where
    T: Send + 'static,
    F: FnOnce(&Work<'_>) -> Result<T, StoreError> + Send + 'static,
{
    pub(crate) fn message(function: F) -> (Message, oneshot::Receiver<Result<T, StoreError>>) {
        let (reply, answer) = oneshot::channel();
        let task = Self { function: Some(function), outcome: Err(StoreError::Closed), reply };
        (Message::Job(Box::new(task)), answer)
    }
}

impl<T, F> Job for Task<T, F>
where
    T: Send,
    F: FnOnce(&Work<'_>) -> Result<T, StoreError> + Send,
{
    fn run(&mut self, work: &Work<'_>) -> bool {
        if let Some(function) = self.function.take() {
            // Whatever a panic left half done is rolled back with the savepoint.
            self.outcome = catch_unwind(AssertUnwindSafe(|| function(work))).unwrap_or(Err(StoreError::Panicked));
        }
        self.outcome.is_ok()
    }

    fn answer(self: Box<Self>, committed: &Result<(), Arc<rusqlite::Error>>) {
        let outcome = match committed {
            Ok(()) => self.outcome,
            Err(error) => Err(StoreError::Transaction(Arc::clone(error))),
        };
        // Who has gone away needs no answer: the work is done all the same.
        drop(self.reply.send(outcome));
    }
}

/// What the writer has done since the database was opened.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) jobs: AtomicU64,
    pub(crate) failed_jobs: AtomicU64,
    pub(crate) commits: AtomicU64,
    pub(crate) failed_commits: AtomicU64,
    pub(crate) largest_group: AtomicU64,
    /// Whether the last transaction failed.
    pub(crate) is_failing: AtomicBool,
}

fn add(counter: &AtomicU64, number: usize) {
    counter.fetch_add(number as u64, Ordering::Relaxed);
}

/// Wakes the writer when something comes.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The state of the thread.
pub(crate) struct Writer {
    pub(crate) connection: Connection,
    pub(crate) batch: Batch,
    pub(crate) counters: Arc<Counters>,
    pub(crate) group_size: usize,
    /// How many pieces of work the last transaction had.
    pub(crate) last_group: usize,
    pub(crate) messages: mpsc::Receiver<Message>,
    /// Freed after the connection is closed.
    pub(crate) lock: FileLock,
    /// Becomes true when all is over and the file is free.
    pub(crate) closed: watch::Sender<bool>,
}

impl Writer {
    /// Works until it is told to stop, or until nobody is left who could ask for anything.
    pub(crate) fn run(mut self) {
        let mut inbox = Vec::with_capacity(self.group_size);
        let mut group = Vec::with_capacity(self.group_size);
        let mut is_closing = false;
        while !is_closing && self.receive(&mut inbox, None) {
            is_closing = self.take_all(&mut inbox, &mut group);
            if !is_closing {
                is_closing = self.gather(&mut inbox, &mut group);
            }
            // What nobody waits for, a reservation, waits for what ends it: then neither needs a row.
            let (mut steps, mut is_open) = (0, true);
            while is_open && !is_closing && steps < PATIENT_STEPS && group.is_empty() && !self.batch.is_awaited() {
                is_open = self.receive(&mut inbox, Some(PATIENCE / PATIENT_STEPS));
                is_closing = self.take_all(&mut inbox, &mut group);
                steps += 1;
            }
            self.commit(&mut group);
        }
        self.messages.close();
        // Only what has been sent already. Who waits for room and is not running would be waited for in vain.
        while let Ok(message) = self.messages.try_recv() {
            self.take(message, &mut group);
            if group.len() + self.batch.len() >= self.group_size {
                self.commit(&mut group);
            }
        }
        self.commit(&mut group);
        self.finish();
    }

    /// Waits for messages, as long as it may take or for `most`. False when none will come any more.
    fn receive(&mut self, inbox: &mut Vec<Message>, most: Option<Duration>) -> bool {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut context = Context::from_waker(&waker);
        let mut has_waited = false;
        loop {
            match self.messages.poll_recv_many(&mut context, inbox, self.group_size) {
                Poll::Ready(received) => return received > 0,
                Poll::Pending if has_waited => return true,
                Poll::Pending => match most {
                    Some(most) => {
                        thread::park_timeout(most);
                        has_waited = true;
                    }
                    None => thread::park(),
                },
            }
        }
    }

    fn take_all(&mut self, inbox: &mut Vec<Message>, group: &mut Vec<Box<dyn Job>>) -> bool {
        let mut is_closing = false;
        for message in inbox.drain(..) {
            is_closing |= self.take(message, group);
        }
        is_closing
    }

    /// Waits for more company, where there was much the last time: a transaction costs the same for one piece of work as for
    /// twenty. Who comes alone is never made to wait.
    fn gather(&mut self, inbox: &mut Vec<Message>, group: &mut Vec<Box<dyn Job>>) -> bool {
        if self.last_group < CROWD {
            return false;
        }
        thread::sleep(GATHERING);
        let room = self.group_size.saturating_sub(group.len() + self.batch.len());
        inbox.extend(std::iter::from_fn(|| self.messages.try_recv().ok()).take(room));
        self.take_all(inbox, group)
    }

    /// Puts a job into the group, or does what else is asked for; whether that is to stop.
    fn take(&mut self, message: Message, group: &mut Vec<Box<dyn Job>>) -> bool {
        match message {
            Message::Job(job) => group.push(job),
            Message::Entry(entry) => self.batch.add(*entry),
            Message::Upkeep(upkeep, reply) => {
                self.commit(group);
                drop(reply.send(self.keep_up(upkeep).map_err(StoreError::from)));
            }
            Message::Close => return true,
        }
        false
    }

    fn keep_up(&self, upkeep: Upkeep) -> rusqlite::Result<()> {
        match upkeep {
            Upkeep::Checkpoint => {}
            Upkeep::Rebuild => self.connection.execute_batch("VACUUM")?,
        }
        checkpoint(&self.connection)
    }

    /// Does the jobs of a group and writes what has changed of the books, in one transaction, and answers when it has ended.
    fn commit(&mut self, group: &mut Vec<Box<dyn Job>>) {
        if group.is_empty() && self.batch.is_empty() {
            return;
        }
        let jobs = group.len() + self.batch.len();
        let committed = self.transact(group).map_err(Arc::new);
        match &committed {
            Ok(()) => {
                add(&self.counters.commits, 1);
                if self.counters.is_failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("the database can be written again");
                }
            }
            Err(error) => {
                self.roll_back();
                add(&self.counters.failed_commits, 1);
                self.counters.is_failing.store(true, Ordering::Relaxed);
                tracing::error!(%error, jobs, "a transaction failed");
            }
        }
        self.last_group = jobs;
        add(&self.counters.jobs, jobs);
        self.counters.largest_group.fetch_max(jobs as u64, Ordering::Relaxed);
        for job in group.drain(..) {
            job.answer(&committed);
        }
        let failed = committed.err().map(StoreError::Transaction);
        self.batch.answer(failed.as_ref().map_or(Ok(()), Err));
    }

    fn transact(&mut self, group: &mut [Box<dyn Job>]) -> rusqlite::Result<()> {
        execute(&self.connection, "BEGIN IMMEDIATE")?;
        if !group.is_empty() {
            let work = Work { connection: &self.connection };
            // Looked up once for all: finding a statement costs as much as doing one of these.
            let mut begin = self.connection.prepare_cached("SAVEPOINT job")?;
            let mut end = self.connection.prepare_cached("RELEASE job")?;
            for job in group {
                begin.execute([])?;
                if !job.run(&work) {
                    add(&self.counters.failed_jobs, 1);
                    // Fails when the trouble was such that SQLite has rolled the whole transaction back by itself.
                    execute(&self.connection, "ROLLBACK TO job")?;
                }
                end.execute([])?;
            }
        }
        self.batch.write(&self.connection)?;
        execute(&self.connection, "COMMIT")
    }

    fn roll_back(&self) {
        if !self.connection.is_autocommit()
            && let Err(error) = execute(&self.connection, "ROLLBACK")
        {
            tracing::error!(%error, "a transaction could not be rolled back");
        }
    }

    fn finish(self) {
        if let Err(error) = checkpoint(&self.connection) {
            // Nothing is lost: the log stays, and is read when the database is opened again.
            tracing::warn!(%error, "the last checkpoint failed");
        }
        if let Err((_, error)) = self.connection.close() {
            tracing::warn!(%error, "the database was not closed cleanly");
        }
        drop(self.lock);
        self.closed.send_replace(true);
    }
}

fn execute(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(drop)
}

/// Moves the whole log into the database: until then it holds what was deleted.
fn checkpoint(connection: &Connection) -> rusqlite::Result<()> {
    let busy: bool = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if busy {
        Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY), None))
    } else {
        Ok(())
    }
}
