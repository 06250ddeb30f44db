//! One text on its way through the engine, and through an encoder where there is one.

use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use enigma_core::model::{AudioStream, ModelError, Phase};
use futures_util::{StreamExt, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::Sleep;

use crate::encoder::Encoder;

/// How much is read at once, in bytes.
const PIECE: usize = 16 * 1024;

/// What one text may cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) time: Duration,
    pub(crate) bytes: u64,
}

/// Processes at work. Dropping it kills them.
struct Running<Place> {
    children: Vec<Child>,
    audio: ChildStdout,
    deadline: Pin<Box<Sleep>>,
    bytes_left: u64,
    _place: Place,
}

/// Starts the processes, gives the engine its `text`, and returns the audio as it is made. It holds `place` until it ends.
pub(crate) async fn start<Place: Send + 'static>(
    mut engine: Command,
    encoder: Option<&Encoder>,
    text: &str,
    bounds: Bounds,
    place: Place,
) -> Result<AudioStream, ModelError> {
    let mut deadline = Box::pin(tokio::time::sleep(bounds.time));
    let mut engine =
        engine.stdin(Stdio::piped()).spawn().map_err(|error| failed("the engine does not start", error))?;
    let mut audio = engine.stdout.take().expect("its output is a pipe");
    let mut input = engine.stdin.take().expect("its input is a pipe");
    let mut children = vec![engine];
    if let Some(encoder) = encoder {
        // Straight from one process to the other.
        let raw: Stdio = audio.try_into().map_err(|error| failed("a pipe cannot be handed over", error))?;
        let mut child =
            encoder.command().stdin(raw).spawn().map_err(|error| failed("the encoder does not start", error))?;
        audio = child.stdout.take().expect("its output is a pipe");
        children.push(child);
    }
    // It reads all of it before it speaks, so nobody has to read at the same time.
    tokio::select! {
        written = async { input.write_all(text.as_bytes()).await?; input.shutdown().await } => {
            written.map_err(|error| failed("the engine does not take the text", error))?;
        }
        () = &mut deadline => return Err(ModelError::Timeout(Phase::Deadline)),
    }
    drop(input);
    let running = Running { children, audio, deadline, bytes_left: bounds.bytes, _place: place };
    Ok(stream::try_unfold(Some(running), async |running| {
        let Some(mut running) = running else { return Ok(None) };
        Ok(running.next().await?.map(|piece| (piece, Some(running))))
    })
    .boxed())
}

impl<Place> Running<Place> {
    async fn next(&mut self) -> Result<Option<Bytes>, ModelError> {
        let mut piece = BytesMut::with_capacity(PIECE);
        let Self { children, audio, deadline, bytes_left, .. } = self;
        tokio::select! {
            read = audio.read_buf(&mut piece) => {
                let read = read.map_err(|error| failed("the audio cannot be read", error))?;
                if read == 0 {
                    ended_well(children).await?;
                    return Ok(None);
                }
                *bytes_left = bytes_left.checked_sub(read as u64).ok_or_else(|| ModelError::Malformed {
                    message: "the audio is too long".to_owned(),
                })?;
                Ok(Some(piece.freeze()))
            }
            () = deadline => Err(ModelError::Timeout(Phase::Deadline)),
        }
    }
}

/// Waits for processes that have closed their output.
async fn ended_well(children: &mut [Child]) -> Result<(), ModelError> {
    for child in children {
        let status = child.wait().await.map_err(|error| failed("a process cannot be waited for", error))?;
        if !status.success() {
            return Err(ModelError::Interrupted { message: format!("a process has ended with {status}") });
        }
    }
    Ok(())
}

fn failed(message: &str, error: io::Error) -> ModelError {
    ModelError::Unavailable { message: message.to_owned(), source: Some(Box::new(error)), retry_after: None }
}
