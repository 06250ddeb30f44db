//! Speech by `espeak-ng`, run as a child process.
//!
//! What it is: an adapter of [`enigma_core::model::SpeechSynthesizer`] for programs on machines where `espeak-ng` is installed. It
//! writes WAV; MP3 by `lame` or `ffmpeg` and Opus by `opusenc` or `ffmpeg`, where those are installed. [`Espeak::detect`] tries all of
//! that once, and what it has heard is what it promises.
//!
//! What it is not: a fine voice. It speaks a hundred languages without a model, at once, and like a robot.
//!
//! # Child processes
//! The text goes to the standard input, never into an argument, and there is no shell. What it is told besides is chosen here: a voice
//! of its own list and a number. It gets no environment but the place of its data. So many processes run at once, so many requests
//! wait, each has so much time and may write so much; whoever drops the audio kills them.

mod encoder;
mod error;
mod pipeline;
mod program;
mod synthesizer;
mod text;
mod voices;

pub use error::DetectError;
pub use synthesizer::{Espeak, EspeakOptions};
