//! Runs the tasks of one world, one poll at a time, in an order that the seed chooses.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::task::{Context, Waker};

use futures_util::future::BoxFuture;

use crate::sim::{Side, Sim, Spawned, TaskWaker};

/// The longest pause of the whole process that may come over it while there is work: less than any lease can notice.
const LONGEST_STALL: u64 = 500;

struct Task {
    side: Side,
    name: String,
    work: BoxFuture<'static, ()>,
    waker: Waker,
}

/// What one step has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Something was done, and there may be more.
    Some,
    /// No task is left.
    Done,
    /// Tasks are left, and nothing will ever wake one.
    Stuck,
}

pub(crate) struct Executor {
    sim: Sim,
    tasks: BTreeMap<u64, Task>,
    next: u64,
    /// How much longer the process may stand still in all.
    stalls_left: u64,
}

impl Executor {
    pub(crate) fn new(sim: Sim) -> Self {
        Self { sim, tasks: BTreeMap::new(), next: 0, stalls_left: 10_000 }
    }

    /// Polls one task, or lets time pass.
    pub(crate) fn step(&mut self) -> Progress {
        self.adopt();
        if self.tasks.is_empty() {
            return Progress::Done;
        }
        let ready: Vec<u64> = self.sim.ready().lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        if ready.is_empty() {
            return match self.sim.wake_next(u64::MAX) {
                Some(_) => Progress::Some,
                None => Progress::Stuck,
            };
        }
        if self.sim.chance(20) {
            let limit = self.stalls_left.min(LONGEST_STALL);
            self.stalls_left -= self.sim.wake_next(limit).unwrap_or_default();
        }
        // A future may be polled although nobody has woken it.
        let chosen = if self.sim.chance(10) {
            let all: Vec<u64> = self.tasks.keys().copied().collect();
            *self.sim.pick(&all)
        } else {
            *self.sim.pick(&ready)
        };
        self.poll(chosen);
        Progress::Some
    }

    /// Takes the new tasks in.
    fn adopt(&mut self) {
        for Spawned { side, name, work } in self.sim.take_spawned() {
            let id = self.next;
            self.next += 1;
            let waker = Waker::from(Arc::new(TaskWaker { id, ready: Arc::clone(self.sim.ready()) }));
            waker.wake_by_ref();
            self.tasks.insert(id, Task { side, name, work, waker });
        }
    }

    fn poll(&mut self, id: u64) {
        self.sim.ready().lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        let Some(task) = self.tasks.get_mut(&id) else { return };
        self.sim.mix(id);
        self.sim.note(|| format!("poll {}", task.name));
        let mut context = Context::from_waker(&task.waker);
        let polled = catch_unwind(AssertUnwindSafe(|| task.work.as_mut().poll(&mut context)));
        if polled.is_err() {
            self.sim.violate(format!("the task of {} panicked", task.name));
        }
        if polled.map_or(true, |polled| polled.is_ready()) {
            self.forget(id);
        }
    }

    fn forget(&mut self, id: u64) {
        let ended = self.tasks.remove(&id);
        self.sim.ready().lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        drop(ended);
    }

    /// Ends every task of the process, wherever it is.
    pub(crate) fn kill_server(&mut self) {
        self.adopt();
        for id in self.of_server() {
            self.forget(id);
        }
    }

    /// How many tasks of the process there are.
    pub(crate) fn server_tasks(&self) -> usize {
        self.of_server().len()
    }

    fn of_server(&self) -> Vec<u64> {
        self.tasks.iter().filter(|(_, task)| task.side == Side::Server).map(|(id, _)| *id).collect()
    }

    /// The tasks that are left, by name.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.tasks.values().map(|task| task.name.as_str()).collect()
    }
}
