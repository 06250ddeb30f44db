//! History, lists, deletion.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::Host;
use crate::client::{Api, session, tag};
use crate::tenant::Tenant;

/// The tenants of these cases.
pub fn tenants() -> Vec<Tenant> {
    let mut tenants: Vec<Tenant> =
        ["sessions-page", "sessions-delete", "sessions-list", "sessions-left", "sessions-right"]
            .map(Tenant::new)
            .into();
    tenants.push(Tenant::new("sessions-few").with("maxMessagesPerSession", json!(4)));
    tenants
}

fn contents(page: &Value) -> Vec<String> {
    page["messages"].as_array().unwrap().iter().map(|message| message["content"].as_str().unwrap().to_owned()).collect()
}

/// Oldest first within a page, the newest page first.
pub async fn history_is_paged_from_its_end(host: &Host) {
    let api = host.tenant("sessions-page");
    let session = session();
    let mut expected = Vec::new();
    for n in 0..5 {
        let (question, answer) = (format!("[[say answer {n}]]"), format!("answer {n}"));
        api.chat(&session, &question).await.ok();
        expected.extend([question, answer]);
    }
    let whole = api.history(&session).await.ok();
    assert_eq!(contents(&whole), expected);
    assert!(whole.get("nextBefore").is_none());
    for path in ["chat", "sessions"] {
        for limit in [1, 3, 5, 10] {
            let (mut seen, mut ids, mut before) = (Vec::new(), BTreeSet::new(), String::new());
            loop {
                let page = api.get(&format!("/{path}/{session}/history?limit={limit}{before}")).await.ok();
                let messages = page["messages"].as_array().unwrap();
                assert!(messages.len() <= limit && !messages.is_empty(), "{page}");
                ids.extend(messages.iter().map(|message| message["id"].as_str().unwrap().to_owned()));
                seen.splice(0..0, contents(&page));
                let Some(next) = page["nextBefore"].as_str() else { break };
                before = format!("&before={next}");
            }
            assert_eq!(seen, expected, "by {limit}");
            assert_eq!(ids.len(), expected.len());
        }
    }
    // The default is a page, too.
    assert_eq!(contents(&api.get(&format!("/chat/{session}/history")).await.ok()), expected);
}

/// From the history, from the list, and from what the model is shown.
pub async fn a_deleted_session_is_gone(host: &Host) {
    let api = host.tenant("sessions-delete");
    for path in ["chat", "sessions"] {
        let (session, other, tag) = (session(), session(), tag());
        api.chat(&session, "a secret").await.ok();
        api.chat(&other, "stays").await.ok();
        let deleted = api.delete(&format!("/{path}/{session}")).await.ok();
        assert_eq!(deleted, json!({ "success": true, "sessionId": session }));
        api.assert_unknown(&session).await;
        api.get(&format!("/sessions/{session}/history")).await.error(404, "not_found");
        api.delete(&format!("/{path}/{session}")).await.error(404, "not_found");
        let list = api.get("/sessions").await.ok();
        let listed = |id: &str| list["sessions"].as_array().unwrap().iter().any(|entry| entry["sessionId"] == id);
        assert!(!listed(&session) && listed(&other));
        // It may begin anew, and begins with nothing.
        api.chat(&session, &tag).await.ok();
        assert_eq!(host.upstream.call(&tag).await.contents(), [&*tag]);
        assert_eq!(api.said(&session).await.len(), 2);
        assert_eq!(api.said(&other).await.len(), 2);
    }
}

async fn list(api: &Api, query: &str) -> (Vec<String>, Option<String>) {
    let page = api.get(&format!("/sessions{query}")).await.ok();
    let sessions = page["sessions"].as_array().unwrap();
    for entry in sessions {
        let mut fields: Vec<_> = entry.as_object().unwrap().keys().map(String::as_str).collect();
        fields.sort_unstable();
        assert_eq!(
            fields,
            ["createdAt", "messageCount", "sessionId", "tokenCount", "updatedAt", "userId"],
            "metadata only"
        );
    }
    let ids = sessions.iter().map(|entry| entry["sessionId"].as_str().unwrap().to_owned()).collect();
    (ids, page["nextCursor"].as_str().map(str::to_owned))
}

/// Whoever is named by the body, else by the header, else by the key.
pub async fn sessions_are_listed_by_user_and_page(host: &Host) {
    let api = host.tenant("sessions-list");
    let chat = async |user: Value, header: Option<&str>| {
        let session = session();
        let api = header.map_or_else(|| api.clone(), |user| api.with("x-user-id", user));
        // The pause keeps two sessions out of one millisecond, by which the list is ordered.
        let body = json!({ "sessionId": session, "message": "[[pause 5]]", "stream": false, "userId": user });
        api.post("/chat", &body).await.ok();
        session
    };
    let mut ada = Vec::new();
    for n in 0..4 {
        let header = if n % 2 == 0 { Some("grace") } else { None };
        ada.push(chat(json!("ada"), header).await);
    }
    let grace = chat(Value::Null, Some("grace")).await;
    let key = chat(Value::Null, None).await;
    let ümit = chat(json!("ümit & co"), None).await;

    ada.reverse();
    assert_eq!(list(&api, "?userId=ada").await, (ada.clone(), None), "the latest changed first");
    assert_eq!(list(&api, "?userId=grace").await.0, std::slice::from_ref(&grace));
    assert_eq!(list(&api, "?userId=%C3%BCmit%20%26%20co").await.0, std::slice::from_ref(&ümit));
    assert_eq!(list(&api, "?userId=nobody").await, (vec![], None));
    let all: Vec<String> = [&[ümit, key, grace][..], &ada].concat();
    assert_eq!(list(&api, "").await.0, all);
    for limit in [1, 2, 3, 7] {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let (page, next) = list(&api, &format!("?limit={limit}{cursor}")).await;
            assert!(page.len() <= limit);
            seen.extend(page);
            let Some(next) = next else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(seen, all, "by {limit}");
    }
    // A session that goes on moves to the front, and stays its beginner's.
    let body = json!({ "sessionId": ada[3], "message": "[[pause 5]]", "stream": false, "userId": "grace" });
    api.post("/chat", &body).await.ok();
    let page = api.get("/sessions?limit=1").await.ok();
    let entry = &page["sessions"][0];
    assert_eq!(
        (&entry["sessionId"], &entry["userId"], &entry["messageCount"]),
        (&json!(ada[3]), &json!("ada"), &json!(4))
    );
}

/// The same id is another session at another tenant.
pub async fn tenants_with_the_same_session_are_apart(host: &Host) {
    let (left, right) = (host.tenant("sessions-left"), host.tenant("sessions-right"));
    let (session, tag) = (session(), tag());
    left.chat(&session, "left's secret").await.ok();
    right.assert_unknown(&session).await;
    right.delete(&format!("/chat/{session}")).await.error(404, "not_found");
    right.chat(&session, &tag).await.ok();
    assert_eq!(host.upstream.call(&tag).await.contents(), [&*tag], "one tenant's history reached another's model");
    assert_eq!(right.said(&session).await[0].1, tag);
    assert_eq!(left.said(&session).await[0].1, "left's secret");
    right.delete(&format!("/chat/{session}")).await.ok();
    assert_eq!(left.said(&session).await.len(), 2);
    assert!(list(&left, "").await.0.contains(&session));
    assert!(list(&right, "").await.0.is_empty());
}

/// `maxMessagesPerSession`
pub async fn an_old_message_makes_room(host: &Host) {
    let api = host.tenant("sessions-few");
    let session = session();
    for n in 0..4 {
        api.chat(&session, &format!("[[say {n}]]")).await.ok();
    }
    let said: Vec<_> = api.said(&session).await.into_iter().map(|(_, content)| content).collect();
    assert_eq!(said, ["[[say 2]]", "2", "[[say 3]]", "3"]);
}
