//! What a definition says beside its steps of when its runs begin: its schedule, its triggers, how many may be open, and when one
//! that failed begins anew. Each is
//! there or not, as a step is, and is told like one.

use std::borrow::Cow;

use serde_json::Value;

use super::model::Field;
use super::{differences, steps};

/// Keys of a definition that are told as parts.
pub(super) const KEYS: [&str; 6] = ["schedule", "concurrency", "retry", "triggers", "signals", "updates"];

/// In front of the name of a trigger.
pub(super) const TRIGGER: &str = "triggers.";
/// In front of the name of a signal that has a handler.
pub(super) const SIGNAL: &str = "signals.";
/// The same of an update.
pub(super) const UPDATE: &str = "updates.";

pub(super) struct Part<'a> {
    /// `schedule`, `concurrency`, `retry`, or `triggers.`, `signals.` or `updates.` and a name.
    pub(super) name: String,
    said: Cow<'a, Value>,
}

pub(super) fn parts(definition: &Value) -> Vec<Part<'_>> {
    let one = |key: &str| Some((key.to_owned(), definition.get(key)?));
    let of = definition["triggers"].as_object().into_iter().flatten();
    let triggers = of.map(|(name, said)| (format!("{TRIGGER}{name}"), said));
    let once = ["schedule", "concurrency", "retry"].into_iter().filter_map(one);
    let all = once.chain(triggers);
    let all = all.map(|(name, said)| (name, Cow::Borrowed(said)));
    // Their steps are told like all others.
    let handlers = [("signals", SIGNAL), ("updates", UPDATE)]
        .into_iter()
        .flat_map(|(key, prefix)| {
            let of = definition[key].as_object().into_iter().flatten();
            of.map(move |(name, said)| (format!("{prefix}{name}"), Cow::Owned(steps::around_steps(said))))
        });
    all.chain(handlers).map(|(name, said)| Part { name, said }).collect()
}

impl Part<'_> {
    pub(super) fn differences(&self, after: &Self) -> Vec<Field> {
        differences(&steps::fields(&self.said), &steps::fields(&after.said))
    }

    pub(super) fn said(&self) -> Value {
        self.said.clone().into_owned()
    }

    /// In a few words; what is left out has its usual value, or is looked up.
    pub(super) fn what(&self) -> String {
        match self.name.as_str() {
            "schedule" => self.schedule(),
            "concurrency" => self.concurrency(),
            name if name.starts_with(SIGNAL) || name.starts_with(UPDATE) => "each is taken as it comes".to_owned(),
            "retry" => self.retry(),
            _ => self.trigger(),
        }
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.said.get(key)?.as_str()
    }

    fn schedule(&self) -> String {
        let list = |key: &str| self.said[key].as_array().into_iter().flatten();
        let crons = list("cron").filter_map(Value::as_str).map(str::to_owned);
        let every = list("every").filter_map(|each| each.as_str().or_else(|| each["every"].as_str()));
        let mut times: Vec<_> = crons.chain(every.map(|each| format!("every {each}"))).collect();
        match list("calendars").count() {
            0 => {}
            1 => times.push("a calendar".to_owned()),
            count => times.push(format!("{count} calendars")),
        }
        let mut what = times.join(", ");
        for (before, key) in [(" in ", "zone"), (", overlap ", "overlap")] {
            if let Some(said) = self.text(key) {
                what.push_str(before);
                what.push_str(said);
            }
        }
        if self.said["paused"] == true {
            what.push_str(", paused");
        }
        what
    }

    fn concurrency(&self) -> String {
        let mut what = format!("at most {} open", self.said["limit"]);
        if let Some(key) = self.text("key") {
            what.push_str(" for each ");
            what.push_str(key);
        }
        if let Some(then) = self.text("on_conflict") {
            what.push_str(", else ");
            what.push_str(then);
        }
        what
    }

    fn retry(&self) -> String {
        let attempts = match self.said["maximum_attempts"].as_u64() {
            Some(attempts) => format!("at most {attempts} attempts of a run"),
            None => "any number of attempts of a run".to_owned(),
        };
        let first = self.text("initial_interval").unwrap_or_default();
        let longest = self.text("maximum_interval").unwrap_or_default();
        format!("{attempts}, {first} to {longest} apart")
    }

    fn trigger(&self) -> String {
        let of = match self.text("stream") {
            Some(stream) => format!(" of {stream}"),
            None => String::new(),
        };
        let subject = self.text("subject").unwrap_or_default();
        match (self.text("signal"), self.said["start"] == true) {
            (None, _) => format!("each {subject}{of} starts a run"),
            (Some(signal), false) => format!("each {subject}{of} is the signal {signal}"),
            (Some(signal), true) => {
                format!("each {subject}{of} is the signal {signal}, and starts a run where there is none")
            }
        }
    }
}
