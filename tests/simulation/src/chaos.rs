//! Faults of ports, as their contracts allow them: an answer may come late, not at all, or say that nothing was done when it was.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use enigma_core::{PortError, RequestId};

use crate::sim::Sim;
use crate::witness::{Call, Witness};

/// How long a port is silent before its adapter gives up.
const TIMEOUT: u64 = 3_000;

/// Strikes the calls of one life of the process.
#[derive(Clone)]
pub(crate) struct Chaos {
    pub(crate) sim: Sim,
    pub(crate) witness: Witness,
    /// In so many of a thousand calls.
    pub(crate) permille: u64,
    /// Whether the process still lives. The dead ask nothing more.
    pub(crate) alive: Arc<AtomicBool>,
    /// Where this is false nothing goes wrong and calls are awaited at once, for ports behind a facade that has its own faults.
    pub(crate) is_on: bool,
}

impl Chaos {
    /// The same ports, without faults of their own.
    pub(crate) fn off(&self) -> Self {
        Self { is_on: false, ..self.clone() }
    }

    /// Does `work`, for better or worse.
    pub(crate) async fn strike<T>(
        &self,
        call: Call,
        request: Option<&RequestId>,
        work: impl Future<Output = Result<T, PortError>>,
    ) -> Result<T, PortError> {
        if !self.is_on {
            return work.await;
        }
        self.delay().await;
        if !self.alive.load(Ordering::Relaxed) {
            return Err(PortError::unavailable("port", "the process is dead"));
        }
        if !self.sim.chance(self.permille) {
            let answer = work.await;
            self.delay().await;
            return answer;
        }
        let (is_done, is_silent) = (self.sim.chance(500), self.sim.chance(500));
        self.witness.fault(call, request, is_done);
        if is_done {
            // What it gives is lost on the way, and a permit with it.
            drop(work.await);
        }
        if is_silent {
            self.sim.pause(TIMEOUT).await;
        } else {
            self.delay().await;
        }
        // Only a timeout leaves open whether the call was done.
        Err(if is_done || is_silent {
            PortError::Timeout { port: "simulated" }
        } else {
            PortError::unavailable("simulated", "told to fail")
        })
    }

    /// Lets others go first, or time pass.
    pub(crate) async fn delay(&self) {
        match self.sim.below(16) {
            0 => self.sim.pause(self.sim.between(1, 400)).await,
            turns @ 1..4 => Sim::turns(turns).await,
            _ => {}
        }
    }
}
