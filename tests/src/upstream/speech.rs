//! Audio that a test can reason about: as long as its text, and never silent.

use std::collections::VecDeque;

use bytes::Bytes;
use serde_json::Value;

use super::script::Step;

/// Samples a second of its audio.
pub const RATE: u32 = 8000;
/// Samples of one character at the usual speed.
pub const SAMPLES_PER_CHARACTER: usize = 480;
/// How much of it is sent at once, in bytes.
const PIECE: usize = 4096;

/// The media type of what a call asks for.
pub(super) fn media_type(body: &Value) -> &'static str {
    match body["response_format"].as_str() {
        Some("wav") => "audio/wav",
        Some("opus") => "audio/opus",
        _ => "audio/mpeg",
    }
}

/// The audio of a call: a tone behind the first bytes of its format, which for a WAV are those of a stream.
fn audio(body: &Value) -> Bytes {
    let characters = body["input"].as_str().unwrap_or_default().chars().count();
    let speed = body["speed"].as_f64().unwrap_or(1.0);
    let samples = characters * SAMPLES_PER_CHARACTER * 100 / percent(speed);
    let mut audio = match body["response_format"].as_str() {
        Some("wav") => header(),
        Some("opus") => b"OggS".to_vec(),
        _ => b"ID3\x04".to_vec(),
    };
    audio.extend((0..samples).flat_map(|n| if n % 20 < 10 { 9000_i16 } else { -9000 }.to_le_bytes()));
    audio.into()
}

/// Hundredths, of the few speeds that tests ask for.
fn percent(speed: f64) -> usize {
    let percent = (1_u16..=400).find(|percent| (f64::from(*percent) - speed * 100.0).abs() < 0.5);
    percent.unwrap_or(100).into()
}

fn header() -> Vec<u8> {
    let mut header = b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\x01\0".to_vec();
    header.extend(RATE.to_le_bytes());
    header.extend((RATE * 2).to_le_bytes());
    header.extend(b"\x02\0\x10\0data\xff\xff\xff\xff");
    header
}

/// What a call is answered with: its first piece, then what the markers of its text say, then the rest.
pub(super) fn steps(body: &Value, markers: VecDeque<Step>) -> VecDeque<Step> {
    let audio = audio(body);
    let mut pieces = audio.chunks(PIECE).map(|piece| Step::Chunk(audio.slice_ref(piece)));
    let first: Vec<_> = pieces.by_ref().take(1).collect();
    let markers = markers.into_iter().filter(|step| !matches!(step, Step::Chunk(_) | Step::Flood(_)));
    first.into_iter().chain(markers).chain(pieces).collect()
}
