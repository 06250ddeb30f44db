//! A model that answers at once: an OpenAI-compatible endpoint that costs as little as it can, so that what stands before it is
//! measured and not itself.

#![expect(clippy::disallowed_methods, reason = "nothing waits for the end of this program")]

use std::convert::Infallible;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use futures_util::stream;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// A mock model for measurements.
#[derive(Debug, Clone, Parser)]
struct Options {
    /// Where to listen; port 0 picks a free one, and the first line of the output tells it.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Pieces of an answer.
    #[arg(long, default_value_t = 8)]
    pieces: usize,
    /// The pause before each piece, in milliseconds. Without one an answer is sent whole.
    #[arg(long, default_value_t = 0)]
    gap_ms: u64,
}

/// The answers, made once.
struct Answers {
    whole: Bytes,
    events: Bytes,
    pieces: Vec<Bytes>,
    gap: Duration,
}

const WORD: &str = "word ";

fn chunk(delta: &str, finish: &str) -> String {
    format!(
        "data: {{\"id\":\"chatcmpl-0\",\"object\":\"chat.completion.chunk\",\"created\":0,\"model\":\"mock\",\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":{finish}}}]}}\n\n"
    )
}

impl Answers {
    fn new(options: &Options) -> Self {
        let count = options.pieces;
        let usage = format!(
            "{{\"prompt_tokens\":12,\"completion_tokens\":{count},\"total_tokens\":{}}}",
            count.saturating_add(12)
        );
        let whole = format!(
            "{{\"id\":\"chatcmpl-0\",\"object\":\"chat.completion\",\"created\":0,\"model\":\"mock\",\"choices\":[{{\"index\":0,\"message\":{{\"role\":\"assistant\",\"content\":\"{}\"}},\"finish_reason\":\"stop\"}}],\"usage\":{usage}}}",
            WORD.repeat(count)
        );
        let mut pieces: Vec<String> = vec![chunk("{\"role\":\"assistant\",\"content\":\"\"}", "null")];
        pieces.extend((0..count).map(|_| chunk(&format!("{{\"content\":\"{WORD}\"}}"), "null")));
        pieces.push(format!(
            "{}data: {{\"id\":\"chatcmpl-0\",\"object\":\"chat.completion.chunk\",\"created\":0,\"model\":\"mock\",\"choices\":[],\"usage\":{usage}}}\n\ndata: [DONE]\n\n",
            chunk("{}", "\"stop\"")
        ));
        Self {
            whole: whole.into(),
            events: pieces.concat().into(),
            pieces: pieces.into_iter().map(Bytes::from).collect(),
            gap: Duration::from_millis(options.gap_ms),
        }
    }

    fn to(&self, asked: &[u8]) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
        let streams = asked.windows(13).any(|window| window == b"\"stream\":true");
        let (kind, body) = match (streams, self.gap.is_zero()) {
            (false, _) => ("application/json", Full::new(self.whole.clone()).boxed_unsync()),
            (true, true) => ("text/event-stream", Full::new(self.events.clone()).boxed_unsync()),
            (true, false) => {
                let (gap, pieces) = (self.gap, self.pieces.clone());
                let frames = stream::unfold(pieces.into_iter(), move |mut left| async move {
                    let piece = left.next()?;
                    tokio::time::sleep(gap).await;
                    Some((Ok(Frame::data(piece)), left))
                });
                ("text/event-stream", StreamBody::new(frames).boxed_unsync())
            }
        };
        let mut response = Response::new(body);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    }
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let options = Options::parse();
    let listener = TcpListener::bind(options.listen).await?;
    writeln!(io::stdout(), "http://{}/v1", listener.local_addr()?)?;
    let answers: &'static Answers = Box::leak(Box::new(Answers::new(&options)));
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| async move {
                let asked = request.into_body().collect().await?.to_bytes();
                Ok::<_, hyper::Error>(answers.to(&asked))
            });
            // Who measures closes connections as it likes.
            drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        });
    }
}
