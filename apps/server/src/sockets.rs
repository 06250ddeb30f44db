//! Where the server is reached: addresses, sockets in the file system, and sockets that a service manager hands over.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::task::{Context, Poll};

use listenfd::ListenFd;
use tokio::net::{TcpListener, TcpSocket};

use crate::stream::Stream;
#[cfg(unix)]
use crate::unix_socket::{ReservedUnix, UnixSocket};

/// Connections that the system holds until they are accepted.
const BACKLOG: u32 = 1024;

/// What begins the place of a socket in the file system.
const UNIX: &str = "unix:";

/// A place to listen at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// An address of the network.
    Tcp(SocketAddr),
    /// A path of the file system.
    Unix(PathBuf),
}

/// A text that is not a place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InvalidPlace;

impl FromStr for Place {
    type Err = InvalidPlace;

    fn from_str(text: &str) -> Result<Self, InvalidPlace> {
        match text.strip_prefix(UNIX) {
            Some("") => Err(InvalidPlace),
            Some(_) if cfg!(not(unix)) => Err(InvalidPlace),
            Some(path) => Ok(Self::Unix(path.into())),
            None => text.parse().map(Self::Tcp).map_err(|_| InvalidPlace),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

/// A place that is taken, but does not listen yet.
pub(crate) enum Reserved {
    Tcp(TcpSocket),
    #[cfg(unix)]
    Unix(ReservedUnix),
}

impl Reserved {
    /// Takes `place`. `mode` is the permission bits of a socket in the file system.
    pub(crate) fn new(place: &Place, mode: u32) -> io::Result<Self> {
        match place {
            Place::Tcp(address) => reserve_tcp(*address).map(Self::Tcp),
            #[cfg(unix)]
            Place::Unix(path) => ReservedUnix::new(path, mode).map(Self::Unix),
            #[cfg(not(unix))]
            Place::Unix(_) => {
                Err(io::Error::new(io::ErrorKind::Unsupported, format!("no such sockets, mode {mode:o}")))
            }
        }
    }

    /// Begins to listen.
    pub(crate) fn listen(self) -> io::Result<Listener> {
        match self {
            Self::Tcp(socket) => Ok(Listener { socket: Socket::Tcp(socket.listen(BACKLOG)?), is_inherited: false }),
            #[cfg(unix)]
            Self::Unix(reserved) => Ok(Listener { socket: Socket::Unix(reserved.listen()?), is_inherited: false }),
        }
    }
}

fn reserve_tcp(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Connections of a process that has just ended must not keep the next one from its port.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// The sockets that whoever started this process has opened for it, as systemd does.
pub(crate) struct Inherited(ListenFd);

impl Inherited {
    /// Takes them out of the environment. While there is one thread only: the environment is changed, so that no process that
    /// this one starts takes them for its own.
    pub(crate) fn take() -> Self {
        Self(ListenFd::from_env())
    }

    /// Whether there is one.
    pub(crate) fn is_some(&self) -> bool {
        self.0.len() > 0
    }

    /// All of them.
    pub(crate) fn listen(mut self) -> io::Result<Vec<Listener>> {
        (0..self.0.len()).map(|n| self.socket(n).map(|socket| Listener { socket, is_inherited: true })).collect()
    }

    fn socket(&mut self, n: usize) -> io::Result<Socket> {
        const ONCE: &str = "each of them is taken once";
        #[cfg(unix)]
        if let Ok(listener) = self.0.take_unix_listener(n) {
            return UnixSocket::inherited(listener.expect(ONCE)).map(Socket::Unix);
        }
        let listener = self.0.take_tcp_listener(n)?.expect(ONCE);
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener).map(Socket::Tcp)
    }
}

/// A socket that listens.
pub(crate) struct Listener {
    socket: Socket,
    is_inherited: bool,
}

enum Socket {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixSocket),
}

impl Listener {
    /// Where, as people and programs read it.
    pub(crate) fn name(&self, is_tls: bool) -> io::Result<String> {
        match &self.socket {
            Socket::Tcp(listener) => {
                Ok(format!("{}://{}", if is_tls { "https" } else { "http" }, listener.local_addr()?))
            }
            #[cfg(unix)]
            Socket::Unix(socket) => Ok(Place::Unix(socket.path()).to_string()),
        }
    }

    /// The address, if it has one.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(listener) => listener.local_addr().ok(),
            #[cfg(unix)]
            Socket::Unix(_) => None,
        }
    }

    /// Whether somebody else holds the socket too. Then connections that nobody has accepted are lost to nobody.
    pub(crate) fn is_inherited(&self) -> bool {
        self.is_inherited
    }

    /// The next connection, and the address of its peer, if it has one.
    pub(crate) fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<(Stream, Option<IpAddr>)>> {
        match &self.socket {
            Socket::Tcp(listener) => listener
                .poll_accept(context)
                .map_ok(|(stream, peer)| (Stream::Tcp(stream), Some(peer.ip().to_canonical()))),
            #[cfg(unix)]
            Socket::Unix(socket) => socket.poll_accept(context).map_ok(|stream| (Stream::Unix(stream), None)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_addresses_or_paths() {
        for text in ["127.0.0.1:8080", "[::1]:0", "unix:/run/enigma.sock", "unix:enigma.sock"] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), text);
        }
        for text in ["", "localhost:80", "unix:", "/run/enigma.sock", "127.0.0.1"] {
            assert_eq!(text.parse::<Place>(), Err(InvalidPlace), "{text}");
        }
    }

    #[tokio::test]
    async fn an_address_in_use_is_found_before_anything_listens() {
        let listener = Reserved::new(&"127.0.0.1:0".parse().unwrap(), 0).unwrap().listen().unwrap();
        let taken = Place::Tcp(listener.address().unwrap());
        let error = Reserved::new(&taken, 0).err().expect("it is taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
