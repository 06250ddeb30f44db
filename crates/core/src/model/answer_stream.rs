//! From the body of a provider's response to an answer, whatever brought the body here.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::{Stream, StreamExt};

use super::{Delta, Embeddings, ModelError, ProviderStream, parse_embeddings, parse_whole_answer};

/// The most that is read of a failure. Its message is at the start.
const FAILURE_LIMIT: usize = 64 * 1024;

/// The longest answer in one piece, in bytes.
pub const WHOLE_ANSWER_LIMIT: usize = 8 * 1024 * 1024;

/// An answer as it comes, from the bytes of an event stream. It holds what one piece of the body says, never more.
///
/// It keeps to the contract of [`ChatModel`](super::ChatModel): what was read before a failure is not lost, and after it nothing
/// comes. The body is dropped when the answer has ended or failed, and with it the exchange.
#[derive(Debug)]
pub struct AnswerStream<S> {
    /// Gone when the answer has ended.
    body: Option<S>,
    parser: ProviderStream,
    parsed: Vec<Delta>,
    ready: VecDeque<Delta>,
    /// Comes after what is ready.
    failure: Option<ModelError>,
    is_finished: bool,
}

impl<S> AnswerStream<S> {
    /// The answer that `body` holds, whose errors are the answer's own.
    pub const fn new(body: S) -> Self {
        Self {
            body: Some(body),
            parser: ProviderStream::new(),
            parsed: Vec::new(),
            ready: VecDeque::new(),
            failure: None,
            is_finished: false,
        }
    }

    /// Ends the exchange, in failure unless the answer was already whole: what goes wrong later takes nothing back.
    fn fail(&mut self, error: ModelError) {
        self.body = None;
        if self.is_finished {
            tracing::debug!(%error, "a provider failed after its answer");
        } else {
            self.failure = Some(error);
        }
    }

    fn take<B: AsRef<[u8]>>(&mut self, item: Option<Result<B, ModelError>>) {
        let outcome = match item {
            Some(Ok(bytes)) => self.parser.push(bytes.as_ref(), &mut self.parsed),
            Some(Err(error)) => Err(error),
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

impl<S, B> Stream for AnswerStream<S>
where
    S: Stream<Item = Result<B, ModelError>> + Unpin,
    B: AsRef<[u8]>,
{
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

/// Reads an answer in one piece, up to [`WHOLE_ANSWER_LIMIT`].
///
/// # Errors
/// The body's own, those of [`parse_whole_answer`], and [`ModelError::Malformed`] for an answer that is too long.
pub async fn read_whole_answer<S, B>(body: S) -> Result<Vec<Delta>, ModelError>
where
    S: Stream<Item = Result<B, ModelError>> + Unpin,
    B: AsRef<[u8]>,
{
    parse_whole_answer(&read_whole(body).await?)
}

/// Reads vectors, up to [`WHOLE_ANSWER_LIMIT`].
///
/// # Errors
/// The body's own, those of [`parse_embeddings`], and [`ModelError::Malformed`] for an answer that is too long.
pub async fn read_embeddings<S, B>(body: S) -> Result<Embeddings, ModelError>
where
    S: Stream<Item = Result<B, ModelError>> + Unpin,
    B: AsRef<[u8]>,
{
    parse_embeddings(&read_whole(body).await?)
}

/// Reads a body in one piece, up to [`WHOLE_ANSWER_LIMIT`].
///
/// # Errors
/// The body's own, and [`ModelError::Malformed`] for one that is too long.
pub async fn read_whole<S, B>(mut body: S) -> Result<Vec<u8>, ModelError>
where
    S: Stream<Item = Result<B, ModelError>> + Unpin,
    B: AsRef<[u8]>,
{
    let mut whole = Vec::new();
    while let Some(bytes) = body.next().await {
        let bytes = bytes?;
        let bytes = bytes.as_ref();
        if whole.len() + bytes.len() > WHOLE_ANSWER_LIMIT {
            let message = format!("the answer is longer than {WHOLE_ANSWER_LIMIT} bytes");
            return Err(ModelError::Malformed { message });
        }
        whole.extend_from_slice(bytes);
    }
    Ok(whole)
}

/// Reads the start of a failure. When that breaks off too, the status has to do.
pub async fn read_failure<S, B, E>(mut body: S) -> Vec<u8>
where
    S: Stream<Item = Result<B, E>> + Unpin,
    B: AsRef<[u8]>,
{
    let mut start = Vec::new();
    while let Some(Ok(bytes)) = body.next().await {
        let bytes = bytes.as_ref();
        let room = FAILURE_LIMIT - start.len();
        start.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if start.len() == FAILURE_LIMIT {
            break;
        }
    }
    start
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{FutureExt, stream};

    type Item = Result<&'static [u8], ModelError>;

    const FINISH: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}]}\n\n";

    fn body(pieces: &[&'static str]) -> impl Stream<Item = Item> + Unpin + use<> {
        stream::iter(pieces.iter().map(|piece| Ok(piece.as_bytes())).collect::<Vec<_>>())
    }

    fn endless() -> impl Stream<Item = Item> + Unpin {
        stream::repeat_with(|| Ok(&[b' '; 1000][..]))
    }

    fn broken() -> Item {
        Err(ModelError::Interrupted { message: "reset".to_owned() })
    }

    #[test]
    fn an_endless_body_is_read_to_its_bound() {
        let error = read_whole_answer(endless()).now_or_never().unwrap().unwrap_err();
        assert!(matches!(error, ModelError::Malformed { .. }), "{error}");
        let error = read_embeddings(endless()).now_or_never().unwrap().unwrap_err();
        assert!(matches!(error, ModelError::Malformed { .. }), "{error}");
        assert_eq!(read_failure(endless()).now_or_never().unwrap().len(), FAILURE_LIMIT);
    }

    #[test]
    fn a_failure_that_breaks_off_is_read_as_far_as_it_came() {
        let failure = body(&["{\"err"]).chain(stream::iter([broken()]));
        assert_eq!(read_failure(failure).now_or_never().unwrap(), b"{\"err");
    }

    #[test]
    fn pieces_before_a_failure_are_not_lost_and_nothing_comes_after_it() {
        let pieces = ["data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\ndata: {oops}\n\n", "data: [DONE]\n\n"];
        let items: Vec<_> = AnswerStream::new(body(&pieces)).collect().now_or_never().unwrap();
        assert!(
            matches!(&items[..], [Ok(Delta::Content(text)), Err(ModelError::Malformed { .. })] if text == "a"),
            "{items:?}"
        );
    }

    #[test]
    fn a_body_that_breaks_before_the_finish_fails_and_after_it_takes_nothing_back() {
        let cut = body(&["data: {\"response\":\"a\"}\n\n"]).chain(stream::iter([broken()]));
        let items: Vec<_> = AnswerStream::new(cut).collect().now_or_never().unwrap();
        assert!(matches!(&items[..], [Ok(Delta::Content(_)), Err(ModelError::Interrupted { .. })]), "{items:?}");

        let late = body(&[FINISH]).chain(stream::iter([broken()]));
        let items: Vec<_> = AnswerStream::new(late).collect().now_or_never().unwrap();
        assert!(matches!(&items[..], [Ok(Delta::Content(_)), Ok(Delta::Finish(_))]), "{items:?}");
    }

    #[test]
    fn the_body_is_let_go_with_the_last_piece_and_not_asked_again() {
        let mut asked = 0;
        let body = stream::poll_fn(|_| {
            asked += 1;
            Poll::Ready((asked == 1).then(|| Ok::<_, ModelError>(FINISH)))
        });
        let mut answer = AnswerStream::new(body);
        while answer.next().now_or_never().unwrap().is_some() {}
        assert!(answer.body.is_none());
        assert!(answer.next().now_or_never().unwrap().is_none());
        drop(answer);
        assert_eq!(asked, 2);
    }
}
