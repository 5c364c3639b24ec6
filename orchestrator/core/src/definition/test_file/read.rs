//! The file and its cases.

use std::sync::Arc;

use serde_json::Value;

use super::code;
use super::keys;
use super::model::{Case, External, ExternalKind, TestFile};
use super::names::{Names, plain};
use crate::definition::code::{self as definition_code, Code};
use crate::definition::diagnostic::Diagnostic;
use crate::definition::fields::{Fields, expected, listed};
use crate::definition::near::nearest;
use crate::definition::plan::Plan;
use crate::definition::tree::{Kind, Node, Place};
use crate::definition::{duration, has_errors, in_order, yaml};
use crate::time::{Span, Timestamp};

/// 1 January 2026, a Thursday.
const START: Timestamp = Timestamp(1_767_225_600_000_000);

/// Reads a test file for a definition, and reports everything that is wrong with it, in the order of the text.
pub fn read(text: &str, plan: &Plan) -> Result<TestFile, Vec<Diagnostic>> {
    let tree = yaml::parse(text).map_err(|finding| vec![finding])?;
    let mut found = Vec::new();
    let file = Reader {
        names: Names::of(plan),
        found: &mut found,
    }
    .file(&tree);
    match file {
        Some(file) if !has_errors(&found) => Ok(file),
        _ => Err(in_order(found)),
    }
}

/// The definition that a test file names, before there is a plan to check it against.
pub fn definition_of(text: &str) -> Option<String> {
    let tree = yaml::parse(text).ok()?;
    let mut ignored = Vec::new();
    let fields = Fields::open(&tree, &keys::FILE, &mut ignored)?;
    fields.text("definition", &mut ignored).map(str::to_owned)
}

pub(super) struct Reader<'a> {
    pub(super) names: Names,
    pub(super) found: &'a mut Vec<Diagnostic>,
}

impl Reader<'_> {
    fn file(&mut self, node: &Node) -> Option<TestFile> {
        let fields = Fields::open(node, &keys::FILE, self.found)?;
        let definition = fields.text("definition", self.found).map(str::to_owned);
        let input = fields.get("input").map(Node::to_json);
        let mocks = self.mocks(fields.get("mocks"));
        let children = self.children(fields.get("children"));
        let mut cases: Vec<Case> = Vec::new();
        match fields.get("cases").map(|node| (node, &node.kind)) {
            Some((_, Kind::Array(nodes))) if !nodes.is_empty() => {
                for node in nodes {
                    let Some(mut case) = self.case(node, input.as_ref()) else {
                        continue;
                    };
                    if cases.iter().any(|other| other.name == case.name) {
                        let message = format!("there is a case `{}` already", case.name);
                        self.say(code::DUPLICATE_CASE, &case.place, message);
                    }
                    case.mocks.extend(mocks.iter().cloned());
                    case.children.extend(children.iter().cloned());
                    cases.push(case);
                }
            }
            Some((node, _)) => expected(node, "`cases`", "a list with a case in it", self.found),
            None => self.say(definition_code::MISSING_KEY, &node.span, "a test file needs `cases`"),
        }
        Some(TestFile { definition, cases })
    }

    fn case(&mut self, node: &Node, input: Option<&Value>) -> Option<Case> {
        let fields = Fields::open(node, &keys::CASE, self.found)?;
        let name = self.required_text(&fields, node, "a case", "name")?;
        let own = fields.get("input").map(Node::to_json);
        let mut events = self.events(fields.get("events"));
        events.sort_by_key(|event| event.at);
        Some(Case {
            place: fields.get("name").map_or(node.span.clone(), |name| name.span.clone()),
            name,
            input: Arc::new(own.or_else(|| input.cloned()).unwrap_or_default()),
            start: self.start(&fields),
            mocks: self.mocks(fields.get("mocks")),
            children: self.children(fields.get("children")),
            events,
            expect: match fields.get("expect") {
                Some(expect) => self.expectation(expect),
                None => {
                    self.say(definition_code::MISSING_KEY, &node.span, "a case needs `expect`");
                    return None;
                }
            },
        })
    }

    fn start(&mut self, fields: &Fields<'_>) -> Timestamp {
        let Some(text) = fields.text("start", self.found) else {
            return START;
        };
        let time = chrono::DateTime::parse_from_rfc3339(text).ok();
        let time = time.map(|time| Timestamp(time.timestamp_micros()));
        if time.is_none()
            && let Some(node) = fields.get("start")
        {
            let message = format!("`{text}` is not a time like 2026-01-31T09:30:00Z");
            self.say(definition_code::BAD_VALUE, &node.span, message);
        }
        time.unwrap_or(START)
    }

    fn events(&mut self, node: Option<&Node>) -> Vec<External> {
        let Some(node) = node else {
            return Vec::new();
        };
        let Kind::Array(nodes) = &node.kind else {
            expected(node, "`events`", "a list", self.found);
            return Vec::new();
        };
        nodes.iter().filter_map(|node| self.event(node)).collect()
    }

    fn event(&mut self, node: &Node) -> Option<External> {
        let fields = Fields::open(node, &keys::EVENT, self.found)?;
        self.one_of(&fields, node, keys::EVENT_KINDS)?;
        let at = match fields.get("at") {
            Some(at) => self.span(at, "at"),
            None => Span::ZERO,
        };
        let reason = |key: &str| match fields.get(key).map(|node| &node.kind) {
            Some(Kind::String(reason)) => Some(reason.clone()),
            _ => None,
        };
        let kind = if let Some(signal) = fields.get("signal") {
            let name = fields.text("signal", self.found)?.to_owned();
            let known = self.names.signals.clone();
            self.check_name(&name, &signal.span, "signal", &known);
            ExternalKind::Signal {
                name,
                body: Arc::new(fields.get("body").map(Node::to_json).unwrap_or_default()),
            }
        } else if let Some(update) = fields.get("update") {
            let name = fields.text("update", self.found)?.to_owned();
            let known = self.names.updates.clone();
            self.check_name(&name, &update.span, "update", &known);
            ExternalKind::Update {
                name,
                body: Arc::new(fields.get("body").map(Node::to_json).unwrap_or_default()),
            }
        } else if fields.get("cancel").is_some() {
            ExternalKind::Cancel {
                reason: reason("cancel"),
            }
        } else if fields.get("terminate").is_some() {
            ExternalKind::Terminate {
                reason: reason("terminate"),
            }
        } else if fields.get("retry").is_some() {
            ExternalKind::Retry {
                step: self.parked_step(&fields, "retry")?,
                input: fields.get("input").map(|input| Arc::new(input.to_json())),
            }
        } else if fields.get("skip").is_some() {
            ExternalKind::Skip {
                step: self.parked_step(&fields, "skip")?,
            }
        } else {
            ExternalKind::MarkDone {
                step: self.parked_step(&fields, "mark_done")?,
            }
        };
        Some(External { at, kind })
    }

    fn parked_step(&mut self, fields: &Fields<'_>, key: &str) -> Option<String> {
        let step = fields.text(key, self.found)?.to_owned();
        if let Some(node) = fields.get(key) {
            self.check_step(&step, &node.span);
        }
        Some(step)
    }

    pub(super) fn check_step(&mut self, path: &str, place: &Place) {
        let known = self.names.steps.clone();
        if !known.contains(&plain(path)) {
            self.check_name(path, place, "step", &known);
        }
    }

    /// A step that a task was given out for, or its undo.
    pub(super) fn check_task(&mut self, name: &str, place: &Place) {
        let path = name.strip_prefix("undo ").unwrap_or(name);
        let known = self.names.activities.clone();
        if !known.contains(&plain(path)) {
            self.check_name(path, place, "activity or child at the path", &known);
        }
    }

    pub(super) fn check_name(&mut self, name: &str, place: &Place, what: &str, known: &[String]) {
        if known.iter().any(|other| other == name) {
            return;
        }
        let near = nearest(name, known.iter().map(String::as_str));
        let mut names: Vec<&str> = known.iter().map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        names.truncate(12);
        let help = if names.is_empty() {
            format!("it has no {what}")
        } else {
            format!("there are {}", listed(&names))
        };
        let message = format!("the definition has no {what} `{name}`");
        let finding = Diagnostic::error(code::UNKNOWN_TARGET, place.clone(), message);
        self.found.push(finding.help(help).suggest(near));
    }

    pub(super) fn required_text(&mut self, fields: &Fields<'_>, of: &Node, what: &str, key: &str) -> Option<String> {
        if fields.get(key).is_none() {
            let message = format!("{what} needs `{key}`");
            self.say(definition_code::MISSING_KEY, &of.span, message);
            return None;
        }
        fields.text(key, self.found).map(str::to_owned)
    }

    /// A duration, which may be nothing.
    pub(super) fn span(&mut self, node: &Node, key: &str) -> Span {
        let read = node.as_str().map(duration::parse);
        match read {
            Some(Ok(span)) => return span,
            Some(Err(error)) => {
                let message = format!("`{}` {error}", node.as_str().unwrap_or_default());
                self.say(definition_code::BAD_DURATION, &node.span, message);
            }
            None => {
                let message = format!("`{key}` is {}, not a duration", node.type_name());
                self.say(definition_code::BAD_DURATION, &node.span, message);
            }
        }
        Span::ZERO
    }

    pub(super) fn say(&mut self, code: Code, place: &Place, message: impl Into<String>) {
        self.found.push(Diagnostic::error(code, place.clone(), message));
    }
}
