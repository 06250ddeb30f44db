//! Clients for measurements: requests at a steady rate, and streams that are held open.

#![expect(clippy::disallowed_methods, reason = "nothing waits for the end of this program")]

use std::error::Error;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::{Args, Parser, Subcommand};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::time::timeout;

type Failure = Box<dyn Error + Send + Sync>;

/// Asks an HTTP server for measurements.
#[derive(Debug, Parser)]
struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Sends requests at a steady rate, whatever becomes of those before, and prints percentiles of the latency. A request's
    /// time runs from when it should have been sent.
    Rate {
        #[command(flatten)]
        target: Target,
        /// Requests a second.
        #[arg(long, default_value_t = 1000)]
        rate: u32,
        /// How long, in seconds.
        #[arg(long, default_value_t = 10)]
        seconds: u32,
        /// Connections that share them.
        #[arg(long, default_value_t = 32)]
        connections: u32,
    },
    /// Opens streams, waits until each has shown its first bytes, prints how many have, and holds them until a line comes on
    /// standard input.
    Streams {
        #[command(flatten)]
        target: Target,
        /// How many.
        #[arg(long, default_value_t = 1000)]
        count: usize,
        /// How long the opening may take, in seconds.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
}

#[derive(Debug, Clone, Args)]
struct Target {
    /// The server.
    #[arg(long)]
    address: SocketAddr,
    /// The path.
    #[arg(long, default_value = "/v1/chat/completions")]
    path: String,
    /// The tenant's key.
    #[arg(long, default_value = "")]
    key: String,
    /// The body, JSON.
    #[arg(long)]
    body: String,
}

impl Target {
    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Failure> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    fn request(&self) -> Request<Full<Bytes>> {
        Request::post(&self.path)
            .header("host", self.address.to_string())
            .header("content-type", "application/json")
            .header("x-api-key", &self.key)
            .body(Full::new(Bytes::copy_from_slice(self.body.as_bytes())))
            .expect("the command line makes a request")
    }
}

fn main() -> Result<(), Failure> {
    match Options::parse().what {
        What::Rate { target, rate, seconds, connections } => measure(&target, rate, seconds, connections.min(rate)),
        What::Streams { target, count, seconds } => {
            let runtime = Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(hold(target, count, Duration::from_secs(seconds)))
        }
    }
}

/// Each connection has a thread that sleeps until its next request is due: a runtime's timers are a millisecond late, which is
/// more than most answers take.
fn measure(target: &Target, rate: u32, seconds: u32, connections: u32) -> Result<(), Failure> {
    let begin = Instant::now() + Duration::from_millis(200);
    let end = begin + Duration::from_secs(seconds.into());
    let step = Duration::from_secs(1) * connections / rate;
    let all = thread::scope(|scope| {
        let threads: Vec<_> = (0..connections)
            .map(|number| {
                let first = begin + Duration::from_secs(1) / rate * number;
                scope.spawn(move || pace(target, first, step, end))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no thread panics")).collect::<Result<Vec<_>, _>>()
    })?;
    let failed: usize = all.iter().map(|(_, failed)| failed).sum();
    let mut latencies: Vec<_> = all.into_iter().flat_map(|(latencies, _)| latencies).collect();
    latencies.sort_unstable();
    let percentile = |per_mille: usize| latencies[(latencies.len() - 1) * per_mille / 1000].as_micros();
    writeln!(
        io::stdout(),
        "requests {} failed {failed} p50_us {} p90_us {} p99_us {} max_us {}",
        latencies.len(),
        percentile(500),
        percentile(900),
        percentile(990),
        percentile(1000),
    )?;
    Ok(())
}

/// One connection's requests, one each `step`: how long each took since it was due, and how many failed.
fn pace(target: &Target, first: Instant, step: Duration, end: Instant) -> Result<(Vec<Duration>, usize), Failure> {
    let runtime = Builder::new_current_thread().enable_io().build()?;
    let mut sender = runtime.block_on(target.connect())?;
    let (mut latencies, mut failed) = (Vec::new(), 0);
    let mut at = first;
    while at < end {
        thread::sleep(at.saturating_duration_since(Instant::now()));
        let status = runtime.block_on(async {
            sender.ready().await?;
            let response = sender.send_request(target.request()).await?;
            let status = response.status();
            response.into_body().collect().await?;
            Ok::<_, Failure>(status)
        })?;
        latencies.push(at.elapsed());
        failed += usize::from(!status.is_success());
        at += step;
    }
    Ok((latencies, failed))
}

async fn hold(target: Target, count: usize, patience: Duration) -> Result<(), Failure> {
    let begun = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..count)
        .map(|_| {
            let (target, begun) = (target.clone(), Arc::clone(&begun));
            tokio::spawn(async move {
                let mut sender = target.connect().await?;
                let response = sender.send_request(target.request()).await?;
                if !response.status().is_success() {
                    return Err(format!("status {}", response.status()).into());
                }
                let mut body = response.into_body();
                body.frame().await.ok_or("no bytes came")??;
                begun.fetch_add(1, Ordering::Relaxed);
                while let Some(frame) = body.frame().await {
                    frame?;
                }
                Ok::<_, Failure>(())
            })
        })
        .collect();
    let all = async {
        while begun.load(Ordering::Relaxed) < count && tasks.iter().any(|task| !task.is_finished()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let in_time = timeout(patience, all).await.is_ok();
    writeln!(
        io::stdout(),
        "streams {} of {count}{}",
        begun.load(Ordering::Relaxed),
        if in_time { "" } else { " (too slow)" }
    )?;
    io::stdout().flush()?;
    tokio::task::spawn_blocking(|| io::stdin().read_line(&mut String::new())).await??;
    for task in tasks {
        if task.is_finished()
            && let Err(error) = task.await?
        {
            writeln!(io::stderr(), "{error}")?;
            break;
        }
    }
    std::process::exit(0)
}
