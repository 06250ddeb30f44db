//! A tenant's key set, and the one fetch that may run for it.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use enigma_core::ports::{Background, Clock};
use enigma_core::token::{KeyAge, KeySetLocation};
use enigma_core::{TenantId, Timestamp};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Either, Shared, select};

use super::FETCH_TIMEOUT;
use crate::key_set::KeySet;
use crate::source::{FetchError, KeySetSource};

/// A fetch that runs. However many wait for it, it is one; and it goes on when nobody does.
pub(super) type Fetch = Shared<BoxFuture<'static, Result<Arc<KeySet>, FetchError>>>;

pub(super) struct Kept {
    tenant: TenantId,
    location: KeySetLocation,
    /// Held for moments only, and never while something is waited for.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    keys: Option<Arc<KeySet>>,
    age: KeyAge,
    running: Option<Fetch>,
}

impl Kept {
    pub(super) fn new(tenant: TenantId, location: KeySetLocation) -> Self {
        Self { tenant, location, state: Mutex::default() }
    }

    pub(super) fn is_of(&self, location: &KeySetLocation) -> bool {
        self.location == *location
    }

    pub(super) fn age(&self) -> KeyAge {
        self.state().age
    }

    pub(super) fn keys(&self) -> Option<Arc<KeySet>> {
        self.state().keys.clone()
    }

    pub(super) fn running(&self) -> Option<Fetch> {
        self.state().running.clone()
    }

    /// Begins a fetch, or joins the one that runs.
    pub(super) fn refresh(
        self: &Arc<Self>,
        now: Timestamp,
        source: &Arc<dyn KeySetSource>,
        clock: &dyn Clock,
        background: &dyn Background,
    ) -> Fetch {
        let mut state = self.state();
        if let Some(running) = &state.running {
            return running.clone();
        }
        state.age.tried_at = Some(now);
        let (kept, source, late) = (Arc::clone(self), Arc::clone(source), clock.sleep(FETCH_TIMEOUT));
        let fetch = async move {
            let fetched = {
                let fetching = AssertUnwindSafe(source.fetch(&kept.location)).catch_unwind();
                match select(fetching, late).await {
                    Either::Left((fetched, _)) => fetched.unwrap_or(Err(FetchError::Died)),
                    Either::Right(((), _)) => Err(FetchError::Timeout),
                }
            };
            kept.conclude(now, fetched.and_then(|bytes| KeySet::parse(&bytes)))
        };
        let running = fetch.boxed().shared();
        state.running = Some(running.clone());
        drop(state);
        background.spawn(running.clone().map(drop).boxed());
        running
    }

    /// Keeps what came. What was there before stays where nothing did.
    fn conclude(&self, began: Timestamp, fetched: Result<KeySet, FetchError>) -> Result<Arc<KeySet>, FetchError> {
        let mut state = self.state();
        state.running = None;
        match fetched {
            Ok(keys) => {
                tracing::info!(tenant = %self.tenant, keys = keys.len(), "the keys of a tenant's tokens were fetched");
                let keys = Arc::new(keys);
                state.keys = Some(Arc::clone(&keys));
                // Its age counts from before it was asked for, so that a slow answer is not taken for a new one.
                state.age.fetched_at = Some(began);
                Ok(keys)
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::error!(tenant = %self.tenant, %error, cause, "the keys of a tenant's tokens could not be fetched");
                Err(error)
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
