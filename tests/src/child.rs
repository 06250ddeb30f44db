//! Processes that tests start, and what they print.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Waits until a process has ended; `None` when it has not after `most`.
pub(crate) fn wait(child: &mut Child, most: Duration) -> Option<ExitStatus> {
    let end = Instant::now() + most;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() > end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Ends a process when this one ends, however that happens: statics are never dropped, and a test that is killed drops nothing.
pub(crate) struct Watchdog(Child);

impl Watchdog {
    /// Watches the process `pid`.
    pub(crate) fn over(pid: u32) -> Self {
        let script = format!("read -r _; kill -9 {pid} 2>/dev/null");
        let child = Command::new("sh")
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a process has printed so far.
#[derive(Clone, Default)]
pub struct Output(Arc<(Mutex<(String, bool)>, Condvar)>);

impl Output {
    /// Reads `stream` to its end, in the background.
    pub(crate) fn collect(stream: impl Read + Send + 'static) -> Self {
        let output = Self::default();
        let writer = output.clone();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(stream);
            let mut line = Vec::new();
            while lines.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                writer.lock().0.push_str(&String::from_utf8_lossy(&line));
                line.clear();
                writer.0.1.notify_all();
            }
            writer.lock().1 = true;
            writer.0.1.notify_all();
        });
        output
    }

    fn lock(&self) -> MutexGuard<'_, (String, bool)> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of it.
    pub fn text(&self) -> String {
        self.lock().0.clone()
    }

    /// Waits until `find` finds something; `None` when the output has ended, or nothing came in time.
    pub fn wait_for<T>(&self, most: Duration, find: impl Fn(&str) -> Option<T>) -> Option<T> {
        let end = Instant::now() + most;
        let mut state = self.lock();
        loop {
            if let Some(found) = find(&state.0) {
                return Some(found);
            }
            let left = end.saturating_duration_since(Instant::now());
            if state.1 || left.is_zero() {
                return None;
            }
            state = self.0.1.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
