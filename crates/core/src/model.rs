//! Language models: what is asked of them, what they answer, and how an answer fails.

mod answer_stream;
mod attempts;
mod breaker;
mod call;
mod catalog;
mod delta;
mod embedder;
mod embedding_answer;
mod embedding_gateway;
mod error;
mod gateway;
mod plan;
mod provider_stream;
mod retry;
mod retry_after;
mod speech;
mod speech_gateway;
mod sse;

pub use answer_stream::{
    AnswerStream, WHOLE_ANSWER_LIMIT, read_embeddings, read_failure, read_whole, read_whole_answer,
};
pub use breaker::{Admitted, Breaker, BreakerPolicy, BreakerState, Breakers, Outcome};
pub use call::{
    CallMetadata, ChatMessage, ModelCall, ResponseFormat, Role, Sampling, ToolCall, ToolChoice, ToolDefinition,
};
pub use catalog::{ModelCatalog, ModelRoute, StaticCatalog};
pub use delta::{ChatModel, Delta, DeltaStream, FinishReason, ToolCallDelta, Usage};
pub use embedder::{
    Embedder, EmbedderCatalog, EmbedderRoute, EmbeddingCall, Embeddings, StaticEmbedderCatalog, check_vectors,
};
pub use embedding_answer::parse_embeddings;
pub use embedding_gateway::{Embedded, EmbeddedBatch, EmbeddingBatches, EmbeddingGateway};
pub use error::{ModelError, Phase};
pub use gateway::{GatewayError, ModelGateway, ModelTimeouts, OpenedReply};
pub use plan::{ModelNotAllowed, ModelOverrides, ModelPlan, select_models};
pub use provider_stream::{ProviderStream, error_name, is_about_length, parse_whole_answer};
pub use retry::RetryPolicy;
pub use retry_after::retry_after;
pub use speech::{
    AudioFormat, AudioStream, SpeechAbilities, SpeechCall, SpeechCatalog, SpeechRoute, SpeechSynthesizer,
    StaticSpeechCatalog, Voice,
};
pub use speech_gateway::{OpenedSpeech, SpeechGateway};
pub use sse::{EventTooLong, SseDecoder};
