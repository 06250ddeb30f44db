//! Audio in one piece, for clients that do not stream.

use futures_util::StreamExt;

use super::command::{SpeechEvent, SpeechReply};
use super::error::SpeechError;
use super::wav::settle_sizes;
use crate::chat::ChatError;
use crate::model::AudioFormat;

/// Waits for the end of the audio. The header of a WAV tells its real length then.
///
/// # Errors
/// What broke the audio off.
pub async fn whole(reply: SpeechReply) -> Result<Vec<u8>, SpeechError> {
    let SpeechReply { format, mut events, .. } = reply;
    let (mut audio, mut failure) = (Vec::new(), None);
    while let Some(event) = events.next().await {
        match event {
            SpeechEvent::Audio(piece) => audio.extend_from_slice(&piece),
            SpeechEvent::Failed(error) => failure = Some(error),
            SpeechEvent::Done(_) => {
                if let Some(error) = failure {
                    return Err(error);
                }
                if format == AudioFormat::Wav {
                    settle_sizes(&mut audio);
                }
                return Ok(audio);
            }
        }
    }
    Err(ChatError::Died.into())
}
