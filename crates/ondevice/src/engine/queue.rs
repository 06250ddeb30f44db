//! The line before the engine.
//!
//! Its places, taken and waiting together, are shared by all tenants. While there is room whoever comes is let in; when there is none,
//! a tenant that holds fewer places than another takes that one's newest place in the line. So no tenant's crowd keeps the others
//! out. What has begun is never cut for it.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use enigma_core::TenantId;
use enigma_core::model::ModelError;
use futures_channel::mpsc;

use super::answer::Piece;
use super::conversation::Request;
use crate::fairness::makes_way;

/// A request with the way back to its reader.
pub(super) struct Waiting {
    number: u64,
    since: Instant,
    pub(super) request: Request,
    pub(super) answer: mpsc::Sender<Piece>,
}

/// Requests that wait, and places that are taken.
pub(super) struct Queue {
    state: Mutex<State>,
    places: usize,
    capacity: usize,
}

struct State {
    waiting: VecDeque<Waiting>,
    /// Whose conversations are being served.
    served: Vec<TenantId>,
    /// How many have ever been let in, which numbers them.
    let_in: u64,
    is_closed: bool,
}

impl State {
    fn makes_way_for(&self, newcomer: &TenantId) -> Option<usize> {
        makes_way(newcomer, self.served.iter(), self.waiting.iter().map(|waiting| &waiting.request.tenant))
    }
}

impl Queue {
    pub(super) fn new(places: usize, capacity: usize) -> Self {
        let state = State { waiting: VecDeque::new(), served: Vec::new(), let_in: 0, is_closed: false };
        Self { state: Mutex::new(state), places, capacity }
    }

    /// No code between lock and unlock leaves the state half changed, so a panic there would not spoil it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Free places count as room too: the engine may not have come to fill them yet.
    fn has_no_room(&self, state: &State) -> bool {
        state.served.len() + state.waiting.len() >= self.places + self.capacity
    }

    /// Lets a request in. It leaves the line again when its ticket is dropped.
    ///
    /// # Errors
    /// [`ModelError::Busy`] when there is no room and nobody makes way, [`ModelError::Unavailable`] when the line is closed.
    pub(super) fn push(self: &Arc<Self>, request: Request, answer: mpsc::Sender<Piece>) -> Result<Ticket, ModelError> {
        let mut state = self.state();
        if state.is_closed {
            return Err(ModelError::unavailable("the on-device engine stopped"));
        }
        let mut displaced = None;
        if self.has_no_room(&state) {
            let index = state.makes_way_for(&request.tenant).ok_or(ModelError::Busy)?;
            displaced = state.waiting.remove(index);
        }
        let number = state.let_in;
        state.let_in += 1;
        state.waiting.push_back(Waiting { number, since: now(), request, answer });
        drop(state);
        if let Some(mut displaced) = displaced {
            // Nothing was sent before, so it fails only when the reader has gone.
            let _ = displaced.answer.try_send(Piece::Displaced);
        }
        Ok(Ticket { queue: Arc::clone(self), number })
    }

    /// Tells those who have waited for longer than `patience` that there is no room. Nothing is wrong with the model then, as a
    /// caller would conclude who sees nothing come; there are only too many who want it.
    ///
    /// Whether anybody waits still.
    pub(super) fn refuse_after(&self, patience: Duration) -> bool {
        let mut state = self.state();
        // They stand in the order in which they came.
        let impatient = state.waiting.iter().take_while(|waiting| waiting.since.elapsed() > patience).count();
        let refused: Vec<_> = state.waiting.drain(..impatient).collect();
        let waits = !state.waiting.is_empty();
        drop(state);
        for mut waiting in refused {
            let _ = waiting.answer.try_send(Piece::Displaced);
        }
        waits
    }

    /// Whether a request of this tenant would be refused now.
    pub(super) fn is_full_for(&self, tenant: &TenantId) -> bool {
        let state = self.state();
        self.has_no_room(&state) && state.makes_way_for(tenant).is_none()
    }

    /// The next request, if there is a place for it: the oldest of the tenant who has the fewest places, so that one tenant's crowd
    /// does not keep another's single request waiting.
    pub(super) fn take(self: &Arc<Self>) -> Option<(Waiting, Place)> {
        let mut state = self.state();
        if state.served.len() >= self.places {
            return None;
        }
        let places_of = |tenant: &TenantId| state.served.iter().filter(|served| *served == tenant).count();
        let places = state.waiting.iter().map(|waiting| places_of(&waiting.request.tenant));
        let (index, _) = places.enumerate().min_by_key(|(_, places)| *places)?;
        let waiting = state.waiting.remove(index)?;
        let tenant = waiting.request.tenant.clone();
        state.served.push(tenant.clone());
        drop(state);
        Some((waiting, Place { queue: Arc::clone(self), tenant }))
    }

    /// Refuses all that come, and leaves those who wait with an answer that broke off.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.is_closed = true;
        let waiting = mem::take(&mut state.waiting);
        drop(state);
        // Which wakes their readers.
        drop(waiting);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state().is_closed
    }
}

#[expect(clippy::disallowed_methods, reason = "the engine's thread has no clock but this, and never runs on wasm32")]
fn now() -> Instant {
    Instant::now()
}

/// A reader's hold on the line: when it is dropped the request leaves, if it still waits.
pub(super) struct Ticket {
    queue: Arc<Queue>,
    number: u64,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.queue.state();
        // They come in the order of their numbers, and leave from anywhere.
        let index = state.waiting.binary_search_by_key(&self.number, |waiting| waiting.number);
        let gone = index.ok().and_then(|index| state.waiting.remove(index));
        drop(state);
        drop(gone);
    }
}

/// A place among the served, free again when dropped.
pub(super) struct Place {
    queue: Arc<Queue>,
    tenant: TenantId,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.queue.state();
        if let Some(index) = state.served.iter().position(|served| *served == self.tenant) {
            state.served.swap_remove(index);
        }
    }
}

#[cfg(test)]
mod tests;
