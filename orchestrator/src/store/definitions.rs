//! Definitions and namespaces as they are stored.

use knarr_core::ids::{DefinitionHash, Namespace, WorkflowName};
use knarr_core::time::Timestamp;

/// The version of a definition that a start takes which names none: the newest, or the one an operator has set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefinitionHead {
    pub namespace: Namespace,
    pub workflow: WorkflowName,
    pub version: i32,
    pub hash: DefinitionHash,
}

/// What operators have said of a definition's versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefaultVersion {
    pub version: i32,
    pub at: Timestamp,
    pub by: Option<String>,
    pub reason: Option<String>,
}

/// The head of every definition, and the epoch they were read at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DefinitionHeads {
    pub definitions_epoch: i64,
    pub heads: Vec<DefinitionHead>,
}

/// A stored definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredDefinition {
    pub namespace: Namespace,
    pub workflow: WorkflowName,
    pub version: i32,
    pub hash: DefinitionHash,
    /// The canonical JSON that is hashed, files inlined.
    pub body: String,
    /// The text as it was registered (YAML or JSON).
    pub source: String,
    pub registered_at: Timestamp,
}

/// A definition without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefinitionRow {
    pub workflow: WorkflowName,
    pub version: i32,
    pub hash: DefinitionHash,
    pub registered_at: Timestamp,
    /// An operator has set it for starts that name no version.
    pub default: bool,
}

/// Which definitions a list shows; by name and version, by keyset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DefinitionFilter {
    pub workflow: Option<WorkflowName>,
    /// Only those behind this one (of the previous page).
    pub after: Option<(WorkflowName, i32)>,
    /// At most this many; the store caps it at [`LIST_LIMIT`].
    pub limit: u32,
}

/// What became of a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Registered {
    New,
    /// The same name, version and content was there.
    Unchanged,
    /// The same name and version has other content.
    Conflict {
        hash: DefinitionHash,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespaceRow {
    pub name: Namespace,
    pub retention_class: i16,
    /// Whether changes of the status of its runs are published.
    pub events: bool,
}

/// What a namespace does about changes of status where nobody has said. Two messages for each saga of four steps cost a ninth of
/// the throughput (`knarr bench order --events on|off`), which whoever does not listen should not pay.
pub const EVENTS_BY_DEFAULT: bool = false;
