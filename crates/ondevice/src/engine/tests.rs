//! The engine's rules, with a network that knows the alphabet: after a small letter it says the next one and ends after `z`, after
//! a capital it goes round for ever.

use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver, Sender};

use enigma_core::TenantId;
use enigma_core::model::{Delta, FinishReason, Sampling, Usage};
use futures_util::StreamExt;

use super::*;
use crate::sampler::Sampler;
use crate::stop::StopTexts;
use crate::testing;

/// What each step fed: the first letter of each conversation that took part, and how many tokens.
type Log = Arc<Mutex<Vec<Vec<(char, usize)>>>>;

struct Alphabet {
    log: Log,
    /// A step waits for a permit, as long as someone can give one.
    permits: Receiver<()>,
}

impl Network for Alphabet {
    type Seq = Vec<u32>;

    fn seq(&self) -> Vec<u32> {
        Vec::new()
    }

    fn forward(&self, parts: &mut [Part<'_, Vec<u32>>]) -> Result<Vec<Option<Vec<f32>>>, candle_core::Error> {
        let _ = self.permits.recv();
        for part in parts.iter_mut() {
            part.seq.extend(part.tokens);
        }
        let fed = parts.iter().map(|part| (letter(part.seq[0]), part.tokens.len())).collect();
        self.log.lock().unwrap().push(fed);
        let next = |part: &Part<'_, Vec<u32>>| match letter(part.seq[part.seq.len() - 1]) {
            '!' => panic!("told to"),
            '?' => Err(candle_core::Error::Msg("told to".to_owned())),
            'z' => Ok(2),
            'Z' => Ok(testing::token(b'A')),
            letter => Ok(testing::token(u8::try_from(letter).unwrap() + 1)),
        };
        let logits = |token: u32| (0..testing::VOCABULARY).map(|other| f32::from(u8::from(other == token))).collect();
        parts.iter().map(|part| Ok(part.wants_logits.then_some(logits(next(part)?)))).collect()
    }
}

fn letter(token: u32) -> char {
    char::from_u32(token - testing::token(0)).unwrap()
}

struct Bench {
    engine: Engine,
    log: Log,
    permits: Option<Sender<()>>,
}

impl Bench {
    /// An engine that stands still until it is released.
    fn held(conversations: usize, queue: usize, unread: usize) -> Self {
        let (permits, receiver) = mpsc::channel();
        let log = Log::default();
        let network = Alphabet { log: Arc::clone(&log), permits: receiver };
        let limits = Limits { conversations, queue, unread, patience: Duration::from_secs(60) };
        let engine = Engine::start(network, Arc::new(testing::tokenizer()), limits).unwrap();
        Self { engine, log, permits: Some(permits) }
    }

    fn running(conversations: usize, queue: usize, unread: usize) -> Self {
        let mut bench = Self::held(conversations, queue, unread);
        bench.release();
        bench
    }

    fn release(&mut self) {
        self.permits = None;
    }

    fn ask_for(&self, tenant: &str, prompt: &str, room: usize, stop: &[&str]) -> Result<Answer, ModelError> {
        let stop: Vec<String> = stop.iter().map(|stop| (*stop).to_owned()).collect();
        self.engine.submit(Request {
            tenant: TenantId::new(tenant).unwrap(),
            prompt: prompt.bytes().map(testing::token).collect(),
            room,
            sampler: Sampler::new(&Sampling { temperature: Some(0.0), ..Sampling::default() }),
            stop: StopTexts::new(&stop),
        })
    }

    fn ask(&self, prompt: &str, room: usize) -> Answer {
        self.ask_for("acme", prompt, room, &[]).unwrap()
    }

    fn is_full_for(&self, tenant: &str) -> bool {
        self.engine.is_full_for(&TenantId::new(tenant).unwrap())
    }

    /// In which steps the conversation that begins with this letter took part.
    fn steps_of(&self, letter: char) -> Vec<usize> {
        let log = self.log.lock().unwrap();
        let took_part = |step: &&Vec<(char, usize)>| step.iter().any(|(first, _)| *first == letter);
        log.iter().enumerate().filter(|(_, step)| took_part(step)).map(|(index, _)| index).collect()
    }
}

/// The text, why it ended, and what was counted.
async fn whole(answer: Answer) -> (String, FinishReason, Usage) {
    let deltas: Vec<Delta> = answer.map(Result::unwrap).collect().await;
    let [texts @ .., Delta::Finish(reason), Delta::Usage(usage)] = &deltas[..] else { panic!("{deltas:?}") };
    let text = texts.iter().map(|delta| match delta {
        Delta::Content(text) => text.as_str(),
        other => panic!("{other:?}"),
    });
    (text.collect(), *reason, *usage)
}

fn usage(prompt_tokens: u32, completion_tokens: u32) -> Usage {
    Usage { prompt_tokens, completion_tokens }
}

#[tokio::test]
async fn an_answer_ends_by_itself_or_at_its_length() {
    let bench = Bench::running(2, 2, 8);
    assert_eq!(whole(bench.ask("tuvw", 10)).await, ("xyz".to_owned(), FinishReason::Stop, usage(4, 3)));
    assert_eq!(whole(bench.ask("a", 3)).await, ("bcd".to_owned(), FinishReason::Length, usage(1, 3)));
    assert_eq!(whole(bench.ask("a", 0)).await, (String::new(), FinishReason::Length, usage(1, 0)));
}

#[tokio::test]
async fn tokens_come_one_by_one() {
    let bench = Bench::held(1, 1, 8);
    let permits = bench.permits.as_ref().unwrap();
    let mut answer = bench.ask("a", 3);
    for letter in ["b", "c"] {
        permits.send(()).unwrap();
        assert_eq!(answer.next().await.unwrap().unwrap(), Delta::Content(letter.to_owned()));
    }
}

#[tokio::test]
async fn a_stop_text_over_several_tokens_ends_the_answer_and_is_no_part_of_it() {
    let bench = Bench::running(1, 1, 8);
    let answer = bench.ask_for("acme", "a", 20, &["xyzzy", "fgh"]).unwrap();
    assert_eq!(whole(answer).await, ("bcde".to_owned(), FinishReason::Stop, usage(1, 7)));
    let answer = bench.ask_for("acme", "a", 6, &["ghi"]).unwrap();
    assert_eq!(whole(answer).await.0, "bcdefg", "what was held back is given when the answer ends otherwise");
}

#[tokio::test]
async fn a_full_line_refuses_until_someone_has_gone() {
    let mut bench = Bench::held(1, 1, 8);
    let served = bench.ask("a", 5);
    assert!(!bench.is_full_for("acme"));
    let waiting = bench.ask("b", 5);
    assert!(bench.is_full_for("acme"));
    assert!(matches!(bench.ask_for("acme", "c", 5, &[]), Err(ModelError::Busy)));
    drop(waiting);
    assert!(!bench.is_full_for("acme"));
    let next = bench.ask("d", 5);
    bench.release();
    assert_eq!(whole(served).await.0, "bcdef");
    assert_eq!(whole(next).await.0, "efghi");
    assert!(bench.steps_of('b').is_empty(), "nobody computes for a reader who has gone");
}

#[tokio::test]
async fn a_dropped_answer_frees_its_place_within_a_step() {
    let bench = Bench::held(1, 1, 8);
    let permits = bench.permits.as_ref().unwrap();
    let mut endless = bench.ask("A", usize::MAX);
    permits.send(()).unwrap();
    assert_eq!(endless.next().await.unwrap().unwrap(), Delta::Content("B".to_owned()));
    let next = bench.ask("a", 2);
    drop(endless);
    // One step may have been under way, two are of the next conversation.
    (0..3).for_each(|_| permits.send(()).unwrap());
    assert_eq!(whole(next).await.0, "bc");
    assert!(bench.steps_of('A').len() <= 2);
}

#[tokio::test]
async fn a_short_chat_ends_while_a_long_prompt_is_read() {
    let mut bench = Bench::held(4, 4, 8);
    let long = bench.ask(&"L".repeat(20 * CHUNK), 2);
    let short = bench.ask("a", 5);
    bench.release();
    assert_eq!(whole(short).await.0, "bcdef");
    assert_eq!(whole(long).await.0, "MN");
    let (short, long) = (bench.steps_of('a'), bench.steps_of('L'));
    assert!(short[4] < 10, "{short:?}");
    assert!(long[long.len() - 4] > short[4], "most of the long prompt is read afterwards: {long:?}");
    let fed = |step: &Vec<(char, usize)>| step.iter().map(|(_, tokens)| tokens).sum::<usize>();
    let steps = bench.log.lock().unwrap();
    assert!(steps.iter().all(|step| fed(step) <= CHUNK_ALONE + 1), "no step reads more than a chunk");
}

#[tokio::test]
async fn two_prompts_are_read_in_turns() {
    let mut bench = Bench::held(4, 4, 8);
    let (first, second) = (bench.ask(&"A".repeat(10 * CHUNK), 1), bench.ask(&"B".repeat(10 * CHUNK), 1));
    bench.release();
    whole(first).await;
    whole(second).await;
    let (first, second) = (bench.steps_of('A'), bench.steps_of('B'));
    assert!(first.last() > second.first() && first.last() < second.last());
}

#[tokio::test]
async fn a_crowd_of_one_tenant_does_not_hold_up_another() {
    let mut bench = Bench::held(2, 8, 8);
    let crowd = ["AA", "B", "C", "D"].map(|prompt| bench.ask_for("crowd", prompt, 2, &[]).unwrap());
    let single = bench.ask_for("single", "a", 1, &[]).unwrap();
    bench.release();
    whole(single).await;
    for answer in crowd {
        whole(answer).await;
    }
    assert!(bench.steps_of('a')[0] < bench.steps_of('D')[0]);
}

#[tokio::test]
async fn a_tenant_that_fills_the_line_does_not_keep_another_out() {
    let mut bench = Bench::held(2, 3, 8);
    let [first, second, third, fourth, mut newest] =
        ["AA", "B", "C", "D", "E"].map(|prompt| bench.ask_for("crowd", prompt, 2, &[]).unwrap());
    assert!(bench.is_full_for("crowd") && !bench.is_full_for("single"));
    let single = bench.ask_for("single", "a", 2, &[]).unwrap();
    assert!(matches!(newest.next().await, Some(Err(ModelError::Busy))));
    assert!(newest.next().await.is_none());
    assert!(matches!(bench.ask_for("crowd", "F", 2, &[]), Err(ModelError::Busy)));

    bench.release();
    assert_eq!(whole(single).await.0, "bc");
    for (answer, expected) in [(first, "BC"), (second, "CD"), (third, "DE"), (fourth, "EF")] {
        assert_eq!(whole(answer).await.0, expected);
    }
    // The first two of the crowd may have had the places before the single one came.
    assert!(bench.steps_of('a')[0] < bench.steps_of('C')[0]);
    assert!(bench.steps_of('E').is_empty() && bench.steps_of('F').is_empty());
}

#[tokio::test]
async fn a_slow_reader_is_waited_for_and_holds_up_nobody() {
    let bench = Bench::running(2, 2, 4);
    let mut slow = bench.ask("A", 1000);
    for _ in 0..5 {
        assert_eq!(whole(bench.ask("a", 20)).await.0.len(), 20);
    }
    assert!((1..=4).contains(&bench.steps_of('A').len()), "four pieces are kept, and no fifth is made");
    for _ in 0..500 {
        assert!(matches!(slow.next().await, Some(Ok(Delta::Content(_)))));
    }
    assert!(bench.steps_of('A').len() <= 504);
}

#[tokio::test]
async fn a_panic_is_an_error_and_the_engine_goes_on() {
    let bench = Bench::held(2, 2, 8);
    let permits = bench.permits.as_ref().unwrap();
    let mut begun = bench.ask("A", 1000);
    permits.send(()).unwrap();
    assert!(matches!(begun.next().await, Some(Ok(_))));
    let mut fatal = bench.ask("!", 10);
    (0..2).for_each(|_| permits.send(()).unwrap());
    assert!(matches!(fatal.next().await, Some(Err(ModelError::Unavailable { .. }))));
    assert!(fatal.next().await.is_none());
    let last = begun.filter(|delta| std::future::ready(delta.is_err())).collect::<Vec<_>>().await;
    assert!(matches!(last[..], [Err(ModelError::Interrupted { .. })]));

    (0..2).for_each(|_| permits.send(()).unwrap());
    assert_eq!(whole(bench.ask("a", 2)).await.0, "bc");
}

#[tokio::test]
async fn a_failed_step_is_an_error_with_its_reason() {
    let bench = Bench::running(1, 1, 8);
    let mut answer = bench.ask("a?", 10);
    let Some(Err(ModelError::Unavailable { message, .. })) = answer.next().await else { panic!() };
    assert!(message.contains("told to"), "{message}");
    assert!(answer.next().await.is_none());
    assert_eq!(whole(bench.ask("a", 2)).await.0, "bc");
}

#[tokio::test]
async fn nobody_hangs_when_the_engine_goes() {
    let mut bench = Bench::held(1, 4, 8);
    let permits = bench.permits.as_ref().unwrap();
    let mut begun = bench.ask("A", 1000);
    permits.send(()).unwrap();
    assert!(matches!(begun.next().await, Some(Ok(_))));
    let waiting = bench.ask("a", 2);
    bench.engine.queue.close();
    bench.engine.thread.unpark();
    bench.release();
    assert!(matches!(begun.collect::<Vec<_>>().await.last(), Some(Err(ModelError::Interrupted { .. }))));
    assert!(matches!(waiting.collect::<Vec<_>>().await[..], [Err(ModelError::Unavailable { .. })]));
    assert!(matches!(bench.ask_for("acme", "a", 1, &[]), Err(ModelError::Unavailable { .. })));
}
