//! A system that fails on demand: a disk that is full, broken or slow, and a clock that steps.
//!
//! A small library, compiled when a test first needs it, is loaded into the server before anything else and stands between it
//! and the C library. The server knows nothing of it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use tempfile::TempDir;

use crate::server::ServerConfig;

const SOURCE: &str = include_str!("system/faults.c");

/// `ENOSPC`.
pub const NO_SPACE: i64 = 28;
/// `EIO`.
pub const BROKEN: i64 = 5;
/// `EROFS`.
pub const READ_ONLY: i64 = 30;

/// The numbers in the file that the library reads, in their order.
#[derive(Clone, Copy)]
enum Number {
    WriteError,
    SyncError,
    SyncMillis,
    Torn,
    ReadError,
    Room,
    OpenError,
    ClockMillis,
    Failed,
}

const NUMBERS: usize = 9;

/// The library, compiled.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        // target/PROFILE/deps/TEST
        let test = std::env::current_exe().unwrap();
        let name = format!("libsystem-faults-{}.so", std::process::id());
        let library = test.with_file_name(name);
        let source = test.with_file_name(format!("system-faults-{}.c", std::process::id()));
        std::fs::write(&source, SOURCE).unwrap();
        let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
        let mut command = Command::new(compiler);
        command.args(["-O1", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&library);
        let built = command.arg(&source).arg("-ldl").output().expect("a C compiler is there: SQLite needs one, too");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        std::fs::remove_file(source).unwrap();
        library
    })
}

/// The switches of one server's system.
pub struct System {
    file: File,
    path: PathBuf,
    _place: TempDir,
}

impl System {
    /// A system in which nothing fails yet.
    pub fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("faults");
        std::fs::write(&path, [0; NUMBERS * 8]).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        Self { file, path, _place: place }
    }

    /// Starts the server of `config` in this system; the files under `directory` are those that fail.
    #[must_use]
    pub fn under(&self, config: ServerConfig, directory: &Path) -> ServerConfig {
        config
            .variable("LD_PRELOAD", library().to_str().unwrap())
            .variable("ENIGMA_FAULTS", self.path.to_str().unwrap())
            .variable("ENIGMA_FAULTS_UNDER", directory.to_str().unwrap())
    }

    fn set(&self, number: Number, value: i64) {
        self.file.write_all_at(&value.to_ne_bytes(), number as u64 * 8).unwrap();
    }

    /// Every write fails with `error`, once `room` bytes more are written; 0 ends that.
    pub fn writes_fail(&self, error: i64, room: i64) {
        self.set(Number::Room, room);
        self.set(Number::WriteError, error);
    }

    /// Every write is done by half, and says so.
    pub fn writes_are_torn(&self, torn: bool) {
        self.set(Number::Torn, torn.into());
    }

    /// What is written does not become safe: `fsync` fails with `error`; 0 ends that.
    pub fn syncs_fail(&self, error: i64) {
        self.set(Number::SyncError, error);
    }

    /// `fsync` takes so long.
    pub fn syncs_take(&self, time: Duration) {
        self.set(Number::SyncMillis, i64::try_from(time.as_millis()).unwrap());
    }

    /// Every read fails with `error`; 0 ends that.
    pub fn reads_fail(&self, error: i64) {
        self.set(Number::ReadError, error);
    }

    /// Nothing can be opened to be written, and `open` fails with `error`; 0 ends that.
    pub fn opens_fail(&self, error: i64) {
        self.set(Number::OpenError, error);
    }

    /// The clock of the wall is off by so many milliseconds.
    pub fn clock_is_off(&self, millis: i64) {
        self.set(Number::ClockMillis, millis);
    }

    /// How many calls have failed so far.
    pub fn failed(&self) -> i64 {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, Number::Failed as u64 * 8).unwrap();
        i64::from_ne_bytes(bytes)
    }
}

impl Default for System {
    fn default() -> Self {
        Self::new()
    }
}
