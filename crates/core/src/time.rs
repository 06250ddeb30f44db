//! Points in time, as values. Nothing in this crate asks for the time but through the [`Clock`](crate::ports::Clock) port.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Milliseconds since the Unix epoch, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

const DAY_MILLIS: u64 = 86_400_000;

impl Timestamp {
    /// A point in time from milliseconds since the Unix epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since the Unix epoch, rounded down.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// Parses an RFC 3339 time such as `2026-01-31T00:00:00Z`. `None` when it is not one, or before 1970.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let nanos = OffsetDateTime::parse(text, &Rfc3339).ok()?.unix_timestamp_nanos();
        u64::try_from(nanos / 1_000_000).ok().map(Self)
    }

    /// This time in RFC 3339, or its milliseconds where the calendar ends.
    pub fn to_rfc3339(self) -> String {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000)
            .ok()
            .and_then(|at| at.format(&Rfc3339).ok())
            .unwrap_or_else(|| self.0.to_string())
    }

    /// `duration` later, or the end of time.
    #[must_use]
    pub const fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// `duration` earlier, or the epoch.
    #[must_use]
    pub const fn saturating_sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }

    /// How long after `earlier` this is; zero when it is not after it.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The start of the UTC day that holds this time.
    #[must_use]
    pub const fn day_start(self) -> Self {
        Self(self.0 - self.0 % DAY_MILLIS)
    }

    /// The start of the next UTC day.
    #[must_use]
    pub const fn next_day_start(self) -> Self {
        Self(self.day_start().0.saturating_add(DAY_MILLIS))
    }

    /// The start of the UTC month that holds this time.
    #[must_use]
    pub fn month_start(self) -> Self {
        let day_of_month = u64::from(self.calendar().day());
        Self(self.day_start().0.saturating_sub((day_of_month - 1) * DAY_MILLIS))
    }

    /// The start of the next UTC month.
    #[must_use]
    pub fn next_month_start(self) -> Self {
        // The 28 days reach into the month's last days, and four more are always in the next one.
        Self(self.month_start().0.saturating_add(32 * DAY_MILLIS)).month_start()
    }

    fn calendar(self) -> OffsetDateTime {
        let seconds = i64::try_from(self.as_secs()).unwrap_or(i64::MAX);
        // The calendar ends with the year 9999; what lies beyond counts as its last day.
        OffsetDateTime::from_unix_timestamp(seconds.min(253_402_300_799)).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_rfc3339())
    }
}

const fn millis(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1000).saturating_add(duration.subsec_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse_rfc3339(text).unwrap()
    }

    #[test]
    fn months_start_and_end_where_the_calendar_says() {
        let leap = at("2028-02-29T23:59:59.999Z");
        assert_eq!(leap.month_start(), at("2028-02-01T00:00:00Z"));
        assert_eq!(leap.next_month_start(), at("2028-03-01T00:00:00Z"));
        assert_eq!(at("2026-12-31T12:00:00Z").next_month_start(), at("2027-01-01T00:00:00Z"));
        assert_eq!(at("2026-12-31T12:00:00Z").next_day_start(), at("2027-01-01T00:00:00Z"));
        assert_eq!(at("2026-11-23T05:06:07+02:00").to_rfc3339(), "2026-11-23T03:06:07Z");
    }

    proptest! {
        #[test]
        fn a_time_lies_within_its_day_and_month(millis in 0u64..253_370_764_800_000) {
            let at = Timestamp::from_millis(millis);
            prop_assert!(at.day_start() <= at && at < at.next_day_start());
            prop_assert!(at.month_start() <= at.day_start() && at < at.next_month_start());
            prop_assert_eq!(at.next_month_start().month_start(), at.next_month_start());
            let length = at.next_month_start().since(at.month_start()).as_secs() / 86_400;
            prop_assert!((28..=31).contains(&length));
        }
    }
}
