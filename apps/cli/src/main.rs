//! The operator's tool of crispy-enigma: weights, keys, tenants, audit records.
//!
//! What it is not: a client. It talks to no server; it looks at files, and fetches weights.

mod cli;
mod commands;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Parser;
use enigma_core::Timestamp;

use crate::cli::{Cli, Command, KeysCommand, ModelsCommand, TenantsCommand};
use crate::commands::{CommandError, audit, keys, models, tenants};

fn main() -> ExitCode {
    let result = run(Cli::parse().command, &mut io::stdout().lock());
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where nobody reads that, the exit code still says it.
            drop(writeln!(io::stderr(), "{}", commands::chain(&error)));
            ExitCode::from(error.exit_code())
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this program has no ports; it is its own clock")]
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn run(command: Command, out: &mut dyn Write) -> Result<(), CommandError> {
    match command {
        Command::Models { command: ModelsCommand::Pull { directory, model } } => models::pull(directory, &model, out),
        Command::Models { command: ModelsCommand::List { directory } } => models::list(directory, out),
        Command::Keys { command: KeysCommand::New { scopes, expires, id } } => {
            keys::new(id.as_ref(), &scopes, expires.as_deref(), out)
        }
        Command::Tenants { command: TenantsCommand::Check { directory, environment } } => {
            tenants::check(&directory, &environment, out)
        }
        Command::Audit(arguments) => audit::show(&arguments, now(), out),
    }
}
