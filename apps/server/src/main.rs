//! The native server of crispy-enigma: multi-tenant AI chat over HTTP, from one binary.
//!
//! What it is: configuration, wiring, a socket and a shutdown around `enigma-http` and the native adapters. What it is not: the
//! platform's behaviour, which is `enigma-core`'s and the same on every host.

mod adapters;
mod address_limit;
mod cli;
mod client_address;
mod compression;
mod config;
mod demo;
mod descriptors;
mod head_deadline;
mod key_sets;
mod leftover;
mod listen;
mod logging;
mod maintenance;
mod preface;
mod reload;
mod service_manager;
mod settings;
mod shutdown;
mod slow_body;
mod sockets;
mod speech;
mod start;
mod storage;
mod stream;
mod stream_deadline;
mod tenants;
mod tls;
#[cfg(unix)]
mod unix_socket;
mod watch;
mod weights;
mod wiring;
mod workers;
mod write_deadline;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::cli::Cli;
use crate::sockets::Inherited;

/// How long blocking work, such as a model that is being loaded, may hold up the end of the process.
const LAST_BLOCKING_WORK: Duration = Duration::from_millis(500);

/// The system's allocator gives every thread's memory back to one heap; this one does not make them wait for each other.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // While there is no other thread.
    let inherited = Inherited::take();
    // Fails when there is one already, which is as good.
    drop(rustls::crypto::ring::default_provider().install_default());
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error, 1),
    };
    let ended = runtime.block_on(start::run(&cli, inherited));
    runtime.shutdown_timeout(LAST_BLOCKING_WORK);
    logging::flush();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, error.exit_code()),
    }
}

/// Says why, with every cause.
fn fail(error: &dyn Error, code: u8) -> ExitCode {
    // Where nobody reads that, the exit code still says it.
    drop(writeln!(io::stderr(), "{}", with_causes(error)));
    ExitCode::from(code)
}

/// An error and what it comes from, in one line.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |cause| (*cause).source()) {
        text.push_str(": ");
        text.push_str(&cause.to_string());
    }
    text
}
