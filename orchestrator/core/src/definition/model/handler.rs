//! Bodies beside the main one: what is done for each signal of a name.

use super::{JsonSchema, Steps, Text};

#[derive(Debug)]
pub(crate) struct Handler {
    /// Of the signals that it takes.
    pub(crate) name: Text,
    /// Of their bodies.
    pub(crate) schema: Option<JsonSchema>,
    pub(crate) steps: Steps,
}
