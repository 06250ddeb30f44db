//! The engine itself, with the tools of `scripts/speech-tools.sh`. Where they are not installed these tests fail:
//! `ENIGMA_WITHOUT_ESPEAK=1` says that this is meant.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on stops")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use enigma_core::TraceId;
use enigma_core::model::{
    AudioFormat, AudioStream, CallMetadata, ModelError, Phase, SpeechAbilities, SpeechCall, SpeechSynthesizer,
};
use enigma_espeak::{DetectError, Espeak, EspeakOptions};
use futures_util::StreamExt;

async fn detect(options: &EspeakOptions) -> Option<Espeak> {
    if std::env::var_os("ENIGMA_WITHOUT_ESPEAK").is_some() {
        return None;
    }
    match Espeak::detect(options).await {
        Ok(engine) => Some(engine),
        Err(error) => {
            panic!("no engine to test with ({error}): run scripts/speech-tools.sh, or set ENIGMA_WITHOUT_ESPEAK=1")
        }
    }
}

async fn engine() -> Option<Espeak> {
    detect(&EspeakOptions::default()).await
}

fn call(text: &str, format: AudioFormat) -> SpeechCall {
    SpeechCall {
        model: "espeak-ng".parse().unwrap(),
        text: text.to_owned(),
        voice: None,
        format,
        speed: 1.0,
        metadata: CallMetadata {
            tenant: "acme".parse().unwrap(),
            trace: TraceId::new("trace").unwrap(),
            traceparent: None,
            session: None,
            route: "/tts",
            gateway: None,
        },
    }
}

async fn read(mut audio: AudioStream) -> Result<Vec<u8>, ModelError> {
    let mut whole = Vec::new();
    while let Some(piece) = audio.next().await {
        whole.extend_from_slice(&piece?);
    }
    Ok(whole)
}

async fn speak(engine: &Espeak, call: &SpeechCall) -> Vec<u8> {
    read(engine.speak(call).await.unwrap()).await.unwrap()
}

/// A WAV of 16 bits and one channel, its sizes settled.
struct Wav {
    rate: u32,
    samples: Vec<i16>,
}

impl Wav {
    fn parse(mut audio: Vec<u8>) -> Self {
        enigma_core::speech::settle_sizes(&mut audio);
        let number = |at: usize| u32::from_le_bytes(audio[at..at + 4].try_into().unwrap());
        let short = |at: usize| u16::from_le_bytes(audio[at..at + 2].try_into().unwrap());
        assert_eq!((&audio[..4], &audio[8..16], &audio[36..40]), (&b"RIFF"[..], &b"WAVEfmt "[..], &b"data"[..]));
        assert_eq!((number(4) as usize, number(40) as usize), (audio.len() - 8, audio.len() - 44));
        assert_eq!((short(20), short(22), short(34)), (1, 1, 16), "samples as they are, one channel, 16 bits");
        assert_eq!(number(28), number(24) * 2);
        let samples = audio[44..].chunks_exact(2).map(|pair| i16::from_le_bytes(pair.try_into().unwrap())).collect();
        Self { rate: number(24), samples }
    }

    fn seconds(&self) -> f64 {
        f64::from(u32::try_from(self.samples.len()).unwrap()) / f64::from(self.rate)
    }

    /// How loud it is, as the root of the mean square.
    fn loudness(&self) -> f64 {
        let sum: f64 = self.samples.iter().map(|sample| f64::from(*sample).powi(2)).sum();
        (sum / f64::from(u32::try_from(self.samples.len()).unwrap())).sqrt()
    }
}

macro_rules! run {
    ($case:ident) => {
        #[tokio::test]
        async fn $case() {
            if let Some(engine) = engine().await {
                enigma_contract::synthesizer::$case(&engine, "espeak-ng").await;
            }
        }
    };
}

enigma_contract::synthesizer_cases!(run);

#[tokio::test]
async fn a_wav_is_as_long_as_its_text_and_can_be_heard() {
    let Some(engine) = engine().await else { return };
    let text = "The kettle takes three minutes to boil its water. ";
    let mut lengths = Vec::new();
    for times in [1, 2, 4] {
        let wav = Wav::parse(speak(&engine, &call(&text.repeat(times), AudioFormat::Wav)).await);
        assert_eq!(wav.rate, 22_050);
        assert!(wav.loudness() > 500.0, "{}", wav.loudness());
        assert!(wav.samples.iter().any(|sample| sample.unsigned_abs() > 5000));
        lengths.push(wav.seconds());
    }
    assert!((1.5..6.0).contains(&lengths[0]), "{lengths:?}");
    assert!((1.6..2.4).contains(&(lengths[1] / lengths[0])), "{lengths:?}");
    assert!((1.6..2.4).contains(&(lengths[2] / lengths[1])), "{lengths:?}");
}

#[tokio::test]
async fn speed_is_kept_to_as_far_as_the_engine_goes() {
    let Some(engine) = engine().await else { return };
    let mut lengths = Vec::new();
    for speed in [0.25, 1.0, 2.0, 4.0] {
        let asked = SpeechCall { speed, ..call("The kettle takes three minutes to boil.", AudioFormat::Wav) };
        lengths.push(Wav::parse(speak(&engine, &asked).await).seconds());
    }
    assert!(lengths.windows(2).all(|pair| pair[0] > pair[1] * 1.3), "{lengths:?}");
}

/// It would be short, or not come at all, if any of it was taken for a command; and nothing is made of it.
#[tokio::test]
async fn a_text_that_looks_like_a_command_is_spoken_and_never_carried_out() {
    let Some(engine) = engine().await else { return };
    let mark = format!("enigma-espeak-{}", std::process::id());
    let places = [std::env::current_dir().unwrap(), std::env::temp_dir(), PathBuf::from("/")];
    let spoken = Wav::parse(speak(&engine, &call("touch; version; f; etc; passwd", AudioFormat::Wav)).await).seconds();
    for text in [
        format!("$(touch {mark}); --version -f /etc/passwd"),
        format!("`touch {mark}` && touch {mark} | touch {mark} -f /etc/passwd"),
        format!("-f /etc/passwd\n--version\n-w {mark}\n--path=/etc"),
        format!("'; touch {mark}; echo ' -f /etc/passwd --version"),
    ] {
        let heard = Wav::parse(speak(&engine, &call(&text, AudioFormat::Wav)).await);
        assert!(heard.seconds() > spoken * 0.6 && heard.loudness() > 500.0, "{text}: {} s", heard.seconds());
        // The file that it names would take minutes.
        assert!(heard.seconds() < 40.0, "{text}: {} s", heard.seconds());
        assert!(places.iter().all(|place| !place.join(&mark).exists()), "{text}");
    }
}

#[tokio::test]
async fn phonemes_and_control_characters_change_nothing() {
    let Some(engine) = engine().await else { return };
    let usual = Wav::parse(speak(&engine, &call("Say this sentence", AudioFormat::Wav)).await).seconds();
    // Behind the first character the engine would read a speed of 400 words.
    let hasty = Wav::parse(speak(&engine, &call("\u{1}400SSay this sentence", AudioFormat::Wav)).await).seconds();
    assert!(hasty > usual, "{hasty} and {usual} s");
}

#[tokio::test]
async fn one_text_may_take_and_make_so_much() {
    let long = "A long story that goes on. ".repeat(180);
    let Some(engine) = detect(&EspeakOptions { max_bytes: 100_000, ..EspeakOptions::default() }).await else { return };
    let error = read(engine.speak(&call(&long, AudioFormat::Wav)).await.unwrap()).await.unwrap_err();
    assert!(matches!(&error, ModelError::Malformed { message } if message.contains("too long")), "{error}");

    let soon = EspeakOptions { timeout: Duration::from_millis(1), ..EspeakOptions::default() };
    let engine = detect(&soon).await.unwrap();
    let spoken = async { read(engine.speak(&call(&long, AudioFormat::Wav)).await?).await };
    assert!(matches!(spoken.await, Err(ModelError::Timeout(Phase::Deadline))));
}

#[tokio::test]
async fn further_texts_wait_and_then_are_refused() {
    let few = EspeakOptions { max_processes: 1, queue: 1, ..EspeakOptions::default() };
    let Some(engine) = detect(&few).await else { return };
    let text = call("One at a time.", AudioFormat::Wav);
    let first = engine.speak(&text).await.unwrap();
    let mut second = std::pin::pin!(engine.speak(&text));
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut second).await.is_err(), "it waits");
    assert!(matches!(engine.speak(&text).await.err(), Some(ModelError::Busy)));
    drop(first);
    read(second.await.unwrap()).await.unwrap();
    read(engine.speak(&text).await.unwrap()).await.unwrap();
}

/// The programs of this process's children.
#[cfg(target_os = "linux")]
fn children() -> Vec<String> {
    let own = std::process::id().to_string();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let all = processes.filter_map(|process| std::fs::read_to_string(process.path().join("stat")).ok());
    all.filter_map(|line| {
        let (name, rest) = line.split_once('(')?.1.rsplit_once(')')?;
        let mut fields = rest.split_whitespace();
        let (state, parent) = (fields.next()?, fields.next()?);
        (parent == own && state != "Z").then(|| name.to_owned())
    })
    .collect()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn whoever_drops_the_audio_kills_the_processes() {
    // A program of another name, so that other tests' children are told apart.
    let Some(program) = engine_program() else { return };
    let directory = tempfile::tempdir().unwrap();
    let own = directory.path().join("espeak-dropped");
    std::os::unix::fs::symlink(program, &own).unwrap();
    let Some(engine) = detect(&EspeakOptions { program: own, ..EspeakOptions::default() }).await else { return };
    let running = || children().iter().filter(|name| *name == "espeak-dropped").count();
    let mut audio = engine.speak(&call(&"A long story. ".repeat(300), AudioFormat::Wav)).await.unwrap();
    audio.next().await.unwrap().unwrap();
    assert_eq!(running(), 1, "it waits for a reader");
    drop(audio);
    let gone = async {
        while running() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), gone).await.expect("the process ends");
}

#[cfg(target_os = "linux")]
fn engine_program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join("espeak-ng")).find(|program| program.is_file())
}

#[tokio::test]
async fn what_is_no_engine_is_not_used() {
    let with = |program: &str| EspeakOptions { program: Path::new(program).to_owned(), ..EspeakOptions::default() };
    let missing = Espeak::detect(&with("there-is-no-such-engine")).await;
    assert!(matches!(missing, Err(DetectError::NotInstalled(_))), "{missing:?}");
    let other = Espeak::detect(&with("true")).await;
    assert!(matches!(other, Err(DetectError::NotUsable(..))), "{other:?}");
}

/// And with the tools that `scripts/speech-tools.sh` installs, all of them.
#[tokio::test]
async fn formats_are_those_of_the_encoders_that_work() {
    let Some(engine) = engine().await else { return };
    let SpeechAbilities { formats, .. } = engine.abilities(&"espeak-ng".parse().unwrap()).unwrap();
    assert_eq!(formats, engine.formats());
    assert_eq!(formats, AudioFormat::ALL, "lame or ffmpeg, and opusenc or ffmpeg, must be installed");
}
