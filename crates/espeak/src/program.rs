//! Programs, and how they are run.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

/// The one variable that is passed on: where the engine's voices are, on machines that have them elsewhere.
const DATA: &str = "ESPEAK_DATA_PATH";

/// Where `name` is: itself if it is a path, else in the first directory of `PATH` that has it.
pub(crate) fn find(name: &Path) -> Option<PathBuf> {
    find_in(name, std::env::var_os("PATH").as_deref())
}

fn find_in(name: &Path, path: Option<&OsStr>) -> Option<PathBuf> {
    if name.components().count() > 1 {
        // An absolute one, so that it does not depend on where the child is run.
        return name.is_file().then(|| std::path::absolute(name).ok()).flatten();
    }
    let candidates = std::env::split_paths(path?).map(|directory| directory.join(name));
    candidates.filter(|candidate| candidate.is_absolute()).find(|candidate| candidate.is_file())
}

/// A command without an environment, whose process ends with whoever waits for it, and which a signal to the terminal does not reach:
/// audio that has begun is finished when a server is told to stop.
pub(crate) fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    if let Some(data) = std::env::var_os(DATA) {
        command.env(DATA, data);
    }
    #[cfg(unix)]
    command.process_group(0);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_for_in_the_path_and_a_path_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("speaks");
        std::fs::write(&program, "").unwrap();
        let path = std::env::join_paths([Path::new("relative"), Path::new("/nowhere"), directory.path()]).unwrap();
        assert_eq!(find_in(Path::new("speaks"), Some(&path)), Some(program.clone()));
        assert_eq!(find_in(Path::new("other"), Some(&path)), None);
        assert_eq!(find_in(Path::new("speaks"), None), None);
        assert_eq!(find_in(&program, None), Some(program));
        assert_eq!(find_in(&directory.path().join("other"), Some(&path)), None);
    }
}
