//! What the history of a trigger says of the events of its stream: each counts once, and those of one workflow id in order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::ids::{MessageNo, WorkflowId};
use crate::run::{Event, State, Transition};
use crate::time::Timestamp;
use crate::trigger::event::{Firing, Stage};
use crate::trigger::source::{Item as Given, SourceEvent};
use crate::trigger::spec::Gather;
use crate::trigger::state::From;
use crate::trigger::{Place, Position, Read, TriggerEvent};

/// An event as it is stored.
#[derive(Debug, Clone)]
pub struct Item {
    pub at: Timestamp,
    pub data: Value,
    pub readable: bool,
}

/// How far somebody has read, who need not be the one that decides.
#[derive(Debug, Default)]
pub struct Feed {
    opening: u32,
    at: u64,
    /// Events that matched nothing, of which nothing is recorded.
    skipped: u64,
}

#[derive(Debug)]
struct Sent {
    id: WorkflowId,
    message: MessageNo,
    /// Behind a start, once it has been sent.
    signal: Option<MessageNo>,
    events: u32,
}

#[derive(Debug, Default)]
pub struct Stream {
    feed: Feed,
    /// Once it is known.
    gather: Option<Option<Gather>>,
    place: Option<u64>,
    /// Events that were let through, or could not be read.
    pub decided: BTreeSet<u64>,
    fired: u64,
    sent: BTreeMap<u64, Sent>,
    held: BTreeMap<u64, WorkflowId>,
    gathered: BTreeMap<WorkflowId, u32>,
    released: Option<(WorkflowId, u32)>,
    last: BTreeMap<WorkflowId, u64>,
    /// Of the decided those of which it is known what has become of them.
    counted: usize,
    /// What was said, and whether it was accepted.
    pub settled: Vec<(MessageNo, Stage, bool)>,
}

impl Stream {
    pub fn take(&mut self, transition: &Transition) {
        let is_deleted = transition
            .events
            .iter()
            .any(|event| matches!(event, Event::RunCompleted { .. }));
        for event in &transition.events {
            if let Event::Trigger(event) = event {
                self.event(event, is_deleted);
            }
        }
        assert_eq!(self.released, None, "what was gathered counts for nothing");
    }

    /// From the place that is stored.
    pub fn feed_again(&mut self) {
        self.feed.opening = 0;
    }

    fn decide(&mut self, sequence: u64) {
        assert!(self.decided.insert(sequence), "the event {sequence} counts twice");
    }

    fn fire(&mut self, no: u64, firing: &Firing) {
        assert_eq!(no, self.fired + 1, "firings have no gaps");
        self.fired = no;
        match self.released.take() {
            Some(gathered) => assert_eq!(gathered, (firing.id.clone(), firing.events)),
            None => {
                assert_eq!(firing.events, 1);
                self.decide(firing.sequence);
            }
        }
    }

    fn event(&mut self, event: &TriggerEvent, is_deleted: bool) {
        match event {
            TriggerEvent::Set { spec, .. } => {
                let before = self.gather.replace(spec.gather);
                let same = before.is_none_or(|before| before == spec.gather);
                assert!(
                    same || self.gathered.is_empty(),
                    "it was gathered otherwise: {:?}",
                    self.gathered
                );
            }
            TriggerEvent::Passed { to: Some(to), .. } => {
                let before = self.place.replace(to.sequence);
                assert!(
                    before.is_none_or(|before| before < to.sequence),
                    "a place is passed twice"
                );
            }
            TriggerEvent::Gathered { id, sequence, .. } => {
                self.decide(*sequence);
                *self.gathered.entry(id.clone()).or_default() += 1;
            }
            TriggerEvent::Released { id } => {
                let count = self.gathered.remove(id).expect("nothing was gathered");
                self.released = Some((id.clone(), count));
            }
            TriggerEvent::Held { no, firing, .. } => {
                self.fire(*no, firing);
                self.held.insert(*no, firing.id.clone());
            }
            TriggerEvent::Sent {
                no,
                firing,
                message,
                stage,
                ..
            } => self.sent(*no, firing, *message, *stage, is_deleted),
            TriggerEvent::Done { no, stage } => self.settle(*no, *stage, true),
            TriggerEvent::Refused { no: Some(no), .. } => self.settle(*no, Stage::Signal, false),
            TriggerEvent::Refused { no: None, sequence, .. } => {
                self.decide(*sequence);
                self.counted += 1;
            }
            _ => {}
        }
    }

    fn sent(&mut self, no: u64, firing: &Firing, message: MessageNo, stage: Stage, is_deleted: bool) {
        if let Some(sent) = self.sent.get_mut(&no) {
            if stage == Stage::Signal {
                self.settled.push((sent.message, Stage::StartToSignal, true));
                assert!(
                    sent.signal.is_none_or(|known| known == message),
                    "a signal has one number"
                );
                sent.signal = Some(message);
            } else {
                assert_eq!(stage, Stage::StartToSignal, "a signal follows its start");
                assert!(sent.signal.is_some(), "a start is sent again before its signal");
            }
            sent.message = message;
            return;
        }
        if self.held.remove(&no).is_none() {
            self.fire(no, firing);
        }
        let first = |held: &&WorkflowId| **held == firing.id;
        let is_next = !self.held.range(..no).map(|(_, id)| id).any(|id| first(&id));
        assert!(is_next, "{no} overtakes another of {}", firing.id);
        let is_alone = self.sent.values().all(|sent| sent.id != firing.id);
        assert!(is_alone || is_deleted, "two of {} are on their way", firing.id);
        let last = self.last.insert(firing.id.clone(), no);
        assert!(
            last.is_none_or(|last| last < no),
            "events of {} out of order",
            firing.id
        );
        let (id, events) = (firing.id.clone(), firing.events);
        let signal = None;
        let sent = Sent {
            id,
            message,
            signal,
            events,
        };
        self.sent.insert(no, sent);
    }

    fn settle(&mut self, no: u64, stage: Stage, accepted: bool) {
        let sent = self.sent.remove(&no).expect("it was not on its way");
        self.counted += sent.events as usize;
        let message = sent.signal.filter(|_| stage == Stage::Signal).unwrap_or(sent.message);
        self.settled.push((message, stage, accepted));
    }

    /// What comes next of the stream, at most so many. `behind`: somebody else has read so far less, as a new owner may.
    pub fn read(&mut self, state: &State, stream: &[Item], most: usize, behind: u64) -> Option<Read> {
        let trigger = state.trigger()?;
        if self.feed.opening != trigger.opening {
            let at = match &trigger.from {
                From::Place(place) => place.sequence,
                From::Position(Position::Time(at)) => stream.iter().take_while(|item| item.at < *at).count() as u64,
                From::Position(_) => 0,
            };
            self.feed = Feed {
                opening: trigger.opening,
                at,
                skipped: 0,
            };
        }
        let from = self.feed.at.saturating_sub(behind);
        let items = stream
            .iter()
            .enumerate()
            .skip(usize::try_from(from).unwrap())
            .take(most);
        let items: Vec<_> = items.map(|(index, item)| given(index as u64 + 1, item)).collect();
        self.feed.at = self.feed.at.max(from + items.len() as u64);
        (!items.is_empty()).then(|| Read {
            opening: trigger.opening,
            items,
            skipped: self.feed.skipped,
        })
    }

    /// Of those that it was given, which have to count and which must not.
    pub fn was_read(&mut self, before: &State, stream: &[Item], read: &Read, changed: bool) {
        let Some(trigger) = before.trigger() else { return };
        let stands = before.is_closed() || before.parked_reason().is_some() || !trigger.is_active();
        let known = trigger.place().map_or(0, |place| place.sequence);
        let mut new = 0;
        for item in &read.items {
            let Given::Event(event) = item else { continue };
            let place = event.sequence;
            if place <= known || stands {
                continue;
            }
            new += 1;
            let item = &stream[usize::try_from(place - 1).unwrap()];
            let wanted = trigger.spec.filter.is_none() || item.data["wanted"] == json!(true);
            let counts = wanted || !item.readable;
            assert_eq!(
                self.decided.contains(&place),
                counts,
                "whether the event {place} counts: {:?}",
                item.data
            );
        }
        self.feed.skipped = if changed { 0 } else { self.feed.skipped + new };
    }

    /// Everything has been read.
    pub fn has_read(&self, stream: &[Item]) -> bool {
        self.feed.at >= stream.len() as u64
    }

    pub fn is_at_rest(&self) {
        assert!(
            self.sent.is_empty() && self.held.is_empty(),
            "{:?} {:?}",
            self.sent,
            self.held
        );
        assert!(self.gathered.is_empty(), "{:?}", self.gathered);
        assert_eq!(self.counted, self.decided.len(), "an event is lost");
    }
}

fn given(sequence: u64, item: &Item) -> Given {
    let place = Place {
        stream: Arc::from("s1"),
        sequence,
        at: item.at,
    };
    Given::Event(Box::new(SourceEvent {
        place: Some(place),
        sequence,
        subject: Arc::from("o.a"),
        headers: Vec::new(),
        at: item.at,
        data: match item.readable {
            true => Ok(item.data.clone()),
            false => Err("no json".into()),
        },
        bytes: 10,
    }))
}
