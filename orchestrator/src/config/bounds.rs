//! How much memory a replica may take for what grows with its load. The defaults are for a container of 1 GiB.

use clap::Args;

use super::ConfigError;
use super::streams::ByteSize;
use crate::engine::EngineConfig;

/// Less would make a message of the largest size wait for ever, or leave every run with every batch.
const SMALLEST: u64 = 8 << 20;
const LARGEST: u64 = 1 << 40;

/// Of the command line and the environment, and with the same names of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct BoundArgs {
    /// Memory for runs that wait, like `1GiB`; those used least leave it and are loaded again when they are needed
    /// [default: 256MiB]
    #[arg(long, env = "KNARR_LIVE_MAX_BYTES", value_name = "SIZE")]
    pub live_max_bytes: Option<ByteSize>,

    /// Memory for messages of the log that are taken and not yet applied; the rest waits in NATS [default: 128MiB]
    #[arg(long, env = "KNARR_INTAKE_MAX_BYTES", value_name = "SIZE")]
    pub intake_max_bytes: Option<ByteSize>,

    /// The same for results that workers hand in directly; they repeat what does not fit [default: 64MiB]
    #[arg(long, env = "KNARR_DIRECT_MAX_BYTES", value_name = "SIZE")]
    pub direct_max_bytes: Option<ByteSize>,

    /// Memory for what is being published; more is read from PostgreSQL again when it is its turn [default: 64MiB]
    #[arg(long, env = "KNARR_PUBLISH_MAX_BYTES", value_name = "SIZE")]
    pub publish_max_bytes: Option<ByteSize>,
}

/// What was given, in bytes; `None` = the engine's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bounds {
    pub live: Option<usize>,
    pub intake: Option<usize>,
    pub direct: Option<usize>,
    pub publish: Option<usize>,
}

impl BoundArgs {
    /// With what `other` says where this says nothing.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            live_max_bytes: self.live_max_bytes.or(other.live_max_bytes),
            intake_max_bytes: self.intake_max_bytes.or(other.intake_max_bytes),
            direct_max_bytes: self.direct_max_bytes.or(other.direct_max_bytes),
            publish_max_bytes: self.publish_max_bytes.or(other.publish_max_bytes),
        }
    }

    pub(super) fn bounds(&self) -> Result<Bounds, ConfigError> {
        let bytes = |setting: &'static str, given: Option<ByteSize>| match given {
            None => Ok(None),
            Some(ByteSize(bytes)) if (SMALLEST..=LARGEST).contains(&bytes) => Ok(usize::try_from(bytes).ok()),
            Some(given) => Err(ConfigError::OutOfRange {
                setting,
                value: given.to_string(),
                wanted: "8MiB to 1TiB are possible",
            }),
        };
        Ok(Bounds {
            live: bytes("live_max_bytes", self.live_max_bytes)?,
            intake: bytes("intake_max_bytes", self.intake_max_bytes)?,
            direct: bytes("direct_max_bytes", self.direct_max_bytes)?,
            publish: bytes("publish_max_bytes", self.publish_max_bytes)?,
        })
    }
}

impl Bounds {
    pub(crate) fn apply(self, engine: &mut EngineConfig) {
        for (given, of) in [
            (self.live, &mut engine.live_bytes),
            (self.intake, &mut engine.intake_bytes),
            (self.direct, &mut engine.direct_bytes),
            (self.publish, &mut engine.publish_bytes),
        ] {
            *of = given.unwrap_or(*of);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_kept_at_the_limit_and_one_past_it() {
        let live = |bytes| BoundArgs {
            live_max_bytes: Some(ByteSize(bytes)),
            ..BoundArgs::default()
        };
        for (bytes, allowed) in [
            (SMALLEST - 1, false),
            (SMALLEST, true),
            (LARGEST, true),
            (LARGEST + 1, false),
        ] {
            assert_eq!(live(bytes).bounds().is_ok(), allowed, "{bytes}");
        }
    }

    #[test]
    fn what_is_given_goes_before_the_defaults() {
        let args = BoundArgs {
            intake_max_bytes: Some(ByteSize(32 << 20)),
            ..BoundArgs::default()
        };
        let file = BoundArgs {
            intake_max_bytes: Some(ByteSize(64 << 20)),
            direct_max_bytes: Some(ByteSize(16 << 20)),
            ..BoundArgs::default()
        };
        let (mut engine, default) = (EngineConfig::new("r"), EngineConfig::new("r"));
        args.or(file).bounds().unwrap().apply(&mut engine);
        assert_eq!((engine.intake_bytes, engine.direct_bytes), (32 << 20, 16 << 20));
        assert_eq!(
            (engine.live_bytes, engine.publish_bytes),
            (default.live_bytes, default.publish_bytes)
        );
    }
}
