//! From the body of a response to an answer.

use std::collections::VecDeque;
use std::error::Error as StdError;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use enigma_core::model::{Delta, ModelError, Phase, ProviderStream, parse_whole_answer};
use futures_core::Stream;
use futures_util::StreamExt;

use crate::secret::Scrubber;
use crate::transport::{ByteStream, TransportError};

/// The most that is read of a failure. Its message is at the start.
const FAILURE_LIMIT: usize = 64 * 1024;
/// The longest answer in one piece.
const WHOLE_LIMIT: usize = 8 * 1024 * 1024;

/// An answer as it comes. It holds what one piece of the body says, never more.
pub(crate) struct AnswerStream {
    /// Gone when the answer has ended, and with it the exchange.
    body: Option<ByteStream>,
    parser: ProviderStream,
    parsed: Vec<Delta>,
    ready: VecDeque<Delta>,
    /// Comes after what is ready.
    failure: Option<ModelError>,
    is_finished: bool,
    scrubber: Scrubber,
}

impl AnswerStream {
    pub(crate) fn new(body: ByteStream, scrubber: Scrubber) -> Self {
        Self {
            body: Some(body),
            parser: ProviderStream::new(),
            parsed: Vec::new(),
            ready: VecDeque::new(),
            failure: None,
            is_finished: false,
            scrubber,
        }
    }

    /// Ends the exchange, in failure unless the answer was already whole: what goes wrong later takes nothing back.
    fn fail(&mut self, error: ModelError) {
        self.body = None;
        if self.is_finished {
            tracing::debug!(%error, "a provider failed after its answer");
        } else {
            self.failure = Some(self.scrubber.error(error));
        }
    }

    fn take(&mut self, item: Option<Result<bytes::Bytes, TransportError>>) {
        let outcome = match item {
            Some(Ok(bytes)) => self.parser.push(&bytes, &mut self.parsed),
            Some(Err(error)) => Err(broken_off(&error)),
            None => {
                self.body = None;
                self.parser.end(&mut self.parsed)
            }
        };
        self.is_finished |= self.parsed.iter().any(|delta| matches!(delta, Delta::Finish(_)));
        self.ready.extend(self.parsed.drain(..));
        if let Err(error) = outcome {
            self.fail(error);
        }
    }
}

impl Stream for AnswerStream {
    type Item = Result<Delta, ModelError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(delta) = this.ready.pop_front() {
                return Poll::Ready(Some(Ok(delta)));
            }
            if let Some(failure) = this.failure.take() {
                return Poll::Ready(Some(Err(failure)));
            }
            let Some(body) = &mut this.body else { return Poll::Ready(None) };
            let item = ready!(body.poll_next_unpin(cx));
            this.take(item);
        }
    }
}

/// Reads an answer in one piece.
pub(crate) async fn read_whole(mut body: ByteStream) -> Result<Vec<Delta>, ModelError> {
    let mut whole = Vec::new();
    while let Some(bytes) = body.next().await {
        let bytes = bytes.map_err(|error| broken_off(&error))?;
        if whole.len() + bytes.len() > WHOLE_LIMIT {
            return Err(ModelError::Malformed { message: format!("the answer is longer than {WHOLE_LIMIT} bytes") });
        }
        whole.extend_from_slice(&bytes);
    }
    parse_whole_answer(&whole)
}

/// Reads the start of a failure. When that breaks off too, the status has to do.
pub(crate) async fn read_failure(mut body: ByteStream) -> Vec<u8> {
    let mut start = Vec::new();
    while let Some(Ok(bytes)) = body.next().await {
        let room = FAILURE_LIMIT - start.len();
        start.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if start.len() == FAILURE_LIMIT {
            break;
        }
    }
    start
}

fn broken_off(error: &TransportError) -> ModelError {
    if matches!(error, TransportError::Timeout(_)) {
        return ModelError::Timeout(Phase::Idle);
    }
    // The error at the bottom says what happened; those above it say where.
    let mut cause: &dyn StdError = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    ModelError::Interrupted { message: format!("{error}: {cause}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use futures_util::{FutureExt, stream};

    fn body(pieces: &[&'static str]) -> ByteStream {
        stream::iter(pieces.iter().map(|piece| Ok(Bytes::from_static(piece.as_bytes()))).collect::<Vec<_>>()).boxed()
    }

    fn endless() -> ByteStream {
        stream::repeat_with(|| Ok(Bytes::from_static(&[b' '; 1000]))).boxed()
    }

    #[test]
    fn an_endless_body_is_read_to_its_bound() {
        let error = read_whole(endless()).now_or_never().unwrap().unwrap_err();
        assert!(matches!(error, ModelError::Malformed { .. }), "{error}");
        assert_eq!(read_failure(endless()).now_or_never().unwrap().len(), FAILURE_LIMIT);
    }

    #[test]
    fn pieces_before_a_failure_are_not_lost_and_nothing_comes_after_it() {
        let pieces = ["data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\ndata: {oops}\n\n", "data: [DONE]\n\n"];
        let answer = AnswerStream::new(body(&pieces), Scrubber::new(std::iter::empty()));
        let items: Vec<_> = answer.collect().now_or_never().unwrap();
        assert!(
            matches!(&items[..], [Ok(Delta::Content(text)), Err(ModelError::Malformed { .. })] if text == "a"),
            "{items:?}"
        );
    }

    #[test]
    fn a_connection_that_breaks_after_the_finish_takes_nothing_back() {
        let finish = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}]}\n\n";
        let broken = stream::iter([Err(TransportError::broken("reset"))]);
        let answer = AnswerStream::new(body(&[finish]).chain(broken).boxed(), Scrubber::new(std::iter::empty()));
        let items: Vec<_> = answer.collect().now_or_never().unwrap();
        assert!(matches!(&items[..], [Ok(Delta::Content(_)), Ok(Delta::Finish(_))]), "{items:?}");
    }
}
