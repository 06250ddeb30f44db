//! A socket in the file system. It gets its permissions before anybody can see it, and its name in one step, so that there is
//! no moment at which a client finds the wrong one, or none where there was one.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net;
use std::path::{Path, PathBuf};
use std::task::{Context, Poll};

use tokio::net::{UnixListener, UnixStream};

/// A file that is removed when this is dropped, unless another has taken its place.
struct OwnFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl OwnFile {
    fn new(path: PathBuf) -> io::Result<Self> {
        let identity = identity(&path)?;
        Ok(Self { path, identity })
    }
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            // What cannot be removed now is stale for the next start, which replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

/// A socket that has another name still, so that nobody finds it.
pub(crate) struct ReservedUnix {
    listener: net::UnixListener,
    file: OwnFile,
    path: PathBuf,
}

impl ReservedUnix {
    /// Makes one that will be found at `path`. A socket there that nobody serves any more is in nobody's way.
    ///
    /// # Errors
    /// When somebody serves it, when something else is there, and what the system says.
    pub(crate) fn new(path: &Path, mode: u32) -> io::Result<Self> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        match fs::symlink_metadata(path) {
            Ok(metadata) if !metadata.file_type().is_socket() => {
                return Err(named(io::Error::new(io::ErrorKind::AlreadyExists, "not a socket")));
            }
            Ok(_) if net::UnixStream::connect(path).is_ok() => {
                return Err(named(io::ErrorKind::AddrInUse.into()));
            }
            _ => {}
        }
        let name = path.file_name().ok_or_else(|| named(io::ErrorKind::InvalidInput.into()))?;
        let hidden = path.with_file_name(format!(".{}.new", name.to_string_lossy()));
        // Of a process that was killed at this very point.
        let _ = fs::remove_file(&hidden);
        let listener = net::UnixListener::bind(&hidden).map_err(named)?;
        let file = OwnFile::new(hidden)?;
        fs::set_permissions(&file.path, fs::Permissions::from_mode(mode)).map_err(named)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, file, path: path.to_owned() })
    }

    /// Lets clients find it.
    pub(crate) fn listen(mut self) -> io::Result<UnixSocket> {
        fs::rename(&self.file.path, &self.path)?;
        self.file.path.clone_from(&self.path);
        let listener = UnixListener::from_std(self.listener)?;
        Ok(UnixSocket { listener, path: self.path, _file: Some(self.file) })
    }
}

/// A socket that listens.
pub(crate) struct UnixSocket {
    listener: UnixListener,
    path: PathBuf,
    _file: Option<OwnFile>,
}

impl UnixSocket {
    /// One that somebody else has made, whose file is theirs.
    pub(crate) fn inherited(listener: net::UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let path = address.as_pathname().unwrap_or(Path::new("?")).to_owned();
        Ok(Self { listener: UnixListener::from_std(listener)?, path, _file: None })
    }

    /// Where it is found.
    pub(crate) fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// The next connection.
    pub(crate) fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<UnixStream>> {
        self.listener.poll_accept(context).map_ok(|(stream, _)| stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn place() -> (TempDir, PathBuf) {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("s.sock");
        (directory, path)
    }

    #[tokio::test]
    async fn it_appears_with_its_permissions_and_goes_with_its_server() {
        let (directory, path) = place();
        let reserved = ReservedUnix::new(&path, 0o640).unwrap();
        assert!(!path.exists(), "it does not listen yet");
        let socket = reserved.listen().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        net::UnixStream::connect(&path).unwrap();
        drop(socket);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_stale_one_is_replaced_and_one_in_use_is_not() {
        let (_directory, path) = place();
        drop(net::UnixListener::bind(&path).unwrap());
        let first = ReservedUnix::new(&path, 0o600).unwrap().listen().unwrap();
        assert_eq!(ReservedUnix::new(&path, 0o600).err().unwrap().kind(), io::ErrorKind::AddrInUse);
        net::UnixStream::connect(&path).unwrap();
        drop(first);
    }

    #[tokio::test]
    async fn what_is_no_socket_is_left_alone() {
        let (_directory, path) = place();
        fs::write(&path, "data").unwrap();
        assert_eq!(ReservedUnix::new(&path, 0o600).err().unwrap().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "data");
    }

    #[tokio::test]
    async fn the_file_of_a_successor_stays() {
        let (_directory, path) = place();
        let first = ReservedUnix::new(&path, 0o600).unwrap().listen().unwrap();
        fs::remove_file(&path).unwrap();
        let _second = ReservedUnix::new(&path, 0o600).unwrap().listen().unwrap();
        drop(first);
        net::UnixStream::connect(&path).unwrap();
    }
}
