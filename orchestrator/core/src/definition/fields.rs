//! The keys of one mapping: known, unknown, not yet supported, repeated; and typed access to their values.

use super::code;
use super::diagnostic::Diagnostic;
use super::duration;
use super::names::shortened;
use super::near::nearest;
use super::tree::{Key, Kind, Node, Place};
use crate::time::Span;

/// The keys a mapping may have.
pub(super) struct Keys {
    /// What the mapping is, for messages.
    pub(super) of: &'static str,
    pub(super) known: &'static [&'static str],
    /// Keys that belong elsewhere, with the help that says where.
    misplaced: &'static [(&'static str, &'static str)],
}

impl Keys {
    pub(super) const fn new(of: &'static str, known: &'static [&'static str]) -> Self {
        Self {
            of,
            known,
            misplaced: &[],
        }
    }

    pub(super) const fn misplaced(mut self, misplaced: &'static [(&'static str, &'static str)]) -> Self {
        self.misplaced = misplaced;
        self
    }

    fn help(&self, wrong: &str) -> String {
        let misplaced = self.misplaced.iter().find(|(key, _)| *key == wrong);
        match misplaced {
            Some((_, help)) => (*help).to_owned(),
            None => format!("the keys here are {}", listed(self.known)),
        }
    }
}

pub(super) struct Fields<'a> {
    entries: &'a [(Key, Node)],
}

impl<'a> Fields<'a> {
    /// Reports what is wrong with the keys. `None` when the node is no mapping.
    pub(super) fn open(node: &'a Node, keys: &Keys, found: &mut Vec<Diagnostic>) -> Option<Self> {
        let Kind::Object(entries) = &node.kind else {
            expected(node, keys.of, "a mapping", found);
            return None;
        };
        for (at, (key, _)) in entries.iter().enumerate() {
            if entries[..at].iter().any(|(earlier, _)| earlier.text == key.text) {
                let message = format!("the key `{}` appears twice", key.text);
                found.push(Diagnostic::error(code::DUPLICATE_KEY, key.span.clone(), message));
            } else if !keys.known.contains(&key.text.as_str()) {
                let message = format!("{} has no key `{}`", keys.of, key.text);
                let near = nearest(&key.text, keys.known.iter().copied());
                found.push(
                    Diagnostic::error(code::UNKNOWN_KEY, key.span.clone(), message)
                        .help(keys.help(&key.text))
                        .suggest(near),
                );
            }
        }
        Some(Self { entries })
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Node> {
        self.entry(key).map(|(_, node)| node)
    }

    pub(super) fn key_place(&self, key: &str) -> Option<Place> {
        self.entry(key).map(|(key, _)| key.span.clone())
    }

    fn entry(&self, key: &str) -> Option<&'a (Key, Node)> {
        self.entries.iter().find(|(k, _)| k.text == key)
    }

    /// A key that is none stands where this one should.
    pub(super) fn misspelt(&self, key: &str) -> bool {
        let others = self.entries.iter().map(|(other, _)| other.text.as_str());
        others
            .filter(|other| *other != key)
            .any(|other| nearest(other, [key]).is_some())
    }

    pub(super) fn text(&self, key: &str, found: &mut Vec<Diagnostic>) -> Option<&'a str> {
        let node = self.get(key)?;
        let text = node.as_str();
        if text.is_none() {
            expected(node, &format!("`{key}`"), "a string", found);
        }
        text
    }

    pub(super) fn flag(&self, key: &str, found: &mut Vec<Diagnostic>) -> bool {
        match self.get(key).map(|node| (&node.kind, node)) {
            Some((Kind::Bool(truth), _)) => *truth,
            Some((_, node)) => {
                expected(node, &format!("`{key}`"), "true or false", found);
                false
            }
            None => false,
        }
    }

    /// As [`duration`].
    pub(super) fn duration(&self, key: &str, found: &mut Vec<Diagnostic>) -> Option<Span> {
        self.get(key).map(|node| duration(node, key, found))
    }
}

/// A duration that is more than nothing. One that cannot be read is a finding and counts as [`STAND_IN`].
pub(super) fn duration(node: &Node, key: &str, found: &mut Vec<Diagnostic>) -> Span {
    let message = match node.as_str().map(|text| (text, duration::parse(text))) {
        None => format!("`{key}` is {}, not a duration", node.type_name()),
        Some((_, Ok(Span::ZERO))) => format!("`{key}` must be longer than nothing"),
        Some((_, Ok(span))) => return span,
        Some((text, Err(error))) => format!("`{}` {error}", shortened(text)),
    };
    found.push(Diagnostic::error(code::BAD_DURATION, node.span.clone(), message));
    STAND_IN
}

/// For what the author gave and cannot be read, so that nothing is said to be missing.
const STAND_IN: Span = Span::from_secs(1);

pub(super) fn expected(node: &Node, what: &str, wanted: &str, found: &mut Vec<Diagnostic>) {
    let message = format!("{what} must be {wanted}, not {}", node.type_name());
    let finding = Diagnostic::error(code::SHAPE, node.span.clone(), message);
    found.push(match meant(node, wanted) {
        Some(help) => finding.help(help),
        None => finding,
    });
}

/// What was meant, where YAML reads it otherwise than many expect.
fn meant(node: &Node, wanted: &str) -> Option<String> {
    let text = node.as_str()?;
    match wanted {
        "true or false" => {
            let truth = match text.to_ascii_lowercase().as_str() {
                "yes" | "y" | "on" | "true" => true,
                "no" | "n" | "off" | "false" => false,
                _ => return None,
            };
            Some(format!(
                "Write `{truth}`, without quotes; `yes`, `on`, `no` and `off` are texts."
            ))
        }
        "a whole number" => {
            let number: u64 = text.trim().parse().ok()?;
            Some(format!("Write `{number}`, without quotes."))
        }
        _ => None,
    }
}

/// `a`, `b` and `c`
pub(super) fn listed(names: &[&str]) -> String {
    let mut text = String::new();
    for (at, name) in names.iter().enumerate() {
        if at > 0 {
            text.push_str(if at + 1 == names.len() { " and " } else { ", " });
        }
        text.push('`');
        text.push_str(name);
        text.push('`');
    }
    text
}
