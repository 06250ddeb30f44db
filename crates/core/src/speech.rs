//! Speech: a text in, audio out.

mod command;
mod conduct;
mod error;
mod service;
mod wav;
mod whole;

pub use command::{SpeakCommand, SpeechDone, SpeechEvent, SpeechEvents, SpeechReply, Voices};
pub use error::{SpeechError, SpeechRejected};
pub use service::{SpeechPorts, SpeechService, SpeechSettings};
pub use wav::settle_sizes;
pub use whole::whole;
