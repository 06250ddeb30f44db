//! Whether files have changed. They are looked at again and again: what the system would tell of changes by itself ends at
//! symbolic links, network file systems and mounts, and those are where tenants' files often are.

use std::collections::hash_map::DefaultHasher;
use std::fs::{self, Metadata};
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};

use enigma_operator::tenants;

/// How often files may be seen changing before they are taken as they are. Somebody who writes all the time must not keep a
/// change from being taken.
const MOST_UNSETTLED: u32 = 2;

/// What files look like from outside, as one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look(u64);

impl Look {
    /// Of every tenant's file in `directory`, and of the directory itself.
    pub(crate) fn at_tenants(directory: &Path) -> Self {
        let mut names: Vec<_> = match fs::read_dir(directory) {
            Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).collect(),
            Err(_) => Vec::new(),
        };
        names.sort_unstable();
        let files = names.into_iter().map(|name| name.join(tenants::FILE_NAME));
        Self::at(std::iter::once(directory.to_owned()).chain(files))
    }

    /// Of these files. Symbolic links count as what they lead to.
    pub(crate) fn at(files: impl IntoIterator<Item = PathBuf>) -> Self {
        let mut hasher = DefaultHasher::new();
        for file in files {
            fs::metadata(&file).ok().as_ref().map(identity).hash(&mut hasher);
            file.hash(&mut hasher);
        }
        Self(hasher.finish())
    }
}

/// Everything that a change changes. With the time of the last change of the inode, which nobody can set back as they can that
/// of the content.
#[cfg(unix)]
fn identity(metadata: &Metadata) -> impl Hash + use<> {
    use std::os::unix::fs::MetadataExt;
    let times = [metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()];
    (times, metadata.len(), metadata.dev(), metadata.ino())
}

#[cfg(not(unix))]
fn identity(metadata: &Metadata) -> impl Hash + use<> {
    (metadata.modified().ok(), metadata.len())
}

/// Decides when a change is taken: once the files look the same twice, so that one that is half written is rarely read.
#[derive(Debug)]
pub(crate) struct Watch {
    taken: Look,
    changing: Option<(Look, u32)>,
}

impl Watch {
    /// Begins with files that were read when they looked like this, or later.
    pub(crate) fn new(taken: Look) -> Self {
        Self { taken, changing: None }
    }

    /// Whether they are to be read again, now that they look like this.
    pub(crate) fn is_due(&mut self, now: Look) -> bool {
        if now == self.taken {
            self.changing = None;
            return false;
        }
        let seen = match self.changing {
            Some((before, seen)) if before == now || seen >= MOST_UNSETTLED => {
                self.taken_at(now);
                return true;
            }
            Some((_, seen)) => seen + 1,
            None => 1,
        };
        self.changing = Some((now, seen));
        false
    }

    /// They are read when they look like this.
    pub(crate) fn taken_at(&mut self, now: Look) {
        *self = Self::new(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};
    use tempfile::TempDir;

    #[test]
    fn a_change_is_due_once_when_it_has_settled() {
        let mut watch = Watch::new(Look(0));
        let due: Vec<_> = [0, 1, 1, 1, 2, 2, 2].map(|look| watch.is_due(Look(look))).into();
        assert_eq!(due, [false, false, true, false, false, true, false]);
    }

    #[test]
    fn what_changes_all_the_time_is_taken_all_the_same() {
        let mut watch = Watch::new(Look(0));
        let due: Vec<_> = (1..=6).map(|look| watch.is_due(Look(look))).collect();
        assert_eq!(due, [false, false, true, false, false, true]);
    }

    #[test]
    fn what_is_as_it_was_before_it_settled_is_not_read_again() {
        let mut watch = Watch::new(Look(0));
        assert_eq!([1, 0, 1].map(|look| watch.is_due(Look(look))), [false, false, false]);
    }

    fn tenant(directory: &TempDir) -> PathBuf {
        let place = directory.path().join("acme");
        fs::create_dir_all(&place).unwrap();
        let file = place.join(tenants::FILE_NAME);
        fs::write(&file, "one").unwrap();
        file
    }

    #[test]
    fn every_way_to_change_a_file_is_seen() {
        let directory = TempDir::new().unwrap();
        let file = tenant(&directory);
        let mut before = Look::at_tenants(directory.path());
        assert_eq!(Look::at_tenants(directory.path()), before);
        let mut changed = |what: &str| {
            let now = Look::at_tenants(directory.path());
            assert_ne!(now, before, "{what}");
            before = now;
        };
        fs::write(&file, "longer").unwrap();
        changed("in place");
        let other = directory.path().join("acme/other");
        fs::write(&other, "forged").unwrap();
        let old = fs::File::options().write(true).open(&other).unwrap();
        old.set_modified(UNIX_EPOCH + Duration::from_secs(1)).unwrap();
        fs::rename(&other, &file).unwrap();
        changed("by another of the same length, with an old date");
        fs::create_dir(directory.path().join("new")).unwrap();
        fs::write(directory.path().join("new").join(tenants::FILE_NAME), "two").unwrap();
        changed("another tenant");
        fs::remove_file(&file).unwrap();
        changed("removed");
    }

    /// As Kubernetes mounts configuration: links to a link that is exchanged as a whole.
    #[cfg(unix)]
    #[test]
    fn a_link_that_leads_elsewhere_is_a_change() {
        use std::os::unix::fs::symlink;
        let directory = TempDir::new().unwrap();
        for version in ["v1", "v2"] {
            let place = directory.path().join("..data").join(version);
            fs::create_dir_all(&place).unwrap();
            fs::write(place.join(tenants::FILE_NAME), "same").unwrap();
        }
        symlink("..data/v1", directory.path().join("acme")).unwrap();
        let before = Look::at_tenants(directory.path());
        symlink("..data/v2", directory.path().join("next")).unwrap();
        fs::rename(directory.path().join("next"), directory.path().join("acme")).unwrap();
        assert_ne!(Look::at_tenants(directory.path()), before);
    }
}
