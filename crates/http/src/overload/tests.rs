use super::*;
use enigma_memory::testing::{ManualClock, TestBackground};
use futures_util::FutureExt;
use http::StatusCode;
use http_body_util::BodyExt;

const LIMITS: OverloadLimits = OverloadLimits { max_requests: 4, max_streams: 8, tenant_share_percent: 50 };

fn tenant(id: &str) -> Arc<Tenant> {
    let json = format!(r#"{{ "tenantId": "{id}", "aiModels": {{ "chat": "m" }} }}"#);
    Arc::new(Tenant::from_json(&json).unwrap())
}

fn clock() -> ManualClock {
    ManualClock::new(Timestamp::from_millis(1_800_000_000_000))
}

fn in_all(overload: &Overload) -> (u32, u32) {
    (overload.requests.lock().in_all(), overload.streams.lock().in_all())
}

#[test]
fn a_refusal_is_unavailable_soon_and_takes_nothing() {
    let (overload, clock, acme) = (Overload::new(LIMITS), clock(), tenant("acme"));
    let held = [overload.request(&acme, &clock).unwrap(), overload.request(&acme, &clock).unwrap()];
    let error = overload.request(&acme, &clock).err().unwrap();
    assert_eq!((error.code, error.told, error.retry.is_some()), (ErrorCode::Unavailable, true, true));
    assert!(overload.request(&tenant("other"), &clock).is_ok(), "the other half is not acme's");
    assert!(overload.stream(&acme, &clock).is_ok(), "answers are counted apart");
    drop(held);
    assert_eq!(in_all(&overload), (0, 0));
}

#[test]
fn those_who_have_not_said_whose_they_are_are_bounded_too() {
    let (overload, clock) = (Overload::new(LIMITS), clock());
    let mut arriving: Vec<_> = (0..4).map(|_| overload.arrive(&clock).unwrap()).collect();
    assert_eq!(overload.arrive(&clock).err().unwrap().code, ErrorCode::Unavailable);
    arriving.pop();
    assert!(overload.arrive(&clock).is_ok());
    drop(arriving);
    assert_eq!(overload.arriving.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_place_is_free_when_the_response_and_the_work_behind_it_have_ended() {
    let (overload, clock, acme) = (Overload::new(LIMITS), clock(), tenant("acme"));
    let runtime = tokio::runtime::Handle::current();
    let plain: Arc<dyn Background> = Arc::new(TestBackground::new(move |work| drop(runtime.spawn(work))));
    for panics in [false, true] {
        let seat = Seat::default();
        seat.hold(overload.request(&acme, &clock).unwrap());
        seat.hold(overload.stream(&acme, &clock).unwrap());
        assert_eq!(in_all(&overload), (0, 1), "from one place to the other");
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        seat.background(&plain).spawn(Box::pin(async move {
            ended.await.unwrap();
            assert!(!panics, "one of the tests' own");
        }));
        let response = seat.follow(Response::new(Body::from("hello")));
        assert_eq!(response.body().size_hint().exact(), Some(5), "the length is told as before");
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
        drop(seat);
        tokio::task::yield_now().await;
        assert_eq!(in_all(&overload), (0, 1), "the work has not ended");
        end.send(()).unwrap();
        while in_all(&overload) != (0, 0) {
            tokio::task::yield_now().await;
        }
    }
}

#[test]
fn without_a_place_nothing_changes() {
    let seat = Seat::default();
    let mut response = Response::new(Body::from("hello"));
    *response.status_mut() = StatusCode::ACCEPTED;
    let response = seat.follow(response);
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    assert_eq!(response.into_body().collect().now_or_never().unwrap().unwrap().to_bytes(), "hello");
    let plain: Arc<dyn Background> = Arc::new(TestBackground::new(drop));
    assert!(Arc::ptr_eq(&seat.background(&plain), &plain));
}

#[test]
fn refusals_are_told_together() {
    let refusals = Refusals::default();
    let at = |millis: u64| Timestamp::from_millis(1_800_000_000_000 + millis);
    refusals.tell("requests", "acme", at(0));
    assert_eq!(refusals.since_told.load(Ordering::Relaxed), 0, "the first is told at once");
    for millis in 1..1000 {
        refusals.tell("requests", "acme", at(millis));
    }
    assert_eq!(refusals.since_told.load(Ordering::Relaxed), 999);
    refusals.tell("requests", "acme", at(1000));
    assert_eq!(refusals.since_told.load(Ordering::Relaxed), 0);
}
