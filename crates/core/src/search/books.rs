//! What a request of several calls has spent.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::id::ProviderId;

/// Adds up tokens of calls, some of which run side by side.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<Spending>);

/// Tokens so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Spending {
    pub(crate) tokens_in: u64,
    pub(crate) tokens_out: u64,
    pub(crate) estimated: bool,
    /// Calls whose tokens are an estimate until they have ended.
    under_way: u32,
    /// Who was asked last.
    pub(crate) provider: Option<ProviderId>,
}

impl Spending {
    pub(crate) fn total(&self) -> u64 {
        self.tokens_in.saturating_add(self.tokens_out)
    }
}

/// A call that is under way: its prompt and what it has answered count, whatever becomes of the call, until it says otherwise.
#[must_use = "an estimate stands until it is replaced"]
pub(crate) struct Pending<'a> {
    tally: &'a Tally,
    prompt: u64,
    answer: u64,
}

impl Tally {
    /// A provider has begun to read a prompt of about `estimate` tokens.
    pub(crate) fn begin(&self, estimate: u64) -> Pending<'_> {
        let mut spending = self.lock();
        spending.tokens_in = spending.tokens_in.saturating_add(estimate);
        spending.under_way += 1;
        Pending { tally: self, prompt: estimate, answer: 0 }
    }

    /// Adds what was counted.
    pub(crate) fn add(&self, tokens_in: u64, tokens_out: u64, estimated: bool, provider: Option<&ProviderId>) {
        let mut spending = self.lock();
        spending.tokens_in = spending.tokens_in.saturating_add(tokens_in);
        spending.tokens_out = spending.tokens_out.saturating_add(tokens_out);
        spending.estimated |= estimated;
        if let Some(provider) = provider {
            spending.provider = Some(provider.clone());
        }
    }

    pub(crate) fn so_far(&self) -> Spending {
        let mut spending = self.lock().clone();
        spending.estimated |= spending.under_way > 0;
        spending
    }

    fn lock(&self) -> MutexGuard<'_, Spending> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending<'_> {
    /// The call has answered about `estimate` tokens so far.
    pub(crate) fn heard(&mut self, estimate: u64) {
        let mut spending = self.tally.lock();
        spending.tokens_out = spending.tokens_out.saturating_sub(self.answer).saturating_add(estimate);
        self.answer = estimate;
    }

    /// The call has ended, and what it used is added by whoever knows it. One that has failed used nothing.
    pub(crate) fn end(self) {
        let mut spending = self.tally.lock();
        spending.under_way -= 1;
        spending.tokens_in = spending.tokens_in.saturating_sub(self.prompt);
        spending.tokens_out = spending.tokens_out.saturating_sub(self.answer);
    }
}
