//! One simulated world's time, chance and readiness: what everything in it asks, so that a seed decides all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use enigma_core::Timestamp;
use enigma_core::ports::{Clock, IdSource};
use futures_util::future::BoxFuture;

use crate::rng::Rng;

/// Where a task runs, which decides whether a crash ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// In the process that may die.
    Server,
    /// Outside.
    Client,
}

/// A task that nobody has polled yet.
pub(crate) struct Spawned {
    pub(crate) side: Side,
    pub(crate) name: String,
    pub(crate) work: BoxFuture<'static, ()>,
}

/// The world's handle. Its clones are the same world.
#[derive(Clone)]
pub(crate) struct Sim {
    state: Arc<Mutex<State>>,
    ready: Ready,
}

/// The tasks that have been woken. A set, so that the order of wake-ups cannot matter: the seed alone chooses.
pub(crate) type Ready = Arc<Mutex<BTreeSet<u64>>>;

struct State {
    rng: Rng,
    /// Time that has passed, in milliseconds, which no step of the clock changes.
    passed: u64,
    /// What the clock says, in milliseconds.
    now: u64,
    /// By when they wake, and a number that tells those of one moment apart.
    sleepers: BTreeMap<(u64, u64), Waker>,
    next_sleeper: u64,
    spawned: Vec<Spawned>,
    /// Over every choice and every poll: two runs of a seed are the same run when these are equal.
    fingerprint: u64,
    trace: Option<Vec<String>>,
    violation: Option<String>,
}

impl Sim {
    pub(crate) fn new(seed: u64, traced: bool) -> Self {
        let state = State {
            rng: Rng::new(seed),
            passed: 0,
            now: 0,
            sleepers: BTreeMap::new(),
            next_sleeper: 0,
            spawned: Vec::new(),
            fingerprint: 0xcbf2_9ce4_8422_2325,
            trace: traced.then(Vec::new),
            violation: None,
        };
        Self { state: Arc::new(Mutex::new(state)), ready: Ready::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number below `bound`.
    pub(crate) fn below(&self, bound: u64) -> u64 {
        let mut state = self.lock();
        let drawn = state.rng.below(bound);
        state.mix(drawn);
        drawn
    }

    /// A number in `from..=to`.
    pub(crate) fn between(&self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }

    /// True in so many of a thousand cases.
    pub(crate) fn chance(&self, permille: u64) -> bool {
        permille > 0 && self.below(1000) < permille
    }

    /// One of these, which are not none.
    pub(crate) fn pick<'a, T>(&self, choices: &'a [T]) -> &'a T {
        &choices[usize::try_from(self.below(choices.len() as u64)).expect("it is below the length")]
    }

    /// Milliseconds that no step of the clock changes.
    pub(crate) fn passed(&self) -> u64 {
        self.lock().passed
    }

    /// Sets the clock by so many milliseconds. Nobody wakes up of it.
    pub(crate) fn step_clock(&self, by: i64) {
        let mut state = self.lock();
        state.now = state.now.saturating_add_signed(by);
    }

    /// Lets time pass until the next sleepers wake, if that is at most `limit` milliseconds away; how long it took.
    pub(crate) fn wake_next(&self, limit: u64) -> Option<u64> {
        let mut state = self.lock();
        let until = state.sleepers.first_key_value().map(|((until, _), _)| *until)?;
        let length = until.saturating_sub(state.passed);
        if length > limit {
            return None;
        }
        state.passed += length;
        state.now += length;
        let rest = state.sleepers.split_off(&(until + 1, 0));
        let awake = std::mem::replace(&mut state.sleepers, rest);
        drop(state);
        for waker in awake.into_values() {
            waker.wake();
        }
        Some(length)
    }

    /// Lets time pass; nobody may be asleep.
    pub(crate) fn pass(&self, millis: u64) {
        let mut state = self.lock();
        state.passed += millis;
        state.now += millis;
    }

    pub(crate) fn sleepers(&self) -> usize {
        self.lock().sleepers.len()
    }

    /// Starts a task.
    pub(crate) fn spawn(&self, side: Side, name: String, work: BoxFuture<'static, ()>) {
        self.lock().spawned.push(Spawned { side, name, work });
    }

    pub(crate) fn take_spawned(&self) -> Vec<Spawned> {
        std::mem::take(&mut self.lock().spawned)
    }

    pub(crate) fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Waits for the given number of turns of the scheduler, without time having to pass.
    pub(crate) fn turns(turns: u64) -> Turns {
        Turns(turns)
    }

    /// Waits for so many milliseconds.
    pub(crate) fn pause(&self, millis: u64) -> BoxFuture<'static, ()> {
        self.sleep(Duration::from_millis(millis))
    }

    /// Says what happens, to whoever follows the run.
    pub(crate) fn note(&self, what: impl FnOnce() -> String) {
        let mut state = self.lock();
        if state.trace.is_none() {
            return;
        }
        let line = format!("{:>9} ms  {}", state.passed, what());
        state.trace.get_or_insert_default().push(line);
    }

    /// Makes what has just happened part of the run's fingerprint.
    pub(crate) fn mix(&self, what: u64) {
        self.lock().mix(what);
    }

    pub(crate) fn fingerprint(&self) -> u64 {
        self.lock().fingerprint
    }

    pub(crate) fn take_trace(&self) -> Vec<String> {
        self.lock().trace.take().unwrap_or_default()
    }

    /// An invariant does not hold. The run ends with its first violation.
    pub(crate) fn violate(&self, what: impl Into<String>) {
        let what = what.into();
        self.note(|| format!("VIOLATION: {what}"));
        self.lock().violation.get_or_insert(what);
    }

    /// What `says` says is a violation unless `holds`.
    pub(crate) fn check(&self, holds: bool, says: impl FnOnce() -> String) {
        if !holds {
            self.violate(says());
        }
    }

    pub(crate) fn violation(&self) -> Option<String> {
        self.lock().violation.clone()
    }

    pub(crate) fn start_at(&self, now: u64) {
        self.lock().now = now;
    }
}

impl State {
    fn mix(&mut self, what: u64) {
        // FNV-1a, by words.
        self.fingerprint = (self.fingerprint ^ what).wrapping_mul(0x0100_0000_01b3);
    }
}

impl Clock for Sim {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.lock().now)
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Box::pin(Sleep { sim: self.clone(), until: self.passed().saturating_add(millis), place: None })
    }
}

impl IdSource for Sim {
    fn random(&self) -> u128 {
        let mut state = self.lock();
        let (high, low) = (state.rng.next(), state.rng.next());
        state.mix(high);
        u128::from(high) << 64 | u128::from(low)
    }
}

/// Counts from when it was made.
struct Sleep {
    sim: Sim,
    until: u64,
    place: Option<(u64, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let (until, place) = (self.until, self.place);
        let mut state = self.sim.lock();
        let left = place.and_then(|place| state.sleepers.remove(&place));
        let ended = state.passed >= until;
        let place = (!ended).then(|| {
            let number = state.next_sleeper;
            state.next_sleeper += 1;
            state.sleepers.insert((until, number), context.waker().clone());
            (until, number)
        });
        drop(state);
        drop(left);
        self.place = place;
        if ended { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        let left = self.place.and_then(|place| self.sim.lock().sleepers.remove(&place));
        drop(left);
    }
}

/// Lets others go first, so many times.
pub(crate) struct Turns(u64);

impl Future for Turns {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some(left) = self.0.checked_sub(1) else { return Poll::Ready(()) };
        self.0 = left;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Puts a task among those that are ready.
pub(crate) struct TaskWaker {
    pub(crate) id: u64,
    pub(crate) ready: Ready,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).insert(self.id);
    }
}
