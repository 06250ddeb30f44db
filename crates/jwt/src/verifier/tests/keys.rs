//! Keys that are fetched, kept, changed, and not to be had.

use futures_util::future::join_all;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn two() -> (Signer, Signer) {
    (Signer::ed25519(), Signer::ed25519())
}

#[tokio::test]
async fn keys_are_fetched_once_for_all_who_wait() {
    let signer = Signer::ed25519();
    let world = World::with(&[signer.public(Some("k"))]);
    let token = signer.token("k", &claims());
    let accepted = join_all((0..50).map(|_| world.accepts(&token))).await;
    assert!(accepted.into_iter().all(|accepted| accepted));
    assert_eq!(world.fetches(), 1);
    world.clock.advance(4 * MINUTE);
    assert!(world.accepts(&token).await);
    assert_eq!(world.fetches(), 1);
}

#[tokio::test]
async fn a_new_key_is_found_when_a_token_names_it() {
    let (old, new) = two();
    let world = World::with(&[old.public(Some("old"))]);
    assert!(world.accepts(&old.token("old", &claims())).await);
    world.publish("acme", &[old.public(Some("old")), new.public(Some("new"))]);
    world.clock.advance(MINUTE);
    assert!(world.accepts(&new.token("new", &claims())).await);
    assert!(world.accepts(&old.token("old", &claims())).await);
    assert_eq!(world.fetches(), 2);
}

#[tokio::test]
async fn a_flood_of_unknown_keys_makes_one_fetch_a_pause() {
    let (known, unknown) = two();
    let world = World::with(&[known.public(Some("known"))]);
    assert!(world.accepts(&known.token("known", &claims())).await);
    for round in 0..3 {
        for n in 0..100 {
            assert!(!world.accepts(&unknown.token(&format!("{round}-{n}"), &claims())).await);
            assert!(world.accepts(&known.token("known", &claims())).await, "nobody else is hurt");
        }
        assert_eq!(world.fetches(), 1 + round, "the first fetch counts too");
        world.clock.advance(Duration::from_secs(30));
    }
    let strangers: Vec<_> = (0..100).map(|n| unknown.token(&n.to_string(), &claims())).collect();
    let accepted = join_all(strangers.iter().map(|token| world.accepts(token))).await;
    assert!(accepted.into_iter().all(|accepted| !accepted));
    assert_eq!(world.fetches(), 4, "all of them share one");
}

#[tokio::test]
async fn the_flood_of_one_tenant_does_not_keep_another_from_its_new_key() {
    let (old, new) = two();
    let world = World::with(&[old.public(Some("old"))]);
    // Both have one issuer.
    let sister = tenant_with("sister", &json!({ "issuer": "https://acme.example/", "jwks": { "url": url("acme") } }));
    let good = old.token("old", &claims());
    assert!(world.accepts(&good).await);
    assert!(world.verify(&sister, &good).await.unwrap().is_some());
    world.clock.advance(MINUTE);
    assert!(!world.accepts(&new.token("flood", &claims())).await);
    world.publish("acme", &[new.public(Some("new"))]);
    assert!(world.verify(&sister, &new.token("new", &claims())).await.unwrap().is_some());
}

#[tokio::test]
async fn a_withdrawn_key_is_refused_when_its_set_grows_old() {
    let (old, new) = two();
    let world = World::with(&[old.public(Some("old"))]);
    let token = old.token("old", &claims());
    assert!(world.accepts(&token).await);
    world.publish("acme", &[new.public(Some("new"))]);
    world.clock.advance(5 * MINUTE);
    assert!(world.accepts(&token).await, "this one has the keys fetched again and does not wait");
    world.background.idle().await;
    assert!(!world.accepts(&token).await);
    assert_eq!(world.fetches(), 2);

    world.publish("acme", &[]);
    world.clock.advance(15 * MINUTE);
    assert!(!world.accepts(&new.token("new", &claims())).await, "after a quarter of an hour the first one waits");
}

#[tokio::test]
async fn old_keys_are_used_while_there_are_no_others_and_not_for_ever() {
    let signer = Signer::ed25519();
    let world = World::with(&[signer.public(Some("k"))]);
    let token = signer.token("k", &claims());
    assert!(world.accepts(&token).await);
    world.sets.fails.store(true, Ordering::Relaxed);
    for _ in 0..3 {
        world.clock.advance(60 * MINUTE);
        assert!(world.accepts(&token).await);
        let fetches = world.fetches();
        assert!(world.accepts(&token).await);
        assert_eq!(world.fetches(), fetches, "and its source is left alone for a while");
    }
    world.clock.advance(60 * MINUTE);
    assert!(world.is_unavailable(&token).await);
    assert!(world.is_unavailable(&token).await, "also while it is too soon to ask again");
    world.sets.fails.store(false, Ordering::Relaxed);
    world.clock.advance(Duration::from_secs(5));
    assert!(world.accepts(&token).await, "it comes back by itself");
}

#[tokio::test]
async fn without_keys_nobody_gets_in() {
    let signer = Signer::ed25519();
    let world = World::new();
    let token = signer.token("k", &claims());
    assert!(world.is_unavailable(&token).await, "there is no such set");
    world.sets.published.lock().unwrap().insert(url("acme"), b"<html>not a key set</html>".to_vec());
    world.clock.advance(MINUTE);
    assert!(world.is_unavailable(&token).await);
    world.publish("acme", &[]);
    world.clock.advance(MINUTE);
    assert!(!world.accepts(&token).await, "a set without keys is a set");
}

#[tokio::test]
async fn a_set_that_does_not_come_is_not_waited_for_and_the_old_one_stays() {
    let signer = Signer::ed25519();
    let world = World::with(&[signer.public(Some("k"))]);
    let token = signer.token("k", &claims());
    assert!(world.accepts(&token).await);
    world.sets.hangs.store(true, Ordering::Relaxed);
    world.clock.advance(20 * MINUTE);
    let mut waiting = std::pin::pin!(world.accepts(&token));
    assert!(futures_util::poll!(waiting.as_mut()).is_pending());
    world.clock.advance(FETCH_TIMEOUT);
    assert!(waiting.await);
    assert!(world.accepts(&token).await, "the next one does not wait");
}

#[tokio::test]
async fn who_goes_away_does_not_end_the_fetch() {
    let signer = Signer::ed25519();
    let world = World::with(&[signer.public(Some("k"))]);
    let token = signer.token("k", &claims());
    {
        let mut gone = std::pin::pin!(world.accepts(&token));
        assert!(futures_util::poll!(gone.as_mut()).is_pending());
    }
    world.background.idle().await;
    assert!(world.accepts(&token).await);
    assert_eq!(world.fetches(), 1);
}

#[tokio::test]
async fn a_source_that_panics_is_asked_again() {
    let signer = Signer::ed25519();
    let world = World::with(&[signer.public(Some("k"))]);
    let token = signer.token("k", &claims());
    world.sets.panics.store(true, Ordering::Relaxed);
    assert!(world.is_unavailable(&token).await);
    world.sets.panics.store(false, Ordering::Relaxed);
    world.clock.advance(MINUTE);
    assert!(world.accepts(&token).await);
}

#[tokio::test]
async fn a_tenant_whose_keys_move_has_the_others_no_more() {
    let (old, new) = two();
    let world = World::with(&[old.public(Some("k"))]);
    world.publish("elsewhere", &[new.public(Some("k"))]);
    assert!(world.accepts(&old.token("k", &claims())).await);
    let moved = tenant_with("acme", &json!({ "jwks": { "url": url("elsewhere") } }));
    assert_eq!(world.verify(&moved, &old.token("k", &claims())).await.unwrap(), None);
    assert!(world.verify(&moved, &new.token("k", &claims())).await.unwrap().is_some());
}

#[tokio::test]
async fn tenants_that_are_gone_leave_no_keys() {
    let signer = Signer::ed25519();
    let world = World::new();
    for n in 0..20 {
        let id = format!("t{n}");
        world.publish(&id, &[signer.public(Some("k"))]);
        let claims =
            json!({ "iss": format!("https://{id}.example/"), "aud": "chat", "sub": "a", "exp": SECONDS + 1_000_000 });
        let token = signer.token("k", &claims);
        assert!(world.verify(&tenant_with(&id, &json!({})), &token).await.unwrap().is_some());
        world.clock.advance(60 * MINUTE);
    }
    assert!(world.verifier.kept.lock().unwrap().len() <= 5);
}
