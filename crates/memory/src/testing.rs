//! Doubles of time, chance, background work, models, embedders and synthesizers, for tests.
//!
//! Nothing in here sleeps, looks at a real clock or throws dice, so a test that uses it ends the same way every time.

mod background;
mod clock;
mod embedder;
mod ids;
mod model;
mod synthesizer;

pub use background::TestBackground;
pub use clock::ManualClock;
pub use embedder::{EmbedderStep, HashEmbedder, RecordedEmbedding, ScriptedEmbedder};
pub use ids::SeededIds;
pub use model::{CallState, RecordedCall, Script, ScriptedModel, Step};
pub use synthesizer::{RecordedSpeech, ScriptedSynthesizer, SpeechStep, ToneSynthesizer};
