//! Speech: a text in, audio out.

use http::HeaderMap;
use serde_json::{Value, json};

use crate::Host;
use crate::client::{Answer, Api, tag};
use crate::host::settings;
use crate::tenant::{Tenant, hash};
use crate::upstream::speech::{RATE, SAMPLES_PER_CHARACTER};

/// The key of `speech-on` that is not meant for speech.
const OTHER_KEY: &str = "enigma-test-key-without-speech";

/// The tenants of these cases.
pub fn tenants() -> Vec<Tenant> {
    let names = [
        "speech-length",
        "speech-formats",
        "speech-stream",
        "speech-voices",
        "speech-speed",
        "speech-text",
        "speech-openai",
        "speech-bad",
        "speech-fails",
        "speech-html",
        "speech-slow",
        "speech-cut",
        "speech-gone",
    ];
    let mut tenants: Vec<_> = names.map(|id| Tenant::new(id).speaks()).into();
    tenants.push(Tenant::new("speech-poor").speaks().with("tokenBudget", json!({ "daily": 100 })));
    tenants.push(Tenant::new("speech-few").speaks().with("rateLimit", json!({ "perMinute": 2 })));
    tenants.push(Tenant::new("speech-off").speaks().with("featureFlags", json!({})));
    tenants.push(Tenant::new("speech-mute").with("featureFlags", json!({ "tts_enabled": true })));
    let key = json!({ "hash": hash(OTHER_KEY), "scopes": ["chat"] });
    tenants.push(Tenant::new("speech-scope").speaks().with("apiKeys", json!([key])));
    tenants
}

/// What is spoken, with the headers of the answer.
async fn speak(api: &Api, path: &str, body: &Value) -> (HeaderMap, Vec<u8>) {
    let reply = api.post_begin(path, body).await;
    let (status, headers) = (reply.status, reply.headers.clone());
    let audio = reply.bytes().await.unwrap();
    assert_eq!(status, 200, "{path} was not answered with audio: {}", String::from_utf8_lossy(&audio));
    (headers, audio)
}

async fn refused(api: &Api, body: &Value) -> Answer {
    api.post("/tts", body).await
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
}

/// The samples of a WAV whose header says how long it is.
fn samples(audio: &[u8]) -> Vec<i16> {
    let number = |at: usize| u32::from_le_bytes(audio[at..at + 4].try_into().unwrap());
    assert_eq!((&audio[..4], &audio[8..16], &audio[36..40]), (&b"RIFF"[..], &b"WAVEfmt "[..], &b"data"[..]));
    assert_eq!((number(4) as usize, number(40) as usize), (audio.len() - 8, audio.len() - 44));
    assert_eq!(number(24), RATE);
    audio[44..].chunks_exact(2).map(|pair| i16::from_le_bytes(pair.try_into().unwrap())).collect()
}

/// In one piece, with its length, and not silent.
pub async fn a_text_becomes_audio_of_its_length(host: &Host) {
    let api = host.tenant("speech-length");
    for text in ["Grüße!", "A sentence that is a good deal longer than the other one."] {
        let characters = text.chars().count();
        let (headers, audio) = speak(&api, "/tts", &json!({ "text": text, "format": "wav" })).await;
        assert_eq!(header(&headers, "content-type"), "audio/wav");
        if host.platform.tells_lengths {
            assert_eq!(header(&headers, "content-length"), audio.len().to_string());
        }
        let samples = samples(&audio);
        assert_eq!(samples.len(), characters * SAMPLES_PER_CHARACTER);
        assert!(samples.iter().filter(|sample| sample.unsigned_abs() > 1000).count() * 2 > samples.len());
        assert_eq!(header(&headers, "x-characters"), characters.to_string());
        assert_eq!(header(&headers, "x-tokens-in"), characters.div_ceil(4).to_string());
        assert_eq!(header(&headers, "x-tenant-id"), "speech-length");
        assert_eq!(header(&headers, "x-model-id"), "@cf/deepgram/aura-1-speech-length");
        assert!(headers.contains_key("x-ratelimit-remaining") && headers.contains_key("ratelimit"), "{headers:?}");
        crate::client::assert_secured(&headers);
    }
}

/// MP3 where nobody says.
pub async fn each_format_has_its_type_and_its_start(host: &Host) {
    let api = host.tenant("speech-formats");
    for (format, kind, start) in [
        (json!(null), "audio/mpeg", &b"ID3"[..]),
        (json!("mp3"), "audio/mpeg", b"ID3"),
        (json!("wav"), "audio/wav", b"RIFF"),
        (json!("opus"), "audio/ogg", b"OggS"),
    ] {
        for streaming in [false, true] {
            let body = json!({ "text": "Hello.", "format": format, "streaming": streaming });
            let (headers, audio) = speak(&api, "/tts", &body).await;
            assert_eq!(header(&headers, "content-type"), kind, "{format}");
            assert!(audio.starts_with(start), "{format}");
            let tells = !streaming && host.platform.tells_lengths;
            assert_eq!(headers.contains_key("content-length"), tells, "{format}: {headers:?}");
        }
    }
}

/// The first pieces are heard before the last are made.
pub async fn audio_leaves_as_it_is_made(host: &Host) {
    let (api, tag) = (host.tenant("speech-stream"), tag());
    let text = format!("{tag} [[gate {tag}]] and so on");
    let mut reply = api.post_begin("/tts", &json!({ "text": text, "streaming": true, "format": "wav" })).await;
    assert_eq!(reply.status, 200);
    let mut audio = reply.bytes_next().await.unwrap().expect("there is audio").to_vec();
    assert!(audio.starts_with(b"RIFF"));
    let call = host.upstream.call(&tag).await;
    assert_eq!(call.ended(), None, "the rest is not made yet");
    host.upstream.open(&tag);
    while let Some(piece) = reply.bytes_next().await.unwrap() {
        audio.extend_from_slice(&piece);
    }
    assert_eq!(audio.len(), 44 + text.chars().count() * SAMPLES_PER_CHARACTER * 2);
}

/// And reaches the engine.
pub async fn a_voice_is_chosen_from_the_list(host: &Host) {
    let api = host.tenant("speech-voices");
    let list = api.get("/tts/voices").await.ok();
    assert_eq!(list["modelId"], "@cf/deepgram/aura-1-speech-voices");
    assert_eq!(list["formats"], json!(["mp3", "wav", "opus"]));
    assert!(list["speed"].is_boolean() && list["otherVoices"].is_boolean(), "{list}");
    let voices = list["voices"].as_array().unwrap();
    for wanted in settings::VOICES {
        let voice = voices.iter().find(|voice| voice["id"] == wanted).unwrap_or_else(|| panic!("{voices:?}"));
        assert!(voice["name"].as_str().is_some_and(|name| !name.is_empty()), "{voice}");
        let tag = tag();
        speak(&api, "/tts", &json!({ "text": tag, "voice": wanted })).await;
        assert_eq!(host.upstream.call(&tag).await.body["voice"], wanted);
    }
    if list["otherVoices"] == false {
        let details = refused(&api, &json!({ "text": "a", "voice": "nobody" })).await.error(400, "invalid_request");
        assert_eq!(details["issues"][0]["path"], json!(["voice"]));
    }
}

/// Where a model has one speed only, that is said before it is asked.
pub async fn speed_is_kept_or_refused_as_the_list_says(host: &Host) {
    let api = host.tenant("speech-speed");
    let has_speed = api.get("/tts/voices").await.ok()["speed"] == true;
    let body = json!({ "text": "Faster than usual.", "format": "wav", "speed": 2 });
    if has_speed {
        let (_, audio) = speak(&api, "/tts", &body).await;
        assert_eq!(samples(&audio).len(), 18 * SAMPLES_PER_CHARACTER / 2);
    } else {
        let details = refused(&api, &body).await.error(400, "invalid_request");
        assert_eq!(details["issues"][0]["path"], json!(["speed"]));
    }
    speak(&api, "/tts", &json!({ "text": "As usual.", "speed": 1.0 })).await;
}

/// Whatever is in it.
pub async fn a_text_is_handed_on_as_it_is(host: &Host) {
    let (api, tag) = (host.tenant("speech-text"), tag());
    let text = format!("{tag} $(touch x); --version -f /etc/passwd\n<speak>&amp;</speak> 東京 ☔ \"'`\\");
    speak(&api, "/tts", &json!({ "text": text })).await;
    assert_eq!(host.upstream.call(&tag).await.body["input"], text);
}

/// In OpenAI's shape, streamed, with its defaults and errors.
pub async fn openais_face_speaks_too(host: &Host) {
    let (api, model) = (host.tenant("speech-openai"), "@cf/deepgram/aura-1-speech-openai");
    let body = json!({ "model": model, "input": "Hello.", "voice": "luna" });
    let (headers, audio) = speak(&api, "/v1/audio/speech", &body).await;
    assert_eq!(header(&headers, "content-type"), "audio/mpeg");
    assert!(audio.starts_with(b"ID3"));
    let mut wav = body.clone();
    wav["response_format"] = "wav".into();
    let (headers, audio) = speak(&api, "/v1/audio/speech", &wav).await;
    assert_eq!((header(&headers, "content-type"), &audio[..4]), ("audio/wav", &b"RIFF"[..]));
    for (name, value) in [
        ("voice", json!(null)),
        ("input", json!(" ")),
        ("input", json!("a".repeat(5001))),
        ("response_format", json!("flac")),
        ("speed", json!(5)),
        ("stream_format", json!("sse")),
    ] {
        let mut wrong = body.clone();
        wrong[name] = value;
        let error = api.post("/v1/audio/speech", &wrong).await;
        let error = error.openai_error(400, "invalid_request", "invalid_request_error");
        assert_eq!(error["param"], name);
    }
    let off = host.tenant("speech-off").post("/v1/audio/speech", &body).await;
    off.openai_error(403, "tts_not_enabled", "permission_error");
    // Those who speak and those who chat spend from one budget, and this is one more way to spend it.
    let failing =
        json!({ "model": "@cf/deepgram/aura-1-speech-openai-fails", "input": "[[status 400]]", "voice": "luna" });
    api.post("/v1/audio/speech", &failing).await.openai_error(500, "tts_error", "server_error");
}

/// By the flag, a model and the scope.
pub async fn speech_has_to_be_switched_on(host: &Host) {
    let body = json!({ "text": "Hello." });
    for id in ["speech-off", "speech-mute"] {
        let api = host.tenant(id);
        refused(&api, &body).await.error(403, "tts_not_enabled");
        api.get("/tts/voices").await.error(403, "tts_not_enabled");
    }
    let api = host.anonymous().with("x-tenant-id", "speech-scope").with("x-api-key", OTHER_KEY);
    assert_eq!(refused(&api, &body).await.error(403, "scope_required")["scope"], "speech");
    assert_eq!(api.get("/tts/voices").await.error(403, "scope_required")["scope"], "speech");
    host.anonymous().get("/tts/voices").await.error(400, "tenant_required");
}

/// All of them at once.
pub async fn faults_of_a_text_are_named(host: &Host) {
    let api = host.tenant("speech-bad");
    let body = json!({ "text": 7, "voice": "", "format": "flac", "streaming": "yes", "speed": 0.2, "userId": "" });
    let details = refused(&api, &body).await.error(400, "invalid_request");
    let issues = details["issues"].as_array().unwrap();
    let named: Vec<_> = issues.iter().map(|issue| issue["path"][0].as_str().unwrap()).collect();
    assert_eq!(named, ["text", "voice", "format", "streaming", "speed", "userId"], "{details}");
    for text in [json!(null), json!(""), json!(" \n\t\u{1}"), json!("a".repeat(5001))] {
        let details = refused(&api, &json!({ "text": text })).await.error(400, "invalid_request");
        assert_eq!(details["issues"][0]["path"], json!(["text"]), "{text}");
    }
    speak(&api, "/tts", &json!({ "text": "ä".repeat(5000), "unknown": 1 })).await;
    api.get("/tts").await.error(405, "method_not_allowed");
}

/// After as many tries as there are to be, and not with a cause.
pub async fn an_engine_that_fails_is_told(host: &Host) {
    let (api, tag) = (host.tenant("speech-fails"), tag());
    refused(&api, &json!({ "text": format!("{tag} [[status 500]]") })).await.error(500, "tts_error");
    assert_eq!(host.upstream.calls(&tag).len(), settings::MAX_ATTEMPTS);
    let page = refused(&host.tenant("speech-html"), &json!({ "text": "[[html]]" })).await;
    page.error(500, "tts_error");
    assert!(!page.text.contains("guest"), "{page:?}");
    let slow = refused(&host.tenant("speech-slow"), &json!({ "text": "[[hang before first]]" })).await;
    slow.error(504, "ai_timeout");
}

/// A body that has begun has no other way to tell.
pub async fn audio_that_breaks_off_is_cut(host: &Host) {
    let api = host.tenant("speech-cut");
    let text = "This goes on for a while [[cut]] and then it does not.";
    refused(&api, &json!({ "text": text })).await.error(500, "tts_error");
    let reply = api.post_begin("/tts", &json!({ "text": text, "streaming": true })).await;
    assert_eq!(reply.status, 200);
    assert!(reply.bytes().await.is_err(), "a body that was cut must not look whole");
}

/// Whatever it was doing.
pub async fn a_client_that_goes_ends_the_engines_work(host: &Host) {
    let (api, tag) = (host.tenant("speech-gone"), tag());
    let text = format!("{tag} [[hang]] and so on, for a while");
    let mut reply = api.post_begin("/tts", &json!({ "text": text, "streaming": true })).await;
    reply.bytes_next().await.unwrap().expect("there is audio");
    drop(reply);
    host.upstream.cancelled(&tag).await;
}

/// Four characters are a token; what failed is free.
pub async fn what_is_spoken_is_limited_and_paid_for(host: &Host) {
    let api = host.tenant("speech-poor");
    let half = json!({ "text": "a".repeat(200) });
    refused(&api, &json!({ "text": format!("{}[[status 400]]", "a".repeat(380)) })).await.error(500, "tts_error");
    speak(&api, "/tts", &half).await;
    // More than what is left is refused whole, and costs nothing.
    let details = refused(&api, &json!({ "text": "a".repeat(204) })).await.error(429, "budget_exceeded");
    assert_eq!(details["period"], "daily");
    speak(&api, "/tts", &half).await;
    refused(&api, &json!({ "text": "a" })).await.error(429, "budget_exceeded");

    let few = host.tenant("speech-few");
    for _ in 0..2 {
        speak(&few, "/tts", &json!({ "text": "a" })).await;
    }
    let limited = refused(&few, &json!({ "text": "a" })).await;
    limited.error(429, "rate_limited");
    assert_eq!(limited.number("x-ratelimit-remaining"), 0);
}
