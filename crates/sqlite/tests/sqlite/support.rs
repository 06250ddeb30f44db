//! A database in a directory of its own.

use std::ops::Deref;

use enigma_sqlite::{Database, Options, Synchronous};
use tempfile::TempDir;

/// Dropped with its directory.
pub(crate) struct Fixture {
    pub(crate) database: Database,
    pub(crate) dir: TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let dir = TempDir::new().unwrap();
        Self { database: open(&dir), dir }
    }
}

impl Deref for Fixture {
    type Target = Database;
    fn deref(&self) -> &Database {
        &self.database
    }
}

/// Opens the directory's database.
pub(crate) fn open(dir: &TempDir) -> Database {
    open_with_vectors(dir, Options::default().vector_bytes)
}

/// The same, with so many bytes of vectors at hand.
pub(crate) fn open_with_vectors(dir: &TempDir, vector_bytes: usize) -> Database {
    let options = Options { synchronous: Synchronous::Off, vector_bytes, ..Options::default() };
    Database::open(dir.path().join("enigma.db"), &options).unwrap()
}

/// Some number for each place, the same in every run (splitmix64).
pub(crate) fn chance(place: u64) -> u64 {
    let mut z = place.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
