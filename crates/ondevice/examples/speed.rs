//! Measures a weight file: tokens per second for one chat and for four, and while reading a prompt.
//!
//! ```sh
//! cargo run --release -p enigma-ondevice --example speed -- path/to/SmolLM2-135M-Instruct.Q4_1.gguf
//! ```
#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "a program that measures time and prints it")]

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use enigma_core::TenantId;
use enigma_core::model::{
    CallMetadata, ChatMessage, ChatModel, Delta, ModelCall, ResponseFormat, Role, Sampling, ToolChoice, Usage,
};
use enigma_ondevice::{OnDeviceModel, OnDeviceOptions};
use futures_util::StreamExt;
use futures_util::future::try_join_all;

const ANSWER: u32 = 150;

/// How one answer went.
struct Run {
    /// Until the first piece of the answer.
    first: Duration,
    /// From there to the end.
    rest: Duration,
    usage: Usage,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("which weight file?")?;
    let start = Instant::now();
    let model = OnDeviceModel::load(Path::new(&path), OnDeviceOptions::default())?;
    println!("load           {:6.2} s", start.elapsed().as_secs_f64());

    let question = "Write a long story about a lighthouse keeper.";
    ask(&model, question, 8).await?;
    for _ in 0..3 {
        let run = ask(&model, question, ANSWER).await?;
        let seconds = run.rest.as_secs_f64();
        println!("one chat       {:6.1} tokens/s", f64::from(run.usage.completion_tokens - 1) / seconds);
    }

    let start = Instant::now();
    let runs = try_join_all((0..4).map(|_| ask(&model, question, ANSWER))).await?;
    let tokens: u32 = runs.iter().map(|run| run.usage.completion_tokens).sum();
    println!("four chats     {:6.1} tokens/s together", f64::from(tokens) / start.elapsed().as_secs_f64());

    for words in [30, 490, 1900] {
        let run = ask(&model, &format!("{} Tell me a story about it.", "lighthouse ".repeat(words)), 60).await?;
        let prompt = f64::from(run.usage.prompt_tokens);
        println!("prompt of {:4} {:6.1} tokens/s", prompt, prompt / run.first.as_secs_f64());
        let seconds = run.rest.as_secs_f64();
        println!("  and then     {:6.1} tokens/s", f64::from(run.usage.completion_tokens - 1) / seconds);
    }
    Ok(())
}

async fn ask(model: &OnDeviceModel, question: &str, max_tokens: u32) -> Result<Run, Box<dyn Error>> {
    let tenant = TenantId::new("speed")?;
    let call = ModelCall {
        model: "smollm2".parse()?,
        messages: vec![ChatMessage::text(Role::User, question)],
        max_tokens,
        sampling: Sampling { temperature: Some(0.8), seed: Some(1), ..Sampling::default() },
        tools: Vec::new(),
        tool_choice: ToolChoice::Auto,
        response_format: ResponseFormat::Text,
        metadata: CallMetadata {
            tenant: tenant.clone(),
            trace: "speed".parse()?,
            traceparent: None,
            session: None,
            route: "/speed",
            gateway: None,
        },
    };
    let start = Instant::now();
    let mut answer = model.stream(&tenant, &call).await?;
    let mut first = None;
    let mut usage = Usage::default();
    while let Some(delta) = answer.next().await {
        match delta? {
            Delta::Content(_) => first = first.or_else(|| Some((start.elapsed(), Instant::now()))),
            Delta::Usage(counted) => usage = counted,
            _ => {}
        }
    }
    let (first, begun) = first.ok_or("no answer")?;
    Ok(Run { first, rest: begun.elapsed(), usage })
}
