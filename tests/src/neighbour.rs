//! A well-behaved client of another tenant, who must not notice what others do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::time::Instant;

use crate::client::{Api, session};

/// How long it rests between two chats.
const REST: Duration = Duration::from_millis(20);

/// Chats on and on, on a thread of its own, until [`Neighbour::finish`].
pub struct Neighbour {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    thread: Option<JoinHandle<Duration>>,
}

impl Neighbour {
    /// Begins to chat.
    pub fn start(api: Api) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&answered));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut slowest = Duration::ZERO;
                while !stopped.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    let data = api.chat(&session(), "[[say all is well]]").await.ok();
                    assert_eq!(data["message"], "all is well");
                    slowest = slowest.max(began.elapsed());
                    count.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(REST).await;
                }
                slowest
            })
        });
        Self { stop, answered, thread: Some(thread) }
    }

    /// How many chats were answered so far.
    pub fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// Ends it. Returns how long it waited for the slowest of its answers; panics if one of them was not what it must be.
    pub fn finish(mut self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it is finished once");
        thread.join().expect("the neighbour was not served as it must be")
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
