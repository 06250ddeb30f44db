//! The operator's tool of crispy-enigma: weights, keys, tenants.
//!
//! What it is not: a client. It talks to no server; it looks at files, and fetches weights.

mod cli;
mod commands;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command, KeysCommand, ModelsCommand, TenantsCommand};
use crate::commands::{CommandError, keys, models, tenants};

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
    }
}
