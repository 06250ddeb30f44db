//! A Python of our own, with the packages of a requirements file. Made once, kept under the target directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

/// The interpreter of an environment that holds what `requirements` lists.
pub fn interpreter(requirements: &Path) -> PathBuf {
    static MAKING: Mutex<()> = Mutex::new(());
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let wanted = fs::read(requirements).unwrap();
    let test = std::env::current_exe().unwrap();
    let target = test.ancestors().nth(3).expect("a test lies in target/PROFILE/deps");
    let place = target.join("python").join(&hex::encode(Sha256::digest(&wanted))[..16]);
    let python = place.join("bin/python");
    let ready = place.join("ready");
    if ready.exists() {
        return python;
    }
    // What was left half made is made again.
    if place.exists() {
        fs::remove_dir_all(&place).unwrap();
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(&place));
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--requirement"]).arg(requirements));
    fs::write(&ready, "").unwrap();
    python
}

/// Runs a command to its end, and returns what it printed. It must succeed.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?} failed with {}:\n{stdout}\n{stderr}", output.status);
    stdout
}
