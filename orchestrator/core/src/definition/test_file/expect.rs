//! `expect:`

use serde_json::Value;

use super::keys;
use super::model::{Expectation, Expected, ExpectedEvent, Took};
use super::read::Reader;
use crate::definition::code;
use crate::definition::fields::{Fields, expected};
use crate::definition::near::nearest;
use crate::definition::tree::{Kind, Node};
use crate::run::Status;
use crate::time::Span;

/// What may be said to have become of a ledger entry.
const LEDGER: &[&str] = &["dormant", "needed", "ready", "running", "parked", "done", "skipped"];

impl Reader<'_> {
    pub(super) fn expectation(&mut self, node: &Node) -> Expectation {
        let Some(fields) = Fields::open(node, &keys::EXPECT, self.found) else {
            return Expectation::default();
        };
        let value = |key: &str| {
            fields.get(key).map(|node| Expected {
                value: node.to_json(),
                place: node.span.clone(),
            })
        };
        let (output, next_input) = (value("output"), value("next_input"));
        let [error_step, error_type, error_message] = self.error(fields.get("error"));
        let vars = self.values(fields.get("vars"), "`vars`", |reader, name, place| {
            let known = reader.names.vars.clone();
            reader.check_name(name, place, "variable", &known);
        });
        let queries = self.values(fields.get("queries"), "`queries`", |reader, name, place| {
            let known = reader.names.queries.clone();
            reader.check_name(name, place, "query", &known);
        });
        let inputs = self.values(fields.get("inputs"), "`inputs`", |reader, name, place| {
            reader.check_task(name, place);
        });
        Expectation {
            status: self.status(fields.get("status")),
            output,
            next_input,
            error_step,
            error_type,
            error_message,
            rejected: self.text(fields.get("rejected"), "`rejected`"),
            steps: self.paths(fields.get("steps"), "`steps`", Self::check_task),
            skipped: self.paths(fields.get("skipped"), "`skipped`", Self::check_step),
            undos: self.paths(fields.get("undos"), "`undos`", Self::check_task),
            parked: self.paths(fields.get("parked"), "`parked`", Self::check_step),
            attempts: self.attempts(fields.get("attempts")),
            run_attempts: fields
                .get("run_attempts")
                .and_then(|node| self.count(node, "`run_attempts`")),
            inputs,
            ledger: self.ledger(fields.get("ledger")),
            vars,
            queries,
            emitted: self.emitted(fields.get("emitted")),
            took: self.took(fields.get("took")),
        }
    }

    fn status(&mut self, node: Option<&Node>) -> Option<Expected<Status>> {
        let text = self.text(node, "`status`")?;
        let Some(status) = Status::parse(&text.value) else {
            let message = format!("there is no status `{}`", text.value);
            let near = nearest(&text.value, Status::ALL.map(Status::as_str));
            let finding = crate::definition::diagnostic::Diagnostic::error(code::BAD_VALUE, text.place, message);
            self.found.push(finding.suggest(near));
            return None;
        };
        Some(Expected {
            value: status,
            place: text.place,
        })
    }

    fn text(&mut self, node: Option<&Node>, what: &str) -> Option<Expected<String>> {
        let node = node?;
        let Some(text) = node.as_str() else {
            expected(node, what, "a text", self.found);
            return None;
        };
        Some(Expected {
            value: text.to_owned(),
            place: node.span.clone(),
        })
    }

    fn error(&mut self, node: Option<&Node>) -> [Option<Expected<String>>; 3] {
        let Some(node) = node else {
            return [None, None, None];
        };
        // The type alone.
        if node.as_str().is_some() {
            return [None, self.text(Some(node), "`error`"), None];
        }
        let Some(fields) = Fields::open(node, &keys::ERROR, self.found) else {
            return [None, None, None];
        };
        let step = self.text(fields.get("step"), "`step`");
        if let Some(step) = &step {
            self.check_step(&step.value, &step.place);
        }
        let error_type = self.text(fields.get("type"), "`type`");
        [step, error_type, self.text(fields.get("message"), "`message`")]
    }

    fn paths(
        &mut self,
        node: Option<&Node>,
        what: &str,
        check: fn(&mut Self, &str, &crate::definition::tree::Place),
    ) -> Option<Expected<Vec<String>>> {
        let node = node?;
        let Kind::Array(items) = &node.kind else {
            expected(node, what, "a list of step paths", self.found);
            return None;
        };
        let mut paths = Vec::new();
        for item in items {
            if let Some(path) = self.text(Some(item), "a step path") {
                check(self, &path.value, &path.place);
                paths.push(path.value);
            }
        }
        Some(Expected {
            value: paths,
            place: node.span.clone(),
        })
    }

    fn values(
        &mut self,
        node: Option<&Node>,
        what: &str,
        check: fn(&mut Self, &str, &crate::definition::tree::Place),
    ) -> Vec<(String, Expected<Value>)> {
        let mut values = Vec::new();
        for (key, node) in self.entries(node, what) {
            check(self, &key.text, &key.span);
            let value = Expected {
                value: node.to_json(),
                place: node.span.clone(),
            };
            values.push((key.text.clone(), value));
        }
        values
    }

    fn attempts(&mut self, node: Option<&Node>) -> Vec<(String, Expected<u64>)> {
        let mut attempts = Vec::new();
        for (key, node) in self.entries(node, "`attempts`") {
            self.check_task(&key.text, &key.span);
            if let Some(count) = self.count(node, &format!("`{}`", key.text)) {
                attempts.push((key.text.clone(), count));
            }
        }
        attempts
    }

    fn count(&mut self, node: &Node, what: &str) -> Option<Expected<u64>> {
        let count = match &node.kind {
            Kind::Number(number) => number.as_u64(),
            _ => None,
        };
        if count.is_none() {
            expected(node, what, "a whole number", self.found);
        }
        let place = node.span.clone();
        count.map(|value| Expected { value, place })
    }

    fn ledger(&mut self, node: Option<&Node>) -> Option<Expected<Vec<(String, String)>>> {
        let node = node?;
        let mut entries = Vec::new();
        for (key, node) in self.entries(Some(node), "`ledger`") {
            self.check_task(&key.text, &key.span);
            let Some(state) = self.text(Some(node), "an entry's state") else {
                continue;
            };
            if !LEDGER.contains(&state.value.as_str()) {
                let message = format!("an entry is never `{}`", state.value);
                let finding = crate::definition::diagnostic::Diagnostic::error(code::BAD_VALUE, state.place, message)
                    .help(format!("it is {}", crate::definition::fields::listed(LEDGER)))
                    .suggest(nearest(&state.value, LEDGER.iter().copied()));
                self.found.push(finding);
                continue;
            }
            entries.push((key.text.clone(), state.value));
        }
        Some(Expected {
            value: entries,
            place: node.span.clone(),
        })
    }

    fn emitted(&mut self, node: Option<&Node>) -> Option<Expected<Vec<ExpectedEvent>>> {
        let node = node?;
        let Kind::Array(items) = &node.kind else {
            expected(node, "`emitted`", "a list", self.found);
            return None;
        };
        let mut emitted = Vec::new();
        for item in items {
            if let Some(subject) = item.as_str() {
                emitted.push((subject.to_owned(), None));
            } else if let Some(fields) = Fields::open(item, &keys::EMITTED, self.found)
                && let Some(subject) = self.required_text(&fields, item, "an emitted event", "subject")
            {
                emitted.push((subject, fields.get("body").map(Node::to_json)));
            }
        }
        Some(Expected {
            value: emitted,
            place: node.span.clone(),
        })
    }

    fn took(&mut self, node: Option<&Node>) -> Option<Expected<Took>> {
        let node = node?;
        let value = if node.as_str().is_some() {
            let exactly = self.span(node, "took");
            Took {
                at_least: exactly,
                at_most: exactly,
            }
        } else if !matches!(node.kind, Kind::Object(_)) {
            expected(
                node,
                "`took`",
                "a duration, or a mapping of `at_least` and `at_most`",
                self.found,
            );
            return None;
        } else {
            let fields = Fields::open(node, &keys::TOOK, self.found)?;
            Took {
                at_least: fields
                    .get("at_least")
                    .map_or(Span::ZERO, |node| self.span(node, "at_least")),
                at_most: fields
                    .get("at_most")
                    .map_or(Span(u64::MAX), |node| self.span(node, "at_most")),
            }
        };
        Some(Expected {
            value,
            place: node.span.clone(),
        })
    }
}
