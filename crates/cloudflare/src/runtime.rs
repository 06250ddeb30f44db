//! The runtime's side of the core's smallest ports: time, chance, and work that outlives a response.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use enigma_core::Timestamp;
use enigma_core::ports::{Background, Clock, IdSource};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, pending};
use futures_util::task::AtomicWaker;
use tracing::Instrument;
use worker::js_sys::futures::future_to_promise;
use worker::send::SendFuture;
use worker::wasm_bindgen::JsValue;
use worker::{Date, Delay};

/// The longest that one timer of the runtime can wait: it counts milliseconds in 32 bits, and what is more fires at once.
const LONGEST_TIMER: Duration = Duration::from_millis(i32::MAX as u64);

/// The runtime's clock. It stands still between two events of input or output, so that programs cannot be timed by it.
#[derive(Debug, Clone, Copy, Default)]
pub struct WorkerClock;

impl Clock for WorkerClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(Date::now().as_millis())
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        sleep(duration)
    }
}

/// Waits, however long, and wakes whoever asked last.
pub(crate) fn sleep(duration: Duration) -> BoxFuture<'static, ()> {
    WakesTheLatest::new(SendFuture::new(async move {
        for piece in pieces(duration) {
            Delay::from(piece).await;
        }
    }))
    .boxed()
}

/// `duration` in pieces that one timer can wait each. Timers count whole milliseconds, and nobody is woken too early.
fn pieces(duration: Duration) -> impl Iterator<Item = Duration> {
    let mut left = duration.as_nanos().div_ceil(1_000_000);
    std::iter::from_fn(move || {
        let piece = left.min(LONGEST_TIMER.as_millis());
        left -= piece;
        (piece > 0).then(|| Duration::from_millis(u64::try_from(piece).unwrap_or(u64::MAX)))
    })
}

/// A future that wakes the task that polled it last.
///
/// [`Delay`] wakes the one that polled it first, which may be over by then: the runtime reads a response's body with a new
/// task for every chunk, so that a timer that was begun while one chunk was waited for has to wake the task of the next.
struct WakesTheLatest<F> {
    inner: Pin<Box<F>>,
    latest: Arc<Latest>,
    waker: Waker,
}

struct Latest(AtomicWaker);

impl Wake for Latest {
    fn wake(self: Arc<Self>) {
        self.0.wake();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.wake();
    }
}

impl<F> WakesTheLatest<F> {
    fn new(inner: F) -> Self {
        let latest = Arc::new(Latest(AtomicWaker::new()));
        Self { inner: Box::pin(inner), waker: Waker::from(Arc::clone(&latest)), latest }
    }
}

impl<F: Future> Future for WakesTheLatest<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        self.latest.0.register(context.waker());
        let waker = self.waker.clone();
        self.inner.as_mut().poll(&mut Context::from_waker(&waker))
    }
}

/// The runtime's random numbers, Web Crypto's. There are none before the first event: not while the module is loaded.
#[derive(Debug, Clone, Copy, Default)]
pub struct WorkerIds;

impl IdSource for WorkerIds {
    fn random(&self) -> u128 {
        let mut bytes = [0; 16];
        // Ids that can be guessed would be worse than none.
        getrandom::fill(&mut bytes).expect("the runtime gives random numbers while it handles an event");
        u128::from_le_bytes(bytes)
    }
}

/// Work that the runtime waits for after the response of one request. It belongs to that request, and is never kept for another.
///
/// After the response has ended, or its client has gone, such work has 30 seconds in all.
#[derive(Debug, Clone)]
pub struct WaitUntil {
    context: Arc<worker::Context>,
}

impl WaitUntil {
    /// Work of the request that `context` belongs to.
    pub fn new(context: Arc<worker::Context>) -> Self {
        Self { context }
    }
}

impl Background for WaitUntil {
    /// The work's log lines belong to the caller's. When it panics it ends alone.
    fn spawn(&self, work: BoxFuture<'static, ()>) {
        let work = contained(work).in_current_span();
        let promise = future_to_promise(AssertUnwindSafe(async move {
            work.await;
            Ok(JsValue::UNDEFINED)
        }));
        if (*self.context).as_ref().wait_until(&promise).is_err() {
            tracing::error!("the runtime will not wait for background work, which may be cut off");
        }
    }

    /// Never resolves: nobody is told before an isolate ends. What is cut off then is made good by leases and expiry.
    fn stopping(&self) -> BoxFuture<'static, ()> {
        pending().boxed()
    }
}

/// `work`, that ends where it panics. The panic hook has told of it then.
async fn contained(work: BoxFuture<'static, ()>) {
    drop(AssertUnwindSafe(work).catch_unwind().await);
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::task::{ArcWake, waker};
    use proptest::prelude::*;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// As the runtime's timer: it remembers the first task that polled it, and no other.
    #[derive(Clone, Default)]
    struct FirstOnly(Arc<Mutex<Option<Waker>>>);

    impl Future for FirstOnly {
        type Output = ();

        fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
            self.0.lock().unwrap().get_or_insert_with(|| context.waker().clone());
            Poll::Pending
        }
    }

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl ArcWake for Woken {
        fn wake_by_ref(this: &Arc<Self>) {
            this.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_timer_wakes_the_task_that_polled_it_last() {
        let timer = FirstOnly::default();
        let mut sleep = WakesTheLatest::new(timer.clone());
        let tasks = [Arc::<Woken>::default(), Arc::<Woken>::default()];
        for task in &tasks {
            assert!(sleep.poll_unpin(&mut Context::from_waker(&waker(Arc::clone(task)))).is_pending());
        }
        timer.0.lock().unwrap().as_ref().unwrap().wake_by_ref();
        assert_eq!(tasks.map(|task| task.0.load(Ordering::SeqCst)), [0, 1]);
    }

    #[test]
    fn pieces_are_rounded_up_and_no_wait_has_none() {
        assert_eq!(pieces(Duration::ZERO).count(), 0);
        assert_eq!(pieces(Duration::from_micros(1)).collect::<Vec<_>>(), [Duration::from_millis(1)]);
        assert_eq!(pieces(LONGEST_TIMER + Duration::from_nanos(1)).last(), Some(Duration::from_millis(1)));
        assert_eq!(pieces(Duration::MAX).next(), Some(LONGEST_TIMER));
    }

    #[test]
    fn work_that_panics_ends_alone() {
        assert_eq!(contained(async { panic!("one of the tests' own") }.boxed()).now_or_never(), Some(()));
    }

    #[test]
    fn ids_are_random() {
        assert_ne!(WorkerIds.uuid(), WorkerIds.uuid());
        assert_eq!(WorkerIds.uuid().get_version_num(), 4);
    }

    proptest! {
        #[test]
        fn pieces_add_up_and_a_timer_can_count_each(millis in 0u64..100 * i32::MAX as u64) {
            let pieces: Vec<_> = pieces(Duration::from_millis(millis)).collect();
            prop_assert!(pieces.iter().all(|piece| i32::try_from(piece.as_millis()).is_ok_and(|piece| piece > 0)));
            prop_assert_eq!(pieces.iter().sum::<Duration>(), Duration::from_millis(millis));
        }
    }
}
