//! IANA time zones as stretches of constant offset.

use std::sync::{Arc, OnceLock};

use jiff::tz::{TimeZone, TimeZoneDatabase};

/// A time zone of the database that this binary carries.
#[derive(Debug, Clone)]
pub struct Zone {
    name: Arc<str>,
    zone: TimeZone,
}

/// A stretch of time in which a zone's offset does not change. Everything in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretch {
    /// `i64::MIN` where there was no change before.
    pub(super) start: i64,
    /// Exclusive; `i64::MAX` where there is no change after.
    pub(super) end: i64,
    /// Of local time, ahead of UTC.
    pub(super) offset: i64,
    /// In the stretch before.
    pub(super) offset_before: i64,
}

impl Zone {
    pub fn utc() -> Self {
        Self {
            name: Arc::from("UTC"),
            zone: TimeZone::UTC,
        }
    }

    /// `None` if there is none of that name; case does not matter.
    pub fn get(name: &str) -> Option<Self> {
        let zone = database().get(name).ok()?;
        let name = zone.iana_name().unwrap_or(name);
        Some(Self {
            name: Arc::from(name),
            zone,
        })
    }

    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// How far local time is ahead of UTC at this moment, both in seconds.
    pub fn offset_at(&self, at: i64) -> i64 {
        offset(&self.zone, timestamp(at))
    }

    /// The one that holds this moment.
    pub(super) fn stretch(&self, at: i64) -> Stretch {
        let moment = timestamp(at);
        let offset = offset(&self.zone, moment);
        // Changes at the moment itself have happened.
        let before = self.zone.preceding(timestamp(at.saturating_add(1))).next();
        let after = self.zone.following(moment).next();
        let start = before.map(|change| change.timestamp().as_second());
        Stretch {
            start: start.unwrap_or(i64::MIN),
            end: after.map_or(i64::MAX, |change| change.timestamp().as_second()),
            offset,
            offset_before: start.map_or(offset, |start| self::offset(&self.zone, timestamp(start - 1))),
        }
    }
}

/// Every name, for suggestions and tests.
pub fn names() -> Vec<String> {
    database().available().map(|name| name.as_str().to_owned()).collect()
}

/// A constant of the binary behind a cache: nothing that could be read from it ever changes.
fn database() -> &'static TimeZoneDatabase {
    static DATABASE: OnceLock<TimeZoneDatabase> = OnceLock::new();
    DATABASE.get_or_init(TimeZoneDatabase::bundled)
}

fn timestamp(second: i64) -> jiff::Timestamp {
    let (min, max) = (jiff::Timestamp::MIN.as_second(), jiff::Timestamp::MAX.as_second());
    jiff::Timestamp::from_second(second.clamp(min, max)).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
}

fn offset(zone: &TimeZone, at: jiff::Timestamp) -> i64 {
    i64::from(zone.to_offset(at).seconds())
}
