//! Durations as people write them: `150ms`, `30s`, `5m`, `2h`, `30d`, `1h30m`, and ISO 8601 (`PT1H30M`, `P30D`).
//!
//! Months and years have no fixed length and are refused.

use crate::time::Span;

/// Longest duration, 100 years.
pub const MAX: Span = Span(100 * 365 * 24 * 3600 * 1_000_000);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    #[error("is not a duration")]
    Shape,
    #[error("has a number without a unit")]
    NoUnit,
    #[error("uses months or years, whose length varies")]
    Calendar,
    #[error("is longer than 100 years")]
    TooLong,
    #[error("names its units out of order or twice")]
    Order,
}

const MICROS: u64 = 1;
const MILLIS: u64 = 1_000;
const SECOND: u64 = 1_000_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const WEEK: u64 = 7 * DAY;

/// Zero is a duration; whether it makes sense is the reader's to say.
pub fn parse(text: &str) -> Result<Span, DurationError> {
    if text.is_empty() || text.len() > 64 {
        return Err(DurationError::Shape);
    }
    match text.strip_prefix('P') {
        Some(rest) => parse_iso(rest),
        None => sum(text, |unit| match unit {
            "us" | "µs" => Ok(MICROS),
            "ms" => Ok(MILLIS),
            "s" => Ok(SECOND),
            "m" => Ok(MINUTE),
            "h" => Ok(HOUR),
            "d" => Ok(DAY),
            "w" => Ok(WEEK),
            "y" | "mo" => Err(DurationError::Calendar),
            "" => Err(DurationError::NoUnit),
            _ => Err(DurationError::Shape),
        }),
    }
}

fn parse_iso(text: &str) -> Result<Span, DurationError> {
    let (date, time) = match text.split_once('T') {
        Some((date, time)) if !time.is_empty() => (date, time),
        Some(_) => return Err(DurationError::Shape),
        None => (text, ""),
    };
    if date.is_empty() && time.is_empty() {
        return Err(DurationError::Shape);
    }
    let mut total = Span::ZERO;
    if !date.is_empty() {
        total = sum(date, |unit| match unit {
            "W" => Ok(WEEK),
            "D" => Ok(DAY),
            "Y" | "M" => Err(DurationError::Calendar),
            _ => Err(DurationError::Shape),
        })?;
    }
    if !time.is_empty() {
        let time = sum(time, |unit| match unit {
            "H" => Ok(HOUR),
            "M" => Ok(MINUTE),
            "S" => Ok(SECOND),
            _ => Err(DurationError::Shape),
        })?;
        total = within(total.0.saturating_add(time.0))?;
    }
    Ok(total)
}

fn within(micros: u64) -> Result<Span, DurationError> {
    if micros > MAX.0 {
        return Err(DurationError::TooLong);
    }
    Ok(Span(micros))
}

/// `<number><unit>` one after the other, from the largest unit to the smallest; a fraction only in the last.
fn sum(text: &str, unit_of: impl Fn(&str) -> Result<u64, DurationError>) -> Result<Span, DurationError> {
    let mut rest = text;
    let mut total: u64 = 0;
    let mut last_unit = u64::MAX;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let unit_end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit_text, after) = after.split_at(unit_end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let fraction_is_bad =
            number.contains('.') && (fraction.is_empty() || fraction.contains('.') || !after.is_empty());
        if whole.is_empty() || fraction_is_bad {
            return Err(DurationError::Shape);
        }
        let unit = unit_of(unit_text)?;
        if unit >= last_unit {
            return Err(DurationError::Order);
        }
        last_unit = unit;
        let whole: u64 = whole.parse().map_err(|_| DurationError::TooLong)?;
        let mut micros = whole.checked_mul(unit).ok_or(DurationError::TooLong)?;
        // Digits below a microsecond are cut off.
        let mut place = unit;
        for digit in fraction.bytes() {
            place /= 10;
            micros = micros.saturating_add(u64::from(digit - b'0') * place);
        }
        total = total.checked_add(micros).ok_or(DurationError::TooLong)?;
        rest = after;
    }
    within(total)
}

/// The shortest spelling, which [`parse`] reads back as the same span.
pub fn format(span: Span) -> String {
    if span.0 == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    let mut left = span.0;
    for (unit, name) in [
        (DAY, "d"),
        (HOUR, "h"),
        (MINUTE, "m"),
        (SECOND, "s"),
        (MILLIS, "ms"),
        (MICROS, "us"),
    ] {
        let count = left / unit;
        if count > 0 {
            text.push_str(&format!("{count}{name}"));
            left %= unit;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings() {
        for (text, micros) in [
            ("150ms", 150 * MILLIS),
            ("30s", 30 * SECOND),
            ("5m", 5 * MINUTE),
            ("2h", 2 * HOUR),
            ("30d", 30 * DAY),
            ("1h30m", 90 * MINUTE),
            ("1.5s", 1_500 * MILLIS),
            ("0.5h", 30 * MINUTE),
            ("0s", 0),
            ("PT1H30M", 90 * MINUTE),
            ("P30D", 30 * DAY),
            ("P1DT12H", 36 * HOUR),
            ("PT0.25S", 250 * MILLIS),
            ("P2W", 2 * WEEK),
            ("36500d", MAX.0),
        ] {
            assert_eq!(parse(text), Ok(Span(micros)), "{text}");
            assert_eq!(parse(&format(Span(micros))), Ok(Span(micros)), "{text}");
        }
    }

    #[test]
    fn refusals() {
        for (text, error) in [
            ("", DurationError::Shape),
            ("30", DurationError::NoUnit),
            ("s", DurationError::Shape),
            ("30 s", DurationError::Shape),
            ("-5s", DurationError::Shape),
            ("5x", DurationError::Shape),
            ("1m1h", DurationError::Order),
            ("1s1s", DurationError::Order),
            ("1.5m3s", DurationError::Shape),
            ("1..5s", DurationError::Shape),
            ("P", DurationError::Shape),
            ("PT", DurationError::Shape),
            ("P1DT", DurationError::Shape),
            ("1y", DurationError::Calendar),
            ("2mo", DurationError::Calendar),
            ("P1M", DurationError::Calendar),
            ("P1Y", DurationError::Calendar),
            ("36501d", DurationError::TooLong),
            ("99999999999999999999s", DurationError::TooLong),
            ("9999999999999d", DurationError::TooLong),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }
}
