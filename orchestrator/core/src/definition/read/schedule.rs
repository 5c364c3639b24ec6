//! `schedule:` of a definition, and the document of a schedule of its own: the same keys, and in the latter what is to be
//! started.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::DateTime;
use serde_json::{Map, Value, json};

use super::Found;
use super::value::{whole, word};
use crate::definition::diagnostic::Diagnostic;
use crate::definition::fields::{Fields, expected};
use crate::definition::keys::{CALENDAR, DST, EVERY, SCHEDULE, SCHEDULE_DOCUMENT};
use crate::definition::names::{name, shortened};
use crate::definition::near::nearest;
use crate::definition::tree::{Key, Kind, Node};
use crate::definition::{code, duration};
use crate::expression::Template;
use crate::ids::WorkflowName;
use crate::schedule::calendar::{Calendar, FIELDS};
use crate::schedule::spec::{CATCH_UP_SHORTEST, CATCH_UP_USUAL, MAX_RULES, rfc3339};
use crate::schedule::times::{Fold, Gap, Source};
use crate::schedule::zone::{self, Zone};
use crate::schedule::{self, Action, Overlap, Policy, Spec, Times};
use crate::time::{Span, Timestamp};

/// Intervals are of whole seconds, up to a year.
const LONGEST_INTERVAL: Span = Span::from_secs(366 * 86_400);
const LONGEST_JITTER: Span = Span::from_secs(86_400);
const MAX_NOTE_BYTES: usize = 1_024;

/// Of the document of a schedule: its name, where it gives one, and what it says.
pub(crate) fn document(root: &Node, found: &mut Found) -> Option<(Option<String>, Option<Spec>)> {
    let fields = Fields::open(root, &SCHEDULE_DOCUMENT, found)?;
    let id = fields.get("schedule").and_then(|node| name(node, "schedule", found));
    if fields.get("workflow").is_none() {
        let start = root.span.start..root.span.start;
        found.push(Diagnostic::error(
            code::MISSING_KEY,
            start,
            "the schedule has no `workflow`",
        ));
    }
    let workflow = fields.get("workflow").and_then(|node| name(node, "workflow", found));
    let version = whole(&fields, "version", i32::MAX.unsigned_abs(), found);
    let spec = Reader { found }.spec(root, &fields, workflow.map(|text| text.text), version);
    Some((id.map(|text| text.text), spec))
}

/// Of a definition, which starts itself; a text alone is a cron string.
pub(super) fn of_definition(node: &Node, workflow: &str, found: &mut Found) -> Option<Spec> {
    let wrapped;
    let node = match &node.kind {
        Kind::String(_) => {
            let key = Key {
                text: "cron".to_owned(),
                span: node.span.clone(),
            };
            wrapped = Node {
                span: node.span.clone(),
                kind: Kind::Object(vec![(key, node.clone())]),
            };
            &wrapped
        }
        _ => node,
    };
    let fields = Fields::open(node, &SCHEDULE, found)?;
    Reader { found }.spec(node, &fields, Some(workflow.to_owned()), None)
}

struct Reader<'f> {
    found: &'f mut Found,
}

impl Reader<'_> {
    fn spec(
        &mut self,
        node: &Node,
        fields: &Fields<'_>,
        workflow: Option<String>,
        version: Option<u32>,
    ) -> Option<Spec> {
        let errors = self.found.len();
        let mut canonical = Map::new();
        let mut put = |key: &str, value: Value| {
            canonical.insert(key.to_owned(), value);
        };
        let mut sources = Vec::new();
        put("cron", self.crons(fields, &mut sources));
        put("every", self.intervals(fields, &mut sources));
        put("calendars", self.calendars(fields, "calendars", &mut sources));
        if sources.is_empty() && self.found.len() == errors {
            let message = "the schedule names no times";
            self.found
                .push(Diagnostic::error(schedule::code::NO_TIMES, node.span.clone(), message));
        }
        let mut excluded = Vec::new();
        put("exclude", self.calendars(fields, "exclude", &mut excluded));
        let exclude = excluded.into_iter().filter_map(|source| match source {
            Source::Calendar(calendar) => Some(*calendar),
            Source::Interval { .. } => None,
        });
        let zone = self.zone(fields);
        put("zone", json!(zone.name()));
        let start_at = self.moment(fields, "start_at");
        let end_at = self.moment(fields, "end_at");
        for (key, at) in [("start_at", start_at), ("end_at", end_at)] {
            at.into_iter().for_each(|at| put(key, json!(rfc3339(at))));
        }
        let (gap, fold) = self.dst(fields, &mut put);
        let jitter = fields.duration("jitter", self.found).unwrap_or_default();
        if jitter > LONGEST_JITTER {
            self.bad_value(fields, "jitter", "`jitter` is at most a day");
        }
        if jitter > Span::ZERO {
            put("jitter", json!(duration::format(jitter)));
        }
        let times = Times {
            sources,
            exclude: exclude.collect(),
            zone,
            gap,
            fold,
            start_at,
            end_at,
            jitter,
        };
        put("workflow", json!(workflow));
        version.into_iter().for_each(|version| put("version", json!(version)));
        let input = self.input(fields);
        input.iter().for_each(|(_, value)| put("input", value.clone()));
        let policy = self.policy(fields, &mut put);
        let note = self.note(fields);
        note.iter().for_each(|note| put("note", json!(note)));
        let actions = whole(fields, "actions", u32::MAX, self.found);
        actions.iter().for_each(|actions| put("actions", json!(actions)));
        let paused = fields.flag("paused", self.found);
        if paused {
            put("paused", json!(true));
        }
        if self.found.len() == errors && times.next_after(Timestamp(0)).is_none() {
            let message = "the schedule never comes due";
            self.found
                .push(Diagnostic::error(schedule::code::NEVER_DUE, node.span.clone(), message));
        }
        if self.found.len() > errors {
            return None;
        }
        canonical.retain(|_, value| value.as_array().is_none_or(|list| !list.is_empty()));
        Some(Spec {
            times: Arc::new(times),
            action: Action {
                workflow: WorkflowName::new(&workflow?),
                version,
                input: input.map(|(template, _)| Arc::new(template)),
            },
            policy,
            note,
            actions,
            paused,
            canonical: Arc::new(Value::Object(canonical)),
        })
    }

    /// One, or a list of them.
    fn several<'n>(&mut self, fields: &Fields<'n>, key: &str) -> Vec<&'n Node> {
        let Some(node) = fields.get(key) else {
            return Vec::new();
        };
        let list: Vec<&Node> = match &node.kind {
            Kind::Array(items) => items.iter().collect(),
            _ => vec![node],
        };
        if list.len() > MAX_RULES {
            let message = format!("`{key}` has {} entries; at most {MAX_RULES} are allowed", list.len());
            self.found
                .push(Diagnostic::error(code::BAD_VALUE, node.span.clone(), message));
            return Vec::new();
        }
        list
    }

    fn crons(&mut self, fields: &Fields<'_>, into: &mut Vec<Source>) -> Value {
        let mut texts = Vec::new();
        for node in self.several(fields, "cron") {
            let Some(text) = node.as_str() else {
                expected(node, "`cron`", "a cron string", self.found);
                continue;
            };
            match Calendar::of_cron(text) {
                Ok(calendar) => {
                    into.push(Source::Calendar(Box::new(calendar)));
                    texts.push(json!(text.trim()));
                }
                Err(problem) => {
                    self.found
                        .push(Diagnostic::error(schedule::code::CRON, node.span.clone(), problem));
                }
            }
        }
        Value::Array(texts)
    }

    fn intervals(&mut self, fields: &Fields<'_>, into: &mut Vec<Source>) -> Value {
        let mut texts = Vec::new();
        for node in self.several(fields, "every") {
            let (every, phase) = match &node.kind {
                Kind::Object(_) => {
                    let Some(inner) = Fields::open(node, &EVERY, self.found) else {
                        continue;
                    };
                    if inner.get("every").is_none() {
                        let message = "the interval has no `every`";
                        self.found
                            .push(Diagnostic::error(code::MISSING_KEY, node.span.clone(), message));
                        continue;
                    }
                    // A phase of nothing is one.
                    let phase = inner.get("phase").filter(|node| node.as_str() != Some("0s"));
                    let phase = phase.map(|node| crate::definition::fields::duration(node, "phase", self.found));
                    let every = inner.duration("every", self.found).unwrap_or_default();
                    (every, phase.unwrap_or_default())
                }
                _ => (
                    crate::definition::fields::duration(node, "every", self.found),
                    Span::ZERO,
                ),
            };
            let problem = if every.0 % 1_000_000 != 0 || phase.0 % 1_000_000 != 0 {
                "an interval and its phase are whole seconds"
            } else if every > LONGEST_INTERVAL {
                "an interval is at most 366 days"
            } else if phase >= every {
                "the phase is shorter than the interval"
            } else {
                let seconds = |span: Span| i64::try_from(span.0 / 1_000_000).unwrap_or(i64::MAX);
                into.push(Source::Interval {
                    every: seconds(every).max(1),
                    phase: seconds(phase),
                });
                texts.push(match phase {
                    Span::ZERO => json!(duration::format(every)),
                    phase => json!({ "every": duration::format(every), "phase": duration::format(phase) }),
                });
                continue;
            };
            self.found
                .push(Diagnostic::error(schedule::code::INTERVAL, node.span.clone(), problem));
        }
        Value::Array(texts)
    }

    fn calendars(&mut self, fields: &Fields<'_>, key: &str, into: &mut Vec<Source>) -> Value {
        let mut texts = Vec::new();
        for node in self.several(fields, key) {
            let Some(inner) = Fields::open(node, &CALENDAR, self.found) else {
                continue;
            };
            let mut given = BTreeMap::new();
            for field in FIELDS {
                let Some(node) = inner.get(field) else { continue };
                match &node.kind {
                    Kind::String(text) => given.insert(field.to_owned(), text.clone()),
                    Kind::Number(number) => given.insert(field.to_owned(), number.to_string()),
                    _ => {
                        expected(
                            node,
                            &format!("`{field}`"),
                            "a number or a string like 9-17",
                            self.found,
                        );
                        continue;
                    }
                };
            }
            match Calendar::of_fields(&given, key == "exclude") {
                Ok(calendar) => {
                    into.push(Source::Calendar(Box::new(calendar)));
                    let given = FIELDS
                        .iter()
                        .filter_map(|field| Some(((*field).to_owned(), json!(given.get(*field)?))));
                    texts.push(Value::Object(given.collect()));
                }
                Err((field, problem)) => {
                    let place = inner.get(&field).map_or(node.span.clone(), |node| node.span.clone());
                    self.found
                        .push(Diagnostic::error(schedule::code::CALENDAR, place, problem));
                }
            }
        }
        Value::Array(texts)
    }

    fn zone(&mut self, fields: &Fields<'_>) -> Zone {
        let Some(text) = fields.text("zone", self.found) else {
            return Zone::utc();
        };
        if let Some(zone) = Zone::get(text) {
            return zone;
        }
        let names = zone::names();
        let near = nearest(text, names.iter().map(String::as_str));
        let place = fields.get("zone").map(|node| node.span.clone()).unwrap_or_default();
        let message = format!("there is no time zone `{}`", shortened(text));
        self.found
            .push(Diagnostic::error(schedule::code::ZONE, place, message).suggest(near));
        Zone::utc()
    }

    fn moment(&mut self, fields: &Fields<'_>, key: &str) -> Option<Timestamp> {
        let text = fields.text(key, self.found)?;
        match DateTime::parse_from_rfc3339(text) {
            Ok(at) => Some(Timestamp::from_utc(at.to_utc())),
            Err(_) => {
                let place = fields.get(key).map(|node| node.span.clone()).unwrap_or_default();
                let message = format!("`{}` is no point in time", shortened(text));
                self.found
                    .push(Diagnostic::error(schedule::code::MOMENT, place, message));
                None
            }
        }
    }

    fn dst(&mut self, fields: &Fields<'_>, put: &mut impl FnMut(&str, Value)) -> (Gap, Option<Fold>) {
        let Some(inner) = fields.get("dst").and_then(|node| Fields::open(node, &DST, self.found)) else {
            return (Gap::default(), None);
        };
        let gap = word(&inner, "gap", &[("shift", Gap::Shift), ("skip", Gap::Skip)], self.found);
        let fold = word(
            &inner,
            "overlap",
            &[("first", Fold::First), ("both", Fold::Both)],
            self.found,
        );
        let mut said = Map::new();
        for key in ["gap", "overlap"] {
            if let Some(text) = inner.get(key).and_then(Node::as_str) {
                said.insert(key.to_owned(), json!(text));
            }
        }
        put("dst", Value::Object(said));
        (gap.unwrap_or_default(), fold)
    }

    fn input(&mut self, fields: &Fields<'_>) -> Option<(Template, Value)> {
        let node = fields.get("input")?;
        let value = node.to_json();
        let template = match Template::compile(&value) {
            Ok(template) => template,
            Err(error) => {
                self.found.push(Diagnostic::error(
                    code::EXPRESSION,
                    node.span.clone(),
                    error.to_string(),
                ));
                return None;
            }
        };
        for reference in template.references() {
            let path = reference.path.to_string();
            let mut names = path.split(['.', '[']);
            let (root, below) = (names.next().unwrap_or_default(), names.next());
            let problem = match (root, below) {
                ("schedule", None | Some("id" | "nominal_time")) => continue,
                ("schedule", Some(other)) => format!("`schedule` has no `{}`", shortened(other)),
                (other, _) => format!("there is no `{}` here", shortened(other)),
            };
            let help = "the input of a schedule sees `schedule.id` and `schedule.nominal_time`";
            self.found
                .push(Diagnostic::error(code::UNKNOWN_NAME, node.span.clone(), problem).help(help));
        }
        Some((template, value))
    }

    fn policy(&mut self, fields: &Fields<'_>, put: &mut impl FnMut(&str, Value)) -> Policy {
        let words = Overlap::ALL.map(|overlap| (overlap.as_str(), overlap));
        let overlap = word(fields, "overlap", &words, self.found).unwrap_or_default();
        let window = fields.duration("catch_up_window", self.found).unwrap_or(CATCH_UP_USUAL);
        if window < CATCH_UP_SHORTEST {
            self.bad_value(fields, "catch_up_window", "`catch_up_window` is at least 10s");
        }
        let pause_on_failure = fields.flag("pause_on_failure", self.found);
        put("overlap", json!(overlap.as_str()));
        put("catch_up_window", json!(duration::format(window)));
        if pause_on_failure {
            put("pause_on_failure", json!(true));
        }
        Policy {
            overlap,
            catch_up_window: window,
            pause_on_failure,
        }
    }

    fn note(&mut self, fields: &Fields<'_>) -> Option<Arc<str>> {
        let note = fields.text("note", self.found)?;
        if note.len() > MAX_NOTE_BYTES || note.contains('\0') {
            self.bad_value(fields, "note", "`note` has at most 1024 bytes, and no NUL");
        }
        Some(Arc::from(note))
    }

    fn bad_value(&mut self, fields: &Fields<'_>, key: &str, message: &str) {
        let place = fields.get(key).map(|node| node.span.clone()).unwrap_or_default();
        self.found.push(Diagnostic::error(code::BAD_VALUE, place, message));
    }
}
