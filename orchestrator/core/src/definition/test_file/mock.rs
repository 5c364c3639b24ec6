//! Mocks of activities and of children.

use std::sync::Arc;

use super::code;
use super::keys;
use super::model::{ChildMock, ChildOutcome, Mock, Outcome};
use super::read::Reader;
use crate::definition::code as definition_code;
use crate::definition::diagnostic::Diagnostic;
use crate::definition::fields::{Fields, expected, listed};
use crate::definition::tree::{Key, Kind, Node};
use crate::expression::Template;
use crate::time::Span;

const OUTCOMES: &[&str] = &["result", "fail", "unknown", "timeout", "retry_later"];
const CHILD_OUTCOMES: &[&str] = &["result", "fail", "refuse"];

impl Reader<'_> {
    pub(super) fn mocks(&mut self, node: Option<&Node>) -> Vec<(String, Arc<[Mock]>)> {
        let mut mocks = Vec::new();
        for (key, node) in self.entries(node, "`mocks`") {
            self.check_mock(key);
            let list = self.one_or_many(node, Self::mock);
            mocks.push((key.text.clone(), list.into()));
        }
        mocks
    }

    pub(super) fn children(&mut self, node: Option<&Node>) -> Vec<(String, Arc<[ChildMock]>)> {
        let mut children = Vec::new();
        for (key, node) in self.entries(node, "`children`") {
            let known = self.names.children.clone();
            self.check_name(&key.text, &key.span, "child workflow", &known);
            let list = self.one_or_many(node, Self::child);
            children.push((key.text.clone(), list.into()));
        }
        children
    }

    fn one_or_many<T>(&mut self, node: &Node, one: fn(&mut Self, &Node) -> Option<T>) -> Vec<T> {
        match &node.kind {
            Kind::Array(nodes) if nodes.is_empty() => {
                self.say(code::OUTCOME, &node.span, "there is no outcome in the list");
                Vec::new()
            }
            Kind::Array(nodes) => nodes.iter().filter_map(|node| one(self, node)).collect(),
            _ => one(self, node).into_iter().collect(),
        }
    }

    /// An activity, a step's id or path, or `undo` and one of them.
    fn check_mock(&mut self, key: &Key) {
        let name = key.text.strip_prefix("undo ").unwrap_or(&key.text);
        let mut known = self.names.tasks.clone();
        known.extend(self.names.activities.iter().cloned());
        known.extend(self.names.ids.iter().cloned());
        let plain = super::names::plain(name);
        if !known.contains(&plain) {
            self.check_name(name, &key.span, "activity or step", &known);
        }
    }

    fn mock(&mut self, node: &Node) -> Option<Mock> {
        if node.as_str() == Some("timeout") {
            return Some(Mock {
                outcome: Outcome::Timeout,
                after: Span::ZERO,
                stops: false,
            });
        }
        let fields = Fields::open(node, &keys::MOCK, self.found)?;
        self.one_of(&fields, node, OUTCOMES)?;
        let outcome = if let Some(result) = fields.get("result") {
            Outcome::Result(self.template(result)?)
        } else if let Some(fail) = fields.get("fail") {
            self.failure(fail)?
        } else if fields.get("unknown").is_some() {
            let message = fields.text("unknown", self.found)?;
            Outcome::Unknown {
                message: message.to_owned(),
            }
        } else if let Some(later) = fields.get("retry_later") {
            let after = self.span(later, "retry_later");
            Outcome::RetryLater {
                after: (after > Span::ZERO).then_some(after),
            }
        } else {
            match fields.get("timeout").and_then(Node::as_str) {
                Some("schedule_to_start") => Outcome::NotTaken,
                Some(other) => {
                    let message = format!("`timeout` is `true` or `schedule_to_start`, not `{other}`");
                    self.say(definition_code::BAD_VALUE, &node.span, message);
                    Outcome::Timeout
                }
                None => {
                    if !fields.flag("timeout", self.found) {
                        self.say(code::OUTCOME, &node.span, "`timeout: false` is no outcome");
                    }
                    Outcome::Timeout
                }
            }
        };
        let when_cancelled = fields.text("when_cancelled", self.found);
        if let Some(text) = when_cancelled
            && !["stops", "goes_on"].contains(&text)
            && let Some(node) = fields.get("when_cancelled")
        {
            let message = format!("`when_cancelled` is `stops` or `goes_on`, not `{text}`");
            self.say(definition_code::BAD_VALUE, &node.span, message);
        }
        Some(Mock {
            outcome,
            after: fields
                .get("after")
                .map_or(Span::ZERO, |after| self.span(after, "after")),
            stops: when_cancelled == Some("stops"),
        })
    }

    fn failure(&mut self, node: &Node) -> Option<Outcome> {
        if let Some(error_type) = node.as_str() {
            return Some(Outcome::Fail {
                error_type: error_type.to_owned(),
                message: error_type.to_owned(),
                retryable: true,
                not_done: false,
                retry_after: None,
            });
        }
        let fields = Fields::open(node, &keys::FAIL, self.found)?;
        let error_type = self.required_text(&fields, node, "`fail`", "type")?;
        let message = fields.text("message", self.found);
        Some(Outcome::Fail {
            message: message.unwrap_or(&error_type).to_owned(),
            error_type,
            retryable: fields.get("retryable").is_none() || fields.flag("retryable", self.found),
            not_done: fields.flag("not_done", self.found),
            retry_after: fields.duration("retry_after", self.found),
        })
    }

    fn child(&mut self, node: &Node) -> Option<ChildMock> {
        let fields = Fields::open(node, &keys::CHILD, self.found)?;
        self.one_of(&fields, node, CHILD_OUTCOMES)?;
        let outcome = if let Some(result) = fields.get("result") {
            ChildOutcome::Result(self.template(result)?)
        } else if let Some(fail) = fields.get("fail") {
            match self.failure(fail)? {
                Outcome::Fail {
                    error_type, message, ..
                } => ChildOutcome::Fail { error_type, message },
                _ => return None,
            }
        } else {
            ChildOutcome::Refuse {
                message: fields.text("refuse", self.found)?.to_owned(),
            }
        };
        let undo = fields
            .get("undo")
            .and_then(|undo| Fields::open(undo, &keys::CHILD_UNDO, self.found));
        let undo_refused = undo.and_then(|undo| undo.text("refuse", self.found).map(str::to_owned));
        Some(ChildMock {
            outcome,
            after: fields
                .get("after")
                .map_or(Span::ZERO, |after| self.span(after, "after")),
            undo_refused,
        })
    }

    /// Says so unless the mapping has exactly one of these keys.
    pub(super) fn one_of(&mut self, fields: &Fields<'_>, node: &Node, kinds: &[&str]) -> Option<()> {
        let given: Vec<_> = kinds.iter().filter(|kind| fields.get(kind).is_some()).collect();
        let message = match given.as_slice() {
            [_] => return Some(()),
            [] => format!("one of {} is missing", listed(kinds)),
            [first, second, ..] => format!("`{first}` and `{second}` exclude each other"),
        };
        let finding = Diagnostic::error(code::OUTCOME, node.span.clone(), message);
        self.found.push(finding.help(format!("say one of {}", listed(kinds))));
        None
    }

    fn template(&mut self, node: &Node) -> Option<Template> {
        match Template::compile(&node.to_json()) {
            Ok(template) => Some(template),
            Err(error) => {
                self.say(definition_code::EXPRESSION, &node.span, error.to_string());
                None
            }
        }
    }

    pub(super) fn entries<'n>(&mut self, node: Option<&'n Node>, what: &str) -> &'n [(Key, Node)] {
        match node.map(|node| (node, &node.kind)) {
            None => &[],
            Some((_, Kind::Object(entries))) => {
                for (at, (key, _)) in entries.iter().enumerate() {
                    if entries[..at].iter().any(|(earlier, _)| earlier.text == key.text) {
                        let message = format!("the key `{}` appears twice", key.text);
                        let finding = Diagnostic::error(definition_code::DUPLICATE_KEY, key.span.clone(), message);
                        self.found.push(finding);
                    }
                }
                entries
            }
            Some((node, _)) => {
                expected(node, what, "a mapping", self.found);
                &[]
            }
        }
    }
}
