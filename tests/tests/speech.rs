//! The native server with the speech engine of this machine, and without one. It needs what `scripts/speech-tools.sh` installs:
//! `ENIGMA_WITHOUT_ESPEAK=1` leaves out what does.

#![expect(clippy::unwrap_used, reason = "all of this is test code: a panic is how it reports")]

use std::time::Duration;

use enigma_conformance::{Api, Server, ServerConfig, Tenant, Upstream};
use serde_json::{Value, json};

const MODEL: &str = "espeak-ng";
const RATE: u32 = 22_050;

fn tenant() -> Tenant {
    Tenant::new("speaks")
        .with("aiModels", json!({ "chat": "scripted", "tts": MODEL }))
        .with("featureFlags", json!({ "tts_enabled": true }))
}

fn start(upstream: &Upstream, change: impl FnOnce(ServerConfig) -> ServerConfig) -> Server {
    let config = ServerConfig::new()
        .upstream(&upstream.base_url())
        .set("espeak.model_id", MODEL)
        // The usual ones are short, and the first words of a process on a busy machine are not.
        .set("models.first_token_timeout_seconds", 20)
        .tenant(&tenant());
    change(config).start()
}

/// Whether the tests of the engine are to run.
fn has_engine() -> bool {
    std::env::var_os("ENIGMA_WITHOUT_ESPEAK").is_none()
}

async fn audio(api: &Api, path: &str, body: &Value) -> (String, Vec<u8>) {
    let reply = api.post_begin(path, body).await;
    let (status, kind) = (reply.status, reply.headers["content-type"].to_str().unwrap().to_owned());
    let audio = reply.bytes().await.unwrap();
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&audio));
    (kind, audio)
}

/// The samples of a whole WAV.
fn samples(audio: &[u8]) -> Vec<i16> {
    let number = |at: usize| u32::from_le_bytes(audio[at..at + 4].try_into().unwrap());
    assert_eq!((&audio[..4], &audio[8..16], &audio[36..40]), (&b"RIFF"[..], &b"WAVEfmt "[..], &b"data"[..]));
    assert_eq!((number(4) as usize, number(40) as usize), (audio.len() - 8, audio.len() - 44));
    assert_eq!(number(24), RATE);
    audio[44..].chunks_exact(2).map(|pair| i16::from_le_bytes(pair.try_into().unwrap())).collect()
}

fn loudness(samples: &[i16]) -> f64 {
    let sum: f64 = samples.iter().map(|sample| f64::from(*sample).powi(2)).sum();
    (sum / f64::from(u32::try_from(samples.len()).unwrap())).sqrt()
}

#[tokio::test]
async fn the_engine_of_the_machine_speaks() {
    if !has_engine() {
        return;
    }
    let upstream = Upstream::start();
    let server = start(&upstream, |config| config);
    let api = server.tenant("speaks");
    let sentence = "The kettle takes three minutes to boil its water. ";
    let mut lengths = Vec::new();
    for times in [1, 3] {
        let (kind, wav) = audio(&api, "/tts", &json!({ "text": sentence.repeat(times), "format": "wav" })).await;
        assert_eq!(kind, "audio/wav");
        let samples = samples(&wav);
        assert!(loudness(&samples) > 500.0, "{}", loudness(&samples));
        lengths.push(samples.len());
    }
    let seconds = lengths[0] / RATE as usize;
    assert!((1..7).contains(&seconds), "{lengths:?}");
    assert!((lengths[0] * 2..lengths[0] * 4).contains(&lengths[1]), "{lengths:?}");

    for (format, kind, start) in
        [("mp3", "audio/mpeg", &b"\xff"[..]), ("opus", "audio/ogg", b"OggS"), ("wav", "audio/wav", b"RIFF")]
    {
        let (said, heard) =
            audio(&api, "/tts", &json!({ "text": sentence, "format": format, "streaming": true })).await;
        assert_eq!(said, kind);
        assert!(heard.starts_with(start) || heard.starts_with(b"ID3"), "{format}");
        assert!(heard.len() > 4000, "{format}: {} bytes", heard.len());
    }
    let body = json!({ "model": MODEL, "input": sentence, "voice": "en-gb", "response_format": "wav" });
    assert_eq!(audio(&api, "/v1/audio/speech", &body).await.0, "audio/wav");

    let list = api.get("/tts/voices").await.ok();
    assert_eq!((&list["modelId"], &list["formats"]), (&json!(MODEL), &json!(["mp3", "wav", "opus"])));
    assert_eq!((&list["otherVoices"], &list["voices"][0]["id"]), (&json!(false), &json!("en-us")));
    assert!(list["voices"].as_array().unwrap().len() > 50);
    let unknown = api.post("/tts", &json!({ "text": "a", "voice": "--version" })).await;
    assert_eq!(unknown.error(400, "invalid_request")["issues"][0]["path"], json!(["voice"]));

    // All of it is heard, and nothing is made of it.
    let hostile = "$(touch x); --version -f /etc/passwd";
    let (_, wav) = audio(&api, "/tts", &json!({ "text": hostile, "format": "wav" })).await;
    let heard = samples(&wav);
    assert!((RATE as usize..RATE as usize * 15).contains(&heard.len()) && loudness(&heard) > 500.0, "{}", heard.len());
}

#[tokio::test]
async fn a_machine_without_an_engine_serves_everything_else() {
    let upstream = Upstream::start();
    let server = start(&upstream, |config| config.set("espeak.program", "there-is-no-such-engine"));
    let api = server.tenant("speaks");
    // The provider that serves whatever nobody else does is asked then.
    let (kind, _) = audio(&api, "/tts", &json!({ "text": "Hello." })).await;
    assert_eq!(kind, "audio/mpeg");
    assert!(
        server.stderr.wait_for(Duration::from_secs(5), |log| log.contains("not installed").then_some(())).is_some()
    );
}

#[tokio::test]
async fn without_encoders_there_is_wav_and_the_rest_is_told() {
    if !has_engine() {
        return;
    }
    let upstream = Upstream::start();
    // A path in which nothing is found but the engine, which is named by its own.
    let path = std::env::var_os("PATH").unwrap();
    let engine = std::env::split_paths(&path).map(|directory| directory.join("espeak-ng")).find(|it| it.is_file());
    let engine = engine.expect("the engine is installed");
    let empty = tempfile::tempdir().unwrap();
    let server = start(&upstream, |config| {
        config.set("espeak.program", engine.to_str().unwrap()).variable("PATH", empty.path().to_str().unwrap())
    });
    let api = server.tenant("speaks");
    let (kind, wav) = audio(&api, "/tts", &json!({ "text": "Hello." })).await;
    assert_eq!(kind, "audio/wav", "what it writes best is what it writes at all");
    assert!(!samples(&wav).is_empty());
    for format in ["mp3", "opus"] {
        let details = api.post("/tts", &json!({ "text": "Hello.", "format": format })).await.error(500, "tts_error");
        assert_eq!(details, json!({ "format": format, "formats": ["wav"] }));
    }
    let body = json!({ "model": MODEL, "input": "Hello.", "voice": "en-us" });
    api.post("/v1/audio/speech", &body).await.openai_error(500, "tts_error", "server_error");
}
