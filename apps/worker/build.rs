//! Puts the tenants into the Worker: all of `ENIGMA_TENANTS_DIRECTORY`, judged as the native server judges them at its start.
//! A tenant that cannot be accepted fails the build.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

use enigma_operator::tenants::{self, Rules, TokenSupport};

/// Where the tenants are, where nobody says.
const DEFAULT_DIRECTORY: &str = "../../tenants";

fn main() -> Result<(), Box<dyn Error>> {
    // Cargo looks at every file below it.
    let directory = variable("ENIGMA_TENANTS_DIRECTORY").unwrap_or_else(|| DEFAULT_DIRECTORY.to_owned());
    let directory = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join(directory);
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", directory.display());

    let production = environment().is_some_and(|name| tenants::is_production(&name));
    // Which models are served is a matter of the variables that the Worker will run with.
    match tenants::bundle(&directory, Rules { production, serves: None, tokens: TokenSupport::None }) {
        Ok(bundle) => {
            for warning in bundle.warnings {
                println!("cargo::warning={warning}");
            }
            fs::write(PathBuf::from(env::var("OUT_DIR")?).join("tenants.json"), bundle.document)?;
        }
        Err(problems) => {
            for problem in &problems.0 {
                println!("cargo::error={problem}");
            }
        }
    }
    Ok(())
}

/// What the Worker is built for. Nobody need say: it judges its tenants again when it runs.
fn environment() -> Option<String> {
    let names = ["ENIGMA_ENVIRONMENT", "ENVIRONMENT"].map(variable);
    names.into_iter().flatten().next()
}

/// A variable, a change of which builds again. An empty one counts as not there.
fn variable(name: &str) -> Option<String> {
    println!("cargo::rerun-if-env-changed={name}");
    env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}
