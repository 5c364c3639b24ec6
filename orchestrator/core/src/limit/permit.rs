//! The rows a limiter is made of, as they are stored: JSON that a person reads in `psql`.

use serde::{Deserialize, Serialize};

use super::ask::Ask;
use crate::ids::MessageNo;
use crate::run::message::Sender;
use crate::time::Timestamp;

/// An ask: waiting, or granted and not given back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permit {
    pub from: Sender,
    /// Of the message, by which the sender knows it.
    pub number: MessageNo,
    pub ask: Ask,
    /// The round in which it is its turn among those of its rank.
    pub turn: u64,
    pub asked_at: Timestamp,
    /// `None` = it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granted_at: Option<Timestamp>,
    /// Who was asked to go for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead_of: Option<Box<Sender>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Row {
    Permit(Permit),
    /// Number 0: how far the permits that were granted reach into the future, at the limit's pace.
    Pace(Timestamp),
}

impl Row {
    /// Maps with text keys always serialise.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}
