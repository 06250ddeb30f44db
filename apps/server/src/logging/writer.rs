//! Log lines on their way out: a thread of its own writes them, so that nobody who logs waits for who reads.

use std::io::{self, Write};
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Bytes that may wait. When whoever reads is slower than that for long, lines are lost rather than requests.
const WAITING_BYTES: usize = 4 << 20;
/// How long lines are gathered before they are written together.
const GATHERING: Duration = Duration::from_millis(2);

/// Takes lines, and never waits.
pub(super) struct LogWriter {
    state: Mutex<State>,
    /// There is something to write, or all of it is written.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    is_writing: bool,
    lost: u64,
}

impl LogWriter {
    /// A writer to `out`, with its thread, which ends with the process.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<Arc<Self>> {
        let writer = Arc::new(Self { state: Mutex::default(), changed: Condvar::new() });
        let writing = Arc::clone(&writer);
        thread::Builder::new().name("log".to_owned()).spawn(move || writing.run(out))?;
        Ok(writer)
    }

    /// Takes whole lines.
    pub(super) fn write(&self, lines: &[u8]) {
        let mut state = self.lock();
        if state.waiting.len() + lines.len() > WAITING_BYTES {
            state.lost += 1;
            return;
        }
        let was_idle = state.waiting.is_empty() && !state.is_writing;
        state.waiting.extend_from_slice(lines);
        drop(state);
        if was_idle {
            self.changed.notify_all();
        }
    }

    /// Waits until everything is written, for a second at most.
    pub(super) fn flush(&self) {
        let state = self.lock();
        drop(
            self.changed
                .wait_timeout_while(state, Duration::from_secs(1), |state| {
                    state.is_writing || !state.waiting.is_empty()
                })
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    fn run(&self, mut out: impl Write) {
        let mut lines = Vec::new();
        loop {
            let state = self.lock();
            let state = self.changed.wait_while(state, |state| state.waiting.is_empty());
            drop(state.unwrap_or_else(PoisonError::into_inner));
            thread::sleep(GATHERING);
            let mut state = self.lock();
            mem::swap(&mut lines, &mut state.waiting);
            let lost = mem::take(&mut state.lost);
            state.is_writing = true;
            drop(state);
            // Where nobody reads there is nobody to tell.
            drop(out.write_all(&lines));
            if lost > 0 {
                let line = format!("{{\"level\":\"WARN\",\"message\":\"log lines were lost\",\"lost\":{lost}}}\n");
                drop(out.write_all(line.as_bytes()));
            }
            lines.clear();
            self.lock().is_writing = false;
            self.changed.notify_all();
        }
    }

    /// Nothing that is done under the lock can fail half-way.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A writer whose output can be looked at.
    #[cfg(test)]
    pub(super) fn in_memory() -> (Arc<Self>, Arc<Mutex<Vec<u8>>>) {
        struct Shared(Arc<Mutex<Vec<u8>>>);
        impl Write for Shared {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let written = Arc::<Mutex<Vec<u8>>>::default();
        (Self::start(Shared(Arc::clone(&written))).unwrap(), written)
    }
}

/// A line that is put together by somebody else, and taken when it is whole.
pub(super) struct Line<'a> {
    writer: &'a LogWriter,
    bytes: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        self.writer.write(&self.bytes);
    }
}

/// For tracing's own formats.
pub(super) struct Lines(pub(super) Arc<LogWriter>);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { writer: &self.0, bytes: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn whoever_reads_nothing_loses_lines_and_holds_nobody_up() {
        struct Stuck(mpsc::Receiver<()>, mpsc::Sender<Vec<u8>>);
        impl Write for Stuck {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let _ = self.0.recv();
                self.1.send(bytes.to_vec()).unwrap();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (release, released) = mpsc::channel();
        let (sender, written) = mpsc::channel();
        let writer = LogWriter::start(Stuck(released, sender)).unwrap();
        let line = vec![b'x'; WAITING_BYTES / 4];
        for _ in 0..20 {
            writer.write(&line);
        }
        assert!(writer.lock().waiting.len() <= WAITING_BYTES);
        drop(release);
        writer.flush();
        let text = String::from_utf8(written.try_iter().collect::<Vec<_>>().concat()).unwrap();
        assert!(text.contains("log lines were lost"));
    }
}
