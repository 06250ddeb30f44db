//! Background work that a test can follow.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use enigma_core::ports::Background;
use futures_channel::oneshot;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

/// Hands work to the test's own runtime, and knows how much of it still runs.
///
/// ```
/// use enigma_core::ports::Background;
/// use enigma_memory::testing::TestBackground;
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let runtime = tokio::runtime::Handle::current();
/// let background = TestBackground::new(move |work| {
///     runtime.spawn(work);
/// });
/// let stopping = background.stopping();
/// background.spawn(Box::pin(stopping));
/// assert_eq!(background.running(), 1);
/// background.stop();
/// background.idle().await;
/// assert_eq!(background.running(), 0);
/// # });
/// ```
pub struct TestBackground {
    spawner: Box<dyn Fn(BoxFuture<'static, ()>) + Send + Sync>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    running: usize,
    is_stopping: bool,
    awaiting_stop: Vec<oneshot::Sender<()>>,
    awaiting_idle: Vec<oneshot::Sender<()>>,
}

impl TestBackground {
    /// Runs work by handing it to `spawner`.
    pub fn new(spawner: impl Fn(BoxFuture<'static, ()>) + Send + Sync + 'static) -> Self {
        Self { spawner: Box::new(spawner), state: Arc::default() }
    }

    /// Tells everybody that the host is about to stop.
    pub fn stop(&self) {
        let mut state = lock(&self.state);
        state.is_stopping = true;
        wake(std::mem::take(&mut state.awaiting_stop));
    }

    /// How much work has not ended.
    pub fn running(&self) -> usize {
        lock(&self.state).running
    }

    /// Waits until no work is left.
    pub fn idle(&self) -> BoxFuture<'static, ()> {
        let mut state = lock(&self.state);
        if state.running == 0 {
            return futures_util::future::ready(()).boxed();
        }
        until_woken(&mut state.awaiting_idle)
    }
}

impl Background for TestBackground {
    fn spawn(&self, work: BoxFuture<'static, ()>) {
        lock(&self.state).running += 1;
        let running = Running(Arc::clone(&self.state));
        (self.spawner)(Box::pin(async move {
            work.await;
            drop(running);
        }));
    }

    fn stopping(&self) -> BoxFuture<'static, ()> {
        let mut state = lock(&self.state);
        if state.is_stopping {
            return futures_util::future::ready(()).boxed();
        }
        until_woken(&mut state.awaiting_stop)
    }
}

/// One piece of work; it also ends when it panics, or when its runtime drops it.
struct Running(Arc<Mutex<State>>);

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = lock(&self.0);
        state.running -= 1;
        if state.running == 0 {
            wake(std::mem::take(&mut state.awaiting_idle));
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wake(waiting: Vec<oneshot::Sender<()>>) {
    for one in waiting {
        // One that is gone needs no waking.
        let _ = one.send(());
    }
}

fn until_woken(waiting: &mut Vec<oneshot::Sender<()>>) -> BoxFuture<'static, ()> {
    let (waker, woken) = oneshot::channel();
    waiting.retain(|one| !one.is_canceled());
    waiting.push(waker);
    async move {
        // Without the background there is nothing that could happen any more.
        if woken.await.is_err() {
            futures_util::future::pending::<()>().await;
        }
    }
    .boxed()
}
