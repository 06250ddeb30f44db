//! The way of an answer from the engine's thread to its reader.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use enigma_core::model::{Delta, FinishReason, ModelError, Usage};
use futures_channel::mpsc;
use futures_core::Stream;

use super::queue::Ticket;

/// What the engine sends. Each step sends one at most, so that a step which begins with room in the channel never has to wait.
#[derive(Debug)]
pub(super) enum Piece {
    /// More text.
    Text(String),
    /// The last text, which may be empty, and how it went.
    End(String, FinishReason, Usage),
    /// The step failed.
    Failed(String),
    /// It had to leave the line, before anything else was sent.
    Displaced,
}

/// A channel that holds so many pieces.
pub(super) fn channel(unread: usize) -> (mpsc::Sender<Piece>, mpsc::Receiver<Piece>) {
    // The channel grants one more for the sender.
    mpsc::channel(unread.saturating_sub(1))
}

/// An answer as it is made. Dropping it ends the work, or the wait for it.
pub(crate) struct Answer {
    /// Dropped before the channel closes, so that nobody in the line is without a reader.
    _ticket: Ticket,
    pieces: mpsc::Receiver<Piece>,
    ready: VecDeque<Delta>,
    has_begun: bool,
    is_over: bool,
}

impl Answer {
    pub(super) fn new(ticket: Ticket, pieces: mpsc::Receiver<Piece>) -> Self {
        Self { _ticket: ticket, pieces, ready: VecDeque::new(), has_begun: false, is_over: false }
    }

    /// An answer that breaks off is interrupted; one that has not begun can be asked for elsewhere.
    fn broken(&mut self, message: String) -> ModelError {
        self.is_over = true;
        if self.has_begun { ModelError::Interrupted { message } } else { ModelError::unavailable(message) }
    }
}

impl Stream for Answer {
    type Item = Result<Delta, ModelError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(delta) = self.ready.pop_front() {
                self.has_begun = true;
                return Poll::Ready(Some(Ok(delta)));
            }
            if self.is_over {
                return Poll::Ready(None);
            }
            match Pin::new(&mut self.pieces).poll_next(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Piece::Text(text))) => self.ready.push_back(Delta::Content(text)),
                Poll::Ready(Some(Piece::End(text, reason, usage))) => {
                    self.is_over = true;
                    if !text.is_empty() {
                        self.ready.push_back(Delta::Content(text));
                    }
                    self.ready.extend([Delta::Finish(reason), Delta::Usage(usage)]);
                }
                Poll::Ready(Some(Piece::Failed(message))) => {
                    return Poll::Ready(Some(Err(self.broken(message))));
                }
                Poll::Ready(Some(Piece::Displaced)) => {
                    self.is_over = true;
                    return Poll::Ready(Some(Err(ModelError::Busy)));
                }
                Poll::Ready(None) => {
                    let error = self.broken("the on-device engine stopped".to_owned());
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }
}
