//! Search: a question in, an answer from the tenant's documents out, with its sources.

mod answer;
mod books;
mod command;
mod conduct;
mod error;
mod find;
mod flights;
mod service;

pub use command::{CacheStatus, SearchCommand, SearchDone, SearchEvent, SearchEvents, SearchReply, Source};
pub use error::{RetrievalError, RetrievalRejected};
pub use service::{Reranker, SearchPorts, SearchService, SearchSettings};

pub(crate) use books::Tally;
