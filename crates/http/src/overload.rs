//! What a host does at once at most, and what it tells those who come beyond that.

use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use enigma_core::Timestamp;
use enigma_core::limit::{Capacity, Places};
use enigma_core::ports::{Background, Clock};
use enigma_core::tenant::Tenant;
use futures_util::future::BoxFuture;
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::error::{ApiError, ErrorCode};

/// How often a log line tells of refusals, in milliseconds.
const LOG_EVERY: u64 = 1000;

/// What a host does at once at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverloadLimits {
    /// Requests in work. A chat counts until its body is read and understood, any other request until its response is sent.
    pub max_requests: u32,
    /// Answers of models under way, streamed or not.
    pub max_streams: u32,
    /// What one tenant alone may have of each of the two, in a hundred; see [`Capacity`].
    pub tenant_share_percent: u32,
}

/// Counts what is in work, and refuses what is too much.
pub(crate) struct Overload {
    /// Requests whose tenant is not known yet, so that nobody can say whose share they take.
    arriving: Arc<AtomicU32>,
    max_arriving: u32,
    requests: Gate,
    streams: Gate,
    refusals: Refusals,
}

impl Overload {
    pub(crate) fn new(limits: OverloadLimits) -> Self {
        let gate = |total| Gate(Arc::new(Mutex::new(Places::new(Capacity::new(total, limits.tenant_share_percent)))));
        Self {
            arriving: Arc::default(),
            max_arriving: limits.max_requests.max(1),
            requests: gate(limits.max_requests),
            streams: gate(limits.max_streams),
            refusals: Refusals::default(),
        }
    }

    /// Lets a request in that has not said yet whose it is.
    pub(crate) fn arrive(&self, clock: &dyn Clock) -> Result<Arriving, ApiError> {
        let arriving = Arriving(Arc::clone(&self.arriving));
        if self.arriving.fetch_add(1, Ordering::Relaxed) >= self.max_arriving {
            self.refusals.tell("arriving", "", clock.now());
            return Err(refused());
        }
        Ok(arriving)
    }

    /// Takes a place among the requests in work.
    pub(crate) fn request(&self, tenant: &Arc<Tenant>, clock: &dyn Clock) -> Result<Place, ApiError> {
        self.enter(&self.requests, "requests", tenant, clock)
    }

    /// Takes a place among the answers under way.
    pub(crate) fn stream(&self, tenant: &Arc<Tenant>, clock: &dyn Clock) -> Result<Place, ApiError> {
        self.enter(&self.streams, "streams", tenant, clock)
    }

    fn enter(
        &self,
        gate: &Gate,
        what: &'static str,
        tenant: &Arc<Tenant>,
        clock: &dyn Clock,
    ) -> Result<Place, ApiError> {
        if gate.lock().enter(tenant.id()).is_err() {
            self.refusals.tell(what, tenant.id().as_str(), clock.now());
            return Err(refused());
        }
        Ok(Place(Arc::new(Held { gate: gate.clone(), tenant: Arc::clone(tenant) })))
    }
}

fn refused() -> ApiError {
    ApiError { told: true, ..ErrorCode::Unavailable.into() }
}

#[derive(Clone)]
struct Gate(Arc<Mutex<Places>>);

impl Gate {
    /// No code between lock and unlock leaves the counts half changed, so a panic there would not spoil them.
    fn lock(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request among those whose tenant is not known yet.
pub(crate) struct Arriving(Arc<AtomicU32>);

impl Drop for Arriving {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A place of a tenant. It is free again when the last clone is gone: that of the response, and those of the work that outlives
/// the response.
#[derive(Clone)]
pub(crate) struct Place(#[expect(dead_code, reason = "it is held, and that is all")] Arc<Held>);

struct Held {
    gate: Gate,
    tenant: Arc<Tenant>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.gate.lock().leave(self.tenant.id());
    }
}

/// The place that a request has at the moment. The edge, which sees the response last, takes it out.
#[derive(Clone, Default)]
pub(crate) struct Seat(Arc<Mutex<Option<Place>>>);

impl Seat {
    /// Holds `place`, and lets go of the one before.
    pub(crate) fn hold(&self, place: Place) {
        let before = self.lock().replace(place);
        drop(before);
    }

    /// Holds the place until `response` is sent or given up.
    pub(crate) fn follow(&self, response: Response) -> Response {
        match self.lock().take() {
            Some(place) => response.map(|body| Body::new(HeldBody { body, _place: place })),
            None => response,
        }
    }

    /// Background work that holds the place too, so that a client who leaves frees nothing that is still being worked on.
    pub(crate) fn background(&self, background: &Arc<dyn Background>) -> Arc<dyn Background> {
        match &*self.lock() {
            Some(place) => Arc::new(Holding { place: place.clone(), background: Arc::clone(background) }),
            None => Arc::clone(background),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Seat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Seat").field(&self.lock().is_some()).finish()
    }
}

struct Holding {
    place: Place,
    background: Arc<dyn Background>,
}

impl Background for Holding {
    fn spawn(&self, work: BoxFuture<'static, ()>) {
        let place = self.place.clone();
        self.background.spawn(Box::pin(async move {
            work.await;
            drop(place);
        }));
    }

    fn stopping(&self) -> BoxFuture<'static, ()> {
        self.background.stopping()
    }
}

/// The body of a response that has a place.
struct HeldBody {
    body: Body,
    _place: Place,
}

impl HttpBody for HeldBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Tells of refusals now and then: a line for each would make a flood dearer than it is.
#[derive(Default)]
struct Refusals {
    since_told: AtomicU64,
    /// In milliseconds.
    told_at: AtomicU64,
}

impl Refusals {
    fn tell(&self, what: &'static str, tenant: &str, now: Timestamp) {
        self.since_told.fetch_add(1, Ordering::Relaxed);
        let (now, last) = (now.as_millis(), self.told_at.load(Ordering::Relaxed));
        // A clock that was set back must not keep it silent.
        let is_due = now.abs_diff(last) >= LOG_EVERY;
        if is_due && self.told_at.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            let refused = self.since_told.swap(0, Ordering::Relaxed);
            tracing::warn!(what, tenant, refused, "at capacity: requests are refused");
        }
    }
}

#[cfg(test)]
mod tests;
