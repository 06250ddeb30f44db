//! Providers that say how long they want to be left alone.

use std::time::{Duration, SystemTime};

use enigma_conformance::client::session;
use enigma_conformance::wire::Move;
use futures_util::future::join_all;

use crate::{Bench, MESSAGE, ask, estimate, name};

/// An HTTP date so many seconds from now.
#[expect(clippy::disallowed_methods, reason = "a provider has no other clock than its system's")]
fn http_date(seconds: u64) -> String {
    let at = time::OffsetDateTime::from(SystemTime::now() + Duration::from_secs(seconds));
    at.format(&time::format_description::well_known::Rfc2822).unwrap().replace("+0000", "GMT")
}

/// A status, headers that wish for a pause, and that pause in milliseconds.
type Wish<'a> = (u16, Vec<(&'a str, &'a str)>, u64);

#[tokio::test]
async fn a_wish_to_wait_is_kept_in_each_form_and_with_each_status() {
    let (now, later) = (http_date(0), http_date(2));
    let wishes: [Wish<'_>; 7] = [
        (429, vec![("retry-after", "1")], 1000),
        (503, vec![("retry-after", "1")], 1000),
        (500, vec![("retry-after", "1")], 1000),
        (429, vec![("date", &now), ("retry-after", &later)], 2000),
        (503, vec![("date", &now), ("retry-after", &later)], 2000),
        (503, vec![("retry-after-ms", "700"), ("retry-after", "3600")], 700),
        // What nobody can understand is no wish.
        (503, vec![("retry-after", "-1")], 0),
    ];
    let bench = &Bench::new("waits", wishes.len());
    join_all(wishes.into_iter().enumerate().map(async |(n, (status, headers, millis))| {
        let model = name(n, "waits");
        let refused = vec![Move::head(status, &headers), Move::text("{}")];
        let answered = vec![Move::events(), Move::piece("here"), Move::finish(), Move::done()];
        bench.wire.script(&model, [refused, answered]);
        let (api, session) = (bench.server.tenant(&model), session());
        assert_eq!(ask(&api, &session, &model, false).await.ok()["message"], "here", "{status} {headers:?}");
        let calls = bench.wire.calls(&model);
        assert_eq!(calls.len(), 2, "{status} {headers:?}");
        let pause = calls[1].at - calls[0].at;
        assert!(pause + Duration::from_millis(10) >= Duration::from_millis(millis), "{status} {headers:?}: {pause:?}");
        assert!(pause < Duration::from_millis(millis + 900), "{status} {headers:?}: {pause:?}");
        bench.assert_spent(&model, estimate(MESSAGE) + estimate("here")).await;
    }))
    .await;
}
