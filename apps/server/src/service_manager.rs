//! What systemd is told of this process, where it wants to know (`Type=notify`, `Type=notify-reload`).

#[cfg(target_os = "linux")]
pub(crate) use self::linux::tell;

/// What there is to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It serves.
    Ready,
    /// It reads its files again.
    Reloading,
    /// It comes to its end.
    Stopping,
}

/// Nobody wants to know.
#[cfg(not(target_os = "linux"))]
pub(crate) fn tell(_state: State) {}

#[cfg(target_os = "linux")]
mod linux {
    use std::env;
    use std::ffi::OsStr;
    use std::io;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    use rustix::time::{ClockId, clock_gettime};

    use super::State;

    /// Tells it. Nobody who wants to know, or who cannot be told, is a reason not to serve.
    pub(crate) fn tell(state: State) {
        let Some(socket) = env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty()) else { return };
        if let Err(error) = send(&socket, &text(state)) {
            tracing::debug!(%error, "cannot tell the service manager");
        }
    }

    /// In the words of `sd_notify(3)`.
    fn text(state: State) -> String {
        match state {
            State::Ready => "READY=1".to_owned(),
            State::Stopping => "STOPPING=1".to_owned(),
            State::Reloading => {
                let now = clock_gettime(ClockId::Monotonic);
                let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
                format!("RELOADING=1\nMONOTONIC_USEC={micros}")
            }
        }
    }

    fn send(socket: &OsStr, text: &str) -> io::Result<()> {
        let address = match socket.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(socket)?,
        };
        let sender = UnixDatagram::unbound()?;
        // A manager that does not read must not hold up the server.
        sender.set_nonblocking(true)?;
        sender.send_to_addr(text.as_bytes(), &address).map(drop)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn it_is_told_at_either_kind_of_address() {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("notify");
            let name = format!("enigma-test-{}", std::process::id());
            let abstract_address = SocketAddr::from_abstract_name(&name).unwrap();
            let cases = [
                (UnixDatagram::bind(&path).unwrap(), path.as_os_str().to_owned()),
                (UnixDatagram::bind_addr(&abstract_address).unwrap(), format!("@{name}").into()),
            ];
            for (manager, socket) in cases {
                send(&socket, &text(State::Ready)).unwrap();
                send(&socket, &text(State::Reloading)).unwrap();
                let mut buffer = [0; 100];
                let mut next = || {
                    let length = manager.recv(&mut buffer).unwrap();
                    String::from_utf8(buffer[..length].to_vec()).unwrap()
                };
                assert_eq!(next(), "READY=1");
                let reloading = next();
                let micros = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
                assert!(micros.parse::<u64>().unwrap() > 0);
            }
        }
    }
}
