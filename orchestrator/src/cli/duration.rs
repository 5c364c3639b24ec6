//! Durations of the command line, written as those of definitions, and moments.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
pub use knarr_core::definition::duration::{format, parse};
use knarr_core::time::Span;

/// Whatever a definition takes: `150ms`, `30s`, `1h30m`, `PT5M`.
pub fn span(text: &str) -> Result<Span, String> {
    parse(text.trim()).map_err(|error| format!("{error}; write it like `500ms`, `10s`, `5m` or `1h30m`"))
}

pub fn std(text: &str) -> Result<Duration, String> {
    span(text).map(|span| Duration::from_micros(span.0))
}

pub fn millis(text: &str) -> Result<u64, String> {
    span(text).map(Span::as_millis)
}

/// As it was written: the orchestrator reads it again.
pub fn as_written(text: &str) -> Result<String, String> {
    span(text).map(|_| text.trim().to_owned())
}

/// RFC 3339, or a duration that lies behind us.
pub fn moment(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Ok(at.to_utc());
    }
    let ago = std(text).ok().and_then(|ago| TimeDelta::from_std(ago).ok());
    ago.and_then(|ago| Utc::now().checked_sub_signed(ago))
        .ok_or_else(|| format!("`{text}` is neither a time like `2026-11-23T06:00:00Z` nor a duration like `1h`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_times_or_lie_behind_us() {
        assert_eq!(
            moment("2026-11-23T07:00:00+01:00").unwrap().to_rfc3339(),
            "2026-11-23T06:00:00+00:00"
        );
        let hour = Utc::now() - moment("1h").unwrap();
        assert!((3_599..3_660).contains(&hour.num_seconds()), "{hour}");
        for bad in ["", "yesterday", "2026-11-23", "9999999999d"] {
            assert!(moment(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_are_read_or_refused_with_a_way_to_write_them() {
        assert_eq!(std("150ms"), Ok(Duration::from_millis(150)));
        assert_eq!(millis("1h30m"), Ok(5_400_000));
        assert_eq!(as_written(" 10m "), Ok("10m".to_owned()));
        for (bad, why) in [
            ("", "is not a duration; "),
            ("10", "has a number without a unit; "),
            ("soon", "is not a duration; "),
            ("-1s", "is not a duration; "),
            ("20y", "uses months or years, whose length varies; "),
            ("99999999999999999999s", "is longer than 100 years; "),
        ] {
            let problem = std(bad).unwrap_err();
            assert!(problem.starts_with(why), "{bad}: {problem}");
            assert!(
                problem.ends_with("write it like `500ms`, `10s`, `5m` or `1h30m`"),
                "{problem}"
            );
        }
    }
}
