//! One thread that computes for all conversations.
//!
//! Candle's thread pool takes one multiplication at a time, so that two conversations in two threads are slower than one after the
//! other. Here they share each step instead: every conversation that is being answered gets one token, and one that is still being
//! read gets a chunk of its prompt in the same go.

mod answer;
mod conversation;
mod queue;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use enigma_core::TenantId;
use enigma_core::model::ModelError;

pub(crate) use self::answer::Answer;
use self::conversation::Conversation;
pub(crate) use self::conversation::Request;
use self::queue::Queue;
use crate::network::{Network, Part};
use crate::tokenizer::Tokenizer;

/// Tokens of a prompt that are read in one step. While one conversation's chunk is read the others wait for their next token, so the
/// chunk is small; but larger ones are read faster.
const CHUNK: usize = 32;
/// The same when nobody waits. It still bounds how long a client that has gone is served.
const CHUNK_ALONE: usize = 64;

/// How often the line is looked at while all readers are behind.
const LOOK_AROUND: Duration = Duration::from_secs(1);

/// How many conversations are served and wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Conversations in a step.
    pub(crate) conversations: usize,
    /// Conversations that wait for one of those to end, of all tenants together.
    pub(crate) queue: usize,
    /// How long a conversation waits before it is told that there is no room.
    pub(crate) patience: Duration,
    /// Pieces of an answer that are kept for a slow reader.
    pub(crate) unread: usize,
}

/// The handle of the engine's thread, which ends within a step of the handle's drop.
pub(crate) struct Engine {
    queue: Arc<Queue>,
    unread: usize,
    thread: Thread,
}

impl Engine {
    /// Starts the thread.
    pub(crate) fn start<N: Network>(
        network: N,
        tokenizer: Arc<Tokenizer>,
        limits: Limits,
    ) -> Result<Self, std::io::Error> {
        let queue = Arc::new(Queue::new(limits.conversations.max(1), limits.queue));
        let patience = limits.patience;
        let worker =
            Worker { network, tokenizer, queue: Arc::clone(&queue), conversations: Vec::new(), step: 0, patience };
        let thread = thread::Builder::new().name("ondevice".to_owned()).spawn(move || worker.work())?;
        Ok(Self { queue, unread: limits.unread, thread: thread.thread().clone() })
    }

    /// Puts a request in line. In a full line the newest request of the tenant that holds most places makes way for a tenant that holds
    /// fewer, and its answer is [`ModelError::Busy`] and nothing else.
    ///
    /// # Errors
    /// [`ModelError::Busy`] when the line is full and nobody makes way, [`ModelError::Unavailable`] when the engine has stopped.
    pub(crate) fn submit(&self, request: Request) -> Result<Answer, ModelError> {
        let (sender, pieces) = answer::channel(self.unread);
        let ticket = self.queue.push(request, sender)?;
        self.thread.unpark();
        Ok(Answer::new(ticket, pieces))
    }

    /// Whether a request of this tenant would be refused now.
    pub(crate) fn is_full_for(&self, tenant: &TenantId) -> bool {
        self.queue.is_full_for(tenant)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.queue.close();
        self.thread.unpark();
    }
}

/// Wakes the engine when a reader has made room.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// What the thread owns.
struct Worker<N: Network> {
    network: N,
    tokenizer: Arc<Tokenizer>,
    queue: Arc<Queue>,
    conversations: Vec<Conversation<N::Seq>>,
    step: u64,
    patience: Duration,
}

impl<N: Network> Worker<N> {
    fn work(mut self) {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        // The weights do not change, and the conversations at fault are dropped, so that the engine can go on after a panic.
        while catch_unwind(AssertUnwindSafe(|| self.run(&waker))).is_err() {
            tracing::error!(
                conversations = self.conversations.len(),
                "the on-device engine panicked; its answers were cut"
            );
            self.conversations.clear();
        }
        self.queue.close();
    }

    fn run(&mut self, waker: &Waker) {
        while !self.queue.is_closed() {
            let somebody_waits = self.queue.refuse_after(self.patience);
            while let Some(waiting) = self.queue.take() {
                self.conversations.push(Conversation::new(waiting, self.network.seq()));
            }
            if !self.advance(waker) {
                // A new request, a reader who makes room, a reader who goes and the end of the engine all unpark.
                if somebody_waits { thread::park_timeout(LOOK_AROUND) } else { thread::park() }
            }
        }
    }

    /// Makes a step. False when there was nothing to do.
    fn advance(&mut self, waker: &Waker) -> bool {
        let mut context = Context::from_waker(waker);
        self.conversations.retain(|conversation| !conversation.is_abandoned());
        for conversation in &mut self.conversations {
            conversation.plan_to_speak(&mut context);
        }
        self.step += 1;
        let chunk = if self.conversations.len() > 1 { CHUNK } else { CHUNK_ALONE };
        // One prompt at a time, in turns: the one that was left alone for longest.
        let reading = self.conversations.iter_mut().filter(|conversation| conversation.is_reading());
        if let Some(next) = reading.min_by_key(|conversation| conversation.last_read()) {
            next.plan_to_read(chunk, self.step);
        }

        let mut parts: Vec<Part<'_, N::Seq>> = self.conversations.iter_mut().filter_map(Conversation::part).collect();
        if parts.is_empty() {
            return false;
        }
        let result = self.network.forward(&mut parts);
        drop(parts);
        match result {
            Ok(logits) => {
                let mut logits = logits.into_iter();
                self.conversations.retain_mut(|conversation| {
                    !conversation.is_planned() || conversation.finish_step(logits.next().flatten(), &self.tokenizer)
                });
            }
            Err(error) => self.conversations.retain_mut(|conversation| {
                let spoilt = conversation.is_planned();
                if spoilt {
                    conversation.fail(error.to_string());
                }
                !spoilt
            }),
        }
        true
    }
}

#[cfg(test)]
mod tests;
