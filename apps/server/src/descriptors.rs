//! How many files and connections the system lets this process have open.

/// What a server needs beside its connections: the database, the log, calls of models.
#[cfg(unix)]
const BESIDE: u64 = 256;

/// Asks the system for as many as it grants, and says when those are fewer than `connections` need.
#[cfg(unix)]
pub(crate) fn raise(connections: usize) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let limits = getrlimit(Resource::Nofile);
    if limits.current == limits.maximum {
        warn(limits.current, connections);
        return;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: limits.maximum, maximum: limits.maximum }) {
        Ok(()) => warn(limits.maximum, connections),
        Err(error) => {
            tracing::debug!(%error, "cannot raise the limit of open files");
            warn(limits.current, connections);
        }
    }
}

/// `None` is no limit.
#[cfg(unix)]
fn warn(limit: Option<u64>, connections: usize) {
    let needed = BESIDE + connections as u64;
    if let Some(limit) = limit.filter(|limit| *limit < needed) {
        tracing::warn!(limit, needed, "the system's limit of open files is lower than server.max_connections needs");
    }
}

/// There is no such limit.
#[cfg(not(unix))]
pub(crate) fn raise(_connections: usize) {}
