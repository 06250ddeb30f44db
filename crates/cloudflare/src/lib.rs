//! Adapters of enigma-core's ports to Cloudflare's bindings.

mod ai;
mod analytics;
mod audit_log;
mod books;
mod call;
mod corpus;
mod d1;
mod deadline;
mod directory;
mod idempotency_store;
mod kv_cache;
mod message;
mod names;
mod objects;
mod runtime;
mod session_index;
mod sessions;
mod vectorize;

pub use ai::{AbortOnDrop, AiBinding, JsBody, MissingBinding, WorkersAiEmbedder, WorkersAiModel, WorkersAiSynthesizer};
pub use analytics::UsageDataset;
pub use audit_log::D1AuditLog;
pub use books::ObjectBooks;
pub use call::Objects;
pub use corpus::{D1VectorizeCorpus, Exactness, IndexTooSmall, InvalidIndexes, MetadataIndexes};
pub use directory::{Freshness, KEY as TENANTS_KEY, KvTenantDirectory, ServesModel, TenantRules};
pub use idempotency_store::ObjectIdempotencyStore;
pub use kv_cache::KvCache;
pub use objects::{ChatSession, RateLimiter, TenantLedger};
pub use runtime::{WaitUntil, WorkerClock, WorkerIds};
pub use session_index::D1SessionIndex;
pub use sessions::ObjectSessions;
