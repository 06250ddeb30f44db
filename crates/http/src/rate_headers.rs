//! The headers of limited routes.

use enigma_core::Timestamp;
use enigma_core::limit::RateStatus;
use http::{HeaderMap, HeaderName, HeaderValue};

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const STANDARD: HeaderName = HeaderName::from_static("ratelimit");
const STANDARD_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Writes the state of the tighter window: the platform's own headers, and those of *`RateLimit` header fields for
/// HTTP* (draft-ietf-httpapi-ratelimit-headers).
pub(crate) fn write(headers: &mut HeaderMap, rate: &RateStatus, now: Timestamp) {
    headers.insert(LIMIT, rate.limit.into());
    headers.insert(REMAINING, rate.remaining.into());
    headers.insert(RESET, rate.reset_at.as_millis().into());
    let window = rate.length.as_millis().div_ceil(1000);
    let left = seconds_until(rate.reset_at, now);
    let text = |text: String| HeaderValue::from_str(&text).expect("digits and punctuation are a header value");
    headers.insert(STANDARD_POLICY, text(format!("\"default\";q={};w={window}", rate.limit)));
    headers.insert(STANDARD, text(format!("\"default\";r={};t={left}", rate.remaining)));
}

/// Whole seconds, rounded up.
pub(crate) fn seconds_until(at: Timestamp, now: Timestamp) -> u64 {
    u64::try_from(at.since(now).as_millis().div_ceil(1000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn both_kinds_say_the_same() {
        let (mut headers, now) = (HeaderMap::new(), Timestamp::from_millis(1_000_000));
        let rate = RateStatus {
            limit: 20,
            remaining: 3,
            reset_at: Timestamp::from_millis(1_004_001),
            length: Duration::from_secs(10),
        };
        write(&mut headers, &rate, now);
        assert_eq!(headers["x-ratelimit-limit"], "20");
        assert_eq!(headers["x-ratelimit-remaining"], "3");
        assert_eq!(headers["x-ratelimit-reset"], "1004001");
        assert_eq!(headers["ratelimit"], "\"default\";r=3;t=5");
        assert_eq!(headers["ratelimit-policy"], "\"default\";q=20;w=10");
    }
}
