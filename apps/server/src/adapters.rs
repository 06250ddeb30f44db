//! The host's side of the core's smallest ports: time, chance, and work that outlives a response.

use std::cell::RefCell;
use std::future::Future;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use enigma_core::Timestamp;
use enigma_core::ports::{Background, Clock, IdSource};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// The system's clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        #[expect(clippy::disallowed_methods, reason = "this is the `Clock` port")]
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        tokio::time::sleep(duration).boxed()
    }
}

/// The operating system's random numbers, asked for in pages: a request needs several, and each question costs a call of the
/// system.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OsIds;

/// Random bytes that nobody has had yet.
struct Page {
    bytes: [u8; 1024],
    used: usize,
}

thread_local! {
    static PAGE: RefCell<Page> = const { RefCell::new(Page { bytes: [0; 1024], used: 1024 }) };
}

impl IdSource for OsIds {
    fn random(&self) -> u128 {
        PAGE.with_borrow_mut(|page| {
            if page.used >= page.bytes.len() {
                // It can fail only while an operating system boots; ids that can be guessed would be worse than none.
                getrandom::fill(&mut page.bytes).expect("the operating system gives random numbers");
                page.used = 0;
            }
            let mut bytes = [0; 16];
            let next = &mut page.bytes[page.used..page.used + 16];
            bytes.copy_from_slice(next);
            // Nobody can read it here a second time.
            next.fill(0);
            page.used += 16;
            u128::from_le_bytes(bytes)
        })
    }
}

/// Tasks that shutdown waits for.
#[derive(Debug, Clone, Default)]
pub(crate) struct TrackedBackground {
    tasks: TaskTracker,
    stopping: CancellationToken,
}

impl TrackedBackground {
    /// Runs `work`, whose log lines belong to the caller's, and keeps count of it.
    pub(crate) fn track(&self, work: impl Future<Output = ()> + Send + 'static) {
        // Nobody waits for the single task; that it is over is what counts.
        drop(self.tasks.spawn(work.in_current_span()));
    }

    /// As [`track`](Self::track), on the runtime of `workers`.
    pub(crate) fn track_on(&self, work: impl Future<Output = ()> + Send + 'static, runtime: &Handle) {
        drop(self.tasks.spawn_on(work.in_current_span(), runtime));
    }

    /// Tells everything that runs to come to an end.
    pub(crate) fn stop(&self) {
        self.stopping.cancel();
    }

    /// Waits until nothing runs any more.
    pub(crate) async fn wait(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// How much runs.
    pub(crate) fn running(&self) -> usize {
        self.tasks.len()
    }
}

impl Background for TrackedBackground {
    fn spawn(&self, work: BoxFuture<'static, ()>) {
        self.track(work);
    }

    fn stopping(&self) -> BoxFuture<'static, ()> {
        self.stopping.clone().cancelled_owned().boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[tokio::test]
    async fn shutdown_waits_for_work_that_it_has_told_to_stop() {
        let background = TrackedBackground::default();
        let done = Arc::new(AtomicBool::new(false));
        let (told, seen) = (background.stopping(), Arc::clone(&done));
        background.spawn(Box::pin(async move {
            told.await;
            tokio::task::yield_now().await;
            seen.store(true, Ordering::SeqCst);
        }));
        assert!(background.wait().now_or_never().is_none(), "it runs until it is told");
        assert_eq!(background.running(), 1);
        background.stop();
        background.wait().await;
        assert!(done.load(Ordering::SeqCst));
        background.stopping().await;
    }

    #[tokio::test]
    async fn work_that_panics_ends_alone() {
        let background = TrackedBackground::default();
        background.spawn(Box::pin(async { panic!("one of the tests' own") }));
        background.wait().await;
        assert_eq!(background.running(), 0);
    }

    #[test]
    fn the_clock_is_past_the_day_this_was_written() {
        assert!(SystemClock.now() > Timestamp::parse_rfc3339("2025-01-01T00:00:00Z").unwrap());
        assert_ne!(OsIds.uuid(), OsIds.uuid());
        assert_eq!(OsIds.uuid().get_version_num(), 4);
    }
}
