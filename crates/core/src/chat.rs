//! Chat: a message in, an answer out, and the books right on every ending.

mod command;
mod conduct;
mod error;
mod service;
mod sessions;
mod transcript;

pub use command::{
    ChatCommand, ChatDone, ChatEvent, ChatEvents, ChatReply, StreamFailure, TOOL_CALLING, ToolProgress, ToolState,
};
pub use error::{ChatError, ChatRejected};
pub use service::{ChatPorts, ChatService, ChatSettings};
pub use sessions::{SessionError, SessionService};
pub(crate) use transcript::Transcript;
