//! Tools: named pieces of work with typed parameters, that clients, chats and models can have done.
//!
//! A tool is one type that implements [`Tool`]: it says what it is ([`ToolDefinition`]) and does its work ([`Tool::run`]). Everything
//! else is done by the [`ToolService`], the same for every tool and whoever calls it: permissions, the check of parameters and
//! output by their JSON Schemas, limits and budget, the time limit, the books, and the audit record.

mod audit;
mod canonical;
mod classify_intent;
mod command;
mod conduct;
mod definition;
mod error;
mod extract_entities;
mod ingest_docs;
mod lenient;
mod perform;
mod prompt;
mod registry;
mod run;
mod schema;
mod search_tool;
mod service;
mod summarize;
mod tag_chunk_docs;

pub use audit::{AuditOutcome, AuditPage, AuditQuery, AuditRecord, AuditService, ParamsHash};
pub use canonical::canonical_json;
pub use classify_intent::ClassifyIntent;
pub use command::{ToolCall, ToolCommand, ToolReply};
pub use definition::{Permission, Tool, ToolDefinition};
pub use error::{ToolError, ToolFailure, ToolRejected};
pub use extract_entities::ExtractEntities;
pub use ingest_docs::IngestDocs;
pub use lenient::json_objects;
pub(crate) use perform::{Part, Performed, ReadyTool, ending as tool_ending};
pub(crate) use prompt::data_block;
pub use registry::{InvalidTool, ToolRegistry};
pub use run::{Question, ToolRun};
pub use schema::{InvalidSchema, Schema, Violation};
pub use search_tool::SearchTool;
pub use service::{ToolPorts, ToolService, ToolSettings};
pub use summarize::Summarize;
pub use tag_chunk_docs::TagChunkDocs;
