//! [`SessionStore`].

use std::time::Duration;

use enigma_core::model::Role;
use enigma_core::ports::SessionStore;
use enigma_core::session::{HistoryPage, RecentMessages, Retention, SessionSummary, StoredMessage, Turn};
use enigma_core::{SessionId, TenantId, Timestamp};
use futures_util::future::join_all;

use crate::fixture::{DAY, NOON, acme, acme_eu, after, message, session, turn, user};

mod random;

pub use random::keeps_what_prune_keeps;

/// Lists the cases of this port.
#[macro_export]
macro_rules! session_store_cases {
    ($run:ident) => {
        $run!(a_message_is_kept_as_it_was_given);
        $run!(a_summary_tells_what_the_session_keeps);
        $run!(turns_stay_in_the_order_in_which_they_were_appended);
        $run!(the_newest_messages_come_oldest_first);
        $run!(what_is_not_there_is_empty);
        $run!(pages_lead_back_to_the_first_message);
        $run!(paging_goes_on_while_turns_are_appended);
        $run!(paging_goes_on_when_retention_has_taken_the_rest);
        $run!(no_more_than_the_most_is_kept);
        $run!(nothing_older_than_its_days_is_returned);
        $run!(a_session_that_retention_has_ended_begins_anew);
        $run!(what_is_too_old_when_it_comes_is_not_kept);
        $run!(what_retention_ended_does_not_come_back);
        $run!(a_deleted_session_is_gone_and_begins_anew);
        $run!(a_session_is_the_users_who_began_it);
        $run!(a_sweep_ends_what_nobody_touches_any_more);
        $run!(a_sweep_keeps_no_more_than_the_most);
        $run!(concurrent_turns_are_appended_whole);
        $run!(sessions_are_apart);
        $run!(keeps_what_prune_keeps);
        $run!(tenants_are_isolated);
    };
}

const MUCH: Retention = Retention { days: 30, max_messages: 1000 };

fn alice_says(numbers: impl IntoIterator<Item = u32>, at: Timestamp) -> Turn {
    turn(&user("alice"), numbers, at)
}

fn messages(numbers: impl IntoIterator<Item = u32>, at: Timestamp) -> Vec<StoredMessage> {
    numbers.into_iter().map(|number| message(number, at)).collect()
}

async fn append(
    store: &dyn SessionStore,
    session: &SessionId,
    turn: &Turn,
    retention: &Retention,
    now: Timestamp,
) -> SessionSummary {
    store.append_turn(&acme(), session, turn, retention, now).await.expect("the turn is appended")
}

async fn recent(
    store: &dyn SessionStore,
    session: &SessionId,
    limit: u32,
    retention: &Retention,
    now: Timestamp,
) -> Vec<StoredMessage> {
    store.recent(&acme(), session, limit, retention, now).await.expect("the store answers").messages
}

async fn page(
    store: &dyn SessionStore,
    session: &SessionId,
    before: Option<u64>,
    limit: u32,
    now: Timestamp,
) -> Option<HistoryPage> {
    store.page(&acme(), session, before, limit, &MUCH, now).await.expect("the store answers")
}

/// The whole history, oldest first, read page by page; `None` when there is no such session.
async fn history(
    store: &dyn SessionStore,
    tenant: &TenantId,
    session: &SessionId,
    limit: u32,
    retention: &Retention,
    now: Timestamp,
) -> Option<Vec<StoredMessage>> {
    let (mut all, mut before) = (Vec::new(), None);
    loop {
        let page = store.page(tenant, session, before, limit, retention, now).await.expect("the store answers")?;
        assert!(page.messages.len() <= limit as usize);
        assert!(!page.messages.is_empty(), "a page that was promised holds something");
        all.splice(0..0, page.messages);
        match page.next_before {
            Some(next) => {
                assert!(before.is_none_or(|before| next < before), "the number grows along the session");
                before = Some(next);
            }
            None => return Some(all),
        }
    }
}

/// Every field, whatever the text is made of.
pub async fn a_message_is_kept_as_it_was_given(store: &dyn SessionStore) {
    let texts = ["", "Grüße, 世界 🦀", "nul \0 'quote' \"quote\" \r\n\t \u{202e}", &"long ".repeat(20_000)];
    let roles = [Role::User, Role::Assistant, Role::System, Role::Tool];
    let messages: Vec<_> = (0..)
        .zip(texts.iter().zip(roles))
        .map(|(number, (text, role))| StoredMessage {
            role,
            content: (*text).to_owned(),
            at: after(u64::from(number)),
            tokens: (number > 0).then_some(u32::MAX),
            truncated: number == 1,
            ..message(number, NOON)
        })
        .collect();
    append(store, &session(1), &Turn { user: user("alice"), messages: messages.clone() }, &MUCH, NOON).await;
    assert_eq!(recent(store, &session(1), 10, &MUCH, NOON).await, messages);
    assert_eq!(history(store, &acme(), &session(1), 3, &MUCH, NOON).await, Some(messages));
}

/// Who began it and when, when it changed, and how much it keeps after that change.
pub async fn a_summary_tells_what_the_session_keeps(store: &dyn SessionStore) {
    let retention = Retention { days: 30, max_messages: 3 };
    let first = append(store, &session(1), &alice_says([10, 11], NOON), &retention, NOON).await;
    let expected = SessionSummary {
        id: session(1),
        user: user("alice"),
        created_at: NOON,
        updated_at: NOON,
        message_count: 2,
        token_count: 21,
    };
    assert_eq!(first, expected);

    let mut by_bob = turn(&user("bob"), [12, 13], after(1000));
    by_bob.messages[0].tokens = None;
    let second = append(store, &session(1), &by_bob, &retention, after(1000)).await;
    assert_eq!(second, SessionSummary { updated_at: after(1000), message_count: 3, token_count: 24, ..expected });
}

/// Also where the clock stepped back between them.
pub async fn turns_stay_in_the_order_in_which_they_were_appended(store: &dyn SessionStore) {
    let mut expected = Vec::new();
    for (first, at) in [(0, after(5000)), (2, after(1000)), (4, after(9000)), (6, after(0))] {
        append(store, &session(1), &alice_says([first, first + 1], at), &MUCH, at).await;
        expected.extend(messages([first, first + 1], at));
    }
    assert_eq!(recent(store, &session(1), 100, &MUCH, after(9000)).await, expected);
    assert_eq!(history(store, &acme(), &session(1), 3, &MUCH, after(9000)).await, Some(expected));
}

/// At most as many as are asked for.
pub async fn the_newest_messages_come_oldest_first(store: &dyn SessionStore) {
    for first in [0, 2, 4] {
        append(store, &session(1), &alice_says([first, first + 1], NOON), &MUCH, NOON).await;
    }
    for (limit, first) in [(1, 5), (2, 4), (5, 1), (6, 0), (100, 0)] {
        assert_eq!(recent(store, &session(1), limit, &MUCH, NOON).await, messages(first..6, NOON), "{limit}");
    }
}

/// A session that never was has no messages, no page, and nothing to delete or sweep.
pub async fn what_is_not_there_is_empty(store: &dyn SessionStore) {
    assert_eq!(recent(store, &session(1), 10, &MUCH, NOON).await, []);
    assert_eq!(page(store, &session(1), None, 10, NOON).await, None);
    assert_eq!(page(store, &session(1), Some(1), 10, NOON).await, None);
    assert!(!store.delete(&acme(), &session(1)).await.expect("the store answers"));
    assert_eq!(store.sweep(&acme(), &MUCH, NOON).await.expect("the store answers"), 0);
}

/// Page by page, every message comes once, and the last page says that it is the last.
pub async fn pages_lead_back_to_the_first_message(store: &dyn SessionStore) {
    for first in (0..12).step_by(2) {
        append(store, &session(1), &alice_says([first, first + 1], NOON), &MUCH, NOON).await;
    }
    for limit in [1, 2, 3, 5, 11, 12, 13] {
        let all = history(store, &acme(), &session(1), limit, &MUCH, NOON).await;
        assert_eq!(all, Some(messages(0..12, NOON)), "{limit} a page");
    }
    let newest = page(store, &session(1), None, 5, NOON).await.expect("there is a session");
    assert_eq!(newest.messages, messages(7..12, NOON));
}

/// New turns do not shift the pages before them.
pub async fn paging_goes_on_while_turns_are_appended(store: &dyn SessionStore) {
    append(store, &session(1), &alice_says(0..6, NOON), &MUCH, NOON).await;
    let newest = page(store, &session(1), None, 2, NOON).await.expect("there is a session");
    append(store, &session(1), &alice_says(6..9, NOON), &MUCH, NOON).await;
    let before = page(store, &session(1), newest.next_before, 3, NOON).await.expect("there is a session");
    append(store, &session(1), &alice_says(9..12, NOON), &MUCH, NOON).await;
    let first = page(store, &session(1), before.next_before, 3, NOON).await.expect("there is a session");
    assert_eq!([first.messages, before.messages, newest.messages].concat(), messages(0..6, NOON));
    assert_eq!(first.next_before, None);
}

/// The page that was promised is empty then, or holds what is left.
pub async fn paging_goes_on_when_retention_has_taken_the_rest(store: &dyn SessionStore) {
    append(store, &session(1), &alice_says(0..8, NOON), &MUCH, NOON).await;
    let newest = page(store, &session(1), None, 2, NOON).await.expect("there is a session");
    let nine = Retention { max_messages: 9, ..MUCH };
    append(store, &session(1), &alice_says(8..12, NOON), &nine, NOON).await;
    let before = page(store, &session(1), newest.next_before, 10, NOON).await.expect("there is a session");
    assert_eq!(before, HistoryPage { user: Some(user("alice")), messages: messages(3..6, NOON), next_before: None });

    let two = Retention { max_messages: 2, ..MUCH };
    append(store, &session(1), &alice_says(12..14, NOON), &two, NOON).await;
    let before = page(store, &session(1), newest.next_before, 10, NOON).await.expect("there is a session");
    assert_eq!(before, HistoryPage { user: Some(user("alice")), ..HistoryPage::default() });
}

/// The oldest go, in the middle of a turn too.
pub async fn no_more_than_the_most_is_kept(store: &dyn SessionStore) {
    let three = Retention { max_messages: 3, ..MUCH };
    append(store, &session(1), &alice_says(0..2, NOON), &three, NOON).await;
    append(store, &session(1), &alice_says(2..4, NOON), &three, NOON).await;
    assert_eq!(history(store, &acme(), &session(1), 10, &three, NOON).await, Some(messages(1..4, NOON)));
    let summary = append(store, &session(1), &alice_says(4..9, NOON), &three, NOON).await;
    assert_eq!(summary.message_count, 3);
    assert_eq!(recent(store, &session(1), 10, &three, NOON).await, messages(6..9, NOON));
}

/// A message goes when it is older than the days of its retention, whether or not anything else happened meanwhile.
pub async fn nothing_older_than_its_days_is_returned(store: &dyn SessionStore) {
    let two_days = Retention { days: 2, ..MUCH };
    let later = NOON.saturating_add(DAY);
    append(store, &session(1), &alice_says(0..2, NOON), &two_days, NOON).await;
    append(store, &session(1), &alice_says(2..4, later), &two_days, later).await;
    let both: Vec<_> = messages(0..2, NOON).into_iter().chain(messages(2..4, later)).collect();

    let last = NOON.saturating_add(2 * DAY);
    assert_eq!(recent(store, &session(1), 10, &two_days, last).await, both, "the last moment counts");
    let over = last.saturating_add(Duration::from_millis(1));
    assert_eq!(recent(store, &session(1), 10, &two_days, over).await, messages(2..4, later));
    assert_eq!(history(store, &acme(), &session(1), 1, &two_days, over).await, Some(messages(2..4, later)));
    let summary = append(store, &session(1), &alice_says(4..5, over), &two_days, over).await;
    assert_eq!((summary.message_count, summary.created_at), (3, NOON), "it is still the same session");
}

/// When nothing of it is kept, it is as if it had never been.
pub async fn a_session_that_retention_has_ended_begins_anew(store: &dyn SessionStore) {
    let one_day = Retention { days: 1, ..MUCH };
    append(store, &session(1), &alice_says(0..2, NOON), &one_day, NOON).await;
    let later = NOON.saturating_add(3 * DAY);
    assert_eq!(recent(store, &session(1), 10, &one_day, later).await, []);
    assert_eq!(history(store, &acme(), &session(1), 10, &one_day, later).await, None);
    let anew = append(store, &session(1), &turn(&user("bob"), 2..4, later), &one_day, later).await;
    assert_eq!((anew.user, anew.created_at, anew.message_count), (user("bob"), later, 2));
    assert_eq!(history(store, &acme(), &session(1), 10, &one_day, later).await, Some(messages(2..4, later)));
}

/// A turn of nothing but such messages leaves no session behind.
pub async fn what_is_too_old_when_it_comes_is_not_kept(store: &dyn SessionStore) {
    let one_day = Retention { days: 1, ..MUCH };
    let later = NOON.saturating_add(3 * DAY);
    let nothing = append(store, &session(1), &alice_says(0..2, NOON), &one_day, later).await;
    assert_eq!((nothing.message_count, nothing.token_count), (0, 0));
    assert_eq!(page(store, &session(1), None, 10, later).await, None);
    assert!(!store.delete(&acme(), &session(1)).await.expect("the store answers"));
    let anew = append(store, &session(1), &turn(&user("bob"), 2..4, later), &one_day, later).await;
    assert_eq!((anew.user, anew.message_count), (user("bob"), 2));
}

/// What an append or a sweep removed stays away under a milder retention, and when the clock steps back.
pub async fn what_retention_ended_does_not_come_back(store: &dyn SessionStore) {
    let one_day = Retention { days: 1, ..MUCH };
    let later = NOON.saturating_add(2 * DAY);
    for number in [1, 2] {
        append(store, &session(number), &alice_says(0..2, NOON), &MUCH, NOON).await;
    }
    append(store, &session(1), &alice_says(2..4, later), &one_day, later).await;
    assert_eq!(recent(store, &session(1), 10, &MUCH, NOON).await, messages(2..4, later));
    store.sweep(&acme(), &one_day, later).await.expect("the store answers");
    assert_eq!(recent(store, &session(2), 10, &MUCH, NOON).await, []);
    assert_eq!(page(store, &session(2), None, 10, NOON).await, None);
}

/// And to delete it again deletes nothing.
pub async fn a_deleted_session_is_gone_and_begins_anew(store: &dyn SessionStore) {
    append(store, &session(1), &alice_says(0..4, NOON), &MUCH, NOON).await;
    assert!(store.delete(&acme(), &session(1)).await.expect("the store answers"));
    assert!(!store.delete(&acme(), &session(1)).await.expect("the store answers"));
    assert_eq!(recent(store, &session(1), 10, &MUCH, NOON).await, []);
    assert_eq!(page(store, &session(1), None, 10, NOON).await, None);

    let anew = append(store, &session(1), &turn(&user("bob"), 4..6, after(1000)), &MUCH, after(1000)).await;
    let expected = SessionSummary {
        id: session(1),
        user: user("bob"),
        created_at: after(1000),
        updated_at: after(1000),
        message_count: 2,
        token_count: 9,
    };
    assert_eq!(anew, expected);
    assert_eq!(history(store, &acme(), &session(1), 1, &MUCH, after(1000)).await, Some(messages(4..6, after(1000))));
}

/// Also when others append to it, until nothing of it is left.
pub async fn a_session_is_the_users_who_began_it(store: &dyn SessionStore) {
    let of = async |limit, retention: &Retention, now| {
        let recent = store.recent(&acme(), &session(1), limit, retention, now).await.expect("the store answers").user;
        let page = store.page(&acme(), &session(1), None, 1, retention, now).await.expect("the store answers");
        assert_eq!(recent, page.and_then(|page| page.user), "both tell the same");
        recent
    };
    assert_eq!(of(10, &MUCH, NOON).await, None);
    append(store, &session(1), &alice_says(0..2, NOON), &MUCH, NOON).await;
    append(store, &session(1), &turn(&user("bob"), 2..4, after(1000)), &MUCH, after(1000)).await;
    for limit in [0, 1, 10] {
        assert_eq!(of(limit, &MUCH, after(1000)).await, Some(user("alice")));
    }
    let one_day = Retention { days: 1, ..MUCH };
    let over = NOON.saturating_add(2 * DAY);
    assert_eq!(of(10, &one_day, over).await, None, "what retention has ended is nobody's");
    append(store, &session(1), &turn(&user("bob"), 4..6, over), &one_day, over).await;
    assert_eq!(of(10, &one_day, over).await, Some(user("bob")));
}

/// It counts what goes, and goes through all sessions.
pub async fn a_sweep_ends_what_nobody_touches_any_more(store: &dyn SessionStore) {
    let two_days = Retention { days: 2, ..MUCH };
    let later = NOON.saturating_add(DAY);
    append(store, &session(1), &alice_says(0..3, NOON), &two_days, NOON).await;
    append(store, &session(2), &alice_says(3..5, NOON), &two_days, NOON).await;
    append(store, &session(2), &alice_says(5..7, later), &two_days, later).await;
    append(store, &session(3), &alice_says(7..9, later), &two_days, later).await;

    let sweep = async |now| store.sweep(&acme(), &two_days, now).await.expect("the store answers");
    assert_eq!(sweep(NOON.saturating_add(2 * DAY)).await, 0);
    let over = NOON.saturating_add(2 * DAY + Duration::from_millis(1));
    assert_eq!(sweep(over).await, 5);
    assert_eq!(sweep(over).await, 0);
    assert_eq!(page(store, &session(1), None, 10, over).await, None);
    assert_eq!(recent(store, &session(2), 10, &MUCH, over).await, messages(5..7, later));
    assert_eq!(recent(store, &session(3), 10, &MUCH, over).await, messages(7..9, later));
    assert!(!store.delete(&acme(), &session(1)).await.expect("the store answers"), "nothing is left of it");
}

/// A retention that became stricter is applied to every session.
pub async fn a_sweep_keeps_no_more_than_the_most(store: &dyn SessionStore) {
    append(store, &session(1), &alice_says(0..5, NOON), &MUCH, NOON).await;
    append(store, &session(2), &alice_says(5..7, NOON), &MUCH, NOON).await;
    let three = Retention { max_messages: 3, ..MUCH };
    assert_eq!(recent(store, &session(1), 10, &three, NOON).await, messages(2..5, NOON));
    assert_eq!(store.sweep(&acme(), &three, NOON).await.expect("the store answers"), 2);
    assert_eq!(recent(store, &session(1), 10, &MUCH, NOON).await, messages(2..5, NOON));
    assert_eq!(recent(store, &session(2), 10, &MUCH, NOON).await, messages(5..7, NOON));
}

/// In some order, without any other message between those of a turn.
pub async fn concurrent_turns_are_appended_whole(store: &dyn SessionStore) {
    let turns: Vec<_> = (0..20).map(|nth| alice_says(nth * 3..nth * 3 + 3, NOON)).collect();
    let one = session(1);
    let summaries = join_all(turns.iter().map(|turn| append(store, &one, turn, &MUCH, NOON))).await;
    let mut counts: Vec<_> = summaries.iter().map(|summary| summary.message_count).collect();
    counts.sort_unstable();
    assert_eq!(counts, (1..=20).map(|nth| nth * 3).collect::<Vec<_>>(), "each summary counts one more turn");
    let mut kept: Vec<_> = history(store, &acme(), &one, 7, &MUCH, NOON).await.expect("there is a session");
    let mut found = Vec::new();
    while !kept.is_empty() {
        found.push(kept.drain(..3).collect::<Vec<_>>());
    }
    found.sort_by_key(|messages| messages[0].id);
    assert_eq!(found, turns.into_iter().map(|turn| turn.messages).collect::<Vec<_>>());
}

/// Two sessions may hold messages of one id.
pub async fn sessions_are_apart(store: &dyn SessionStore) {
    append(store, &session(1), &alice_says(0..2, NOON), &MUCH, NOON).await;
    append(store, &session(2), &alice_says(0..4, NOON), &MUCH, NOON).await;
    assert_eq!(recent(store, &session(1), 10, &MUCH, NOON).await, messages(0..2, NOON));
    assert!(store.delete(&acme(), &session(2)).await.expect("the store answers"));
    assert_eq!(recent(store, &session(1), 10, &MUCH, NOON).await, messages(0..2, NOON));
}

/// Neither reads, nor deletes, nor sweeps reach another tenant's sessions, even where session and message have one id.
pub async fn tenants_are_isolated(store: &dyn SessionStore) {
    let (ours, theirs) = (acme(), acme_eu());
    append(store, &session(1), &alice_says(0..2, NOON), &MUCH, NOON).await;
    assert_eq!(
        store.recent(&theirs, &session(1), 10, &MUCH, NOON).await.expect("the store answers"),
        RecentMessages::default()
    );
    assert_eq!(history(store, &theirs, &session(1), 10, &MUCH, NOON).await, None);
    assert!(!store.delete(&theirs, &session(1)).await.expect("the store answers"));

    let turn = turn(&user("mallory"), 0..3, after(1000));
    let summary =
        store.append_turn(&theirs, &session(1), &turn, &MUCH, after(1000)).await.expect("the turn is appended");
    assert_eq!((summary.user, summary.created_at, summary.message_count), (user("mallory"), after(1000), 3));
    assert_eq!(history(store, &ours, &session(1), 10, &MUCH, NOON).await, Some(messages(0..2, NOON)));
    assert_eq!(history(store, &theirs, &session(1), 10, &MUCH, NOON).await, Some(turn.messages.clone()));

    let none = Retention { days: 1, max_messages: 2 };
    let much_later = NOON.saturating_add(10 * DAY);
    assert_eq!(store.sweep(&theirs, &none, much_later).await.expect("the store answers"), 3);
    assert_eq!(history(store, &ours, &session(1), 10, &MUCH, NOON).await, Some(messages(0..2, NOON)));
}
