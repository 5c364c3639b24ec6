//! A calendar: which local times it names, without any zone.
//!
//! Two ways to write one. A *cron string* of 5 fields (`minute hour day month weekday`), 6 (seconds first) or 7 (years last)
//! follows Vixie cron: 0 and 7 are Sunday, and where both days are restricted either suffices. A *calendar* names its fields,
//! and all of them have to fit.
//!
//! The crate `cron` walks through the local times. It is given lists of numbers alone, since it counts weekdays from one and
//! wants both of two restricted days to fit; and local times dressed as UTC, since what it makes of a zone's changes is out
//! of order and can lie in the past.

use std::collections::BTreeMap;
use std::str::FromStr as _;

use chrono::{DateTime, Datelike as _, Timelike as _, Utc};

use super::field::{Field, Unit};

/// Longest cron string.
pub const MAX_CRON_BYTES: usize = 512;

/// Local times, to the second.
#[derive(Debug, Clone)]
pub struct Calendar {
    fields: [Field; 7],
    /// One walk, or two where either of the days suffices.
    walks: Vec<cron::Schedule>,
    /// Day of month and day of week: either suffices.
    either_day: bool,
}

const UNITS: [Unit; 7] = [
    Unit::Second,
    Unit::Minute,
    Unit::Hour,
    Unit::DayOfMonth,
    Unit::Month,
    Unit::DayOfWeek,
    Unit::Year,
];

/// The names of a calendar's fields, in the order of [`UNITS`].
pub const FIELDS: [&str; 7] = [
    "second",
    "minute",
    "hour",
    "day_of_month",
    "month",
    "day_of_week",
    "year",
];

impl Calendar {
    pub fn of_cron(text: &str) -> Result<Self, String> {
        if text.len() > MAX_CRON_BYTES {
            return Err(format!("a cron string has at most {MAX_CRON_BYTES} bytes"));
        }
        let text = match text.trim().strip_prefix('@') {
            Some(name) => of_macro(name)?,
            None => text,
        };
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        if words.first().is_some_and(|word| word.contains('=')) {
            return Err("a time zone stands beside the cron string, as `zone`".to_owned());
        }
        let (units, mut fields): (&[Unit], Vec<Field>) = match words.len() {
            5 => (&UNITS[1..6], vec![Field::only(0)]),
            6 => (&UNITS[..6], Vec::new()),
            7 => (&UNITS, Vec::new()),
            n => {
                return Err(format!(
                    "a cron string has 5 fields (minute hour day month weekday), 6 (second first) or 7 (year last), not {n}"
                ));
            }
        };
        for (unit, word) in units.iter().zip(&words) {
            fields.push(Field::parse(*unit, word)?);
        }
        if fields.len() < 7 {
            fields.push(Field::all(Unit::Year));
        }
        let fields: [Field; 7] = fields
            .try_into()
            .map_err(|_| "a cron string has 5 to 7 fields".to_owned())?;
        let either_day = !fields[3].star && !fields[5].star;
        Self::new(fields, either_day)
    }

    /// `given` has texts by the names of [`FIELDS`]. What is not given is 0 for the time of day and everything for the date; for
    /// what is excluded it is everything.
    pub fn of_fields(given: &BTreeMap<String, String>, excludes: bool) -> Result<Self, (String, String)> {
        let mut fields = Vec::with_capacity(7);
        for (unit, name) in UNITS.iter().zip(FIELDS) {
            fields.push(match given.get(name) {
                Some(text) => Field::parse(*unit, text).map_err(|problem| (name.to_owned(), problem))?,
                None if !excludes && matches!(unit, Unit::Second | Unit::Minute | Unit::Hour) => Field::only(0),
                None => Field::all(*unit),
            });
        }
        let none = |problem: String| ("second".to_owned(), problem);
        let fields: [Field; 7] = fields.try_into().map_err(|_| none("a field is missing".to_owned()))?;
        Self::new(fields, false).map_err(none)
    }

    fn new(fields: [Field; 7], either_day: bool) -> Result<Self, String> {
        let text = |free: &[Unit]| {
            let words = UNITS
                .iter()
                .zip(&fields)
                .map(|(unit, field)| match free.contains(unit) {
                    true => "*".to_owned(),
                    false => field.text(*unit),
                });
            words.collect::<Vec<_>>().join(" ")
        };
        let texts = match either_day {
            false => vec![text(&[])],
            true => vec![text(&[Unit::DayOfWeek]), text(&[Unit::DayOfMonth])],
        };
        let walks = texts.iter().map(|text| cron::Schedule::from_str(text));
        let walks = walks.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
        Ok(Self {
            fields,
            walks,
            either_day,
        })
    }

    /// Whether it is meant for every hour: one that comes twice is meant twice, and one that does not come is not made up for.
    pub(super) fn is_hourly(&self) -> bool {
        self.fields[2].star
    }

    /// The first local time at or after this one; in seconds, as if it were UTC.
    pub(super) fn at_or_after(&self, local: i64) -> Option<i64> {
        let before = DateTime::<Utc>::from_timestamp(local.max(0) - 1, 0)?;
        let next = self.walks.iter().filter_map(|walk| walk.after(&before).next());
        next.min().map(|next| next.timestamp())
    }

    /// Whether it names this local time, and, if so, until when surely (exclusive).
    pub(super) fn covers(&self, local: i64) -> Option<i64> {
        let at = DateTime::<Utc>::from_timestamp(local, 0)?;
        let [second, minute, hour, day, month, weekday, year] = &self.fields;
        let has = |field: &Field, value: u32| field.values.contains(&value);
        let day_fits = has(day, at.day());
        let weekday_fits = has(weekday, at.weekday().num_days_from_sunday());
        let days = match self.either_day {
            true => day_fits || weekday_fits,
            false => day_fits && weekday_fits,
        };
        let fits = has(second, at.second())
            && has(minute, at.minute())
            && has(hour, at.hour())
            && days
            && has(month, at.month())
            && has(year, u32::try_from(at.year()).unwrap_or(0));
        let whole = match (second.full, minute.full, hour.full) {
            (true, true, true) => 86_400,
            (true, true, _) => 3_600,
            (true, ..) => 60,
            _ => 1,
        };
        fits.then(|| local - local.rem_euclid(whole) + whole)
    }
}

fn of_macro(name: &str) -> Result<&'static str, String> {
    match name.to_ascii_lowercase().as_str() {
        "yearly" | "annually" => Ok("0 0 1 1 *"),
        "monthly" => Ok("0 0 1 * *"),
        "weekly" => Ok("0 0 * * 0"),
        "daily" | "midnight" => Ok("0 0 * * *"),
        "hourly" => Ok("0 * * * *"),
        "reboot" => Err("`@reboot` means nothing here: no machine is meant".to_owned()),
        other if other.starts_with("every") => Err("an interval is written as `every: 5m`".to_owned()),
        other => Err(format!(
            "`@{other}` is none of @yearly, @annually, @monthly, @weekly, @daily, @midnight and @hourly"
        )),
    }
}
