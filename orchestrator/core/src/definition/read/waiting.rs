//! `wait` and `wait_for`.

use super::steps::Reader;
use super::value::{computed, condition, no_such_word};
use crate::definition::code;
use crate::definition::diagnostic::Diagnostic;
use crate::definition::fields::{Fields, duration, expected};
use crate::definition::keys::{WAIT, WAIT_FOR};
use crate::definition::model::{OnTimeout, Text, Wait, WaitFor};
use crate::definition::names::name;
use crate::definition::tree::{Kind, Node, Place};

impl Reader<'_> {
    pub(super) fn wait(&mut self, node: &Node, place: &Place) -> Option<Wait> {
        if !matches!(node.kind, Kind::Object(_)) {
            let computed = node.as_str().is_some_and(|text| text.contains("${"));
            let span = duration(node, "wait", self.found);
            if computed && let Some(finding) = self.found.last_mut() {
                *finding = finding
                    .clone()
                    .help("a time that is computed is written `wait: { until: … }`");
            }
            return Some(Wait::For(span));
        }
        let fields = Fields::open(node, &WAIT, self.found)?;
        let Some(until) = fields.get("until") else {
            self.missing(&fields, "`wait`", "until", place);
            return None;
        };
        match &until.kind {
            // A time that is written out is no expression.
            Kind::String(text) if is_time(text) => Some(Wait::Until(until.clone())),
            Kind::String(_) => Some(Wait::Until(computed(until, self.found))),
            Kind::Number(_) => Some(Wait::Until(until.clone())),
            _ => {
                let wanted = "an expression, a time or a number of seconds since the epoch";
                expected(until, "`until`", wanted, self.found);
                None
            }
        }
    }

    pub(super) fn wait_for(&mut self, node: &Node, step: &Fields<'_>, place: &Place) -> Option<WaitFor> {
        let on_timeout = step.get("on_timeout").map(|node| self.on_timeout(node));
        let fields = Fields::open(node, &WAIT_FOR, self.found)?;
        let signal = match fields.get("signal") {
            Some(node) => name(node, "signal", self.found),
            None => {
                self.missing(&fields, "`wait_for`", "signal", place);
                None
            }
        };
        let timeout = fields.duration("timeout", self.found);
        if timeout.is_none()
            && let Some(place) = step.key_place("on_timeout")
        {
            let message = "`on_timeout` needs a `timeout`";
            let help = "add `timeout` under `wait_for`, or remove `on_timeout`";
            self.found
                .push(Diagnostic::error(code::CONTRADICTION, place, message).help(help));
        }
        let matches = condition(&fields, "match", self.found);
        Some(WaitFor {
            signal: signal.unwrap_or(Text {
                text: "unreadable".to_owned(),
                place: place.clone(),
            }),
            matches,
            timeout,
            on_timeout: on_timeout.unwrap_or(OnTimeout::Fail),
        })
    }

    fn on_timeout(&mut self, node: &Node) -> OnTimeout {
        match node.as_str() {
            Some("fail") => OnTimeout::Fail,
            Some("continue") => OnTimeout::Continue,
            Some(_) => {
                let words = ["fail", "continue", "{ steps: [ … ] }"];
                self.found.push(no_such_word(node, "on_timeout", words.into_iter()));
                OnTimeout::Continue
            }
            None => OnTimeout::Steps(self.body(node, "`on_timeout`")),
        }
    }
}

fn is_time(text: &str) -> bool {
    chrono::DateTime::parse_from_rfc3339(text).is_ok()
}
