//! Connections that only read, lent one at a time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, Transaction};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::error::StoreError;

pub(crate) struct Readers {
    idle: Mutex<Vec<Connection>>,
    /// One permit for each connection.
    free: Arc<Semaphore>,
    /// One permit for each read that runs or waits.
    places: Arc<Semaphore>,
    /// One permit for each search: half as many as connections.
    searches: Arc<Semaphore>,
    patience: Duration,
    count: usize,
}

impl Readers {
    pub(crate) fn new(connections: Vec<Connection>, may_wait: usize, patience: Duration) -> Arc<Self> {
        let count = connections.len();
        Arc::new(Self {
            idle: Mutex::new(connections),
            free: Arc::new(Semaphore::new(count)),
            places: Arc::new(Semaphore::new(count + may_wait)),
            searches: Arc::new(Semaphore::new(count.div_ceil(2))),
            patience,
            count,
        })
    }

    /// Reads one state of the database: what is committed while `function` runs is not seen by it.
    pub(crate) async fn read<T, F>(self: &Arc<Self>, function: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let place = self.place()?;
        self.lend(place, function).await
    }

    /// The same, for what reads much: of such work no more is done at once than leaves others half of the connections.
    pub(crate) async fn search<T, F>(self: &Arc<Self>, function: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let place = self.place()?;
        let search = self.patiently(&self.searches).await?;
        self.lend((place, search), function).await
    }

    fn place(&self) -> Result<OwnedSemaphorePermit, StoreError> {
        Arc::clone(&self.places).try_acquire_owned().map_err(|_| StoreError::Busy)
    }

    async fn patiently(&self, semaphore: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, StoreError> {
        let permit = timeout(self.patience, Arc::clone(semaphore).acquire_owned());
        permit.await.map_err(|_| StoreError::Busy)?.map_err(|_| StoreError::Closed)
    }

    /// Has `function` done with a connection; what is `held` is let go when that is over, even if the caller has gone by then.
    async fn lend<T, F>(self: &Arc<Self>, held: impl Send + 'static, function: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let permit = self.patiently(&self.free).await?;
        let readers = Arc::clone(self);
        let running = spawn_blocking(move || {
            let mut lent = Lent::take(&readers)?;
            let connection = lent.connection.as_mut().ok_or(StoreError::Closed)?;
            // Dropped at the end, which rolls back: there is nothing to commit.
            let outcome = function(&connection.transaction()?);
            drop(lent);
            drop((permit, held));
            outcome
        });
        running
            .await
            .unwrap_or_else(|error| Err(if error.is_panic() { StoreError::Panicked } else { StoreError::Closed }))
    }

    /// Closes the connections that are not lent; those that are close when they come back.
    pub(crate) fn close(&self) {
        self.free.close();
        self.idle().clear();
    }

    /// Waits for the reads that run, and closes all connections.
    pub(crate) async fn close_and_wait(&self) {
        let all = u32::try_from(self.count).unwrap_or(u32::MAX);
        // An error means that somebody else has closed them already.
        let permits = self.free.acquire_many(all).await;
        self.close();
        drop(permits);
    }

    /// No code between lock and unlock leaves the list half changed, so a panic there would not spoil it.
    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that comes back, even from a panic.
struct Lent<'a> {
    connection: Option<Connection>,
    readers: &'a Readers,
}

impl<'a> Lent<'a> {
    fn take(readers: &'a Readers) -> Result<Self, StoreError> {
        let connection = readers.idle().pop().ok_or(StoreError::Closed)?;
        Ok(Self { connection: Some(connection), readers })
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let mut idle = self.readers.idle();
        // Asked with the lock held, because `close` empties the list after it has closed the semaphore.
        if !self.readers.free.is_closed() {
            idle.extend(self.connection.take());
        }
    }
}
