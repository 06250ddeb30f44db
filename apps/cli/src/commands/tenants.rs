//! `enigma tenants`

use std::io::{self, Write};
use std::path::Path;

use enigma_core::tenant::AuthMode;
use enigma_operator::tenants::{self, Rules, TokenSupport};

use super::CommandError;

/// `enigma tenants check`
pub(crate) fn check(directory: &Path, environment: &str, out: &mut dyn Write) -> Result<(), CommandError> {
    let production = tenants::is_production(environment);
    let loaded = tenants::load(directory, Rules { production, serves: None, tokens: TokenSupport::UrlsAndFiles })?;
    for warning in &loaded.warnings {
        // Where nobody reads that, the list is still right.
        drop(writeln!(io::stderr(), "warning: {warning}"));
    }
    for tenant in loaded.tenants() {
        let access = match tenant.auth_mode() {
            AuthMode::Open => "open".to_owned(),
            AuthMode::Jwt => "jwt".to_owned(),
            AuthMode::ApiKey => format!("{} keys", tenant.keys().len()),
        };
        writeln!(out, "{}\t{access}\t{}", tenant.id(), tenant.chat_model())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(directory: &str, environment: &str) -> Result<String, CommandError> {
        let mut out = Vec::new();
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(directory);
        check(&directory, environment, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn the_example_tenants_are_fine() {
        assert_eq!(checked("tenants", "development").unwrap(), "example\t2 keys\tsmall\nlocal\topen\tsmall\n");
    }

    #[test]
    fn what_is_wrong_is_told_with_file_field_and_reason() {
        let error = checked("tenants", "prod").unwrap_err();
        assert!(error.to_string().contains("local/tenant.config.json: auth.mode: open is refused"), "{error}");
        assert_eq!(error.exit_code(), 2);
    }
}
