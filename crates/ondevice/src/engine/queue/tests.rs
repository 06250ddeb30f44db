//! Who is let in, without an engine that takes anybody out.

use enigma_core::model::Sampling;
use futures_util::{FutureExt, StreamExt};
use proptest::prelude::*;

use super::super::answer::{self, Answer};
use super::*;
use crate::sampler::Sampler;
use crate::stop::StopTexts;

fn queue(places: usize, capacity: usize) -> Arc<Queue> {
    Arc::new(Queue::new(places, capacity))
}

fn ask(queue: &Arc<Queue>, tenant: &str) -> Result<Answer, ModelError> {
    let request = Request {
        tenant: TenantId::new(tenant).unwrap(),
        prompt: vec![1],
        room: 1,
        sampler: Sampler::new(&Sampling::default()),
        stop: StopTexts::new(&[]),
    };
    let (sender, pieces) = answer::channel(1);
    Ok(Answer::new(queue.push(request, sender)?, pieces))
}

/// Lets in what must be let in.
fn let_in(queue: &Arc<Queue>, tenant: &str) -> Answer {
    ask(queue, tenant).unwrap_or_else(|error| panic!("{tenant}: {error}"))
}

fn is_refused(queue: &Arc<Queue>, tenant: &str) -> bool {
    let is_full = queue.is_full_for(&TenantId::new(tenant).unwrap());
    let is_refused = matches!(ask(queue, tenant), Err(ModelError::Busy));
    assert_eq!(is_full, is_refused, "the question and the answer agree");
    is_refused
}

/// Whether it was told to leave the line, and nothing else.
fn is_displaced(answer: &mut Answer) -> bool {
    let is_told = matches!(answer.next().now_or_never(), Some(Some(Err(ModelError::Busy))));
    is_told && matches!(answer.next().now_or_never(), Some(None))
}

fn waiting(queue: &Queue) -> Vec<String> {
    queue.state().waiting.iter().map(|waiting| waiting.request.tenant.to_string()).collect()
}

fn served(queue: &Queue) -> usize {
    queue.state().served.len()
}

#[test]
fn a_newcomer_displaces_the_newest_of_the_tenant_that_holds_most() {
    let queue = queue(2, 3);
    let mut crowd: Vec<Answer> = (0..5).map(|_| let_in(&queue, "crowd")).collect();
    let running = [queue.take().unwrap(), queue.take().unwrap()];
    let single = let_in(&queue, "single");
    let displaced: Vec<bool> = crowd.iter_mut().map(is_displaced).collect();
    assert_eq!(displaced, [false, false, false, false, true]);
    assert_eq!(waiting(&queue), ["crowd", "crowd", "single"]);
    assert!(is_refused(&queue, "crowd"));
    assert_eq!(waiting(&queue), ["crowd", "crowd", "single"], "a refusal changes nothing");

    // A place gets free.
    let [first, second] = running;
    drop(first);
    let third = queue.take().unwrap();
    assert_eq!(third.0.request.tenant.as_str(), "single");
    drop((second, third));
    let rest: Vec<_> = std::iter::from_fn(|| queue.take()).collect();
    assert_eq!((rest.len(), served(&queue), waiting(&queue).len()), (2, 2, 0));
    drop((rest, crowd, single));
    assert_eq!((served(&queue), waiting(&queue).len()), (0, 0));
}

#[test]
fn whoever_runs_is_not_displaced() {
    let queue = queue(2, 0);
    let mut crowd = [let_in(&queue, "crowd"), let_in(&queue, "crowd")];
    let running = [queue.take().unwrap(), queue.take().unwrap()];
    assert!(is_refused(&queue, "single"));
    assert!(!crowd.iter_mut().any(is_displaced));
    assert_eq!(served(&queue), 2);
    drop(running);
    assert!(!is_refused(&queue, "single"));
}

#[test]
fn equals_do_not_displace_each_other() {
    let queue = queue(1, 1);
    let mut held = [let_in(&queue, "a"), let_in(&queue, "b")];
    let running = queue.take().unwrap();
    assert!(is_refused(&queue, "a") && is_refused(&queue, "b"));
    assert!(!held.iter_mut().any(is_displaced));
    drop(running);
}

#[test]
fn who_goes_leaves_the_line_at_once() {
    let queue = queue(1, 2);
    let first = let_in(&queue, "a");
    let running = queue.take().unwrap();
    let (second, third) = (let_in(&queue, "a"), let_in(&queue, "b"));
    assert!(is_refused(&queue, "a"));
    drop(second);
    assert_eq!(waiting(&queue), ["b"]);
    // It holds one place, not two, so that it keeps this one against a tenant that holds as many.
    let again = let_in(&queue, "a");
    assert_eq!(waiting(&queue), ["b", "a"]);
    drop((first, third, again));
    assert!(waiting(&queue).is_empty());
    assert_eq!(served(&queue), 1, "what runs has its place until the engine lets it go");
    drop(running);
    assert_eq!(served(&queue), 0);
}

proptest! {
    /// Requests come, are begun, end and are given up in any order.
    #[test]
    fn nobody_is_refused_for_the_crowd_of_another_and_no_place_is_lost(
        moves in proptest::collection::vec((0_usize..5, 0_usize..4), 0..200)
    ) {
        let queue = queue(2, 4);
        let mut answers: Vec<Answer> = Vec::new();
        let mut running = Vec::new();
        for (what, who) in moves {
            let tenant = ["a", "b", "c", "d"][who];
            match what {
                0 | 1 => {
                    let before = waiting(&queue);
                    let is_full = served(&queue) + before.len() == 6;
                    let of = |tenant: &str| {
                        let served = queue.state().served.iter().filter(|served| served.as_str() == tenant).count();
                        served + before.iter().filter(|waiting| *waiting == tenant).count()
                    };
                    let most = before.iter().map(|waiting| of(waiting)).max().unwrap_or(0);
                    let is_due = !is_full || of(tenant) < most;
                    let asked = ask(&queue, tenant);
                    prop_assert_eq!(asked.is_ok(), is_due);
                    answers.extend(asked);
                    let displaced = answers.iter_mut().map(is_displaced).filter(|is_displaced| *is_displaced).count();
                    prop_assert_eq!(displaced, usize::from(is_full && is_due));
                }
                2 => running.extend(queue.take()),
                3 if !running.is_empty() => drop(running.swap_remove(who % running.len())),
                4 if !answers.is_empty() => drop(answers.swap_remove(who % answers.len())),
                _ => {}
            }
            prop_assert!(served(&queue) <= 2 && served(&queue) + waiting(&queue).len() <= 6);
            prop_assert_eq!(served(&queue), running.len());
        }
        drop(answers);
        prop_assert!(waiting(&queue).is_empty());
        drop(running);
        prop_assert_eq!(served(&queue), 0);
    }
}

#[test]
fn who_has_waited_too_long_is_told_that_there_is_no_room() {
    let queue = queue(1, 3);
    let mut first = let_in(&queue, "acme");
    let running = queue.take().unwrap();
    let mut second = let_in(&queue, "acme");
    assert!(queue.refuse_after(Duration::from_secs(60)), "nobody has waited for so long");
    assert!(second.next().now_or_never().is_none());
    std::thread::sleep(Duration::from_millis(2));
    assert!(!queue.refuse_after(Duration::from_millis(1)));
    assert!(is_displaced(&mut second));
    assert!(first.next().now_or_never().is_none(), "what runs goes on");
    drop(running);
    assert_eq!((waiting(&queue).len(), served(&queue)), (0, 0));
}
