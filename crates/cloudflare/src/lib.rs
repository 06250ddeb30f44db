//! Adapters of enigma-core's ports to Cloudflare's bindings.

mod ai;
mod analytics;
mod books;
mod call;
mod deadline;
mod directory;
mod idempotency_store;
mod message;
mod names;
mod objects;
mod runtime;
mod session_index;
mod sessions;

pub use ai::{AbortOnDrop, AiBinding, JsBody, MissingBinding, WorkersAiModel};
pub use analytics::UsageDataset;
pub use books::ObjectBooks;
pub use call::Objects;
pub use directory::{Freshness, KEY as TENANTS_KEY, KvTenantDirectory, ServesModel, TenantRules};
pub use idempotency_store::ObjectIdempotencyStore;
pub use objects::{ChatSession, RateLimiter, TenantLedger};
pub use runtime::{WaitUntil, WorkerClock, WorkerIds};
pub use session_index::D1SessionIndex;
pub use sessions::ObjectSessions;
