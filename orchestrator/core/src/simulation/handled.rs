//! What a history says of signals, updates and their handlers, told without the code under test.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::definition::plan::Plan;
use crate::ids::{RequestId, StepPath};
use crate::run::event::RunStarted;
use crate::run::{Event, Status};

/// An update, and the name of its handler.
type Named = (RequestId, Arc<str>);

/// Beside the steps of one run.
#[derive(Debug, Default)]
pub(super) struct Handled {
    /// Names of signals that have a handler.
    signals: BTreeSet<Arc<str>>,
    /// Signals and accepted updates that nobody has taken, by number.
    buffered: BTreeMap<u32, Arc<str>>,
    waiting: BTreeMap<u32, Named>,
    received: u32,
    accepted: u32,
    /// Not decided about, in the order of their coming.
    put_off: Vec<Named>,
    known: BTreeSet<RequestId>,
    /// Under way, by handler.
    open: BTreeMap<StepPath, u32>,
    begun: BTreeMap<StepPath, u32>,
    passed: bool,
}

impl Handled {
    pub(super) fn goes_by(&mut self, plan: &Plan) {
        let names = plan
            .signal_handlers()
            .map(|(node, _)| Arc::clone(&plan.node(node).name));
        self.signals = names.collect();
    }

    /// Whether a step may begin there: in the main body, or in an execution that is under way.
    pub(super) fn is_under_way(&self, step: &StepPath) -> bool {
        let Some(rest) = step.as_str().strip_prefix('$') else {
            return true;
        };
        let (handler, rest) = rest.split_once('[').expect("a step of a handler is of an execution");
        let (index, _) = rest.split_once(']').expect("an execution has a number");
        let open = self.open.get(&StepPath::new(&format!("${handler}")));
        open.is_some_and(|open| index.parse() == Ok(*open))
    }

    fn began(&mut self, started: &RunStarted) {
        let Some(before) = &started.continues else { return };
        for signal in &before.signals {
            self.received = signal.number;
            self.buffered.insert(signal.number, Arc::clone(&signal.name));
        }
        for update in &before.updates {
            assert!(self.known.insert(update.id.clone()), "{} moved along twice", update.id);
            self.put_off.push((update.id.clone(), Arc::clone(&update.name)));
        }
    }

    fn accept(&mut self, update: Named) {
        self.accepted += 1;
        self.waiting.insert(self.accepted, update);
    }

    fn first_put_off(&mut self, id: &RequestId) -> Named {
        let first = self.put_off.first().map(|(id, _)| id);
        assert_eq!(first, Some(id), "it is decided about out of turn");
        self.put_off.remove(0)
    }

    fn takes(&mut self, handler: &StepPath, signal: u32, update: u32) {
        let (group, name) = handler.as_str().split_once('.').expect("a group and a name");
        let first_signal = self.buffered.iter().find(|(_, of)| ***of == *name);
        let first_update = self.waiting.iter().find(|(_, (_, of))| **of == *name);
        let (first, taken) = match group {
            "$signals" => (first_signal.map(|(number, _)| *number), (signal, 0)),
            _ => (first_update.map(|(number, _)| *number), (0, update)),
        };
        assert_eq!((signal, update), taken, "{handler} takes what is not its own");
        assert_eq!(first, Some(signal.max(update)), "{handler} takes what is not the first");
        self.buffered.remove(&signal);
        self.waiting.remove(&update);
    }

    pub(super) fn event(&mut self, event: &Event) {
        match event {
            Event::RunStarted(started) => self.began(started),
            Event::SignalReceived(signal) => {
                self.received += 1;
                self.buffered.insert(self.received, Arc::clone(&signal.name));
            }
            Event::SignalTaken { step, signal } => {
                let name = self.buffered.remove(signal);
                let name = name.unwrap_or_else(|| panic!("{step} takes a signal that is not there"));
                assert!(!self.signals.contains(&name), "{step} takes what a handler is for");
            }
            Event::HandlerStarted {
                step,
                index,
                signal,
                update,
            } => {
                self.takes(step, *signal, *update);
                let begun = self.begun.entry(step.clone()).or_default();
                assert_eq!(*begun, *index, "executions of {step} are counted");
                *begun += 1;
                let other = self.open.insert(step.clone(), *index);
                assert_eq!(other, None, "two executions of {step}");
            }
            Event::HandlerEnded { step, index, .. } => {
                assert_eq!(self.open.remove(step), Some(*index), "{step} was under way");
            }
            Event::UpdateAccepted(taken) | Event::UpdatePutOff(taken) => {
                let id = taken.operation.request_id.clone().expect("an update has an id");
                assert!(self.known.insert(id.clone()), "{id} was taken twice");
                let update = (id, Arc::clone(&taken.name));
                match event {
                    Event::UpdateAccepted(_) => self.accept(update),
                    _ => self.put_off.push(update),
                }
            }
            Event::UpdateAdmitted { id } => {
                let update = self.first_put_off(id);
                self.accept(update);
            }
            Event::UpdateRefused { id, .. } => drop(self.first_put_off(id)),
            Event::UpdateAwaited { id, .. } => assert!(self.known.contains(id), "{id} is not known"),
            Event::MainBodyPassed {} => {
                assert!(!self.passed, "the steps have passed twice");
                self.passed = true;
            }
            _ => {}
        }
    }

    /// Of a run that has closed.
    pub(super) fn end(&self, status: Status) {
        if status != Status::Terminated {
            assert!(self.open.is_empty(), "closed over {:?}", self.open);
        }
        if matches!(status, Status::Completed | Status::ContinuedAsNew) {
            assert!(self.waiting.is_empty(), "{:?} were accepted and not done", self.waiting);
        }
        if status == Status::Completed {
            assert!(self.put_off.is_empty(), "nobody decided about {:?}", self.put_off);
            let mut left = self.buffered.values().filter(|name| self.signals.contains(*name));
            assert_eq!(left.next(), None, "a signal was not handled");
        }
    }
}
