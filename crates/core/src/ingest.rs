//! Ingestion: a document in, cut, embedded and found from then on in place of its older version.

mod command;
mod conduct;
mod documents;
mod service;

pub use command::{IngestCommand, IngestDone, IngestEvent, IngestEvents, IngestReply};
pub use documents::{DocumentService, ReadError};
pub use service::{IngestPorts, IngestService, IngestSettings};
