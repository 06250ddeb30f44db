//! The use cases under a deterministic scheduler.
//!
//! A run is decided by its seed: who asks what, in which order tasks are polled, when time passes, which calls of ports fail and
//! how, what models answer, when clients go away, and when the process dies. Everything runs on the thread that asks for it,
//! without a runtime and without a clock, so that a seed gives the same run every time. Along the way, and at the end, the
//! invariants of the architecture are checked.
//!
//! docs/guides/testing.md tells how to use it.

mod chaos;
mod client;
mod documents;
mod embedder;
mod executor;
mod model;
mod plan;
mod plants;
mod ports;
mod rng;
mod sim;
mod verdict;
mod witness;
mod world;

use std::fmt;
use std::sync::Arc;

use self::executor::{Executor, Progress};
use self::plan::{Plan, Steps};
pub use self::plants::Plant;
use self::sim::{Side, Sim};
use self::world::World;

/// Far more steps than a run has.
const MOST_STEPS: u64 = 200_000;

/// How to run a seed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// A bug to plant.
    pub plant: Option<Plant>,
    /// Whether to write down every decision.
    pub traced: bool,
}

/// A run in which every invariant held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Over every decision: equal for equal runs.
    pub fingerprint: u64,
    /// How often a task was polled, or time passed.
    pub steps: u64,
    /// Requests, deletions of sessions included.
    pub requests: u64,
    /// Calls of models.
    pub calls: u64,
    /// Turns that were kept.
    pub turns: u64,
    /// Usage records.
    pub records: u64,
    /// Requests that the death of the process has cut.
    pub cut: u64,
    /// Calls of ports that went wrong.
    pub faults: u64,
    /// Requests that were told an earlier request's answer.
    pub replays: u64,
}

/// A run in which an invariant was broken.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The run.
    pub seed: u64,
    /// What was broken, first.
    pub violation: String,
    /// The step at which it was noticed.
    pub step: u64,
    /// What had happened, when the run was traced.
    pub trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.trace {
            writeln!(f, "{line}")?;
        }
        let Self { seed, violation, step, .. } = self;
        writeln!(f, "seed {seed} at step {step}: {violation}")?;
        write!(f, "replay: ENIGMA_SIM_SEED={seed} cargo test -p enigma-simulation --test seeds -- --nocapture")
    }
}

/// Runs one seed.
///
/// # Errors
/// [`Failure`], when an invariant does not hold.
pub fn run(seed: u64, options: &Options) -> Result<Summary, Box<Failure>> {
    let sim = Sim::new(seed, options.traced);
    let plan = Arc::new(Plan::draw(&sim));
    sim.start_at(plan.start);
    let world = Arc::new(World::new(&sim, &plan, options.plant));
    for number in 0..plan.clients {
        sim.spawn(Side::Client, format!("client {number}"), Box::pin(client::client(Arc::clone(&world))));
    }
    let steps = drive(&world);
    if sim.violation().is_none() {
        verdict::judge(&world);
    }
    let trace = sim.take_trace();
    match sim.violation() {
        Some(violation) => Err(Box::new(Failure { seed, violation, step: steps, trace })),
        None => Ok(summary(&world, steps)),
    }
}

/// Runs the world until nothing is left to do, or something is wrong; how many steps that took.
fn drive(world: &Arc<World>) -> u64 {
    let (sim, plan) = (&world.sim, &world.plan);
    let mut executor = Executor::new(sim.clone());
    let mut put_right = 0_i64;
    for step in 0..MOST_STEPS {
        if sim.violation().is_some() {
            return step;
        }
        if plan.crashes.contains(&step) {
            world.crash(&mut executor);
        }
        if plan.stops.contains(&step) {
            world.stop();
        }
        if world.is_stopping() && executor.server_tasks() == 0 {
            world.restart();
        }
        if plan.reloads.contains(&step) {
            world.reload();
        }
        put_right += step_clock(sim, plan.steps, put_right);
        match executor.step() {
            Progress::Some => {}
            Progress::Done => return step,
            Progress::Stuck => sim.violate(format!("nothing will ever wake {:?}", executor.names())),
        }
    }
    sim.violate("the run does not end");
    MOST_STEPS
}

/// Now and then sets the clock; by how much.
fn step_clock(sim: &Sim, steps: Steps, so_far: i64) -> i64 {
    let millis = match steps {
        Steps::Small if sim.chance(5) => 4_000,
        Steps::Wild if sim.chance(5) => 3 * 86_400_000,
        _ => return 0,
    };
    let by = i64::try_from(sim.below(2 * millis)).unwrap_or_default() - i64::try_from(millis).unwrap_or_default();
    // Altogether it never is far from the truth.
    if steps == Steps::Small && (so_far + by).abs() > 15_000 {
        return 0;
    }
    sim.note(|| format!("the clock steps by {by} ms"));
    sim.step_clock(by);
    by
}

fn summary(world: &World, steps: u64) -> Summary {
    let mut summary = Summary { fingerprint: world.sim.fingerprint(), steps, ..Summary::default() };
    for facts in world.witness.facts().values() {
        summary.requests += 1;
        summary.calls += u64::from(facts.calls);
        summary.turns += facts.turns.len() as u64;
        summary.records += facts.records.len() as u64;
        summary.cut += u64::from(facts.cut);
        summary.faults += facts.faults.len() as u64;
        let replayed = matches!(&facts.told, Some(witness::Told::Answered(heard)) if heard.replayed);
        summary.replays += u64::from(replayed);
    }
    summary
}
