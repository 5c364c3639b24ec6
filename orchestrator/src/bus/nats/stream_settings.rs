//! What an operator may say of the streams.

use clap::ValueEnum;
use serde::Deserialize;

/// Where a stream keeps its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    #[default]
    File,
    /// Everything is gone when the server stops; for trying things out.
    Memory,
}

impl Storage {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Memory => "memory",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting<T> {
    /// Also of streams that are there.
    Always(T),
    /// Of new streams; afterwards it is the operator's.
    AtFirst(T),
}

impl<T: Copy> Setting<T> {
    pub(super) fn value(&self) -> T {
        match self {
            Self::Always(value) | Self::AtFirst(value) => *value,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSettings {
    /// Of every stream: 1, or 3 in a cluster.
    pub replicas: Setting<u32>,
    pub storage: Setting<Storage>,
    /// At this size the log refuses new messages.
    pub log_max_bytes: Setting<u64>,
    /// At this size a namespace's task stream refuses new tasks.
    pub task_max_bytes: Setting<u64>,
    /// At this size a namespace's bucket of large bodies refuses new ones.
    pub bucket_max_bytes: Setting<u64>,
    /// At this size the oldest dead letters go.
    pub dlq_max_bytes: Setting<u64>,
    /// At this size the oldest events go; `None` = events are not kept (and publishing them finds no stream).
    pub events_max_bytes: Option<Setting<u64>>,
}

impl Default for StreamSettings {
    fn default() -> Self {
        Self {
            replicas: Setting::AtFirst(1),
            storage: Setting::AtFirst(Storage::File),
            log_max_bytes: Setting::AtFirst(1 << 30),
            task_max_bytes: Setting::AtFirst(1 << 30),
            bucket_max_bytes: Setting::AtFirst(512 << 20),
            dlq_max_bytes: Setting::AtFirst(256 << 20),
            events_max_bytes: Some(Setting::AtFirst(256 << 20)),
        }
    }
}
