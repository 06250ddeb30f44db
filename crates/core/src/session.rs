//! Conversations: their messages, how long those are kept, and what of them a model is shown.

mod message;
mod prompt;
mod retention;
mod turn_line;

pub use message::{HistoryPage, RecentMessages, SessionPage, SessionSummary, StoredMessage, Turn};
pub(crate) use prompt::answered;
pub use prompt::{PromptLimits, assemble_prompt, definition_tokens, estimate_tokens, prompt_tokens};
pub use retention::{DateGuard, Retention, prune};
pub use turn_line::{TurnHolder, TurnLine};
