//! A model that answers what it was told to.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use enigma_core::TenantId;
use enigma_core::model::{ChatModel, Delta, DeltaStream, FinishReason, ModelCall, ModelError, Usage};
use enigma_core::ports::Clock;
use futures_util::StreamExt;
use futures_util::future::pending;
use futures_util::stream::unfold;

/// One thing that a model does.
#[derive(Debug)]
pub enum Step {
    /// Gives a piece of the answer.
    Say(Delta),
    /// Fails; nothing comes after that.
    Fail(ModelError),
    /// Takes its time.
    Wait(Duration),
    /// Does nothing, for ever.
    Hang,
}

/// What a model does with one call.
#[derive(Debug, Default)]
pub struct Script {
    opening: VecDeque<Step>,
    answer: VecDeque<Step>,
}

impl Script {
    /// Accepts the call at once and answers with `steps`.
    pub fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self { opening: VecDeque::new(), answer: steps.into_iter().collect() }
    }

    /// A whole answer of these pieces of text, and what the provider counted.
    pub fn saying<'a>(pieces: impl IntoIterator<Item = &'a str>, usage: Usage) -> Self {
        let text = pieces.into_iter().map(|piece| Delta::Content(piece.to_owned()));
        let end = [Delta::Finish(FinishReason::Stop), Delta::Usage(usage)];
        Self::new(text.chain(end).map(Step::Say))
    }

    /// Refuses the call.
    pub fn refusing(error: ModelError) -> Self {
        Self { opening: [Step::Fail(error)].into(), answer: VecDeque::new() }
    }

    /// Does this first, before it accepts or refuses the call. To say something is not possible then, and does nothing.
    #[must_use]
    pub fn first(mut self, step: Step) -> Self {
        self.opening.push_front(step);
        self
    }
}

/// How far a call has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallState {
    /// It is not accepted yet.
    Opening,
    /// The answer is being read.
    Streaming,
    /// The script was played to its end, or the call was refused.
    Ended,
    /// The caller dropped it before its end.
    Dropped,
}

/// A call that a model got.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedCall {
    /// For whom.
    pub tenant: TenantId,
    /// What was asked.
    pub call: ModelCall,
    /// How far it has come.
    pub state: CallState,
}

type Calls = Arc<Mutex<Vec<RecordedCall>>>;

/// Plays one script per call, in the order in which they were given. A call without a script is refused as unavailable.
pub struct ScriptedModel {
    clock: Arc<dyn Clock>,
    scripts: Mutex<VecDeque<Script>>,
    calls: Calls,
}

impl ScriptedModel {
    /// A model without scripts, whose waits are those of `clock`.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, scripts: Mutex::default(), calls: Calls::default() }
    }

    /// Adds the script of a further call.
    pub fn push(&self, script: Script) {
        self.scripts.lock().unwrap_or_else(PoisonError::into_inner).push_back(script);
    }

    /// The calls so far, oldest first.
    pub fn calls(&self) -> Vec<RecordedCall> {
        lock(&self.calls).clone()
    }

    /// How far the calls have come, oldest first.
    pub fn states(&self) -> Vec<CallState> {
        lock(&self.calls).iter().map(|call| call.state).collect()
    }

    fn record(&self, tenant: &TenantId, call: &ModelCall) -> Progress {
        let mut calls = lock(&self.calls);
        calls.push(RecordedCall { tenant: tenant.clone(), call: call.clone(), state: CallState::Opening });
        Progress { calls: Arc::clone(&self.calls), place: calls.len() - 1, has_ended: false }
    }
}

#[async_trait]
impl ChatModel for ScriptedModel {
    async fn stream(&self, tenant: &TenantId, call: &ModelCall) -> Result<DeltaStream, ModelError> {
        let mut progress = self.record(tenant, call);
        let script = self.scripts.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let script = script.unwrap_or_else(|| Script::refusing(ModelError::unavailable("no script is left")));
        for step in script.opening {
            match step {
                Step::Say(_) => {}
                Step::Fail(error) => {
                    progress.end();
                    return Err(error);
                }
                Step::Wait(duration) => self.clock.sleep(duration).await,
                Step::Hang => pending().await,
            }
        }
        progress.reach(CallState::Streaming);
        Ok(play(script.answer, Arc::clone(&self.clock), progress))
    }
}

fn play(steps: VecDeque<Step>, clock: Arc<dyn Clock>, progress: Progress) -> DeltaStream {
    unfold((steps, clock, progress), |(mut steps, clock, mut progress)| async move {
        loop {
            let item = match steps.pop_front() {
                Some(Step::Say(delta)) => Ok(delta),
                Some(Step::Fail(error)) => {
                    steps.clear();
                    Err(error)
                }
                Some(Step::Wait(duration)) => {
                    clock.sleep(duration).await;
                    continue;
                }
                Some(Step::Hang) => pending().await,
                None => {
                    progress.end();
                    return None;
                }
            };
            // Whoever has read the last item need not ask for one more.
            if steps.is_empty() {
                progress.end();
            }
            return Some((item, (steps, clock, progress)));
        }
    })
    .boxed()
}

/// Keeps the record of one call up to date.
struct Progress {
    calls: Calls,
    place: usize,
    has_ended: bool,
}

impl Progress {
    fn reach(&self, state: CallState) {
        lock(&self.calls)[self.place].state = state;
    }

    fn end(&mut self) {
        self.has_ended = true;
        self.reach(CallState::Ended);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if !self.has_ended {
            self.reach(CallState::Dropped);
        }
    }
}

fn lock(calls: &Mutex<Vec<RecordedCall>>) -> MutexGuard<'_, Vec<RecordedCall>> {
    calls.lock().unwrap_or_else(PoisonError::into_inner)
}
