//! The native server of crispy-enigma: multi-tenant AI chat over HTTP, from one binary.
//!
//! What it is: configuration, wiring, a socket and a shutdown around `enigma-http` and the native adapters. What it is not: the
//! platform's behaviour, which is `enigma-core`'s and the same on every host.

mod adapters;
mod cli;
mod client_address;
mod config;
mod demo;
mod head_deadline;
mod key_sets;
mod leftover;
mod listen;
mod logging;
mod maintenance;
mod settings;
mod shutdown;
mod slow_body;
mod start;
mod storage;
mod tenants;
mod weights;
mod wiring;
mod write_deadline;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::cli::Cli;

/// How long blocking work, such as a model that is being loaded, may hold up the end of the process.
const LAST_BLOCKING_WORK: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Fails when there is one already, which is as good.
    drop(rustls::crypto::ring::default_provider().install_default());
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error, 1),
    };
    let ended = runtime.block_on(start::run(&cli));
    runtime.shutdown_timeout(LAST_BLOCKING_WORK);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, error.exit_code()),
    }
}

/// Says why, with every cause.
fn fail(error: &dyn Error, code: u8) -> ExitCode {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |cause| (*cause).source()) {
        text.push_str(": ");
        text.push_str(&cause.to_string());
    }
    // Where nobody reads that, the exit code still says it.
    drop(writeln!(io::stderr(), "{text}"));
    ExitCode::from(code)
}
