//! [`SpeechSynthesizer`].
//!
//! Each case takes the synthesizer, and the name of a model of it.

use enigma_core::model::{
    AudioFormat, AudioStream, CallMetadata, ModelError, SpeechAbilities, SpeechCall, SpeechSynthesizer,
};
use enigma_core::{ModelId, TraceId};
use futures_util::future::join_all;
use futures_util::{FutureExt, StreamExt};

use crate::fixture::acme;

/// Lists the cases of this port.
#[macro_export]
macro_rules! synthesizer_cases {
    ($run:ident) => {
        $run!(every_format_that_is_promised_is_written_and_no_other);
        $run!(every_voice_that_is_promised_speaks_and_no_other);
        $run!(a_longer_text_is_longer_audio);
        $run!(another_speed_is_another_length_or_refused);
        $run!(texts_of_all_kinds_are_spoken);
        $run!(audio_that_is_dropped_harms_no_other);
        $run!(texts_at_the_same_time_get_their_own_audio);
    };
}

/// How many of a model's voices are tried.
const VOICES: usize = 3;

fn call(model: &str, text: &str, format: AudioFormat) -> SpeechCall {
    SpeechCall {
        model: ModelId::new(model).expect("a valid model"),
        text: text.to_owned(),
        voice: None,
        format,
        speed: 1.0,
        metadata: CallMetadata {
            tenant: acme(),
            trace: TraceId::new("contract").expect("a valid trace"),
            traceparent: None,
            session: None,
            route: "/contract",
            gateway: None,
        },
    }
}

fn abilities(synthesizer: &dyn SpeechSynthesizer, model: &str) -> SpeechAbilities {
    let abilities = synthesizer.abilities(&ModelId::new(model).expect("a valid model")).expect("the model is there");
    assert!(!abilities.formats.is_empty(), "it writes something");
    abilities
}

async fn read(mut audio: AudioStream) -> Result<Vec<u8>, ModelError> {
    let mut whole = Vec::new();
    while let Some(piece) = audio.next().await {
        match piece {
            Ok(piece) => whole.extend_from_slice(&piece),
            Err(error) => {
                assert!(audio.next().await.is_none(), "nothing comes after an error");
                return Err(error);
            }
        }
    }
    Ok(whole)
}

async fn try_speak(synthesizer: &dyn SpeechSynthesizer, call: &SpeechCall) -> Result<Vec<u8>, ModelError> {
    read(synthesizer.speak(call).await?).await
}

async fn speak(synthesizer: &dyn SpeechSynthesizer, call: &SpeechCall) -> Vec<u8> {
    let audio = try_speak(synthesizer, call).await.expect("the text is spoken");
    assert_eq!(AudioFormat::of_start(&audio), Some(call.format), "{} bytes", audio.len());
    audio
}

/// Whatever is asked for besides is refused, or fails.
pub async fn every_format_that_is_promised_is_written_and_no_other(synthesizer: &dyn SpeechSynthesizer, model: &str) {
    let promised = abilities(synthesizer, model).formats;
    for format in AudioFormat::ALL {
        let asked = call(model, "Every format has its start.", format);
        if promised.contains(&format) {
            speak(synthesizer, &asked).await;
        } else {
            assert!(try_speak(synthesizer, &asked).await.is_err(), "{format} was not promised");
        }
    }
}

/// An engine that knows all of its voices refuses others.
pub async fn every_voice_that_is_promised_speaks_and_no_other(synthesizer: &dyn SpeechSynthesizer, model: &str) {
    let SpeechAbilities { formats, voices, other_voices, .. } = abilities(synthesizer, model);
    let ask = |voice: &str| SpeechCall { voice: Some(voice.to_owned()), ..call(model, "Who is it?", formats[0]) };
    for voice in voices.iter().take(VOICES) {
        speak(synthesizer, &ask(&voice.id)).await;
    }
    if !other_voices {
        for odd in ["nobody's voice", "--version", "", "../../etc/passwd"] {
            assert!(try_speak(synthesizer, &ask(odd)).await.is_err(), "{odd} was not promised");
        }
    }
}

/// By about as much.
pub async fn a_longer_text_is_longer_audio(synthesizer: &dyn SpeechSynthesizer, model: &str) {
    let format = abilities(synthesizer, model).formats[0];
    let text = "The kettle takes three minutes to boil its water. ";
    let (once, often) = (call(model, text, format), call(model, &text.repeat(4), format));
    let (once, often) = (speak(synthesizer, &once).await.len(), speak(synthesizer, &often).await.len());
    assert!(often > once * 2 && often < once * 8, "{once} and {often} bytes");
}

/// Twice as fast is not longer.
pub async fn another_speed_is_another_length_or_refused(synthesizer: &dyn SpeechSynthesizer, model: &str) {
    let SpeechAbilities { formats, speed, .. } = abilities(synthesizer, model);
    let usual = call(model, "The kettle takes three minutes to boil its water.", formats[0]);
    let fast = SpeechCall { speed: 2.0, ..usual.clone() };
    if speed {
        let (usual, fast) = (speak(synthesizer, &usual).await.len(), speak(synthesizer, &fast).await.len());
        assert!(fast < usual, "{fast} and {usual} bytes");
    } else {
        assert!(matches!(try_speak(synthesizer, &fast).await, Err(ModelError::Unsupported { feature: "speed" })));
    }
}

/// Commands, options and markup among them: each is a text.
pub async fn texts_of_all_kinds_are_spoken(synthesizer: &dyn SpeechSynthesizer, model: &str) {
    let format = abilities(synthesizer, model).formats[0];
    for text in [
        "a",
        "Grüße, naïve 東京 ☔ 🌍",
        "$(touch x); --version -f /etc/passwd",
        "-v en -s 400\n--help",
        "<speak><break time='10s'/>&amp;</speak>",
        "[[h@'loU]] \u{1}200S \"'`\\ %s {}",
        "one\n\ntwo\r\nthree\ttabs",
    ] {
        speak(synthesizer, &call(model, text, format)).await;
    }
}

/// Whether it had begun or not.
pub async fn audio_that_is_dropped_harms_no_other(synthesizer: &dyn SpeechSynthesizer, model: &str) {
    let format = abilities(synthesizer, model).formats[0];
    let (short, long) = (call(model, "Short.", format), call(model, &"A long story. ".repeat(100), format));
    for _ in 0..3 {
        drop(synthesizer.speak(&long).now_or_never());
        let mut begun = synthesizer.speak(&long).await.expect("the text is spoken");
        begun.next().await.expect("there is audio").expect("it is spoken");
        drop(begun);
        speak(synthesizer, &short).await;
    }
}

/// No call gets another's.
pub async fn texts_at_the_same_time_get_their_own_audio(synthesizer: &dyn SpeechSynthesizer, model: &str) {
    let format = abilities(synthesizer, model).formats[0];
    let texts: Vec<_> = (1..5).map(|n| call(model, &"Again and again. ".repeat(n * n), format)).collect();
    let together = join_all(texts.iter().map(|text| speak(synthesizer, text))).await;
    for pair in together.windows(2) {
        assert!(pair[0].len() < pair[1].len(), "a longer text has longer audio");
    }
}
