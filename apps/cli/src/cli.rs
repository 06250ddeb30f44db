//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use enigma_core::tenant::Scope;
use enigma_core::{KeyId, TenantId, Timestamp, ToolName};

/// The operator's tool of crispy-enigma.
#[derive(Debug, Parser)]
#[command(name = "enigma", version, max_term_width = 120)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Weights of on-device models
    Models {
        #[command(subcommand)]
        command: ModelsCommand,
    },
    /// API keys
    Keys {
        #[command(subcommand)]
        command: KeysCommand,
    },
    /// Tenants' files
    Tenants {
        #[command(subcommand)]
        command: TenantsCommand,
    },
    /// Show the runs of a tenant's tools, the newest first, from the server's database, which may be in use
    Audit(AuditArguments),
}

#[derive(Debug, Args)]
pub(crate) struct AuditArguments {
    /// The file that the server's `storage.database` names
    #[arg(long, value_name = "FILE")]
    pub(crate) database: PathBuf,
    /// The tenant
    #[arg(long)]
    pub(crate) tenant: TenantId,
    /// Only the runs of this tool
    #[arg(long)]
    pub(crate) tool: Option<ToolName>,
    /// Only runs of this time or later, such as 2030-01-31T00:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) since: Option<Timestamp>,
    /// Only runs before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) until: Option<Timestamp>,
    /// So many at most
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) limit: u32,
    /// Each record as one line of JSON, with everything that is known of it
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ModelsCommand {
    /// Fetch a model's weights, unless they are there; a download that was interrupted goes on where it ended
    Pull {
        /// Where to put them [default: `ENIGMA_MODELS_DIR`, or enigma/models in the user's cache]
        #[arg(long, value_name = "PATH")]
        directory: Option<PathBuf>,
        /// The model; `enigma models list` names all
        #[arg(default_value = "smollm2-135m-instruct")]
        model: String,
    },
    /// List the models that are known, and which of them are there
    List {
        /// Where to look [default: `ENIGMA_MODELS_DIR`, or enigma/models in the user's cache]
        #[arg(long, value_name = "PATH")]
        directory: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make a key, show it once, and show the entry for `apiKeys` in the tenant's file, which holds its hash alone
    New {
        /// What it may be used for, with commas between: chat, search, ingest, tools, speech, metrics, admin [default: all but
        /// admin]
        #[arg(long, value_name = "SCOPES", value_delimiter = ',', value_parser = scope)]
        scopes: Vec<Scope>,
        /// From when on it is refused, such as 2030-01-31T00:00:00Z [default: never]
        #[arg(long, value_name = "TIME", value_parser = expiry)]
        expires: Option<String>,
        /// Its name, for logs and records [default: the start of its hash]
        #[arg(long)]
        id: Option<KeyId>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TenantsCommand {
    /// Check all tenants of a directory as the server does at its start, except whether somebody serves their models
    Check {
        /// The directory that holds NAME/tenant.config.json
        #[arg(default_value = "tenants")]
        directory: PathBuf,
        /// Where they are to be served: production (or prod, prd) refuses open tenants
        #[arg(long, default_value = "development")]
        environment: String,
    },
}

fn scope(text: &str) -> Result<Scope, String> {
    let known = || Scope::ALL.map(Scope::as_str).join(", ");
    let found = Scope::ALL.into_iter().find(|scope| scope.as_str() == text.trim());
    found.ok_or_else(|| format!("the scopes are {}", known()))
}

fn time(text: &str) -> Result<Timestamp, &'static str> {
    Timestamp::parse_rfc3339(text).ok_or("must be a time such as 2030-01-31T00:00:00Z")
}

fn expiry(text: &str) -> Result<String, &'static str> {
    Timestamp::parse_rfc3339(text).map(|_| text.to_owned()).ok_or("must be a time such as 2030-01-31T00:00:00Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn commands_are_well_formed_and_wrong_values_refused() {
        Cli::command().debug_assert();
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        assert!(parse("enigma keys new --scopes chat,admin --expires 2030-01-31T00:00:00Z --id ci").is_ok());
        for wrong in [
            "enigma keys new --scopes chat,root",
            "enigma keys new --expires tomorrow",
            "enigma audit --database x --tenant A!",
            "enigma audit --database x --tenant acme --since yesterday",
            "enigma audit --database x --tenant acme --limit 0",
            "enigma models",
            "enigma tenants check a b",
        ] {
            assert_eq!(parse(wrong).unwrap_err().exit_code(), 2, "{wrong}");
        }
    }
}
