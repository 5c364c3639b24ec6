//! Settings of the streams that are made in NATS.
//!
//! What is said here holds for streams that are there already, too. What is not said has a default for new streams, and is
//! left as it is afterwards: an operator may change it in NATS.

use std::fmt;
use std::str::FromStr;

use clap::Args;
use serde::Deserialize;

use super::ConfigError;
use crate::bus::nats::{Setting, Storage, StreamSettings};

/// Sizes of new streams where nothing is said; JetStream reserves them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Defaults {
    log: u64,
    task: u64,
    bucket: u64,
    dlq: u64,
    events: u64,
}

pub(super) const OF_SERVERS: Defaults = Defaults {
    log: 1 << 30,
    task: 1 << 30,
    bucket: 512 << 20,
    dlq: 256 << 20,
    events: 256 << 20,
};
/// A laptop has other things on its disk.
pub(super) const OF_PRIVATE_SERVERS: Defaults = Defaults {
    log: 256 << 20,
    task: 64 << 20,
    bucket: 64 << 20,
    dlq: 64 << 20,
    events: 64 << 20,
};

/// A stream has to hold a message of the largest size, and some more.
const SMALLEST: u64 = 8 << 20;
const LARGEST: u64 = 1 << 44;

/// Of the command line and the environment, and with the same names of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct StreamArgs {
    /// NATS servers that keep each stream: 1, 3 or 5 [default: 1 for new streams]
    #[arg(long, env = "KNARR_NATS_REPLICAS", value_name = "N")]
    pub nats_replicas: Option<u32>,

    /// Where new streams are kept [default: file]
    #[arg(long, env = "KNARR_NATS_STORAGE", value_enum, value_name = "STORAGE")]
    pub nats_storage: Option<Storage>,

    /// Size of the log, at which it refuses more, like `4GiB` [default: 1GiB for new streams, 256MiB for private servers]
    #[arg(long, env = "KNARR_LOG_MAX_BYTES", value_name = "SIZE")]
    pub log_max_bytes: Option<ByteSize>,

    /// Size of each namespace's tasks, at which more are held back [default: 1GiB, or 64MiB]
    #[arg(long, env = "KNARR_TASK_MAX_BYTES", value_name = "SIZE")]
    pub task_max_bytes: Option<ByteSize>,

    /// Size of each namespace's large bodies, at which more are held back [default: 512MiB, or 64MiB]
    #[arg(long, env = "KNARR_BUCKET_MAX_BYTES", value_name = "SIZE")]
    pub bucket_max_bytes: Option<ByteSize>,

    /// Size of the dead letters, beyond which the oldest go [default: 256MiB, or 64MiB]
    #[arg(long, env = "KNARR_DLQ_MAX_BYTES", value_name = "SIZE")]
    pub dlq_max_bytes: Option<ByteSize>,

    /// Size of the lifecycle events, beyond which the oldest go; 0 keeps none [default: 256MiB, or 64MiB]
    #[arg(long, env = "KNARR_EVENTS_MAX_BYTES", value_name = "SIZE")]
    pub events_max_bytes: Option<ByteSize>,
}

impl StreamArgs {
    /// With what `other` says where this says nothing.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            nats_replicas: self.nats_replicas.or(other.nats_replicas),
            nats_storage: self.nats_storage.or(other.nats_storage),
            log_max_bytes: self.log_max_bytes.or(other.log_max_bytes),
            task_max_bytes: self.task_max_bytes.or(other.task_max_bytes),
            bucket_max_bytes: self.bucket_max_bytes.or(other.bucket_max_bytes),
            dlq_max_bytes: self.dlq_max_bytes.or(other.dlq_max_bytes),
            events_max_bytes: self.events_max_bytes.or(other.events_max_bytes),
        }
    }

    pub(super) fn settings(&self, defaults: Defaults) -> Result<StreamSettings, ConfigError> {
        if let Some(replicas) = self.nats_replicas.filter(|n| ![1, 3, 5].contains(n)) {
            return Err(ConfigError::OutOfRange {
                setting: "nats_replicas",
                value: replicas.to_string(),
                wanted: "1, 3 and 5 are possible",
            });
        }
        let size = |setting: &'static str, given: Option<ByteSize>, default: u64| match given {
            None => Ok(Setting::AtFirst(default)),
            Some(ByteSize(bytes)) if (SMALLEST..=LARGEST).contains(&bytes) => Ok(Setting::Always(bytes)),
            Some(given) => Err(ConfigError::OutOfRange {
                setting,
                value: given.to_string(),
                wanted: "8MiB to 16TiB are possible",
            }),
        };
        let events = match self.events_max_bytes {
            Some(ByteSize(0)) => None,
            given => Some(size("events_max_bytes", given, defaults.events)?),
        };
        Ok(StreamSettings {
            replicas: self.nats_replicas.map_or(Setting::AtFirst(1), Setting::Always),
            storage: self
                .nats_storage
                .map_or(Setting::AtFirst(Storage::File), Setting::Always),
            log_max_bytes: size("log_max_bytes", self.log_max_bytes, defaults.log)?,
            task_max_bytes: size("task_max_bytes", self.task_max_bytes, defaults.task)?,
            bucket_max_bytes: size("bucket_max_bytes", self.bucket_max_bytes, defaults.bucket)?,
            dlq_max_bytes: size("dlq_max_bytes", self.dlq_max_bytes, defaults.dlq)?,
            events_max_bytes: events,
        })
    }
}

/// `512MiB`, `4GiB`, or a number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ByteSize(pub u64);

const UNITS: [(&str, u32); 4] = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unit = UNITS.iter().find(|(unit, _)| text.ends_with(unit));
        let digits = unit.map_or(text, |(unit, _)| text.trim_end_matches(unit).trim_end());
        let number: Option<u64> = digits.parse().ok();
        number
            .and_then(|number| number.checked_mul(1 << unit.map_or(0, |(_, bits)| *bits)))
            .map(Self)
            .ok_or_else(|| format!("`{text}` is not a size like `512MiB`, `4GiB` or a number of bytes"))
    }
}

impl TryFrom<String> for ByteSize {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS
            .iter()
            .rev()
            .find(|(_, bits)| self.0 > 0 && self.0.is_multiple_of(1 << bits));
        match unit {
            Some((unit, bits)) => write!(f, "{}{unit}", self.0 >> bits),
            None => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_shown() {
        for (text, bytes, shown) in [
            ("0", 0, "0"),
            ("4GiB", 4 << 30, "4GiB"),
            ("512 MiB", 512 << 20, "512MiB"),
            ("1536KiB", 1_536 << 10, "1536KiB"),
            ("1000", 1_000, "1000"),
        ] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!((size.0, size.to_string().as_str()), (bytes, shown));
        }
        for bad in ["", "GiB", "-1", "1GB", "1.5GiB", "99999999TiB"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
    }

    #[test]
    fn limits_are_kept_at_the_limit_and_one_past_it() {
        let log = |bytes| StreamArgs {
            log_max_bytes: Some(ByteSize(bytes)),
            ..StreamArgs::default()
        };
        for (bytes, allowed) in [
            (SMALLEST - 1, false),
            (SMALLEST, true),
            (LARGEST, true),
            (LARGEST + 1, false),
        ] {
            assert_eq!(log(bytes).settings(OF_SERVERS).is_ok(), allowed, "{bytes}");
        }
        for (replicas, allowed) in [(0, false), (1, true), (2, false), (3, true), (5, true), (7, false)] {
            let args = StreamArgs {
                nats_replicas: Some(replicas),
                ..StreamArgs::default()
            };
            assert_eq!(args.settings(OF_SERVERS).is_ok(), allowed, "{replicas}");
        }
    }

    #[test]
    fn what_is_said_holds_always_and_what_is_not_for_new_streams() {
        let args = StreamArgs {
            dlq_max_bytes: Some(ByteSize(8 << 20)),
            events_max_bytes: Some(ByteSize(0)),
            ..StreamArgs::default()
        };
        let settings = args.settings(OF_PRIVATE_SERVERS).unwrap();
        assert_eq!(settings.dlq_max_bytes, Setting::Always(8 << 20));
        assert_eq!(settings.log_max_bytes, Setting::AtFirst(256 << 20));
        assert_eq!(settings.events_max_bytes, None);
        assert_eq!(
            StreamArgs::default().settings(OF_SERVERS).unwrap(),
            StreamSettings::default()
        );
    }
}
