//! Programs that make something smaller of a WAV that comes through a pipe.

use std::path::{Path, PathBuf};

use enigma_core::model::AudioFormat;
use tokio::process::Command;

use crate::program;

/// A program with the arguments that make it read a WAV whose header has a guess for a length, and write one format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Encoder {
    program: PathBuf,
    arguments: &'static [&'static str],
}

/// Enough for a voice.
const CANDIDATES: [(AudioFormat, &str, &[&str]); 4] = [
    (AudioFormat::Mp3, "lame", &["--quiet", "-b", "64", "-", "-"]),
    (
        AudioFormat::Mp3,
        "ffmpeg",
        &[
            "-nostdin",
            "-loglevel",
            "error",
            "-ignore_length",
            "1",
            "-f",
            "wav",
            "-i",
            "pipe:0",
            "-b:a",
            "64k",
            "-f",
            "mp3",
            "pipe:1",
        ],
    ),
    (AudioFormat::Opus, "opusenc", &["--quiet", "--ignorelength", "--bitrate", "32", "-", "-"]),
    (
        AudioFormat::Opus,
        "ffmpeg",
        &[
            "-nostdin",
            "-loglevel",
            "error",
            "-ignore_length",
            "1",
            "-f",
            "wav",
            "-i",
            "pipe:0",
            "-c:a",
            "libopus",
            "-b:a",
            "32k",
            "-f",
            "ogg",
            "pipe:1",
        ],
    ),
];

/// The installed programs that may write `format`, best first.
pub(crate) fn candidates(format: AudioFormat) -> Vec<Encoder> {
    let of_format = CANDIDATES.iter().filter(|(writes, ..)| *writes == format);
    let found = of_format.filter_map(|(_, name, arguments)| {
        program::find(Path::new(name)).map(|program| Encoder { program, arguments })
    });
    found.collect()
}

impl Encoder {
    pub(crate) fn command(&self) -> Command {
        let mut command = program::command(&self.program);
        command.args(self.arguments);
        command
    }

    pub(crate) fn program(&self) -> &Path {
        &self.program
    }
}
