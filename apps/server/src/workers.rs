//! The threads that serve connections: one runtime each, so that a request stays where it came in.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::runtime::{Builder, Handle};

/// Threads that serve.
#[derive(Debug, Clone)]
pub(crate) struct Workers {
    handles: Arc<[Handle]>,
    next: Arc<AtomicUsize>,
}

impl Workers {
    /// Starts a thread for each core. They end with the process.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub(crate) fn start() -> io::Result<Self> {
        let count = thread::available_parallelism().map_or(1, usize::from);
        let handles = (0..count).map(start).collect::<io::Result<_>>()?;
        Ok(Self { handles, next: Arc::default() })
    }

    /// The runtime that asks, alone.
    #[cfg(test)]
    pub(crate) fn here() -> Self {
        Self { handles: [Handle::current()].into(), next: Arc::default() }
    }

    /// The thread for the next connection.
    pub(crate) fn next(&self) -> &Handle {
        &self.handles[self.next.fetch_add(1, Ordering::Relaxed) % self.handles.len()]
    }
}

fn start(number: usize) -> io::Result<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let serve = move || runtime.block_on(std::future::pending::<()>());
    thread::Builder::new().name(format!("worker-{number}")).spawn(serve)?;
    Ok(handle)
}
