//! A clock that is set by hand.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use enigma_core::Timestamp;
use enigma_core::ports::Clock;
use futures_channel::oneshot;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

/// Time that passes when a test says so. Its clones are the same clock.
///
/// ```
/// use std::time::Duration;
/// use enigma_core::Timestamp;
/// use enigma_core::ports::Clock;
/// use enigma_memory::testing::ManualClock;
/// use futures_util::FutureExt;
///
/// let clock = ManualClock::new(Timestamp::from_millis(0));
/// let mut sleep = clock.sleep(Duration::from_secs(2));
/// clock.advance(Duration::from_secs(1));
/// assert_eq!((&mut sleep).now_or_never(), None);
/// clock.advance(Duration::from_secs(1));
/// assert_eq!((&mut sleep).now_or_never(), Some(()));
/// assert_eq!(clock.now(), Timestamp::from_millis(2000));
/// ```
#[derive(Clone)]
pub struct ManualClock {
    state: Arc<Mutex<State>>,
}

struct State {
    now: Timestamp,
    /// Time that has passed, which no step of the clock changes.
    passed: Duration,
    sleepers: Vec<(Duration, oneshot::Sender<()>)>,
}

impl ManualClock {
    /// A clock that stands at `now`.
    pub fn new(now: Timestamp) -> Self {
        Self { state: Arc::new(Mutex::new(State { now, passed: Duration::ZERO, sleepers: Vec::new() })) }
    }

    /// Steps to `now`, forwards or back. Nobody wakes up of it.
    pub fn set(&self, now: Timestamp) {
        self.lock().now = now;
    }

    /// Lets time pass, and wakes those whose time has come: who has slept longest past theirs first.
    pub fn advance(&self, duration: Duration) {
        let mut state = self.lock();
        state.now = state.now.saturating_add(duration);
        state.passed += duration;
        let passed = state.passed;
        let mut awake: Vec<_> = state.sleepers.extract_if(.., |(until, _)| *until <= passed).collect();
        drop(state);
        awake.sort_by_key(|(until, _)| *until);
        for (_, sleeper) in awake {
            // One that is gone needs no waking.
            let _ = sleeper.send(());
        }
    }

    /// How many are asleep, without those who gave up.
    pub fn sleepers(&self) -> usize {
        let mut state = self.lock();
        state.sleepers.retain(|(_, sleeper)| !sleeper.is_canceled());
        state.sleepers.len()
    }

    /// How long until the next one wakes up.
    pub fn next_wake(&self) -> Option<Duration> {
        let state = self.lock();
        let awake = state.sleepers.iter().filter(|(_, sleeper)| !sleeper.is_canceled());
        awake.map(|(until, _)| until.saturating_sub(state.passed)).min()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.lock().now
    }

    /// Counts from this call on, not from the first time that the future is polled.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        if duration.is_zero() {
            return futures_util::future::ready(()).boxed();
        }
        let (waker, sleeper) = oneshot::channel();
        let mut state = self.lock();
        let until = state.passed.saturating_add(duration);
        state.sleepers.push((until, waker));
        drop(state);
        // The clock may be gone before the sleeper; time stands still then.
        async move {
            if sleeper.await.is_err() {
                futures_util::future::pending::<()>().await;
            }
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_the_clock_does_not_change_how_long_a_sleep_is() {
        let clock = ManualClock::new(Timestamp::from_millis(1000));
        let mut sleep = clock.sleep(Duration::from_millis(10));
        clock.set(Timestamp::from_millis(9_999));
        assert_eq!((&mut sleep).now_or_never(), None);
        clock.set(Timestamp::from_millis(0));
        assert_eq!(clock.next_wake(), Some(Duration::from_millis(10)));
        clock.advance(Duration::from_millis(10));
        assert_eq!(sleep.now_or_never(), Some(()));
        assert_eq!(clock.now(), Timestamp::from_millis(10));
    }

    #[test]
    fn who_gives_up_is_not_asleep() {
        let clock = ManualClock::new(Timestamp::from_millis(0));
        let sleeps = [1, 2].map(|secs| clock.sleep(Duration::from_secs(secs)));
        assert_eq!(clock.sleepers(), 2);
        drop(sleeps);
        assert_eq!((clock.sleepers(), clock.next_wake()), (0, None));
        assert_eq!(clock.sleep(Duration::ZERO).now_or_never(), Some(()));
    }
}
