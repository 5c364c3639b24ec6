//! Messages of a run and for it, as its state keeps them; what becomes of them is told in [`super::message`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::message::{Answer, Body, Recipient};
use crate::ids::{MessageNo, Namespace, RunId, WorkflowId};
use crate::time::Timestamp;

/// Messages of and for other runs.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Mail {
    /// How many have been sent.
    pub(super) sent: u32,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) outbox: BTreeMap<MessageNo, Pending>,
    /// Starts that were refused.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) refused: BTreeMap<MessageNo, RefusedStart>,
    /// Asks that were granted while their release had no answer: the limiter may have had the release before the ask.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) granted_again: BTreeSet<MessageNo>,
    /// By sender.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) taken: BTreeMap<RunId, BTreeMap<MessageNo, Taken>>,
}

/// A message that was sent and not answered yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Pending {
    pub(super) to: Recipient,
    pub(super) body: Arc<Body>,
    /// The transition that sent it last.
    pub(super) seq: u32,
    /// Sent again then.
    pub(super) due: Timestamp,
    /// How often it was sent again.
    pub(super) offers: u32,
}

/// A start that was refused, and may have been repeated before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct RefusedStart {
    pub(super) to: Recipient,
    /// A repeat was accepted: the run was told to cancel.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) started: bool,
}

/// A message that was taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Taken {
    pub(super) namespace: Namespace,
    pub(super) workflow_id: WorkflowId,
    pub(super) seq: u32,
    #[serde(default, skip_serializing_if = "super::event::is_default")]
    pub(super) answer: Answer,
}
