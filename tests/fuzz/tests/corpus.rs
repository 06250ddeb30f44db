//! The corpora of the fuzz targets, without a fuzzer.

#![expect(clippy::unwrap_used, reason = "all of this is test code: a panic is how it reports")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use enigma_test_fuzz::TARGETS;

/// A corpus is for every clone of the repository, so it has to stay small.
const MOST_BYTES: usize = 64 * 1024;

fn below(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz").join(name)
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// What was found once is never found again.
#[test]
fn what_is_in_the_corpora_is_read_as_it_must_be() {
    for (name, target) in TARGETS {
        let files = files(&below("corpus").join(name));
        assert!(files.len() >= 10, "the corpus of {name} is nearly empty");
        let mut bytes = 0;
        for file in files {
            let input = fs::read(&file).unwrap();
            bytes += input.len();
            let judged = std::panic::catch_unwind(|| target(&input));
            assert!(judged.is_ok(), "{name} does not hold for {}", file.display());
        }
        assert!(bytes <= MOST_BYTES, "the corpus of {name} has grown to {bytes} bytes: minimise it");
    }
}

/// Each target has a binary, and each binary a corpus.
#[test]
fn every_target_is_fuzzed() {
    let names: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    for directory in ["fuzz_targets", "corpus"] {
        let stem = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
        let found: BTreeSet<String> = files(&below(directory)).into_iter().map(stem).collect();
        assert_eq!(found, names, "{directory}");
    }
    let manifest = fs::read_to_string(below("Cargo.toml")).unwrap();
    for name in names {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not in the manifest");
        let target = fs::read_to_string(below("fuzz_targets").join(format!("{name}.rs"))).unwrap();
        assert!(target.contains(&format!("enigma_test_fuzz::{name}(")), "{name} calls something else");
    }
}
