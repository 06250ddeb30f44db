//! The end: what runs may finish, then must finish, and then the database is closed.

use std::io;
use std::time::Duration;

use enigma_sqlite::Database;
use tokio_util::sync::CancellationToken;

use crate::adapters::TrackedBackground;

/// How long what was told to stop may take to write its last lines.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How long the database may take to write what was queued.
const CLOSING: Duration = Duration::from_secs(10);

/// The signals that end a server.
pub(crate) struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    /// Listens for them from now on.
    ///
    /// # Errors
    /// When the system refuses.
    #[cfg(unix)]
    pub(crate) fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next one.
    #[cfg(unix)]
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Listens for them from now on.
    ///
    /// # Errors
    /// When the system refuses.
    #[cfg(not(unix))]
    #[expect(clippy::unnecessary_wraps, reason = "on Unix the system can refuse")]
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    /// Waits for the next one.
    #[cfg(not(unix))]
    pub(crate) async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Lets what runs finish for `grace`, then tells it to stop and waits a little more. A second signal ends the process at once.
pub(crate) async fn end(
    background: &TrackedBackground,
    draining: &CancellationToken,
    grace: Duration,
    signals: &mut Signals,
) {
    tracing::info!(running = background.running(), grace_seconds = grace.as_secs(), "stopping");
    tokio::select! {
        () = drain(background, draining, grace) => {}
        () = signals.next() => at_once(),
    }
}

async fn drain(background: &TrackedBackground, draining: &CancellationToken, grace: Duration) {
    draining.cancel();
    if tokio::time::timeout(grace, background.wait()).await.is_ok() {
        return;
    }
    tracing::warn!(running = background.running(), "ending what still runs");
    background.stop();
    if tokio::time::timeout(LAST_WORDS, background.wait()).await.is_err() {
        tracing::error!(running = background.running(), "some work did not end");
    }
}

/// Writes what is queued, and closes the file.
pub(crate) async fn close(database: &Database, signals: &mut Signals) {
    tokio::select! {
        closed = tokio::time::timeout(CLOSING, database.close()) => {
            if closed.is_err() {
                tracing::error!("the database did not close in time");
            }
        }
        () = signals.next() => at_once(),
    }
}

/// What was acknowledged is in the database all the same.
fn at_once() {
    tracing::warn!("second signal, ending at once");
    std::process::exit(130);
}

#[cfg(test)]
mod tests {
    use super::*;
    use enigma_core::ports::Background;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio::time::Instant;

    const GRACE: Duration = Duration::from_secs(30);

    async fn drain_with(work: impl FnOnce(&TrackedBackground)) -> Duration {
        let background = TrackedBackground::default();
        work(&background);
        let before = Instant::now();
        drain(&background, &CancellationToken::new(), GRACE).await;
        before.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn what_runs_may_finish() {
        let took = drain_with(|background| background.track(tokio::time::sleep(Duration::from_secs(7)))).await;
        assert_eq!(took, Duration::from_secs(7));
        assert_eq!(drain_with(|_| {}).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_finish_is_told_to_stop_and_writes_its_last_words() {
        let written = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&written);
        let took = drain_with(|background| {
            let stopping = background.stopping();
            background.track(async move {
                stopping.await;
                tokio::time::sleep(Duration::from_secs(1)).await;
                seen.store(true, Ordering::SeqCst);
            });
        })
        .await;
        assert_eq!(took, GRACE + Duration::from_secs(1));
        assert!(written.load(Ordering::SeqCst));
    }

    #[tokio::test(start_paused = true)]
    async fn what_never_ends_does_not_hold_up_the_end() {
        let took = drain_with(|background| background.track(std::future::pending())).await;
        assert_eq!(took, GRACE + LAST_WORDS);
    }
}
