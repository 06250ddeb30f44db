//! What was seen of every request, at every place where something of it could be seen.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use enigma_core::chat::{ChatDone, StreamFailure};
use enigma_core::idempotency::IdempotencyKey;
use enigma_core::session::StoredMessage;
use enigma_core::usage::UsageRecord;
use enigma_core::{RequestId, SessionId, TenantId};
use uuid::Uuid;

use crate::sim::Sim;

/// A call that a fault can strike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Find,
    Peek,
    Acquire,
    SlotEnter,
    SlotLeave,
    Reserve,
    Settle,
    Release,
    Record,
    QueueEnter,
    Recent,
    Append,
    IndexRecord,
    KeyBegin,
    KeyFinish,
    KeyAbandon,
    Page,
    List,
    Delete,
    IndexRemove,
    /// The facade's, whole.
    Enter,
    Close,
    BeginTurn,
    CorpusRead,
    CorpusWrite,
    CacheGet,
    CachePut,
}

/// What a client heard of its request.
#[derive(Debug, Clone)]
pub(crate) enum Told {
    /// The request was refused, for this reason.
    Refused(String),
    /// The answer was read to its end.
    Answered(Heard),
    /// The reply began; then the client went away, or the process died.
    Began,
}

/// An answer, as it was heard to its end.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    /// The request that made it.
    pub(crate) by: RequestId,
    pub(crate) replayed: bool,
    pub(crate) content: String,
    pub(crate) failure: Option<StreamFailure>,
    pub(crate) done: ChatDone,
}

/// All that is known of one request.
pub(crate) struct Facts {
    pub(crate) tenant: TenantId,
    pub(crate) session: Option<SessionId>,
    /// Its key, and what it asks under it.
    pub(crate) key: Option<(IdempotencyKey, u64)>,
    /// In which life of the process it was begun.
    pub(crate) life: u64,
    /// Its task has run to its end.
    pub(crate) ended: bool,
    /// The process died under it.
    pub(crate) cut: bool,
    /// The faults that struck its calls, and whether the call was done all the same.
    pub(crate) faults: Vec<(Call, bool)>,
    /// Calls of a model.
    pub(crate) calls: u32,
    /// What the model gave of the answer that was begun.
    pub(crate) said: String,
    /// The turns that were kept of it.
    pub(crate) turns: Vec<Vec<StoredMessage>>,
    pub(crate) records: Vec<UsageRecord>,
    pub(crate) told: Option<Told>,
}

impl Facts {
    /// Whether a fault struck this call of the request.
    pub(crate) fn struck(&self, calls: &[Call]) -> bool {
        self.faults.iter().any(|(call, _)| calls.contains(call))
    }

    /// Whether a fault kept this call of the request from being done.
    pub(crate) fn prevented(&self, calls: &[Call]) -> bool {
        self.faults.iter().any(|(call, done)| calls.contains(call) && !done)
    }
}

/// What was seen so far.
#[derive(Clone)]
pub(crate) struct Witness {
    pub(crate) sim: Sim,
    facts: Arc<Mutex<BTreeMap<RequestId, Facts>>>,
}

impl Witness {
    pub(crate) fn new(sim: Sim) -> Self {
        Self { sim, facts: Arc::default() }
    }

    /// A new request.
    pub(crate) fn announce(
        &self,
        tenant: &TenantId,
        session: Option<SessionId>,
        key: Option<(IdempotencyKey, u64)>,
        life: u64,
    ) -> RequestId {
        let mut facts = self.facts();
        let request = RequestId::new(Uuid::from_u128(facts.len() as u128 + 1));
        let new = Facts {
            tenant: tenant.clone(),
            session,
            key,
            life,
            ended: false,
            cut: false,
            faults: Vec::new(),
            calls: 0,
            said: String::new(),
            turns: Vec::new(),
            records: Vec::new(),
            told: None,
        };
        facts.insert(request, new);
        request
    }

    pub(crate) fn facts(&self) -> MutexGuard<'_, BTreeMap<RequestId, Facts>> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes something about a request, which must be one that was announced.
    pub(crate) fn about<R>(&self, request: &RequestId, act: impl FnOnce(&mut Facts) -> R) -> Option<R> {
        let mut facts = self.facts();
        let known = facts.get_mut(request).map(act);
        drop(facts);
        self.sim.check(known.is_some(), || format!("nobody made the request {request}"));
        known
    }

    /// A fault strikes a call.
    pub(crate) fn fault(&self, call: Call, request: Option<&RequestId>, done: bool) {
        let whose = request.map_or(0, number);
        self.sim.note(|| format!("fault: {call:?} of r{whose}, done: {done}"));
        if let Some(request) = request {
            self.about(request, |facts| facts.faults.push((call, done)));
        }
    }

    /// The process dies: what of it has not ended is cut.
    pub(crate) fn cut(&self) {
        for facts in self.facts().values_mut() {
            facts.cut |= !facts.ended;
        }
    }
}

/// A request's number, by which its texts call it.
pub(crate) fn number(request: &RequestId) -> u128 {
    request.uuid().as_u128()
}

/// Every text in a run says whose it is.
pub(crate) fn marker(tenant: &TenantId, session: Option<&SessionId>, request: &RequestId) -> String {
    let session = session.map_or(0, |session| session.uuid().as_u128() & 0xff);
    format!("{tenant}|s{session}|r{}|", number(request))
}

/// The request whose text this is.
pub(crate) fn request_of(text: &str) -> Option<RequestId> {
    let number = text.split('|').nth(2)?.strip_prefix('r')?.parse().ok()?;
    Some(RequestId::new(Uuid::from_u128(number)))
}
