//! A trigger as it stands: how far it has read, what is on its way, what waits, and what could not be done lately.
//!
//! **Invariants:** changed by [`Trigger::evolve`] alone; everything in it is bounded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::command::Position;
use super::event::{Firing, Stage, TriggerEvent, is_default};
use super::source::{Gap, Place};
use super::spec::{Flaw, Gather, Spec};
use crate::ids::{MessageNo, RequestId, WorkflowId};
use crate::run::input::Operation;
use crate::time::Timestamp;

/// Events on their way or waiting, and their bytes: with more nothing is read.
pub const MAX_PENDING: usize = 256;
pub const MAX_PENDING_BYTES: u64 = 2 << 20;
/// The same together with those that nobody has taken so far, and those behind one of them.
pub const MAX_WAITING: usize = 4_096;
pub const MAX_WAITING_BYTES: u64 = 8 << 20;
/// Workflow ids for which events are gathered, and the bytes of those: with more the first that is due counts at once.
pub const MAX_GATHERED: usize = 1_000;
pub const MAX_GATHERED_BYTES: u64 = 4 << 20;
/// Refused events and gaps that are told of.
const MAX_PAST: usize = 20;
/// Requests that are remembered, so that a repeat changes nothing.
const MAX_REQUESTS: usize = 256;

/// Where reading goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum From {
    /// Nothing has been read yet.
    Position(Position),
    /// Behind that place.
    Place(Place),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sent {
    pub firing: Firing,
    pub message: MessageNo,
    pub stage: Stage,
    /// As the event says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_in: Option<MessageNo>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<MessageNo>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Held {
    pub firing: Firing,
    pub input: Arc<Value>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gathered {
    pub inputs: Vec<Arc<Value>>,
    pub first_at: Timestamp,
    pub due: Timestamp,
    pub sequence: u64,
    pub events: u32,
    pub bytes: u32,
}

/// An event nothing came of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Past {
    pub at: Timestamp,
    pub sequence: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<WorkflowId>,
    pub flaw: Flaw,
    pub message: Arc<str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Let through by the filter.
    pub taken: u64,
    pub skipped: u64,
    /// Runs were started, or found where that is asked for.
    pub started: u64,
    pub signalled: u64,
    pub refused: u64,
    pub gaps: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trigger {
    pub spec: Spec,
    /// The version of the definition that last spoke.
    pub version: u32,
    pub from: From,
    /// When that last changed.
    pub moved_at: Timestamp,
    /// Counts up whenever reading is to begin anew.
    pub opening: u32,
    /// Why, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<Arc<str>>,
    /// Numbers given to firings so far.
    pub fired: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sent: BTreeMap<u64, Sent>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub held: BTreeMap<u64, Held>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub gathered: BTreeMap<WorkflowId, Gathered>,
    /// The latest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub past: Vec<Past>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<(Timestamp, Gap)>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub counts: Counts,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    requests: Vec<RequestId>,
}

impl Trigger {
    /// Whether it wants to read.
    pub fn is_active(&self) -> bool {
        self.paused.is_none()
    }

    /// Whether more may be read.
    pub fn has_room(&self) -> bool {
        let sent = self.sent.values().map(|sent| &sent.firing);
        let nobody: BTreeSet<&WorkflowId> = sent.clone().filter(|of| of.tries > 0).map(|of| &of.id).collect();
        let (mut pending, mut waiting) = ((0, 0), (0, 0));
        for firing in sent.chain(self.held.values().map(|held| &held.firing)) {
            let bytes = u64::from(firing.bytes);
            waiting = (waiting.0 + 1, waiting.1 + bytes);
            // The runs of the others are not to wait until it is given up.
            if !nobody.contains(&firing.id) {
                pending = (pending.0 + 1, pending.1 + bytes);
            }
        }
        let fits = |(count, bytes), most, most_bytes| count < most && bytes < most_bytes;
        fits(pending, MAX_PENDING, MAX_PENDING_BYTES) && fits(waiting, MAX_WAITING, MAX_WAITING_BYTES)
    }

    /// What is gathered has to make room.
    pub(crate) fn gathers_too_much(&self) -> bool {
        let bytes: u64 = self.gathered.values().map(|of| u64::from(of.bytes)).sum();
        self.gathered.len() > MAX_GATHERED || bytes > MAX_GATHERED_BYTES
    }

    /// When it has something to do, `None` = never by itself.
    pub fn due(&self) -> Option<Timestamp> {
        self.gathered.values().map(|of| of.due).min()
    }

    /// The last place that is decided, where anything is.
    pub fn place(&self) -> Option<&Place> {
        match &self.from {
            From::Place(place) => Some(place),
            From::Position(_) => None,
        }
    }

    /// Whether it has been decided before.
    pub(crate) fn is_behind(&self, place: &Place) -> bool {
        self.place()
            .is_some_and(|known| known.stream == place.stream && place.sequence <= known.sequence)
    }

    pub(crate) fn has_taken(&self, operation: &Operation) -> bool {
        let id = operation.request_id.as_ref();
        id.is_some_and(|id| self.requests.contains(id))
    }

    fn remember(&mut self, operation: &Operation) {
        if let Some(id) = &operation.request_id {
            self.requests.push(id.clone());
            keep_last(&mut self.requests, MAX_REQUESTS);
        }
    }

    /// The only way in which a trigger changes. `None` before it was made.
    pub(crate) fn evolve(this: &mut Option<Box<Self>>, at: Timestamp, event: &TriggerEvent) {
        if let TriggerEvent::Set {
            spec,
            version,
            from,
            operation,
        } = event
        {
            match this {
                Some(trigger) => {
                    let reads = trigger.spec.source == spec.source;
                    trigger.spec = spec.clone();
                    trigger.version = *version;
                    match from {
                        Some(from) => trigger.begin(From::Position(*from), at),
                        // Other subjects of the same stream, from the same place on.
                        None if !reads => trigger.begin(trigger.from.clone(), at),
                        None => {}
                    }
                }
                None => *this = Some(Box::new(Self::new(spec, *version, *from, at))),
            }
            if let Some(trigger) = this {
                trigger.remember(operation);
            }
        } else if let Some(trigger) = this {
            trigger.change(at, event);
        }
    }

    fn new(spec: &Spec, version: u32, from: Option<Position>, at: Timestamp) -> Self {
        Self {
            spec: spec.clone(),
            version,
            from: From::Position(from.unwrap_or(Position::Time(at))),
            moved_at: at,
            opening: 1,
            paused: None,
            trouble: None,
            fired: 0,
            sent: BTreeMap::new(),
            held: BTreeMap::new(),
            gathered: BTreeMap::new(),
            past: Vec::new(),
            gaps: Vec::new(),
            counts: Counts::default(),
            requests: Vec::new(),
        }
    }

    fn begin(&mut self, from: From, at: Timestamp) {
        self.from = from;
        self.moved_at = at;
        self.trouble = None;
        self.opening = self.opening.wrapping_add(1);
    }

    fn change(&mut self, at: Timestamp, event: &TriggerEvent) {
        match event {
            TriggerEvent::Set { .. } => {}
            TriggerEvent::Paused { reason, operation } => {
                self.paused = Some(reason.clone());
                self.remember(operation);
            }
            TriggerEvent::Resumed { operation } => {
                // One that nobody had paused reads on: a subject would lose what comes meanwhile.
                if self.paused.take().is_some() {
                    self.opening = self.opening.wrapping_add(1);
                }
                self.remember(operation);
            }
            TriggerEvent::Reset { to, operation } => {
                self.begin(From::Position(*to), at);
                self.remember(operation);
            }
            TriggerEvent::Passed { to, taken, skipped } => {
                if let Some(place) = to {
                    self.from = From::Place(place.clone());
                }
                self.moved_at = at;
                self.counts.taken += u64::from(*taken);
                self.counts.skipped += skipped;
            }
            TriggerEvent::Missed(gap) => {
                self.from = From::Place(gap.resumes.clone());
                self.moved_at = at;
                self.counts.gaps += 1;
                self.gaps.push((at, gap.clone()));
                keep_last(&mut self.gaps, MAX_PAST);
            }
            TriggerEvent::Troubled { problem } => self.trouble.clone_from(problem),
            TriggerEvent::Gathered {
                id,
                input,
                sequence,
                bytes,
                due,
            } => self.gather(at, id, input, (*sequence, *bytes, *due)),
            TriggerEvent::Released { id } => {
                self.gathered.remove(id);
            }
            TriggerEvent::Held { no, firing, input } => {
                self.fired = self.fired.max(*no);
                let held = Held {
                    firing: firing.clone(),
                    input: Arc::clone(input),
                };
                self.held.insert(*no, held);
            }
            TriggerEvent::Sent {
                no,
                firing,
                message,
                stage,
                taken_in,
                signal,
            } => {
                self.fired = self.fired.max(*no);
                self.held.remove(no);
                let sent = Sent {
                    firing: firing.clone(),
                    message: *message,
                    stage: *stage,
                    taken_in: *taken_in,
                    signal: *signal,
                };
                self.sent.insert(*no, sent);
            }
            TriggerEvent::Postponed { no, since, .. } => {
                if let Some(sent) = self.sent.get_mut(no) {
                    sent.firing.tries = sent.firing.tries.saturating_add(1);
                    sent.firing.since = *since;
                }
            }
            TriggerEvent::Done { no, stage } => {
                self.sent.remove(no);
                match stage {
                    Stage::Start | Stage::StartToSignal => self.counts.started += 1,
                    Stage::Signal => self.counts.signalled += 1,
                }
            }
            TriggerEvent::Refused {
                no,
                id,
                sequence,
                flaw,
                message,
                ..
            } => {
                if let Some(no) = no {
                    self.sent.remove(no);
                }
                self.counts.refused += 1;
                self.past.push(Past {
                    at,
                    sequence: *sequence,
                    id: id.clone(),
                    flaw: *flaw,
                    message: message.clone(),
                });
                keep_last(&mut self.past, MAX_PAST);
            }
        }
    }

    fn gather(
        &mut self,
        at: Timestamp,
        id: &WorkflowId,
        input: &Arc<Value>,
        (sequence, bytes, due): (u64, u32, Timestamp),
    ) {
        let latest = matches!(self.spec.gather, Some(Gather::Debounce { .. }));
        let of = self.gathered.entry(id.clone()).or_insert_with(|| Gathered {
            inputs: Vec::new(),
            first_at: at,
            due,
            sequence,
            events: 0,
            bytes: 0,
        });
        if latest {
            of.inputs.clear();
            of.bytes = 0;
        }
        of.inputs.push(Arc::clone(input));
        of.bytes = of.bytes.saturating_add(bytes);
        of.events = of.events.saturating_add(1);
        of.sequence = sequence;
        of.due = due;
    }
}

fn keep_last<T>(list: &mut Vec<T>, most: usize) {
    let more = list.len().saturating_sub(most);
    list.drain(..more);
}
