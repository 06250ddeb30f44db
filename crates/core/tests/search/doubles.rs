//! Ports that fail, die, hang or lose their answers on demand, and a model that knows what it is asked for.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use enigma_core::books::ComposedBooks;
use enigma_core::ledger::{BudgetExceeded, Settlement};
use enigma_core::limit::{LimitCheck, RateStatus};
use enigma_core::model::{ChatModel, DeltaStream, ModelCall, ModelError};
use enigma_core::ports::{Cache, Closing, Corpus, Entered, Entrance, KeywordQuery, RequestBooks, VectorQuery};
use enigma_core::retrieval::{
    CorpusGeneration, CorpusState, Document, DocumentId, DocumentPage, DocumentPart, EmbeddedChunk, EmbeddingSpace,
    Passage, PublishError, Staging,
};
use enigma_core::tenant::TokenBudget;
use enigma_core::{PortError, RequestId, TenantId, Timestamp, VersionId};
use enigma_memory::testing::ScriptedModel;
use enigma_memory::{MemoryCache, MemoryCorpus};

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// It does nothing, and says so.
    Fail,
    /// It does its work, and nobody hears of it.
    Lose,
    /// It panics.
    Panic,
    /// It never ends.
    Hang,
    /// It waits for a thousand turns of the scheduler before it begins.
    Slow,
}

/// The faults to come, by the name of the call, and the calls so far.
#[derive(Clone, Default)]
pub(crate) struct Faults(Arc<Mutex<(Planned, Vec<&'static str>)>>);

type Planned = HashMap<&'static str, VecDeque<Fault>>;

impl Faults {
    /// The next calls of this name go so.
    pub(crate) fn plan(&self, name: &'static str, faults: impl IntoIterator<Item = Fault>) {
        self.0.lock().unwrap().0.entry(name).or_default().extend(faults);
    }

    /// Whatever was planned does not happen.
    pub(crate) fn clear(&self) {
        self.0.lock().unwrap().0.clear();
    }

    /// Forgets the calls so far, and tells them.
    pub(crate) fn take(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.0.lock().unwrap().1)
    }

    /// How many calls had this name, and were not taken yet.
    pub(crate) fn count(&self, name: &str) -> usize {
        self.0.lock().unwrap().1.iter().filter(|call| **call == name).count()
    }

    async fn around<T>(
        &self,
        name: &'static str,
        work: impl Future<Output = Result<T, PortError>> + Send,
    ) -> Result<T, PortError> {
        let fault = {
            let (faults, calls) = &mut *self.0.lock().unwrap();
            calls.push(name);
            faults.get_mut(name).and_then(VecDeque::pop_front).unwrap_or(Fault::None)
        };
        // Every call is a place at which others run, and at which its caller may be dropped.
        tokio::task::yield_now().await;
        match fault {
            Fault::None => work.await,
            Fault::Fail => Err(PortError::unavailable("double", "told to fail")),
            Fault::Lose => {
                drop(work.await);
                Err(PortError::Timeout { port: "double" })
            }
            Fault::Panic => panic!("{name} was told to panic"),
            Fault::Hang => std::future::pending().await,
            Fault::Slow => {
                for _ in 0..1000 {
                    tokio::task::yield_now().await;
                }
                work.await
            }
        }
    }
}

#[derive(Default)]
pub(crate) struct FaultyCorpus {
    pub(crate) inner: MemoryCorpus,
    pub(crate) faults: Faults,
    /// Whether it says that it may miss something.
    pub(crate) is_settling: AtomicBool,
}

#[async_trait]
impl Corpus for FaultyCorpus {
    async fn state(&self, tenant: &TenantId) -> Result<CorpusState, PortError> {
        let state = self.faults.around("state", self.inner.state(tenant)).await?;
        Ok(CorpusState { is_settling: self.is_settling.load(Ordering::Relaxed), ..state })
    }

    async fn stage(
        &self,
        tenant: &TenantId,
        staging: Staging<'_>,
        chunks: &[EmbeddedChunk],
        now: Timestamp,
    ) -> Result<(), PortError> {
        self.faults.around("stage", self.inner.stage(tenant, staging, chunks, now)).await
    }

    async fn publish(
        &self,
        tenant: &TenantId,
        version: VersionId,
        document: &Document,
        space: &EmbeddingSpace,
        chunks: u32,
        now: Timestamp,
    ) -> Result<Result<CorpusGeneration, PublishError>, PortError> {
        self.faults.around("publish", self.inner.publish(tenant, version, document, space, chunks, now)).await
    }

    async fn discard(&self, tenant: &TenantId, version: VersionId) -> Result<(), PortError> {
        self.faults.around("discard", self.inner.discard(tenant, version)).await
    }

    async fn delete(&self, tenant: &TenantId, document: &DocumentId) -> Result<bool, PortError> {
        self.faults.around("delete", self.inner.delete(tenant, document)).await
    }

    async fn documents<'a>(
        &self,
        tenant: &TenantId,
        after: Option<&'a DocumentId>,
        limit: u32,
    ) -> Result<DocumentPage, PortError> {
        self.faults.around("documents", self.inner.documents(tenant, after, limit)).await
    }

    async fn read(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        from: u32,
        limit: u32,
    ) -> Result<Option<DocumentPart>, PortError> {
        self.faults.around("read", self.inner.read(tenant, document, from, limit)).await
    }

    async fn nearest(&self, tenant: &TenantId, query: VectorQuery<'_>) -> Result<Vec<Passage>, PortError> {
        self.faults.around("nearest", self.inner.nearest(tenant, query)).await
    }

    async fn matching(&self, tenant: &TenantId, query: KeywordQuery<'_>) -> Result<Vec<Passage>, PortError> {
        self.faults.around("matching", self.inner.matching(tenant, query)).await
    }

    async fn sweep(&self, tenant: &TenantId, before: Timestamp) -> Result<u64, PortError> {
        self.faults.around("sweep", self.inner.sweep(tenant, before)).await
    }
}

#[derive(Default)]
pub(crate) struct FaultyCache {
    inner: MemoryCache,
    pub(crate) faults: Faults,
    /// What was put, under which key.
    pub(crate) puts: Mutex<Vec<(String, String)>>,
    /// Every value that is got is broken.
    pub(crate) is_broken: AtomicBool,
}

#[async_trait]
impl Cache for FaultyCache {
    async fn get(&self, tenant: &TenantId, key: &str, now: Timestamp) -> Result<Option<String>, PortError> {
        let got = self.faults.around("get", self.inner.get(tenant, key, now)).await?;
        let is_broken = self.is_broken.load(Ordering::Relaxed);
        Ok(got.map(|text| if is_broken { text[..text.len() / 2].to_owned() } else { text }))
    }

    async fn put(
        &self,
        tenant: &TenantId,
        key: &str,
        value: &str,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<(), PortError> {
        self.puts.lock().unwrap().push((key.to_owned(), value.to_owned()));
        self.faults.around("put", self.inner.put(tenant, key, value, expires_at, now)).await
    }
}

/// The books, and who has entered and left.
pub(crate) struct WatchedBooks {
    pub(crate) inner: ComposedBooks,
    pub(crate) faults: Faults,
    pub(crate) entered: Arc<Mutex<Vec<RequestId>>>,
    pub(crate) closed: Arc<Mutex<Vec<RequestId>>>,
}

#[async_trait]
impl RequestBooks for WatchedBooks {
    async fn peek(
        &self,
        tenant: &TenantId,
        checks: &[LimitCheck<'_>],
        now: Timestamp,
    ) -> Result<RateStatus, PortError> {
        self.faults.around("peek", self.inner.peek(tenant, checks, now)).await
    }

    async fn enter(&self, tenant: &TenantId, entrance: &Entrance<'_>, now: Timestamp) -> Result<Entered, PortError> {
        let entered = self.faults.around("enter", self.inner.enter(tenant, entrance, now)).await?;
        if matches!(entered, Entered::In(_)) {
            self.entered.lock().unwrap().push(entrance.request);
        }
        Ok(entered)
    }

    async fn reserve(
        &self,
        tenant: &TenantId,
        request: RequestId,
        tokens: u64,
        budget: &TokenBudget,
        lifetime: Duration,
        now: Timestamp,
    ) -> Result<Result<(), BudgetExceeded>, PortError> {
        self.faults.around("reserve", self.inner.reserve(tenant, request, tokens, budget, lifetime, now)).await
    }

    async fn close(&self, tenant: &TenantId, closing: Closing<'_>, now: Timestamp) -> Result<Settlement, PortError> {
        self.closed.lock().unwrap().push(closing.request);
        self.faults.around("close", self.inner.close(tenant, closing, now)).await
    }
}

/// Three models behind one name, by what they are asked for.
pub(crate) struct Writer {
    pub(crate) answers: ScriptedModel,
    pub(crate) rewrites: ScriptedModel,
    pub(crate) follow_ups: ScriptedModel,
}

#[async_trait]
impl ChatModel for Writer {
    async fn stream(&self, tenant: &TenantId, call: &ModelCall) -> Result<DeltaStream, ModelError> {
        let order = &call.messages[0].content;
        let model = if order.starts_with("Rewrite the user's question") {
            &self.rewrites
        } else if order.starts_with("Write three short questions") {
            &self.follow_ups
        } else {
            &self.answers
        };
        model.stream(tenant, call).await
    }
}
