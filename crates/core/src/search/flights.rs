//! Work that is done once for all who want the same at the same time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_channel::oneshot;

use crate::id::TenantId;

type Waiting<T> = HashMap<(TenantId, String), Vec<oneshot::Sender<T>>>;

/// The work that is under way, by tenant and key.
#[derive(Debug)]
pub(super) struct Flights<T> {
    waiting: Arc<Mutex<Waiting<T>>>,
}

/// Work that others may be waiting for. Dropping it lets one of them begin anew.
#[derive(Debug)]
pub(super) struct Flight<T> {
    waiting: Arc<Mutex<Waiting<T>>>,
    key: (TenantId, String),
    has_landed: bool,
}

/// What somebody finds who wants work done.
#[derive(Debug)]
pub(super) enum Joined<T> {
    /// Nobody does it yet.
    First(Flight<T>),
    /// Somebody does it. What is received is the outcome; an error says that there is none, and one may join again.
    Behind(oneshot::Receiver<T>),
}

fn lock<T>(waiting: &Mutex<T>) -> MutexGuard<'_, T> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> Default for Flights<T> {
    fn default() -> Self {
        Self { waiting: Arc::default() }
    }
}

impl<T> Flights<T> {
    pub(super) fn join(&self, tenant: &TenantId, key: &str) -> Joined<T> {
        let key = (tenant.clone(), key.to_owned());
        let mut waiting = lock(&self.waiting);
        if let Some(behind) = waiting.get_mut(&key) {
            let (sender, receiver) = oneshot::channel();
            behind.push(sender);
            return Joined::Behind(receiver);
        }
        waiting.insert(key.clone(), Vec::new());
        Joined::First(Flight { waiting: Arc::clone(&self.waiting), key, has_landed: false })
    }
}

impl<T> Flight<T> {
    /// Whether somebody waits for the outcome.
    pub(super) fn is_awaited(&self) -> bool {
        let waiting = lock(&self.waiting);
        waiting.get(&self.key).is_some_and(|behind| behind.iter().any(|one| !one.is_canceled()))
    }
}

impl<T: Clone> Flight<T> {
    /// The work is done; all who wait get `outcome`.
    pub(super) fn land(mut self, outcome: &T) {
        self.has_landed = true;
        let behind = lock(&self.waiting).remove(&self.key).unwrap_or_default();
        for waiting in behind {
            // Who has gone needs nothing.
            drop(waiting.send(outcome.clone()));
        }
    }
}

impl<T> Drop for Flight<T> {
    fn drop(&mut self) {
        // After a landing somebody else may be on the way under this key.
        if !self.has_landed {
            lock(&self.waiting).remove(&self.key);
        }
    }
}
