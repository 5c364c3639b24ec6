//! Bodies beside the main one: what is done for each signal, or update, of a name.

use super::{JsonSchema, Steps, Text};
use crate::definition::tree::Node;

#[derive(Debug)]
pub(crate) struct Handler {
    pub(crate) of: Handled,
    /// Of what it takes.
    pub(crate) name: Text,
    /// Of the bodies.
    pub(crate) schema: Option<JsonSchema>,
    /// Of an update.
    pub(crate) validate: Option<Text>,
    /// Of an update those may be none.
    pub(crate) steps: Steps,
    /// Of an update.
    pub(crate) output: Option<Node>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handled {
    Signal,
    Update,
}

impl Handled {
    /// By which expressions see what was sent.
    pub(crate) fn root(self) -> &'static str {
        match self {
            Self::Signal => "signal",
            Self::Update => "update",
        }
    }
}
