//! The use case of speech against the memory adapters: every ending, the books after it, and what was heard.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on stops")]

use std::future::Future;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use enigma_core::admission::{Admission, AdmissionError};
use enigma_core::books::ComposedBooks;
use enigma_core::chat::ChatError;
use enigma_core::model::{
    AudioFormat, BreakerPolicy, GatewayError, ModelError, ModelTimeouts, Phase, RetryPolicy, SpeechAbilities,
    SpeechGateway, SpeechRoute, SpeechSynthesizer, StaticSpeechCatalog,
};
use enigma_core::ports::{Clock, TokenLedger};
use enigma_core::speech::{
    SpeakCommand, SpeechError, SpeechEvent, SpeechPorts, SpeechRejected, SpeechReply, SpeechService, SpeechSettings,
    whole,
};
use enigma_core::tenant::{ClientAddress, RequestIdentity, Resolver, Tenant, TenantContext, TenantIndex, UserHints};
use enigma_core::usage::{Ending, UsageRecord};
use enigma_core::{RequestId, TenantId, Timestamp, TraceId};
use enigma_memory::testing::{
    CallState, ManualClock, ScriptedSynthesizer, SeededIds, SpeechStep, TestBackground, ToneSynthesizer,
};
use enigma_memory::{MemoryRateLimiter, MemoryStreamSlots, MemoryTelemetry, MemoryTenantDirectory, MemoryTokenLedger};
use futures_util::{StreamExt, poll};
use serde_json::{Value, json};
use uuid::Uuid;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const SECOND: Duration = Duration::from_secs(1);
/// Twelve characters, three tokens.
const TEXT: &str = "Grüße, Welt!";

struct World {
    clock: ManualClock,
    engine: Arc<ScriptedSynthesizer>,
    service: SpeechService,
    background: TestBackground,
    ledger: Arc<MemoryTokenLedger>,
    telemetry: Arc<MemoryTelemetry>,
    context: TenantContext,
}

impl World {
    async fn new() -> Self {
        Self::with(json!({}), |engine| engine).await
    }

    async fn with(changes: Value, change: impl FnOnce(ScriptedSynthesizer) -> ScriptedSynthesizer) -> Self {
        let clock = ManualClock::new(NOW);
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let engine = Arc::new(change(ScriptedSynthesizer::new(Arc::clone(&shared))));
        let (ledger, telemetry) = (Arc::new(MemoryTokenLedger::default()), Arc::new(MemoryTelemetry::new(100)));
        let books = ComposedBooks::new(
            Arc::new(MemoryRateLimiter::default()),
            Arc::new(MemoryStreamSlots::default()),
            Arc::clone(&ledger) as _,
            Arc::clone(&telemetry) as _,
        );
        let route = SpeechRoute {
            provider: "here".parse().unwrap(),
            synthesizer: Arc::clone(&engine) as Arc<dyn SpeechSynthesizer>,
        };
        let gateway = SpeechGateway::new(
            Arc::new(StaticSpeechCatalog::new().with_model("voice".parse().unwrap(), route)),
            Arc::clone(&shared),
            Arc::new(SeededIds::new(7)),
            BreakerPolicy { failures: 4, ..BreakerPolicy::default() },
            RetryPolicy { max_attempts: 2, ..RetryPolicy::default() },
            ModelTimeouts { first_token: SECOND * 20, idle: SECOND * 10 },
        );
        let ports = SpeechPorts {
            admission: Admission::new(Arc::new(books), SECOND * 900),
            speech: gateway.with_max_bytes(1_000_000),
            clock: shared,
        };
        let settings = SpeechSettings { request_timeout: SECOND * 100, send_timeout: SECOND * 10 };
        let runtime = tokio::runtime::Handle::current();
        let background = TestBackground::new(move |work| drop(runtime.spawn(work)));
        let context = context(changes).await;
        Self { clock, engine, service: SpeechService::new(ports, settings), background, ledger, telemetry, context }
    }

    async fn speak(&self, command: SpeakCommand) -> Result<SpeechReply, SpeechRejected> {
        self.passing(self.service.speak(self.context.clone(), command, &self.background)).await
    }

    /// Lets a request run, and time with it.
    async fn passing<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            for _ in 0..20 {
                if let Poll::Ready(done) = poll!(work.as_mut()) {
                    return done;
                }
                tokio::task::yield_now().await;
            }
            self.clock.advance(Duration::from_millis(250));
        }
    }

    async fn events(&self, mut reply: SpeechReply) -> Vec<SpeechEvent> {
        let mut events = Vec::new();
        while let Some(event) = self.passing(reply.events.next()).await {
            events.push(event);
        }
        events
    }

    /// The record of the only request.
    async fn record(&self) -> UsageRecord {
        self.passing(self.background.idle()).await;
        let records = self.telemetry.records(&acme()).unwrap();
        let [record] = &records[..] else { panic!("{records:?}") };
        assert_eq!(self.spent().await, record.charged);
        record.clone()
    }

    /// Tokens that were charged; nothing may be held any more.
    async fn spent(&self) -> u64 {
        let balance = self.ledger.balance(&acme(), self.clock.now()).await.unwrap();
        assert_eq!(balance.held_today, 0);
        balance.day.settled
    }

    fn states(&self) -> Vec<CallState> {
        self.engine.calls().into_iter().map(|call| call.state).collect()
    }
}

fn acme() -> TenantId {
    "acme".parse().unwrap()
}

async fn context(changes: Value) -> TenantContext {
    let mut json = json!({
        "tenantId": "acme", "aiModels": { "chat": "m", "tts": "voice" }, "auth": { "mode": "open" },
        "featureFlags": { "tts_enabled": true }, "tokenBudget": { "daily": 1000 },
    });
    for (name, value) in changes.as_object().unwrap() {
        json[name] = value.clone();
    }
    let tenant = Tenant::from_json(&json.to_string()).unwrap();
    let directory = MemoryTenantDirectory::new(TenantIndex::new([tenant]).unwrap());
    let resolver = Resolver::new(Arc::new(directory), None);
    let identity = RequestIdentity { tenant: Some("acme"), ..RequestIdentity::default() };
    let claimed = resolver.resolve(&identity).await.unwrap();
    resolver.authenticate(claimed, None, &ClientAddress::new("192.0.2.1"), NOW).await.unwrap()
}

fn command(world: &World) -> SpeakCommand {
    SpeakCommand {
        request: RequestId::new(Uuid::from_u128(1)),
        trace: TraceId::new("trace").unwrap(),
        traceparent: None,
        route: "/tts",
        caller: world.context.caller(UserHints::default()),
        model: None,
        text: TEXT.to_owned(),
        voice: None,
        format: Some(AudioFormat::Wav),
        speed: 1.0,
    }
}

fn say(text: &str) -> SpeechStep {
    SpeechStep::Say(text.as_bytes().to_vec())
}

fn unavailable() -> SpeechStep {
    SpeechStep::Fail(ModelError::unavailable("503"))
}

fn heard(events: &[SpeechEvent]) -> Vec<u8> {
    let pieces = events.iter().filter_map(|event| match event {
        SpeechEvent::Audio(piece) => Some(piece.to_vec()),
        _ => None,
    });
    pieces.collect::<Vec<_>>().concat()
}

/// The failure that was told, and how it ended: the last event is always that.
fn end(events: &[SpeechEvent]) -> (Option<&SpeechError>, Ending) {
    let failures: Vec<_> = events.iter().filter(|event| matches!(event, SpeechEvent::Failed(_))).collect();
    assert!(failures.len() <= 1, "{events:?}");
    let failure = failures.first().map(|event| match event {
        SpeechEvent::Failed(error) => error,
        other => panic!("{other:?}"),
    });
    match events.last() {
        Some(SpeechEvent::Done(done)) => (failure, done.ending),
        other => panic!("{other:?}"),
    }
}

fn failure(error: &SpeechError) -> &ModelError {
    match error {
        SpeechError::Common(ChatError::Gateway(GatewayError::Failed { source, .. })) => source,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_text_is_spoken_charged_as_its_tokens_and_recorded_in_characters() {
    let world = World::new().await;
    let reply = world.speak(command(&world)).await.unwrap();
    assert_eq!((reply.characters, reply.tokens, reply.format), (12, 3, AudioFormat::Wav));
    let events = world.events(reply).await;
    let asked = world.engine.calls().remove(0).call;
    assert_eq!(heard(&events), ToneSynthesizer::answer(&asked));
    assert!(matches!(end(&events), (None, Ending::Finished)));
    assert_eq!((asked.text.as_str(), asked.model.as_str(), asked.metadata.route), (TEXT, "voice", "/tts"));
    let record = world.record().await;
    assert_eq!((record.charged, record.tokens_in, record.tokens_out, record.characters), (3, 3, 0, Some(12)));
    assert_eq!((record.ending, record.provider.unwrap().as_str()), (Ending::Finished, "here"));
    assert_eq!((record.route.as_str(), record.first_token, record.estimated), ("/tts", Some(Duration::ZERO), true));
}

#[tokio::test]
async fn audio_comes_in_small_pieces_and_a_whole_wav_tells_its_length() {
    let world = World::new().await;
    let mut long = b"RIFF\xff\xff\xff\xffWAVEdata\xff\xff\xff\xff".to_vec();
    long.resize(200_020, 7);
    for _ in 0..2 {
        // The start may come in pieces, too.
        world.engine.push([
            SpeechStep::Say(long[..1].to_vec()),
            SpeechStep::Say(Vec::new()),
            SpeechStep::Say(long[1..3].to_vec()),
            SpeechStep::Say(long[3..].to_vec()),
        ]);
    }
    let events = world.events(world.speak(command(&world)).await.unwrap()).await;
    assert_eq!(heard(&events), long);
    let longest = events.iter().map(|event| if let SpeechEvent::Audio(piece) = event { piece.len() } else { 0 }).max();
    assert_eq!(longest, Some(64 * 1024));
    let again = SpeakCommand { request: RequestId::new(Uuid::from_u128(2)), ..command(&world) };
    let reply = world.speak(again).await.unwrap();
    let audio = world.passing(whole(reply)).await.unwrap();
    assert_eq!(audio.len(), long.len());
    assert_eq!((&audio[4..8], &audio[16..20]), (&200_012_u32.to_le_bytes()[..], &200_000_u32.to_le_bytes()[..]));
}

#[tokio::test]
async fn what_cannot_be_is_refused_before_anything_is_spent() {
    let only_opus = |engine: ScriptedSynthesizer| {
        let abilities = engine.abilities(&"voice".parse().unwrap()).unwrap();
        engine.with_abilities(SpeechAbilities { formats: vec![AudioFormat::Opus], speed: false, ..abilities })
    };
    let off = World::with(json!({ "featureFlags": {} }), |engine| engine).await;
    let mute = World::with(json!({ "aiModels": { "chat": "m" } }), |engine| engine).await;
    let flags = json!({ "tts_enabled": true, "modelAllowList": true });
    let narrow = World::with(json!({ "featureFlags": flags, "allowedModels": ["m"] }), |engine| engine).await;
    let opus = World::with(json!({}), only_opus).await;
    let open = World::new().await;
    let other = |world: &World| SpeakCommand { model: Some("other".parse().unwrap()), ..command(world) };
    let error = async |world: &World, asked: SpeakCommand| world.speak(asked).await.err().unwrap().error;
    assert!(matches!(error(&off, command(&off)).await, SpeechError::SwitchedOff));
    assert!(matches!(error(&mute, command(&mute)).await, SpeechError::NoModel));
    assert!(matches!(error(&narrow, other(&narrow)).await, SpeechError::Common(ChatError::ModelNotAllowed(_))));
    let unknown = error(&open, other(&open)).await;
    assert!(matches!(unknown, SpeechError::Common(ChatError::Gateway(GatewayError::UnknownModel(_)))), "{unknown:?}");
    let voice = SpeakCommand { voice: Some("nobody".to_owned()), ..command(&open) };
    assert!(matches!(error(&open, voice).await, SpeechError::UnknownVoice));
    let format = error(&opus, command(&opus)).await;
    assert!(
        matches!(&format, SpeechError::NoEncoder { format: AudioFormat::Wav, formats } if *formats == [AudioFormat::Opus]),
        "{format:?}"
    );
    let fast = SpeakCommand { format: None, speed: 2.0, ..command(&opus) };
    assert!(matches!(failure(&error(&opus, fast).await), ModelError::Unsupported { feature: "speed" }));
    for world in [&off, &mute, &narrow, &opus, &open] {
        assert_eq!((world.engine.calls().len(), world.spent().await), (0, 0));
        assert!(world.telemetry.records(&acme()).unwrap().is_empty());
    }
    assert!(matches!(off.service.voices(&off.context), Err(SpeechError::SwitchedOff)));
    assert_eq!(open.service.voices(&open.context).unwrap().abilities.voices.len(), 2);
    // Its own model a tenant may have, whatever the list says; and what it does best, where it cannot do the usual.
    narrow.speak(SpeakCommand { voice: Some("high".to_owned()), ..command(&narrow) }).await.unwrap();
    assert_eq!(opus.speak(SpeakCommand { format: None, ..command(&opus) }).await.unwrap().format, AudioFormat::Opus);
    assert_eq!(open.speak(SpeakCommand { format: None, ..command(&open) }).await.unwrap().format, AudioFormat::Mp3);
}

#[tokio::test]
async fn a_budget_that_does_not_cover_a_text_is_not_touched() {
    let world = World::with(json!({ "tokenBudget": { "daily": 2 } }), |engine| engine).await;
    let rejected = world.speak(command(&world)).await.err().unwrap();
    assert!(rejected.rate.is_some());
    assert!(matches!(rejected.error, SpeechError::Common(ChatError::Admission(AdmissionError::BudgetExceeded(_)))));
    assert_eq!((world.engine.calls().len(), world.spent().await), (0, 0));
}

#[tokio::test]
async fn what_fails_before_the_first_sound_is_tried_again_and_free() {
    let world = World::new().await;
    world.engine.push([unavailable()]);
    let events = world.events(world.speak(command(&world)).await.unwrap()).await;
    assert!(matches!(end(&events), (None, Ending::Finished)));
    assert_eq!((world.engine.calls().len(), world.record().await.charged), (2, 3));

    for wrong in ["<html>", "{\"error\":1}", "ID3 not what was asked for", ""] {
        let world = World::new().await;
        for _ in 0..2 {
            world.engine.push([say(wrong)]);
        }
        let rejected = world.speak(command(&world)).await.err().unwrap();
        let expected = failure(&rejected.error);
        assert!(
            matches!(expected, ModelError::Malformed { .. } | ModelError::Interrupted { .. }),
            "{wrong}: {expected:?}"
        );
        let record = world.record().await;
        assert_eq!((record.ending, record.charged, record.characters), (Ending::Failed, 0, Some(0)), "{wrong}");
        assert_eq!(world.engine.calls().len(), 2, "{wrong}");
    }
}

#[tokio::test]
async fn an_engine_that_is_silent_is_given_up() {
    let world = World::new().await;
    world.engine.push([say("RI"), SpeechStep::Hang]);
    world.engine.push([SpeechStep::Hang]);
    let rejected = world.speak(command(&world)).await.err().unwrap();
    assert!(matches!(failure(&rejected.error), ModelError::Timeout(Phase::FirstToken)));
    assert_eq!(world.states(), [CallState::Dropped; 2]);
    assert_eq!(world.record().await.ending, Ending::TimedOut);

    let world = World::new().await;
    world.engine.push([say("RIFF"), SpeechStep::Wait(SECOND * 9), say("more"), SpeechStep::Hang]);
    let events = world.events(world.speak(command(&world)).await.unwrap()).await;
    assert_eq!(heard(&events), b"RIFFmore");
    let (told, ending) = end(&events);
    assert!(matches!(failure(told.unwrap()), ModelError::Timeout(Phase::Idle)));
    assert_eq!((ending, world.states()), (Ending::TimedOut, vec![CallState::Dropped]));
    let record = world.record().await;
    assert_eq!((record.ending, record.charged, record.characters), (Ending::TimedOut, 3, Some(12)));
}

#[tokio::test]
async fn audio_that_breaks_off_is_told_and_paid_for() {
    for broken in [unavailable(), SpeechStep::Panic] {
        let world = World::new().await;
        world.engine.push([say("RIFF"), broken]);
        let events = world.events(world.speak(command(&world)).await.unwrap()).await;
        let (told, ending) = end(&events);
        assert!(told.is_some() && ending == Ending::Failed && heard(&events) == b"RIFF", "{events:?}");
        assert_eq!(world.engine.calls().len(), 1, "what was heard is not said again");
        let record = world.record().await;
        assert_eq!((record.ending, record.charged), (Ending::Failed, 3));
    }
    let world = World::new().await;
    world.engine.push([say("RIFF"), unavailable()]);
    let reply = world.speak(command(&world)).await.unwrap();
    assert!(matches!(failure(&world.passing(whole(reply)).await.unwrap_err()), ModelError::Unavailable { .. }));
}

#[tokio::test]
async fn audio_without_end_is_cut_at_its_bound() {
    let world = World::new().await;
    world.engine.push((0..100).map(|n| if n == 0 { say("RIFF") } else { SpeechStep::Say(vec![0; 50_000]) }));
    let events = world.events(world.speak(command(&world)).await.unwrap()).await;
    assert!(
        matches!(failure(end(&events).0.unwrap()), ModelError::Malformed { message } if message.contains("too long"))
    );
    let heard = heard(&events).len();
    assert!((900_000..=1_000_000).contains(&heard), "{heard} bytes");
    assert_eq!(world.states(), [CallState::Dropped]);
}

#[tokio::test]
async fn who_goes_away_ends_the_engines_work_and_pays_for_it() {
    // Before the first sound.
    let world = World::new().await;
    world.engine.push([SpeechStep::Wait(SECOND), say("RIFF")]);
    {
        let mut asking = std::pin::pin!(world.service.speak(world.context.clone(), command(&world), &world.background));
        for _ in 0..20 {
            assert!(poll!(asking.as_mut()).is_pending());
            tokio::task::yield_now().await;
        }
    }
    let record = world.record().await;
    assert_eq!((record.ending, record.charged, record.characters), (Ending::ClientGone, 3, Some(12)));
    assert_eq!(world.states(), [CallState::Dropped]);

    // In the middle, and while nothing is read.
    for reads in [0, 1] {
        let world = World::new().await;
        let many = (0..40).map(|_| SpeechStep::Say(vec![0; 1000]));
        world.engine.push([say("RIFF")].into_iter().chain(many).chain([SpeechStep::Hang]));
        let mut reply = world.speak(command(&world)).await.unwrap();
        for _ in 0..reads {
            reply.events.next().await.unwrap();
        }
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        assert_eq!(world.states(), [CallState::Streaming], "a slow reader slows it down");
        drop(reply);
        assert_eq!(world.record().await.ending, Ending::ClientGone);
        assert_eq!(world.states(), [CallState::Dropped]);
    }
}

#[tokio::test]
async fn who_reads_nothing_and_a_host_that_stops_end_it() {
    let long = || [say("RIFF")].into_iter().chain((0..40).map(|_| SpeechStep::Say(vec![0; 1000])));
    let world = World::new().await;
    world.engine.push(long());
    let reply = world.speak(command(&world)).await.unwrap();
    assert_eq!(world.record().await.ending, Ending::ClientGone);
    drop(reply);

    let world = World::new().await;
    world.engine.push([say("RIFF"), SpeechStep::Hang]);
    let reply = world.speak(command(&world)).await.unwrap();
    world.background.stop();
    let events = world.events(reply).await;
    assert!(matches!(end(&events), (Some(SpeechError::Common(ChatError::ShuttingDown)), Ending::ShutDown)));
    assert_eq!(world.record().await.charged, 3);
}

#[tokio::test]
async fn an_engine_that_keeps_failing_is_left_alone() {
    let world = World::new().await;
    for n in 0..4 {
        world.engine.push([unavailable()]);
        if n % 2 == 1 {
            let request = RequestId::new(Uuid::from_u128(10 + n));
            drop(world.speak(SpeakCommand { request, ..command(&world) }).await.err().unwrap());
        }
    }
    let rejected = world.speak(command(&world)).await.err().unwrap();
    assert!(matches!(failure(&rejected.error), ModelError::BreakerOpen));
    assert_eq!(world.engine.calls().len(), 4);
}
