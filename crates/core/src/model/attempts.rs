//! Calls of a provider: breaker, retries and time limits, the same for every kind of model.

use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;

use super::breaker::Admitted;
use super::{BreakerPolicy, Breakers, ModelError, Outcome, Phase, RetryPolicy};
use crate::id::{ModelId, ProviderId};
use crate::ports::{Clock, IdSource};
use crate::time::Timestamp;

/// Asks providers, as often as the policy says.
#[derive(Clone)]
pub(super) struct Attempts {
    pub(super) clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
    breakers: Breakers,
    retry: RetryPolicy,
}

/// Who is asked, and for how long.
#[derive(Clone, Copy)]
pub(super) struct Attempt<'a> {
    pub(super) provider: &'a ProviderId,
    pub(super) model: &'a ModelId,
    /// How long one try may take.
    pub(super) limit: Duration,
    /// When all of them must be over.
    pub(super) deadline: Timestamp,
}

impl Attempts {
    pub(super) fn new(
        clock: Arc<dyn Clock>,
        ids: Arc<dyn IdSource>,
        breaker: BreakerPolicy,
        retry: RetryPolicy,
    ) -> Self {
        Self { clock, ids, breakers: Breakers::new(breaker), retry }
    }

    /// Does `call` until it succeeds, or fails for good. Whoever gets an answer still owes the breaker its end.
    pub(super) async fn make<T, Call>(
        &self,
        attempt: Attempt<'_>,
        mut call: impl FnMut() -> Call + Send,
    ) -> Result<(T, Admitted), ModelError>
    where
        T: Send,
        Call: Future<Output = Result<T, ModelError>> + Send,
    {
        let Attempt { provider, model, deadline, .. } = attempt;
        let mut attempts = 0;
        loop {
            let admitted = self.breakers.admit(provider, model, self.clock.now()).ok_or(ModelError::BreakerOpen)?;
            attempts += 1;
            let error = match self.one(attempt, call()).await {
                Ok(answer) => return Ok((answer, admitted)),
                Err(error) => error,
            };
            admitted.record(outcome(&error), self.clock.now());
            let Some(pause) = self.retry.next_delay(attempts, &error, self.ids.unit(), self.clock.now(), deadline)
            else {
                return Err(error);
            };
            tracing::info!(%provider, %model, attempts, %error, ?pause, "model call is tried again");
            self.clock.sleep(pause).await;
        }
    }

    async fn one<T: Send>(
        &self,
        attempt: Attempt<'_>,
        call: impl Future<Output = Result<T, ModelError>> + Send,
    ) -> Result<T, ModelError> {
        let left = attempt.deadline.since(self.clock.now());
        let (limit, phase) =
            if left < attempt.limit { (left, Phase::Deadline) } else { (attempt.limit, Phase::FirstToken) };
        // An adapter that panics has failed; its request is owed an end all the same.
        let call = AssertUnwindSafe(call).catch_unwind();
        let answer = within(&*self.clock, limit, phase, call).await?;
        answer.unwrap_or_else(|_| Err(ModelError::unavailable("the model's adapter panicked")))
    }
}

/// What a failure tells a breaker.
pub(super) fn outcome(error: &ModelError) -> Outcome {
    if error.counts_for_breaker() { Outcome::Failure } else { Outcome::Abandoned }
}

/// Waits for `work`, but not for longer than `limit`. Most work is done at once, and needs no timer.
pub(super) async fn within<T>(
    clock: &dyn Clock,
    limit: Duration,
    phase: Phase,
    work: impl Future<Output = T> + Send,
) -> Result<T, ModelError> {
    let mut work = pin!(work);
    let mut patience = None;
    poll_fn(|context| match work.as_mut().poll(context) {
        Poll::Ready(done) => Poll::Ready(Ok(done)),
        Poll::Pending => {
            let patience = patience.get_or_insert_with(|| clock.sleep(limit));
            patience.as_mut().poll(context).map(|()| Err(ModelError::Timeout(phase)))
        }
    })
    .await
}
