//! Conversations: their messages, how long those are kept, and what of them a model is shown.

mod message;
mod prompt;
mod retention;

pub use message::{HistoryPage, SessionPage, SessionSummary, StoredMessage, Turn};
pub(crate) use prompt::answered;
pub use prompt::{PromptLimits, assemble_prompt, definition_tokens, estimate_tokens, prompt_tokens};
pub use retention::{Retention, prune};
