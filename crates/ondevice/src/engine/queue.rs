//! The line before the engine.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use enigma_core::TenantId;
use enigma_core::model::ModelError;
use futures_channel::mpsc;

use super::answer::Piece;
use super::conversation::Request;

/// A request with the way back to its reader.
pub(super) struct Waiting {
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
    is_closed: bool,
}

impl Queue {
    pub(super) fn new(places: usize, capacity: usize) -> Self {
        let state = State { waiting: VecDeque::new(), served: Vec::new(), is_closed: false };
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

    pub(super) fn push(&self, request: Request, answer: mpsc::Sender<Piece>) -> Result<(), ModelError> {
        let mut state = self.state();
        if state.is_closed {
            return Err(ModelError::unavailable("the on-device engine stopped"));
        }
        if self.has_no_room(&state) {
            // Whoever has gone need not be waited for.
            state.waiting.retain(|waiting| !waiting.answer.is_closed());
        }
        if self.has_no_room(&state) {
            return Err(ModelError::Busy);
        }
        state.waiting.push_back(Waiting { request, answer });
        Ok(())
    }

    pub(super) fn is_full(&self) -> bool {
        let state = self.state();
        self.has_no_room(&state) && state.waiting.iter().all(|waiting| !waiting.answer.is_closed())
    }

    /// The next request, if there is a place for it: the oldest of the tenant who has the fewest places, so that one tenant's crowd
    /// does not keep another's single request waiting.
    pub(super) fn take(self: &Arc<Self>) -> Option<(Waiting, Place)> {
        let mut state = self.state();
        state.waiting.retain(|waiting| !waiting.answer.is_closed());
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
        state.waiting.clear();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state().is_closed
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
