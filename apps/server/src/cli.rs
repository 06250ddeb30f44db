//! The command line.

use std::path::PathBuf;

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, Parser};

use crate::settings::{SETTINGS, Setting};

/// Serves multi-tenant AI chat over HTTP.
///
/// Every setting can be given in a file, by an environment variable and by a flag; a flag wins over a variable, a variable over
/// the file, and the file over the default. docs/guides/configuration.md has all of them in one table.
#[derive(Debug, Parser)]
#[command(name = "enigma-server", version, max_term_width = 120)]
pub(crate) struct Cli {
    /// The configuration file, in TOML [env: `ENIGMA_CONFIG`]
    #[arg(long, value_name = "PATH")]
    pub(crate) config: Option<PathBuf>,

    /// Serve a demo tenant with the on-device model, without any configuration, and print a line that asks it something.
    /// Everything is kept in .enigma/demo; the weights (98 MB) are fetched at the first start
    #[arg(long, conflicts_with = "config")]
    pub(crate) demo: bool,

    #[command(flatten)]
    pub(crate) flags: Flags,
}

/// The settings that were given as flags.
#[derive(Debug, Default)]
pub(crate) struct Flags(pub(crate) Vec<(&'static Setting, String)>);

impl Flags {
    /// Whether the setting of `key` was given.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(setting, _)| setting.key == key)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |setting: &'static Setting| Some((setting, matches.get_one::<String>(setting.flag)?.clone()));
        Ok(Self(SETTINGS.iter().filter_map(given).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        command.args(SETTINGS.iter().map(flag))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn flag(setting: &'static Setting) -> Arg {
    let default = setting.default.filter(|text| !matches!(*text, "" | "[]"));
    let default = default.map(|text| format!(" [default: {text}]")).unwrap_or_default();
    Arg::new(setting.flag)
        .long(setting.flag)
        .value_name(setting.kind.value_name())
        .allow_hyphen_values(true)
        .help(format!("{} [file: {}] [env: {}]{default}", setting.meaning, setting.key, setting.env))
        .help_heading(match setting.section() {
            "server" => "Server",
            "tls" => "TLS",
            "tenants" => "Tenants",
            "storage" => "Storage",
            "chat" => "Chat",
            "models" => "Models",
            "ondevice" => "On-device models",
            "log" => "Log",
            _ => "General",
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_help_explains_every_setting() {
        Cli::command().debug_assert();
        let help = Cli::command().term_width(10_000).render_long_help().to_string();
        for setting in SETTINGS {
            let default = setting.default.filter(|text| *text != "[]").unwrap_or("");
            for part in [&format!("--{} ", setting.flag), setting.env, setting.meaning, default] {
                assert!(help.contains(part), "{part} is not explained in {help}");
            }
        }
    }

    #[test]
    fn flags_are_read_and_unknown_ones_refused() {
        let cli = Cli::try_parse_from(["x", "--server-listen", "0.0.0.0:1", "--chat-max-tokens=-1"]).unwrap();
        let flags: Vec<_> = cli.flags.0.iter().map(|(setting, value)| (setting.key, value.as_str())).collect();
        assert_eq!(flags, [("server.listen", "0.0.0.0:1"), ("chat.max_tokens", "-1")]);
        assert_eq!(Cli::try_parse_from(["x", "--colour", "red"]).unwrap_err().exit_code(), 2);
        assert!(Cli::try_parse_from(["x", "--demo", "--config", "x.toml"]).is_err());
    }
}
