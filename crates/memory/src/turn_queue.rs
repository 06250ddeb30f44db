//! Lines of waiting turns in memory.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use enigma_core::ports::{TurnPermit, TurnQueue};
use enigma_core::{PortError, RequestId, SessionId, TenantId};
use futures_channel::oneshot;

use crate::sharded::Sharded;

/// Lets the turns of a session happen one after the other, within this process.
///
/// A line exists as long as somebody holds its permit. The permit is handed from one to the next without ever being free, so
/// nobody who comes later can take it on its way.
pub struct MemoryTurnQueue {
    lines: Arc<Sharded<Lines>>,
}

impl Default for MemoryTurnQueue {
    fn default() -> Self {
        Self { lines: Arc::new(Sharded::new("turn queue")) }
    }
}

/// How many may wait for one session: a client that asks faster than its session answers is told so.
const MAX_WAITING: usize = 64;

/// The lines of one tenant, by session.
type Lines = HashMap<SessionId, Line>;

#[derive(Default)]
struct Line {
    /// First come, first served; their tickets grow.
    waiting: VecDeque<(u64, oneshot::Sender<Permit>)>,
    next_ticket: u64,
}

/// Which line of whose.
#[derive(Clone)]
struct Place {
    lines: Arc<Sharded<Lines>>,
    tenant: TenantId,
    session: SessionId,
}

impl Place {
    /// The one whose turn is next. When there is none, the line is gone.
    fn next(&self) -> Option<oneshot::Sender<Permit>> {
        let next = self.lines.with(&self.tenant, |lines| {
            let next = lines.get_mut(&self.session)?.waiting.pop_front();
            if next.is_none() {
                lines.remove(&self.session);
            }
            next
        });
        next.ok()?.map(|(_, waiter)| waiter)
    }

    fn give_up(&self, ticket: u64) {
        let given_up = self.lines.with(&self.tenant, |lines| {
            let line = lines.get_mut(&self.session)?;
            let place = line.waiting.binary_search_by_key(&ticket, |(ticket, _)| *ticket).ok()?;
            line.waiting.remove(place)
        });
        drop(given_up);
    }
}

/// The turn; `None` when it has been handed on.
struct Permit(Option<Place>);

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(place) = self.0.take() else { return };
        // Whoever cannot take it any more has gone. It is not sent under the lock: should the waiter go at this very moment,
        // the permit is dropped where it is sent, and comes through here again.
        while let Some(next) = place.next() {
            match next.send(Self(Some(place.clone()))) {
                Ok(()) => return,
                Err(mut unwanted) => drop(unwanted.0.take()),
            }
        }
    }
}

/// Somebody in a line. When they go, they take their place with them; a permit that is on its way to them passes on.
struct Waiter {
    place: Place,
    ticket: u64,
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.place.give_up(self.ticket);
    }
}

#[async_trait]
impl TurnQueue for MemoryTurnQueue {
    async fn enter(&self, tenant: &TenantId, session: &SessionId, _: RequestId) -> Result<TurnPermit, PortError> {
        let place = Place { lines: Arc::clone(&self.lines), tenant: tenant.clone(), session: *session };
        let queued = self.lines.with(tenant, |lines| {
            let Some(line) = lines.get_mut(session) else {
                lines.insert(*session, Line::default());
                return Ok(None);
            };
            if line.waiting.len() >= MAX_WAITING {
                return Err("too many wait for the session");
            }
            let (sender, receiver) = oneshot::channel();
            let ticket = line.next_ticket;
            line.next_ticket += 1;
            line.waiting.push_back((ticket, sender));
            Ok(Some((ticket, receiver)))
        })?;
        let queued = queued.map_err(|reason| self.lines.unavailable(reason))?;
        let Some((ticket, receiver)) = queued else { return Ok(Box::new(Permit(Some(place)))) };
        let waiter = Waiter { place, ticket };
        let permit = receiver.await;
        drop(waiter);
        permit.map(|permit| Box::new(permit) as TurnPermit).map_err(|_| self.lines.unavailable("the line was given up"))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_line_that_everybody_has_left_takes_no_room() {
        let queue = MemoryTurnQueue::default();
        let (tenant, session) = (TenantId::new("acme").unwrap(), SessionId::new(Uuid::nil()));
        let enter = |number| queue.enter(&tenant, &session, RequestId::new(Uuid::from_u128(number)));
        let waiting = || queue.lines.with(&tenant, |lines| lines.get(&session).map(|line| line.waiting.len())).unwrap();

        let permit = enter(0).now_or_never().unwrap().unwrap();
        for number in 1..100 {
            assert!(enter(number).now_or_never().is_none());
        }
        assert_eq!(waiting(), Some(0), "who gave up left the line at once");
        let mut line: Vec<_> = (0..MAX_WAITING as u128).map(|number| Box::pin(enter(200 + number))).collect();
        for waiter in &mut line {
            assert!(waiter.now_or_never().is_none());
        }
        assert!(enter(999).now_or_never().is_some_and(|refused| refused.is_err()), "the line has an end");
        drop(line);
        drop(permit);
        assert_eq!(waiting(), None);
    }
}
