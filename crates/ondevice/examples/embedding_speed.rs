//! How fast the embedder is on this machine.
//!
//! ```sh
//! cargo run --release -p enigma-ondevice --example embedding_speed -- PATH/TO/all-MiniLM-L6-v2
//! ```
#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "a program that measures time and prints it")]

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use enigma_core::model::{CallMetadata, Embedder, EmbeddingCall};
use enigma_ondevice::{OnDeviceEmbedder, OnDeviceEmbedderOptions};
use futures_util::future::try_join_all;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("which folder?")?;
    let start = Instant::now();
    let embedder = OnDeviceEmbedder::load(Path::new(&path), OnDeviceEmbedderOptions::default())?;
    println!("load                  {:6.2} s", start.elapsed().as_secs_f64());
    let words = ["harbour", "letters", "winter", "engine", "signal", "bread", "window", "paper"];
    let text =
        |n: usize, len: usize| (0..len).map(|at| words[(at * 7 + n * at / 3 + n) % 8]).collect::<Vec<_>>().join(" ");
    for (len, texts) in [(8, 1), (8, 64), (105, 1), (105, 16), (105, 64), (254, 64)] {
        for _ in 0..3 {
            let start = Instant::now();
            let calls = (0..texts).step_by(OnDeviceEmbedder::MAX_BATCH).map(|first| {
                let last = texts.min(first + OnDeviceEmbedder::MAX_BATCH);
                embed(&embedder, (first..last).map(|n| text(n, len)).collect())
            });
            let tokens: u32 = try_join_all(calls).await?.into_iter().sum();
            let seconds = start.elapsed().as_secs_f64();
            let (texts, tokens) = (f64::from(u32::try_from(texts)?), f64::from(tokens));
            let rates = format!("{:7.1} texts/s {:7.0} tokens/s", texts / seconds, tokens / seconds);
            println!("{texts:3} texts of {:3} tokens {rates} {:7.1} ms", tokens / texts, seconds * 1e3);
        }
    }
    Ok(())
}

async fn embed(embedder: &OnDeviceEmbedder, inputs: Vec<String>) -> Result<u32, Box<dyn Error>> {
    let metadata = CallMetadata {
        tenant: "speed".parse()?,
        trace: "speed".parse()?,
        traceparent: None,
        session: None,
        route: "/speed",
        gateway: None,
    };
    let call = EmbeddingCall { model: "minilm".parse()?, inputs, dimensions: None, metadata };
    Ok(embedder.embed(&call).await?.prompt_tokens.unwrap_or(0))
}
