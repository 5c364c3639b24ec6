//! Changes in words.

use std::fmt;

use serde_json::Value;

use super::model::{Change, Field};
use super::parts::{SIGNAL, TRIGGER, UPDATE};

/// Longest value that is told.
const MAX_VALUE: usize = 80;

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Document { field } => write!(f, "{field}"),
            Self::PartAdded { part, what, .. } => write!(f, "{} is new: {what}", called(part)),
            Self::PartRemoved { part, what, .. } => write!(f, "{} is gone: {what}", called(part)),
            Self::PartChanged { part, field } => write!(f, "{}: {field}", called(part)),
            Self::Added { step, what } => write!(f, "{step} is new: {what}"),
            Self::Removed { step, what } => write!(f, "{step} is gone: {what}"),
            Self::Moved { step, from, behind } => {
                if from == step {
                    write!(f, "{step} is moved")?;
                } else {
                    write!(f, "{step} is moved, from {from}")?;
                }
                match behind {
                    Some(behind) => write!(f, ", behind {behind}"),
                    None => write!(f, ", to the front"),
                }
            }
            Self::Changed { step, field } => write!(f, "{step}: {field}"),
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.name.strip_prefix("compensate") {
            Some("") => "undo".to_owned(),
            Some(rest) => format!("undo{}", rest.replacen('.', " ", 1)),
            None => self.name.clone(),
        };
        match (&self.before, &self.after) {
            (None, Some(after)) => write!(f, "{name} is set, to {}", told(after)),
            (Some(before), None) => write!(f, "{name} is not set any more, was {}", told(before)),
            (Some(before), Some(after)) => write!(f, "{name} from {} to {}", told(before), told(after)),
            (None, None) => write!(f, "{name}"),
        }
    }
}

fn called(part: &str) -> String {
    let handled = part.strip_prefix(SIGNAL).or(part.strip_prefix(UPDATE));
    match (part.strip_prefix(TRIGGER), handled) {
        (Some(name), _) => format!("trigger {name}"),
        (None, Some(name)) => format!("the handler of {name}"),
        (None, None) => part.to_owned(),
    }
}

fn told(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    };
    if text.chars().count() <= MAX_VALUE {
        return text;
    }
    text.chars().take(MAX_VALUE - 1).chain(['…']).collect()
}
