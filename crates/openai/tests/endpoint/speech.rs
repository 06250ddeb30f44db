//! Speech over a socket.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use enigma_core::ModelId;
use enigma_core::model::{AudioFormat, ModelError, SpeechCall, SpeechSynthesizer};
use enigma_memory::testing::ToneSynthesizer;
use enigma_openai::{
    Endpoint, EndpointOptions, InvalidEndpoint, NativeTransport, OpenAiSynthesizer, Secret, TransportOptions,
};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::calls;
use crate::provider::{Provider, piped, typed};

fn call(format: AudioFormat) -> SpeechCall {
    SpeechCall {
        model: ModelId::new("voice").unwrap(),
        text: "Say \"this\" ☔".to_owned(),
        voice: None,
        format,
        speed: 1.0,
        metadata: calls::full().metadata,
    }
}

async fn read(synthesizer: &OpenAiSynthesizer, call: &SpeechCall) -> Result<Vec<u8>, ModelError> {
    let pieces: Vec<_> = synthesizer.speak(call).await?.collect().await;
    Ok(pieces.into_iter().collect::<Result<Vec<_>, _>>()?.concat())
}

async fn failure(answer: impl Fn() -> Response + Clone + Send + Sync + 'static) -> ModelError {
    let provider = Provider::start(answer).await;
    read(&provider.synthesizer_with(|_| {}), &call(AudioFormat::Mp3)).await.unwrap_err()
}

#[tokio::test]
async fn a_text_is_asked_for_in_the_protocols_members_and_audio_comes_as_it_is() {
    let mut provider = Provider::start(|| typed("audio/mpeg", &b"ID3\x04\xff\x00"[..])).await;
    let synthesizer = provider.synthesizer_with(|_| {});
    assert_eq!(read(&synthesizer, &call(AudioFormat::Mp3)).await.unwrap(), b"ID3\x04\xff\x00");
    let seen = provider.seen();
    assert_eq!(seen.path, "/v1/audio/speech");
    assert_eq!(seen.headers["accept"], "audio/*, application/json");
    let expected = json!({ "model": "voice", "input": "Say \"this\" ☔", "voice": "alloy", "response_format": "mp3" });
    assert_eq!(serde_json::from_slice::<Value>(&seen.body).unwrap(), expected);
    let abilities = synthesizer.abilities(&ModelId::new("voice").unwrap()).unwrap();
    assert!(abilities.other_voices && abilities.speed && abilities.voices.is_empty());
}

#[tokio::test]
async fn voices_speed_headers_and_the_mapped_model_arrive() {
    let mut provider = Provider::start(|| typed("audio/wav", "RIFF")).await;
    let synthesizer = provider.synthesizer_with(|options| {
        options.api_key = Some(Secret::new("sk-test"));
        options.models = [(ModelId::new("voice").unwrap(), "a chat model of the same name".to_owned())].into();
        options.speech = [(ModelId::new("voice").unwrap(), "tts-1".to_owned())].into();
        options.voices = vec!["nova".to_owned(), "echo".to_owned()];
    });
    for (voice, told) in [(None, "nova"), (Some("echo"), "echo"), (Some("another"), "another")] {
        let asked = SpeechCall { voice: voice.map(str::to_owned), speed: 1.5, ..call(AudioFormat::Wav) };
        read(&synthesizer, &asked).await.unwrap();
        let seen = provider.seen();
        let body: Value = serde_json::from_slice(&seen.body).unwrap();
        assert_eq!((&body["voice"], &body["speed"], &body["model"]), (&json!(told), &json!(1.5), &json!("tts-1")));
        assert_eq!(
            (&body["response_format"], &seen.headers["authorization"]),
            (&json!("wav"), &"Bearer sk-test".parse().unwrap())
        );
    }
    let abilities = synthesizer.abilities(&ModelId::new("voice").unwrap()).unwrap();
    let names: Vec<_> = abilities.voices.iter().map(|voice| voice.id.as_str()).collect();
    assert_eq!(names, ["nova", "echo"]);
    assert!(!format!("{synthesizer:?}").contains("sk-test"));
}

#[tokio::test]
async fn failures_are_typed_as_those_of_chats_are() {
    let error = failure(|| (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "7")], "{}").into_response()).await;
    assert!(matches!(error, ModelError::RateLimited { retry_after: Some(wait) } if wait == Duration::from_secs(7)));
    let error = failure(|| StatusCode::UNAUTHORIZED.into_response()).await;
    assert!(matches!(error, ModelError::Unauthorized { status: 401 }), "{error:?}");
    let error = failure(|| (StatusCode::BAD_REQUEST, r#"{"error":{"code":"invalid_voice"}}"#).into_response()).await;
    assert!(matches!(&error, ModelError::Rejected { status: 400, message } if message == "invalid_voice"), "{error:?}");
    let error = failure(|| StatusCode::SERVICE_UNAVAILABLE.into_response()).await;
    assert!(error.is_retryable() && error.counts_for_breaker(), "{error:?}");
}

#[tokio::test]
async fn audio_comes_while_it_is_made_and_who_goes_away_ends_the_exchange() {
    let (bodies, opened) = std::sync::mpsc::channel();
    let provider = Provider::start(move || {
        let (pieces, body) = piped();
        bodies.send(pieces).unwrap();
        typed("audio/mpeg", body)
    })
    .await;
    let mut audio = provider.synthesizer_with(|_| {}).speak(&call(AudioFormat::Mp3)).await.unwrap();
    let pieces = opened.recv().unwrap();
    for piece in [&b"ID3"[..], b"more"] {
        pieces.send(Ok(Bytes::from_static(piece))).unwrap();
        assert_eq!(audio.next().await.unwrap().unwrap(), piece);
    }
    drop(audio);
    tokio::time::timeout(Duration::from_secs(10), pieces.closed()).await.expect("the provider sees it");
}

#[tokio::test]
async fn audio_that_breaks_off_is_interrupted() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}/v1", listener.local_addr().unwrap());
    let cut = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"}") {
            stream.read_buf(&mut request).await.unwrap();
        }
        let head = "HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ncontent-length: 500\r\n\r\nID3";
        stream.write_all(head.as_bytes()).await.unwrap();
    };
    let provider = Provider::start(|| typed("audio/mpeg", "ID3")).await;
    let synthesizer = provider.synthesizer_with(|options| options.base_url = base_url);
    let asked = call(AudioFormat::Mp3);
    let (failed, ()) = tokio::join!(read(&synthesizer, &asked), cut);
    assert!(matches!(failed, Err(ModelError::Interrupted { .. })), "{failed:?}");
}

/// A provider that makes tones.
async fn tones() -> (OpenAiSynthesizer, JoinHandle<()>) {
    let handler = async |Json(body): Json<Value>| {
        let format = AudioFormat::of_name(body["response_format"].as_str().unwrap()).unwrap();
        let text = body["input"].as_str().unwrap().to_owned();
        let speed = body["speed"].as_f64().unwrap_or(1.0);
        let audio = ToneSynthesizer::answer(&SpeechCall { text, speed, ..call(format) });
        typed(format.media_type(), audio)
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint::new(EndpointOptions::at(format!("http://{}", listener.local_addr().unwrap()))).unwrap();
    let app = Router::new().route("/audio/speech", post(handler));
    #[expect(clippy::disallowed_methods, reason = "the provider ends with its test's runtime")]
    let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let transport = NativeTransport::new(&TransportOptions::default()).unwrap();
    (OpenAiSynthesizer::new(endpoint, Arc::new(transport)), task)
}

macro_rules! run {
    ($case:ident) => {
        #[tokio::test]
        async fn $case() {
            let (synthesizer, task) = tones().await;
            enigma_contract::synthesizer::$case(&synthesizer, "tone").await;
            task.abort();
        }
    };
}

enigma_contract::synthesizer_cases!(run);

#[test]
fn a_model_and_a_voice_without_a_name_are_refused_at_the_start() {
    let speech = [(ModelId::new("voice").unwrap(), " ".to_owned())].into();
    let options = EndpointOptions { speech, ..EndpointOptions::at("http://localhost/v1") };
    assert!(matches!(Endpoint::new(options), Err(InvalidEndpoint::EmptyModelName(_))));
    let options = EndpointOptions { voices: vec![String::new()], ..EndpointOptions::at("http://localhost/v1") };
    assert!(matches!(Endpoint::new(options), Err(InvalidEndpoint::EmptyVoice)));
    let options = EndpointOptions::at("http://localhost/v1/audio/speech");
    assert!(matches!(Endpoint::new(options), Err(InvalidEndpoint::BaseUrl(_))));
}
