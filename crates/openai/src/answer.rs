//! From the body of a response to an answer: the core's reading, with this crate's errors.

use std::error::Error as StdError;

use bytes::Bytes;
use enigma_core::model::{
    AnswerStream, AudioStream, Delta, DeltaStream, Embeddings, ModelError, Phase, read_embeddings, read_whole_answer,
};
use futures_core::Stream;
use futures_util::StreamExt;

use crate::secret::Scrubber;
use crate::transport::{ByteStream, TransportError};

/// An answer as it comes.
pub(crate) fn read_events(body: ByteStream, scrubber: Scrubber) -> DeltaStream {
    AnswerStream::new(with_model_errors(body)).map(move |item| item.map_err(|error| scrubber.error(error))).boxed()
}

/// Reads an answer in one piece.
pub(crate) async fn read_whole(body: ByteStream) -> Result<Vec<Delta>, ModelError> {
    read_whole_answer(with_model_errors(body)).await
}

/// Reads vectors.
pub(crate) async fn read_vectors(body: ByteStream) -> Result<Embeddings, ModelError> {
    read_embeddings(with_model_errors(body)).await
}

/// Audio as it comes.
pub(crate) fn read_audio(body: ByteStream) -> AudioStream {
    with_model_errors(body).boxed()
}

fn with_model_errors(body: ByteStream) -> impl Stream<Item = Result<Bytes, ModelError>> + Send + Unpin + 'static {
    body.map(|item| item.map_err(|error| broken_off(&error)))
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
    use crate::secret::Secret;
    use futures_util::{FutureExt, stream};

    #[test]
    fn a_connection_that_breaks_fails_the_answer_by_its_cause() {
        for (error, text) in [
            (TransportError::timeout("silence"), "no answer in time (Idle)"),
            (TransportError::broken("reset"), "answer broke off: the connection broke: reset"),
        ] {
            let body = stream::iter([Ok(Bytes::from_static(b"data: {\"response\":\"a\"}\n\n")), Err(error)]);
            let items: Vec<_> =
                read_events(body.boxed(), Scrubber::new(std::iter::empty())).collect().now_or_never().unwrap();
            let [Ok(Delta::Content(_)), Err(error)] = &items[..] else { panic!("{items:?}") };
            assert_eq!(error.to_string(), text);
        }
    }

    #[test]
    fn secrets_are_taken_out_of_what_a_stream_says_when_it_fails() {
        let event = b"data: {\"error\":{\"message\":\"no\",\"code\":\"sk-12345678\"}}\n\n";
        let body = stream::iter([Ok(Bytes::from_static(event))]);
        let scrubber = Scrubber::new(std::iter::once(Secret::new("sk-12345678")));
        let items: Vec<_> = read_events(body.boxed(), scrubber).collect().now_or_never().unwrap();
        assert!(matches!(&items[..], [Err(error)] if error.to_string().contains("[redacted]")), "{items:?}");
    }
}
