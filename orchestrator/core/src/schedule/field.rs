//! One field of a calendar: minutes, hours, days … as a set of numbers.
//!
//! `*`, `n`, `a-b`, each with `/step`, and lists of these; months and weekdays by name as well. `n/step` goes on to the end
//! of the range, as in Quartz.

use std::collections::BTreeSet;

/// Longest text of one field.
const MAX_BYTES: usize = 256;

/// Which field it is, and what may stand in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Second,
    Minute,
    Hour,
    DayOfMonth,
    Month,
    DayOfWeek,
    Year,
}

const MONTHS: [&str; 12] = [
    "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
];
const DAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

impl Unit {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::DayOfMonth => "day of the month",
            Self::Month => "month",
            Self::DayOfWeek => "day of the week",
            Self::Year => "year",
        }
    }

    /// What may be written. Both 0 and 7 are Sunday, as in every crontab.
    fn range(self) -> (u32, u32) {
        match self {
            Self::Second | Self::Minute => (0, 59),
            Self::Hour => (0, 23),
            Self::DayOfMonth => (1, 31),
            Self::Month => (1, 12),
            Self::DayOfWeek => (0, 7),
            Self::Year => (1970, 2099),
        }
    }

    /// `*` means these.
    fn all(self) -> BTreeSet<u32> {
        let (low, high) = self.range();
        match self {
            Self::DayOfWeek => (0..=6).collect(),
            _ => (low..=high).collect(),
        }
    }

    fn named(self, text: &str) -> Option<u32> {
        let position = |names: &[&str]| names.iter().position(|name| name.eq_ignore_ascii_case(text));
        match self {
            Self::Month => position(&MONTHS).and_then(|at| u32::try_from(at + 1).ok()),
            Self::DayOfWeek => position(&DAYS).and_then(|at| u32::try_from(at).ok()),
            _ => None,
        }
    }
}

/// What one field allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) values: BTreeSet<u32>,
    /// It began with `*` (or `?`): it restricts nothing that another field does not, as Vixie cron sees it.
    pub(super) star: bool,
    /// Everything is allowed.
    pub(super) full: bool,
}

impl Field {
    pub(super) fn all(unit: Unit) -> Self {
        Self {
            values: unit.all(),
            star: true,
            full: true,
        }
    }

    pub(super) fn only(value: u32) -> Self {
        Self {
            values: BTreeSet::from([value]),
            star: false,
            full: false,
        }
    }

    /// What is wrong is said in a sentence that begins after the field's text.
    pub(super) fn parse(unit: Unit, text: &str) -> Result<Self, String> {
        let name = unit.as_str();
        if text.is_empty() {
            return Err(format!("the {name} is empty"));
        }
        if text.len() > MAX_BYTES {
            return Err(format!("the {name} is longer than {MAX_BYTES} bytes"));
        }
        let mut values = BTreeSet::new();
        for item in text.split(',') {
            values.extend(items(unit, item)?);
        }
        let full = values == unit.all();
        Ok(Self {
            full,
            values,
            star: text.starts_with(['*', '?']),
        })
    }

    /// As the crate `cron` reads it, whose weekdays count from 1 for Sunday.
    pub(super) fn text(&self, unit: Unit) -> String {
        if self.full {
            return "*".to_owned();
        }
        let shift = u32::from(unit == Unit::DayOfWeek);
        let values: Vec<String> = self.values.iter().map(|value| (value + shift).to_string()).collect();
        values.join(",")
    }
}

fn items(unit: Unit, item: &str) -> Result<BTreeSet<u32>, String> {
    let name = unit.as_str();
    let (range, step) = match item.split_once('/') {
        None => (item, None),
        Some((range, step)) => (range, Some(step)),
    };
    let (lowest, highest) = unit.range();
    let step = match step {
        None => None,
        Some(text) => match text.parse::<u32>() {
            Ok(step) if step >= 1 && step <= highest.max(1) => Some(step),
            _ => {
                return Err(format!(
                    "`{text}` is no step of the {name}: a step is from 1 to {highest}"
                ));
            }
        },
    };
    let every = usize::try_from(step.unwrap_or(1)).unwrap_or(1);
    if range == "*" || (range == "?" && matches!(unit, Unit::DayOfMonth | Unit::DayOfWeek)) {
        return Ok(unit.all().into_iter().step_by(every).collect());
    }
    let (first, last) = match range.split_once('-') {
        Some((first, last)) => (number(unit, first)?, number(unit, last)?),
        None => {
            let only = number(unit, range)?;
            // `MON/2` and `5/15` go on to the end; Sunday is not named twice.
            let end = if unit == Unit::DayOfWeek { 6.max(only) } else { highest };
            (only, if step.is_some() { end } else { only })
        }
    };
    // `FRI-SUN` is Friday to Sunday, though Sunday is the week's first day.
    let last = if unit == Unit::DayOfWeek && last == 0 && first > 0 {
        7
    } else {
        last
    };
    if first > last {
        return Err(format!(
            "`{range}` goes backwards; write two ranges: `{first}-{highest},{lowest}-{last}`"
        ));
    }
    let values = (first..=last).step_by(every);
    Ok(match unit {
        Unit::DayOfWeek => values.map(|day| day % 7).collect(),
        _ => values.collect(),
    })
}

fn number(unit: Unit, text: &str) -> Result<u32, String> {
    let name = unit.as_str();
    if let Some(value) = unit.named(text) {
        return Ok(value);
    }
    let (low, high) = unit.range();
    let extension = matches!(unit, Unit::DayOfMonth | Unit::DayOfWeek) && text.contains(['L', 'W', '#']);
    if extension {
        return Err(format!(
            "`{text}` uses `L`, `W` or `#`, which cron does not have: list the days, or use a day of the week with a range of \
             days in `calendars`"
        ));
    }
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u32>() {
        Ok(value) if digits && (low..=high).contains(&value) => Ok(value),
        _ => Err(format!("`{text}` is no {name}: it is from {low} to {high}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(unit: Unit, text: &str) -> Vec<u32> {
        Field::parse(unit, text).unwrap().values.into_iter().collect()
    }

    #[test]
    fn a_field_is_a_set() {
        assert_eq!(values(Unit::Minute, "*/20"), [0, 20, 40]);
        assert_eq!(values(Unit::Minute, "5/20"), [5, 25, 45]);
        assert_eq!(values(Unit::Minute, "0-10/5,59"), [0, 5, 10, 59]);
        assert_eq!(values(Unit::Hour, "23"), [23]);
        assert_eq!(values(Unit::Month, "jan,MAR-May"), [1, 3, 4, 5]);
        assert_eq!(values(Unit::Year, "2026-2028"), [2026, 2027, 2028]);
    }

    #[test]
    fn weekdays_are_those_of_crontabs() {
        assert_eq!(values(Unit::DayOfWeek, "0"), [0]);
        assert_eq!(values(Unit::DayOfWeek, "7"), [0]);
        assert_eq!(values(Unit::DayOfWeek, "1-5"), [1, 2, 3, 4, 5]);
        assert_eq!(values(Unit::DayOfWeek, "5-7"), [0, 5, 6]);
        assert_eq!(values(Unit::DayOfWeek, "FRI-SUN"), [0, 5, 6]);
        assert_eq!(values(Unit::DayOfWeek, "0-7"), [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(values(Unit::DayOfWeek, "*/2"), [0, 2, 4, 6]);
        assert_eq!(values(Unit::DayOfWeek, "1/2"), [1, 3, 5]);
        // As `cron` counts them.
        assert_eq!(
            Field::parse(Unit::DayOfWeek, "0,6").unwrap().text(Unit::DayOfWeek),
            "1,7"
        );
    }

    #[test]
    fn what_is_no_field_says_why() {
        for (unit, text, says) in [
            (Unit::Minute, "60", "`60` is no minute: it is from 0 to 59"),
            (Unit::Minute, "", "the minute is empty"),
            (Unit::Minute, "1,,2", "`` is no minute"),
            (Unit::Minute, "+1", "`+1` is no minute"),
            (Unit::Minute, "*/0", "`0` is no step of the minute"),
            (Unit::Minute, "*/60", "`60` is no step of the minute"),
            (Unit::Hour, "22-2", "`22-2` goes backwards"),
            (Unit::DayOfMonth, "L", "`L` uses `L`, `W` or `#`"),
            (Unit::DayOfWeek, "5#2", "`5#2` uses"),
            (Unit::DayOfWeek, "8", "`8` is no day of the week: it is from 0 to 7"),
            (Unit::Month, "?", "`?` is no month"),
            (Unit::Year, "1969", "`1969` is no year: it is from 1970 to 2099"),
            (Unit::Second, "4294967296", "`4294967296` is no second"),
        ] {
            let problem = Field::parse(unit, text).unwrap_err();
            assert!(problem.starts_with(says), "{text}: {problem}");
        }
        let longest = "1,".repeat(128);
        assert!(Field::parse(Unit::Minute, &longest[..MAX_BYTES - 1]).is_ok());
        assert!(Field::parse(Unit::Minute, &format!("{longest}1")).is_err());
    }
}
