//! HTTP/2, frame by frame: what a well-behaved client would not do, and what it could not see.

use super::*;
use tokio::io::AsyncWrite;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Begins to speak it.
pub(super) async fn hello(stream: &mut (impl AsyncWrite + Unpin)) {
    let hello = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &[])].concat();
    stream.write_all(&hello).await.unwrap();
}

/// A head of `GET http://x/…`, by the static table of RFC 7541.
fn head(path: &str) -> Vec<u8> {
    let length = u8::try_from(path.len()).unwrap();
    [&[0x82, 0x86, 0x04, length], path.as_bytes(), &[0x01, 1, b'x']].concat()
}

/// Sends a request that has no body.
pub(super) async fn ask(stream: &mut (impl AsyncWrite + Unpin), id: u32, path: &str) {
    stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, id, &head(path))).await.unwrap();
}

/// The next frame; `None` at the end of the connection. What has to be acknowledged is.
async fn next(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Option<Frame> {
    let mut head = [0; 9];
    timeout(SOON, stream.read_exact(&mut head)).await.expect("something comes").ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await.ok()?;
    let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
    let frame_read = Frame { kind: head[3], flags: head[4], stream: id, payload };
    if matches!(frame_read.kind, SETTINGS | PING) && frame_read.flags & ACK == 0 {
        let answer = if frame_read.kind == PING { frame_read.payload.clone() } else { Vec::new() };
        let _ = stream.write_all(&frame(frame_read.kind, ACK, 0, &answer)).await;
    }
    Some(frame_read)
}

/// The next frame of a kind.
async fn next_of(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), kind: u8) -> Frame {
    loop {
        let frame = next(stream).await.expect("the connection goes on");
        if frame.kind == kind {
            return frame;
        }
    }
}

/// The whole body of an answer.
pub(super) async fn body(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), id: u32) -> String {
    let mut text = Vec::new();
    loop {
        let frame = next_of(stream, DATA).await;
        assert_eq!(frame.stream, id);
        text.extend(&frame.payload);
        if frame.flags & END_STREAM > 0 {
            return String::from_utf8(text).unwrap();
        }
    }
}

/// A connection whose settings both sides know.
async fn connect(host: &Host) -> TcpStream {
    let mut stream = TcpStream::connect(host.address).await.unwrap();
    hello(&mut stream).await;
    next_of(&mut stream, SETTINGS).await;
    stream
}

/// Reads to the end, and returns the reason of each GOAWAY.
async fn goodbyes(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Vec<u32> {
    let mut reasons = Vec::new();
    while let Some(frame) = next(stream).await {
        if frame.kind == GOAWAY {
            reasons.push(u32::from_be_bytes(frame.payload[4..8].try_into().unwrap()));
        }
    }
    reasons
}

#[tokio::test]
async fn it_is_spoken_to_whoever_begins_with_it() {
    let host = start(|_| {});
    let mut stream = connect(&host).await;
    ask(&mut stream, 1, "/who").await;
    assert_eq!(body(&mut stream, 1).await, "127.0.0.1");
    let mut unix = UnixStream::connect(&host.path).await.unwrap();
    hello(&mut unix).await;
    ask(&mut unix, 1, "/who").await;
    assert_eq!(body(&mut unix, 1).await, "unix");
}

#[tokio::test]
async fn the_limits_are_told() {
    let host = start(|_| {});
    let mut stream = TcpStream::connect(host.address).await.unwrap();
    hello(&mut stream).await;
    let settings = next_of(&mut stream, SETTINGS).await.payload;
    let settings: Vec<_> =
        settings.chunks(6).map(|pair| (pair[1], u32::from_be_bytes(pair[2..6].try_into().unwrap()))).collect();
    for expected in [(3, STREAMS), (4, BUFFER_BYTES), (6, HEAD_BYTES)] {
        assert!(settings.contains(&expected), "{settings:?}");
    }
}

#[tokio::test]
async fn a_head_that_does_not_come_costs_the_connection() {
    let host = start(|_| {});
    let mut stream = connect(&host).await;
    stream.write_all(&frame(HEADERS, END_STREAM, 1, &head("/who"))).await.unwrap();
    let began = Instant::now();
    goodbyes(&mut stream).await;
    assert!(began.elapsed() >= Duration::from_millis(150));
}

#[tokio::test]
async fn a_connection_that_stays_idle_is_closed_whatever_it_pings() {
    let host = start(|c| c.idle_timeout = Duration::from_millis(800));
    let mut stream = connect(&host).await;
    ask(&mut stream, 1, "/who").await;
    assert_eq!(body(&mut stream, 1).await, "127.0.0.1");
    let began = Instant::now();
    // For longer than a head may take: it is none.
    for _ in 0..4 {
        stream.write_all(&frame(PING, 0, 0, &[7; 8])).await.unwrap();
        next_of(&mut stream, PING).await;
        sleep(Duration::from_millis(100)).await;
    }
    ask(&mut stream, 3, "/who").await;
    assert_eq!(body(&mut stream, 3).await, "127.0.0.1");
    assert!(goodbyes(&mut stream).await.iter().all(|reason| *reason == 0));
    assert!(began.elapsed() >= Duration::from_millis(1200));
}

#[tokio::test]
async fn draining_says_goodbye_and_lets_streams_finish() {
    let host = start(|_| {});
    let (mut busy, mut idle) = (connect(&host).await, connect(&host).await);
    ask(&mut busy, 1, "/slow").await;
    ask(&mut idle, 1, "/who").await;
    assert_eq!(body(&mut idle, 1).await, "127.0.0.1");
    sleep(Duration::from_millis(100)).await;
    host.draining.cancel();
    assert!(!goodbyes(&mut idle).await.is_empty());
    assert_eq!(next_of(&mut busy, GOAWAY).await.payload[4..8], [0; 4]);
    host.release.notify_one();
    assert_eq!(body(&mut busy, 1).await, "slow");
    while next(&mut busy).await.is_some() {}
    timeout(SOON, host.background.wait()).await.unwrap();
}

#[tokio::test]
async fn a_stream_that_nobody_reads_is_reset_and_the_others_go_on() {
    let host = start(|c| c.send_timeout = Duration::from_millis(300));
    let mut stream = connect(&host).await;
    // Room for many streams on the connection, and on each for what it begins with.
    stream.write_all(&frame(WINDOW_UPDATE, 0, 0, &(1u32 << 20).to_be_bytes())).await.unwrap();
    ask(&mut stream, 1, "/endless").await;
    let began = Instant::now();
    let reset = next_of(&mut stream, RESET).await;
    assert_eq!(reset.stream, 1);
    assert!(began.elapsed() >= Duration::from_millis(250));
    ask(&mut stream, 3, "/who").await;
    assert_eq!(body(&mut stream, 3).await, "127.0.0.1");
}

#[tokio::test]
async fn a_client_that_takes_nothing_at_all_loses_its_place() {
    let host = start(|c| {
        c.limit = 1;
        c.send_timeout = Duration::from_millis(300);
        c.idle_timeout = Duration::from_millis(400);
        c.header_read_timeout = Duration::from_secs(60);
    });
    let mut deaf = connect(&host).await;
    for id in [1, 3, 5] {
        ask(&mut deaf, id, "/large").await;
    }
    let answer = rest(send(host.address, &request("/who", "")).await).await;
    assert!(answer.ends_with("127.0.0.1"), "{answer}");
}

#[tokio::test]
async fn a_client_that_resets_what_it_asks_is_sent_away() {
    let host = start(|_| {});
    let mut stream = connect(&host).await;
    let mut flood = Vec::new();
    for id in (1..2000).step_by(2) {
        flood.extend(frame(HEADERS, END_HEADERS | END_STREAM, id, &head("/slow")));
        flood.extend(frame(RESET, 0, id, &8u32.to_be_bytes()));
    }
    // It may be refused before it is out.
    let _ = stream.write_all(&flood).await;
    let enhance_your_calm = 11;
    assert_eq!(goodbyes(&mut stream).await, [enhance_your_calm]);
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused() {
    let host = start(|_| {});
    let mut stream = connect(&host).await;
    // Fields of 16128 and of 500 bytes, each in a frame of its own.
    let long = [&[0x00, 1, b'x', 0x7f, 0x81, 0x7d][..], &[b'y'; 16_128]].concat();
    let more = [&[0x00, 1, b'x', 0x7f, 0xf5, 0x02][..], &[b'y'; 500]].concat();
    let block = [
        frame(HEADERS, END_STREAM, 1, &head("/who")),
        frame(CONTINUATION, 0, 1, &long),
        frame(CONTINUATION, 0, 1, &long),
        frame(CONTINUATION, END_HEADERS, 1, &more),
    ];
    stream.write_all(&block.concat()).await.unwrap();
    let answer = next_of(&mut stream, HEADERS).await;
    // `:status` is in the table, but not with this value; its digits are `431`, as such or in Huffman's code.
    let digits = [&b"431"[..], &[0x69, 0x90, 0xff]];
    assert!(!answer.payload.contains(&0x88) && answer.flags & END_STREAM > 0, "{:x?}", answer.payload);
    assert!(
        digits.iter().any(|text| answer.payload.windows(text.len()).any(|part| part == *text)),
        "{:x?}",
        answer.payload
    );
    ask(&mut stream, 3, "/who").await;
    assert_eq!(body(&mut stream, 3).await, "127.0.0.1");
}
