use super::*;
use proptest::prelude::*;

const READING: Duration = Duration::from_secs(3);
const FRESHNESS: Freshness =
    Freshness { refresh_after: Duration::from_secs(30), refuse_after: Duration::from_secs(300) };

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(1_000_000 + seconds * 1000)
}

fn problem() -> Vec<Problem> {
    match super::super::document::Document::read("") {
        Ok(_) => panic!("an empty text is no document"),
        Err(problems) => problems,
    }
}

fn good(copy: &mut Copy, begun: Timestamp, text: &str) -> Seen {
    copy.seen(begun, Some(text.to_owned()), |_| Ok(TenantIndex::default()))
}

fn bad(copy: &mut Copy, begun: Timestamp, text: &str) -> Seen {
    copy.seen(begun, Some(text.to_owned()), |_| Err(problem()))
}

fn never(_: Option<&str>) -> Result<TenantIndex, Vec<Problem>> {
    panic!("it was looked at before")
}

fn reads(copy: &mut Copy, now: Timestamp) -> bool {
    matches!(copy.next(now), Next::Read)
}

/// A copy that was read at time 0.
fn copy() -> Copy {
    let mut copy = Copy::new(FRESHNESS, READING);
    assert!(reads(&mut copy, at(0)));
    assert_eq!(good(&mut copy, at(0), "one"), Seen::Accepted);
    copy
}

#[test]
fn without_a_copy_everyone_reads_and_nobody_gets_in_before() {
    let mut copy = Copy::new(FRESHNESS, READING);
    assert!(reads(&mut copy, at(0)) && reads(&mut copy, at(0)));
    assert!(copy.failed(at(1)).is_none());
    assert!(reads(&mut copy, at(1)), "there is nothing to use meanwhile");
    assert!(matches!(bad(&mut copy, at(1), "bad"), Seen::Refused(_)));
    assert!(copy.usable(at(1)).is_none() && reads(&mut copy, at(2)));
    assert_eq!(copy.seen(at(2), Some("bad".to_owned()), never), Seen::Known);
    assert!(copy.usable(at(2)).is_none());
    assert_eq!(good(&mut copy, at(3), "good"), Seen::Accepted);
    assert!(copy.usable(at(3)).is_some());
}

#[test]
fn one_reads_at_a_time_and_one_that_died_is_replaced() {
    let mut copy = copy();
    assert!(!reads(&mut copy, at(29)));
    assert!(reads(&mut copy, at(30)));
    assert!(!reads(&mut copy, at(30)) && !reads(&mut copy, at(32)));
    assert!(reads(&mut copy, at(33)), "the first reader has not come back");
    assert_eq!(copy.seen(at(33), Some("one".to_owned()), never), Seen::Known);
    assert!(!reads(&mut copy, at(62)) && reads(&mut copy, at(63)));
}

#[test]
fn a_copy_that_cannot_be_read_again_is_used_until_it_is_too_old() {
    let mut copy = copy();
    assert!(reads(&mut copy, at(30)));
    assert!(copy.failed(at(33)).is_some());
    assert!(!reads(&mut copy, at(37)), "KV is left alone for a moment");
    assert!(reads(&mut copy, at(38)));
    assert!(copy.failed(at(299)).is_some());
    assert!(reads(&mut copy, at(300)), "too old to be used while KV is left alone");
    assert!(copy.failed(at(300)).is_none());
    assert!(reads(&mut copy, at(300)));
    assert_eq!(good(&mut copy, at(301), "one"), Seen::Known);
    assert!(copy.usable(at(301)).is_some());
}

#[test]
fn a_document_that_is_refused_changes_nothing_and_is_told_once() {
    let mut copy = copy();
    assert!(matches!(bad(&mut copy, at(30), "bad"), Seen::Refused(_)));
    for minute in 1..60 {
        assert!(copy.usable(at(30 + minute * 60 - 1)).is_some(), "as long as KV says that it is wrong");
        assert_eq!(copy.seen(at(30 + minute * 60), Some("bad".to_owned()), never), Seen::Known);
    }
    assert_eq!(copy.seen(at(4000), Some("one".to_owned()), never), Seen::Known, "the good one again");
    assert!(matches!(bad(&mut copy, at(4001), "worse"), Seen::Refused(_)));
    assert_eq!(good(&mut copy, at(4002), "two"), Seen::Accepted);
}

#[test]
fn that_there_is_no_document_is_a_state_like_others() {
    let mut copy = copy();
    assert_eq!(
        copy.seen(at(30), None, |text| text.map_or(Ok(TenantIndex::default()), |_| Err(problem()))),
        Seen::Accepted
    );
    assert_eq!(copy.seen(at(60), None, never), Seen::Known);
}

#[test]
fn an_answer_that_was_overtaken_does_not_count() {
    let mut copy = copy();
    assert_eq!(good(&mut copy, at(33), "new"), Seen::Accepted);
    assert_eq!(copy.seen(at(31), Some("one".to_owned()), never), Seen::Known);
    assert_eq!(copy.seen(at(34), Some("new".to_owned()), never), Seen::Known, "it is still the new one");
}

#[test]
fn a_copy_from_the_future_is_used_only_when_the_future_is_near() {
    let mut copy = copy();
    assert_eq!(good(&mut copy, at(1000), "two"), Seen::Accepted);
    assert!(!reads(&mut copy, at(990)));
    assert!(copy.usable(at(960)).is_none() && reads(&mut copy, at(960)));
    assert_eq!(good(&mut copy, at(960), "two"), Seen::Known);
    assert!(copy.usable(at(970)).is_some(), "what is known now counts by the new time");
}

#[derive(Debug, Clone)]
enum Step {
    Wait(u64),
    Ask,
    Answer(bool, u8),
    Fail,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u64..120).prop_map(Step::Wait),
        Just(Step::Ask),
        (any::<bool>(), 0u8..3).prop_map(|(good, text)| Step::Answer(good, text)),
        Just(Step::Fail),
    ]
}

proptest! {
    #[test]
    fn what_is_used_was_read_or_confirmed_less_than_the_bound_ago(steps in prop::collection::vec(step(), 1..80)) {
        let mut copy = Copy::new(FRESHNESS, READING);
        let (mut now, mut heard, mut has_copy) = (0, None, false);
        for step in steps {
            match step {
                Step::Wait(seconds) => now += seconds,
                Step::Ask => {
                    if matches!(copy.next(at(now)), Next::Use(_)) {
                        prop_assert!(has_copy && heard.is_some_and(|heard| now - heard < 300));
                    }
                }
                Step::Answer(good, text) => {
                    // Whether a text is good is a matter of the text.
                    let text = format!("{good} {text}");
                    copy.seen(at(now), Some(text), |_| if good { Ok(TenantIndex::default()) } else { Err(problem()) });
                    heard = Some(now);
                    has_copy |= good;
                    prop_assert_eq!(copy.usable(at(now)).is_some(), has_copy);
                }
                Step::Fail => {
                    let used = copy.failed(at(now)).is_some();
                    prop_assert_eq!(used, has_copy && heard.is_some_and(|heard| now - heard < 300));
                }
            }
        }
    }
}
