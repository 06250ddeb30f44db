//! Answers in KV.

use std::time::Duration;

use async_trait::async_trait;
use enigma_core::ports::Cache;
use enigma_core::{PortError, TenantId, Timestamp};
use worker::{Env, KvStore};

use crate::ai::MissingBinding;
use crate::deadline::deadline;
use crate::names::cache_key;

const PORT: &str = "cache";

/// The binding of the namespace.
const BINDING: &str = "CACHE";

/// How long KV may take. An answer that has to be made anew is better than one that is waited for longer.
const LIMIT: Duration = Duration::from_secs(2);

/// KV keeps nothing for less, in seconds.
const SHORTEST: u64 = 60;

/// The longest value, in bytes. KV would take 25 MiB; isolates have 128 MB.
const LONGEST: usize = 1 << 20;

/// Keeps answers in the namespace `CACHE`.
///
/// KV shows what was put within a minute or so to other places, and may show there what was under the key before. So keys have to
/// say all that an answer depends on; those of searches do.
#[derive(Debug, Clone)]
pub struct KvCache {
    store: KvStore,
}

impl KvCache {
    /// The namespace that `env` calls `CACHE`.
    ///
    /// # Errors
    /// [`MissingBinding`].
    pub fn from_env(env: &Env) -> Result<Self, MissingBinding> {
        let store = env.kv(BINDING).map_err(|_| MissingBinding { name: BINDING.to_owned() })?;
        Ok(Self { store })
    }

    fn tell() {
        tracing::debug!(target: "enigma::subrequest", binding = BINDING, port = PORT, "asks KV");
    }
}

#[async_trait]
impl Cache for KvCache {
    async fn get(&self, tenant: &TenantId, key: &str, now: Timestamp) -> Result<Option<String>, PortError> {
        Self::tell();
        let kept = deadline(PORT, LIMIT, async {
            self.store.get(&cache_key(tenant, key)).text().await.map_err(|error| failed(&error))
        });
        kept.await?.map_or(Ok(None), |kept| opened(kept, now))
    }

    async fn put(
        &self,
        tenant: &TenantId,
        key: &str,
        value: &str,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<(), PortError> {
        Self::tell();
        let key = cache_key(tenant, key);
        deadline(PORT, LIMIT, async {
            let done = if expires_at <= now || value.len() > LONGEST {
                // What was there before counts no more.
                self.store.delete(&key).await
            } else {
                let put = self.store.put(&key, sealed(value, expires_at)).map_err(|error| failed(&error))?;
                put.expiration_ttl(seconds(expires_at, now)).execute().await
            };
            done.map_err(|error| failed(&error))
        })
        .await
    }
}

/// KV counts seconds, no less than a minute, by its own clock; so a value has its end with it.
fn sealed(value: &str, expires_at: Timestamp) -> String {
    format!("{}\n{value}", expires_at.as_millis())
}

fn opened(mut kept: String, now: Timestamp) -> Result<Option<String>, PortError> {
    let end = kept.find('\n').and_then(|end| Some((end, kept[..end].parse().ok()?)));
    let (end, expires_at) = end.ok_or_else(|| PortError::corrupt(PORT, "a value has no end"))?;
    if Timestamp::from_millis(expires_at) <= now {
        return Ok(None);
    }
    kept.drain(..=end);
    Ok(Some(kept))
}

fn seconds(expires_at: Timestamp, now: Timestamp) -> u64 {
    let left = expires_at.since(now);
    let left = left.as_secs() + u64::from(left.subsec_nanos() > 0);
    // A hundred years are for ever.
    left.clamp(SHORTEST, 100 * 366 * 24 * 60 * 60)
}

fn failed(error: &worker::kv::KvError) -> PortError {
    PortError::unavailable(PORT, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_773_144_000_000);

    #[test]
    fn a_value_has_its_end_with_it() {
        let end = NOW.saturating_add(Duration::from_secs(1));
        for value in ["", "a\nb", "1\n"] {
            assert_eq!(opened(sealed(value, end), NOW).unwrap().as_deref(), Some(value));
            assert_eq!(opened(sealed(value, end), end).unwrap(), None);
        }
        for wrong in ["", "text", "text\nmore", "-1\n"] {
            assert!(matches!(opened(wrong.to_owned(), NOW), Err(PortError::Corrupt { .. })), "{wrong}");
        }
    }

    #[test]
    fn kv_is_asked_to_keep_for_a_minute_at_least() {
        let after = |millis| seconds(NOW.saturating_add(Duration::from_millis(millis)), NOW);
        assert_eq!([after(1), after(60_000), after(60_001), after(3_600_000)], [60, 60, 61, 3600]);
        assert!(seconds(Timestamp::from_millis(u64::MAX), NOW) < 4_000_000_000);
    }
}
