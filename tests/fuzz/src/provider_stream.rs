//! What providers send.

use enigma_core::model::{
    Delta, Embeddings, ProviderStream, SseDecoder, check_vectors, parse_embeddings, parse_whole_answer,
};

/// The longest event; short, so that a fuzzer reaches it.
const EVENT_LIMIT: usize = 64;

/// Reads a stream in one piece, byte by byte, and cut in between. The first byte of `input` says where it is cut.
pub fn provider_stream(input: &[u8]) {
    let (&seed, stream) = input.split_first().unwrap_or((&0, &[]));
    let whole = [stream];
    let bytes: Vec<&[u8]> = stream.chunks(1).collect();
    let cut = cut(stream, seed);

    let expected = read(&whole);
    assert_eq!(read(&bytes), expected, "byte by byte it is another answer");
    assert_eq!(read(&cut), expected, "cut it is another answer");
    check(&expected);

    let expected = events(&whole);
    assert_eq!(events(&bytes), expected, "byte by byte they are other events");
    assert_eq!(events(&cut), expected, "cut they are other events");
    assert!(expected.0.iter().all(|data| data.len() <= EVENT_LIMIT * 2), "an event is too long");

    if let Ok(deltas) = parse_whole_answer(stream) {
        check(&(deltas, None));
    }
    if let Ok(Embeddings { mut vectors, .. }) = parse_embeddings(stream) {
        let count = vectors.len();
        if check_vectors(&mut vectors, count).is_ok() {
            let length = |vector: &[f32]| vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
            assert!(vectors.iter().all(|vector| (length(vector) - 1.0).abs() < 1e-4), "a vector has not the length 1");
        }
    }
}

/// Pieces of one to 32 bytes.
fn cut(mut stream: &[u8], seed: u8) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    let mut random = u32::from(seed);
    while !stream.is_empty() {
        // The generator of Numerical Recipes; its upper bits are the good ones.
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (piece, rest) = stream.split_at(stream.len().min((random >> 27) as usize + 1));
        pieces.push(piece);
        stream = rest;
    }
    pieces
}

/// The deltas, and the error that ended them.
type Read = (Vec<Delta>, Option<String>);

fn read(pieces: &[&[u8]]) -> Read {
    let (mut parser, mut deltas) = (ProviderStream::new(), Vec::new());
    let pushed = pieces.iter().try_for_each(|piece| parser.push(piece, &mut deltas));
    let ended = pushed.and_then(|()| parser.end(&mut deltas));
    (deltas, ended.err().map(|error| format!("{error:?}")))
}

/// The data of the events, and whether one was too long.
fn events(pieces: &[&[u8]]) -> (Vec<Vec<u8>>, bool) {
    let (mut decoder, mut events) = (SseDecoder::new(EVENT_LIMIT), Vec::new());
    let pushed = pieces.iter().try_for_each(|piece| decoder.push(piece, |data| events.push(data.to_vec())));
    (events, pushed.is_err())
}

/// An answer ends once, and holds no empty pieces.
fn check((deltas, error): &Read) {
    let ends = deltas.iter().filter(|delta| matches!(delta, Delta::Finish(_))).count();
    assert!(ends <= 1 && (ends == 1 || error.is_some()), "{ends} ends, {error:?}: {deltas:?}");
    let is_empty = |delta: &&Delta| matches!(delta, Delta::Content(text) | Delta::Reasoning(text) if text.is_empty());
    assert!(deltas.iter().find(is_empty).is_none(), "{deltas:?}");
}
