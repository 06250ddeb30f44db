//! The client's end of a reply, as the task that makes the reply sees it.

use std::future::{Future, pending, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_channel::{mpsc, oneshot};
use futures_util::future::BoxFuture;
use futures_util::{SinkExt, Stream};

use crate::ports::{Background, Clock};
use crate::usage::Ending;

/// Events that wait for a slow client. Few: when they are all taken the model is not read either, so that a client which reads
/// nothing costs nothing.
const EVENTS_IN_FLIGHT: usize = 8;

/// The events of a reply, up to the last one, which says how it ended. A stream that ends without it was cut by the death of the
/// program. Dropping the stream tells the service that the client has gone.
#[derive(Debug)]
pub struct Events<E> {
    events: mpsc::Receiver<E>,
    /// The service notices at once when this is dropped.
    _present: oneshot::Receiver<()>,
}

impl<E> Stream for Events<E> {
    type Item = E;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<E>> {
        Pin::new(&mut self.events).poll_next(context)
    }
}

/// A way to the client that can end at any time, for any of the reasons for which a request ends early.
pub(crate) struct Client<E> {
    events: mpsc::Sender<E>,
    present: oneshot::Sender<()>,
    stopping: BoxFuture<'static, ()>,
    deadline: BoxFuture<'static, ()>,
    clock: Arc<dyn Clock>,
    send_timeout: Duration,
    ended: Option<Ending>,
}

impl<E> Client<E> {
    /// Both ends of a reply that must be over after `timeout`, to a client that must read each event within `send_timeout`.
    pub(crate) fn connect(
        background: &dyn Background,
        clock: &Arc<dyn Clock>,
        timeout: Duration,
        send_timeout: Duration,
    ) -> (Self, Events<E>) {
        let (client, events) = Self::within(clock, timeout);
        (Self { stopping: background.stopping(), send_timeout, ..client }, events)
    }

    /// The same for work that is a part of another request, which ends it when the program stops or the client goes.
    pub(crate) fn within(clock: &Arc<dyn Clock>, timeout: Duration) -> (Self, Events<E>) {
        let (events, receiver) = mpsc::channel(EVENTS_IN_FLIGHT);
        let (present, watched) = oneshot::channel();
        let client = Self {
            events,
            present,
            stopping: Box::pin(pending()),
            deadline: clock.sleep(timeout),
            clock: Arc::clone(clock),
            send_timeout: timeout,
            ended: None,
        };
        (client, Events { events: receiver, _present: watched })
    }

    /// Does `work`, unless the request must end before it is done.
    pub(crate) async fn race<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Ending> {
        let mut work = pin!(work);
        poll_fn(|context| match self.poll_ended(context) {
            Poll::Ready(ending) => Poll::Ready(Err(ending)),
            Poll::Pending => work.as_mut().poll(context).map(Ok),
        })
        .await
    }

    /// Hands an event to the client, if there is room for it; else gives it back.
    pub(crate) fn offer(&mut self, event: E) -> Result<Option<E>, Ending> {
        match self.events.try_send(event) {
            Ok(()) => Ok(None),
            Err(refused) if refused.is_disconnected() => Err(Ending::ClientGone),
            Err(full) => Ok(Some(full.into_inner())),
        }
    }

    /// Hands an event to the client. A client that takes none for too long counts as gone.
    pub(crate) async fn send(&mut self, event: E) -> Result<(), Ending> {
        let Some(event) = self.offer(event)? else { return Ok(()) };
        let mut events = self.events.clone();
        let mut patience = self.clock.sleep(self.send_timeout);
        let mut sending = pin!(events.send(event));
        let sent = self
            .race(poll_fn(|context| {
                if let Poll::Ready(sent) = sending.as_mut().poll(context) {
                    return Poll::Ready(sent.map_err(|_| Ending::ClientGone));
                }
                patience.as_mut().poll(context).map(|()| Err(Ending::ClientGone))
            }))
            .await?;
        self.ended = self.ended.or(sent.err());
        sent
    }

    /// Hands over the last events, which go out even when the request has taken too long or the program stops; a client that
    /// is still there reads them within the send timeout.
    pub(crate) async fn close(mut self, last: Vec<E>) {
        let Self { events, present, clock, send_timeout, ended, .. } = &mut self;
        let mut unsent = last.into_iter();
        if *ended != Some(Ending::ClientGone) {
            let mut patience = clock.sleep(*send_timeout);
            poll_fn(|context| {
                while unsent.len() > 0 {
                    match events.poll_ready(context) {
                        Poll::Ready(Ok(())) => {
                            // A channel that is ready and refuses has lost its reader, and the next look says so.
                            let _ = unsent.next().map(|event| events.start_send(event));
                        }
                        Poll::Ready(Err(_)) => return Poll::Ready(()),
                        Poll::Pending if present.poll_canceled(context).is_ready() => return Poll::Ready(()),
                        Poll::Pending => return patience.as_mut().poll(context),
                    }
                }
                Poll::Ready(())
            })
            .await;
        }
        // Who is late may still read some day; but nobody waits for that. Each sender has a place of its own beside the shared
        // ones, so that even then the answer ends with its last event.
        for event in unsent {
            let _ = events.clone().try_send(event);
        }
    }

    fn poll_ended(&mut self, context: &mut Context<'_>) -> Poll<Ending> {
        if let Some(ending) = self.ended {
            return Poll::Ready(ending);
        }
        let ending = if self.present.poll_canceled(context).is_ready() {
            Ending::ClientGone
        } else if self.deadline.as_mut().poll(context).is_ready() {
            Ending::TimedOut
        } else if self.stopping.as_mut().poll(context).is_ready() {
            Ending::ShutDown
        } else {
            return Poll::Pending;
        };
        self.ended = Some(ending);
        Poll::Ready(ending)
    }
}
