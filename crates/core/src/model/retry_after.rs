//! How long a provider asks us to wait.

use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

/// Reads `retry-after-ms`, which OpenAI sends, or else `Retry-After` in either of its forms (RFC 9110, section 10.2.3), from the
/// headers of a response: `header` finds one by its name, in small letters.
///
/// A date is compared with the `Date` of the same response, so that no clock is needed and the provider's may be wrong.
pub fn retry_after<T: AsRef<str>>(header: impl Fn(&str) -> Option<T>) -> Option<Duration> {
    let number = |text: &T| text.as_ref().trim().parse::<f64>().ok();
    if let Some(millis) = header("retry-after-ms").as_ref().and_then(number) {
        return Duration::try_from_secs_f64(millis / 1000.0).ok();
    }
    let asked = header("retry-after")?;
    if let Some(seconds) = number(&asked) {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let until = http_date(asked.as_ref())?;
    let now = http_date(header("date")?.as_ref())?;
    Some(Duration::try_from(until - now).unwrap_or_default())
}

fn http_date(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text.trim(), &Rfc2822).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_from(headers: &[(&str, &str)]) -> Option<Duration> {
        retry_after(|wanted| headers.iter().find(|(name, _)| *name == wanted).map(|(_, value)| *value))
    }

    #[test]
    fn seconds_milliseconds_and_dates_are_understood() {
        let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        for (headers, millis) in [
            (vec![("retry-after", " 7 ")], 7_000),
            (vec![("retry-after", "1.5")], 1_500),
            (vec![("retry-after", "7"), ("retry-after-ms", "250")], 250),
            (vec![("retry-after", "7"), ("retry-after-ms", "soon")], 7_000),
            (vec![("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT"), date], 30_000),
            (vec![("retry-after", "Sun, 06 Nov 1994 08:49:07 GMT"), date], 0),
        ] {
            assert_eq!(read_from(&headers), Some(Duration::from_millis(millis)), "{headers:?}");
        }
    }

    #[test]
    fn what_cannot_be_understood_is_no_time() {
        assert_eq!(read_from(&[]), None);
        for value in ["", "soon", "-1", "NaN", "inf", "1e300", "Sun, 06 Nov 1994 08:50:07 GMT"] {
            assert_eq!(read_from(&[("retry-after", value)]), None, "{value}");
        }
    }
}
