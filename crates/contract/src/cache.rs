//! [`Cache`].

use std::time::Duration;

use enigma_core::Timestamp;
use enigma_core::ports::Cache;

use crate::fixture::{DAY, NOON, acme, acme_eu, after};

/// Lists the cases of this port.
#[macro_export]
macro_rules! cache_cases {
    ($run:ident) => {
        $run!(a_value_is_kept_as_it_was_given);
        $run!(what_was_never_put_is_not_there);
        $run!(what_has_expired_is_not_there);
        $run!(what_is_put_again_replaces_what_was_there);
        $run!(keys_are_apart);
        $run!(what_is_got_was_put);
        $run!(tenants_are_isolated);
    };
}

const TOMORROW: Timestamp = NOON.saturating_add(DAY);

async fn get(cache: &dyn Cache, key: &str, now: Timestamp) -> Option<String> {
    cache.get(&acme(), key, now).await.expect("the cache answers")
}

async fn put(cache: &dyn Cache, key: &str, value: &str, expires_at: Timestamp) {
    cache.put(&acme(), key, value, expires_at, NOON).await.expect("the cache takes it");
}

/// Whatever it is made of.
pub async fn a_value_is_kept_as_it_was_given(cache: &dyn Cache) {
    let long = "long ".repeat(20_000);
    for (number, value) in ["", "{}", "Grüße, 世界 🦀", "nul \0 'quote' \"quote\" \r\n", &long].iter().enumerate()
    {
        let key = format!("search:7:{number}");
        put(cache, &key, value, TOMORROW).await;
        assert_eq!(get(cache, &key, NOON).await.as_deref(), Some(*value));
        assert_eq!(get(cache, &key, NOON).await.as_deref(), Some(*value), "and can be got again");
    }
}

/// Nothing comes of nothing.
pub async fn what_was_never_put_is_not_there(cache: &dyn Cache) {
    assert_eq!(get(cache, "key", NOON).await, None);
    put(cache, "key", "value", TOMORROW).await;
    for other in ["", "ke", "key ", "KEY", "key:", "%", "k*"] {
        assert_eq!(get(cache, other, NOON).await, None, "{other:?}");
    }
}

/// From its last moment on; and what has expired when it comes is never there.
pub async fn what_has_expired_is_not_there(cache: &dyn Cache) {
    let minutes = |count: u64| NOON.saturating_add(Duration::from_secs(60 * count));
    put(cache, "key", "value", minutes(10)).await;
    let last = Timestamp::from_millis(minutes(10).as_millis() - 1);
    assert_eq!(get(cache, "key", last).await.as_deref(), Some("value"));
    assert_eq!(get(cache, "key", minutes(10)).await, None);
    assert_eq!(get(cache, "key", minutes(11)).await, None);

    put(cache, "late", "value", NOON).await;
    assert_eq!(get(cache, "late", NOON).await, None);
}

/// The value, and until when it is kept.
pub async fn what_is_put_again_replaces_what_was_there(cache: &dyn Cache) {
    put(cache, "key", "a longer value", after(600_000)).await;
    put(cache, "key", "value", after(1_200_000)).await;
    assert_eq!(get(cache, "key", after(900_000)).await.as_deref(), Some("value"));
    put(cache, "key", "another", after(600_000)).await;
    assert_eq!(get(cache, "key", after(900_000)).await, None, "it is kept for a shorter time now");
}

/// However alike they are.
pub async fn keys_are_apart(cache: &dyn Cache) {
    let keys = ["a", "A", "a:b", "a:", ":b", "ab", "ä", "a\0b", "a/b"];
    for key in keys {
        put(cache, key, &format!("of {key}"), TOMORROW).await;
    }
    for key in keys {
        assert_eq!(get(cache, key, NOON).await, Some(format!("of {key}")));
    }
}

/// After many puts it may have forgotten some, and mixes up none.
pub async fn what_is_got_was_put(cache: &dyn Cache) {
    let value = |number: u32| format!("{number} ").repeat(number as usize % 700 + 1);
    for number in 0..600 {
        put(cache, &format!("key-{}", number % 200), &value(number), TOMORROW).await;
    }
    for number in 400..600 {
        let got = get(cache, &format!("key-{}", number % 200), NOON).await;
        assert!(got.is_none_or(|got| got == value(number)));
    }
}

/// The same key is another one.
pub async fn tenants_are_isolated(cache: &dyn Cache) {
    put(cache, "key", "acme's", TOMORROW).await;
    assert_eq!(cache.get(&acme_eu(), "key", NOON).await.expect("the cache answers"), None);
    cache.put(&acme_eu(), "key", "acme-eu's", TOMORROW, NOON).await.expect("the cache takes it");
    assert_eq!(get(cache, "key", NOON).await.as_deref(), Some("acme's"));
    let theirs = cache.get(&acme_eu(), "key", NOON).await.expect("the cache answers");
    assert_eq!(theirs.as_deref(), Some("acme-eu's"));
}
