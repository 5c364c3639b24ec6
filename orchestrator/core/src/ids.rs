//! Identities, one type each, cheap to clone.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            pub fn new(text: &str) -> Self {
                Self(Arc::from(text))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self::new(text)
            }
        }

        impl From<Arc<str>> for $name {
            fn from(text: Arc<str>) -> Self {
                Self(text)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

text_id!(/// Where names are unique and limits apply.
    Namespace);
text_id!(/// The business key: unique among open runs of a namespace. Decoded, never percent-encoded.
    WorkflowId);
text_id!(/// The name of a definition.
    WorkflowName);
text_id!(/// The name of a unit of work done by a worker.
    ActivityName);
text_id!(/// The name of a task queue.
    QueueName);
text_id!(/// The address of a step instance within its run: the ids from the root, joined by `.`; a loop's iteration is `[n]`
    /// behind its step. The root sequence is the empty path.
    StepPath);
text_id!(/// A caller's own id for a request; a repeat of it within a run is harmless.
    RequestId);

/// One execution of a definition: a UUIDv7 minted by the shell at the time the run starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub Uuid);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a task within its run: one per attempt, counted from 1 and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskNo(pub u32);

impl TaskNo {
    /// There is none yet: the first task waits for a permit.
    pub const NONE: Self = Self(0);
}

/// The number of a message within its sender's run, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MessageNo(pub u32);

/// SHA-256 of a definition's canonical JSON, in lower-case hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DefinitionHash(pub Arc<str>);
