//! Triggers of the partitions served here: each reads its source by a feed, one read at a time.
//!
//! What a feed has brought is an input of the trigger's run like any other; so the place up to which a stream has been read is
//! committed with what comes of it, and whoever lost the partition commits nothing. A feed says where it has read to, not what
//! was decided: after memory was dropped, all of them begin again from the places in the store.
//!
//! **Invariants:** of a trigger there is at most one read under way, or one that is not applied yet; nothing is read while it
//! has no room.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use knarr_core::expression::MAX_VALUE_BYTES;
use knarr_core::ids::RunId;
use knarr_core::run::input::Input;
use knarr_core::run::trigger::{MAX_BYTES_AT_ONCE, trigger_of};
use knarr_core::run::{Event, State, Transition};
use knarr_core::trigger::source::{Item, SourceEvent};
use knarr_core::trigger::spec::Flaw;
use knarr_core::trigger::state::From as ReadFrom;
use knarr_core::trigger::{Read, TriggerEvent};
use knarr_schemas::code;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::apply::Applied;
use super::job::{Job, JobKind, SourceRead};
use super::outgoing;
use super::refusal::Refusal;
use super::report::Done;
use super::run_loop::Loop;
use crate::bus::source::{Feed, SourceItem, SourceMessage};
use crate::bus::{Bus, Outgoing};
use crate::store::Store;
use crate::telemetry::metric;

/// Messages that are applied at a time, and their bytes.
const READ_MOST: usize = 128;
const READ_BYTES: usize = 512 << 10;
/// After triggers could not be looked up.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug, Default)]
pub(super) struct Triggers {
    of: BTreeMap<RunId, Source>,
    /// Something has changed about them.
    noted: BTreeMap<RunId, i16>,
    openings: u64,
    /// What is being applied, in case nothing can be made of it.
    pub(super) at_hand: Vec<SourceItem>,
    troubled: BTreeSet<RunId>,
}

/// A trigger that is active here.
#[derive(Debug)]
struct Source {
    partition: i16,
    /// As the trigger counts them.
    opening: u32,
    /// As they are counted here, so that what an earlier feed brings is recognised.
    number: u64,
    /// While nothing is read.
    feed: Option<Feed>,
    /// A read is under way, or its job waits.
    busy: bool,
    /// Events that matched nothing, of which nothing is recorded.
    skipped: u64,
    stop: CancellationToken,
    _ends: DropGuard,
}

/// Which feed has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reading {
    run_id: RunId,
    opening: u32,
    number: u64,
}

impl Triggers {
    /// Its state has changed, or it is new here.
    pub(super) fn note(&mut self, run_id: RunId, partition: i16) {
        self.noted.insert(run_id, partition);
    }

    pub(super) fn forget_partition(&mut self, partition: i16) {
        self.of.retain(|_, source| source.partition != partition);
        self.noted.retain(|_, of| *of != partition);
    }

    fn open(&mut self, run_id: RunId, partition: i16, opening: u32, feed: Feed) {
        self.openings += 1;
        let stop = CancellationToken::new();
        let source = Source {
            partition,
            opening,
            number: self.openings,
            feed: Some(feed),
            busy: false,
            skipped: 0,
            _ends: stop.clone().drop_guard(),
            stop,
        };
        self.of.insert(run_id, source);
    }

    fn tell_troubled(&mut self, run_id: RunId, troubled: bool) {
        match troubled {
            true => self.troubled.insert(run_id),
            false => self.troubled.remove(&run_id),
        };
        metrics::gauge!(metric::TRIGGERS_TROUBLED).set(self.troubled.len() as f64);
    }
}

impl<S: Store, B: Bus> Loop<S, B> {
    /// Nothing wakes a trigger but what it reads: whoever takes a partition over has to look.
    pub(super) fn ask_for_triggers(&self, partitions: Vec<i16>) {
        let (store, done) = (Arc::clone(&self.store), self.done.clone());
        let life = self.life;
        let asked = partitions.clone();
        let otherwise = Done::TriggersFound {
            life,
            partitions: partitions.clone(),
            runs: None,
        };
        self.beside(otherwise, async move {
            let runs = loop {
                match store.triggers(&asked).await {
                    Ok(runs) => break Some(runs),
                    Err(error) => tracing::warn!(%error, "triggers cannot be looked up yet"),
                }
                if done.is_closed() {
                    break None;
                }
                tokio::time::sleep(PAUSE).await;
            };
            Done::TriggersFound { life, partitions, runs }
        });
    }

    pub(super) fn triggers_found(&mut self, partitions: Vec<i16>, runs: Option<Vec<RunId>>) {
        match runs {
            None => self.ask_for_triggers(partitions),
            // It is loaded first.
            Some(runs) => {
                let jobs = runs
                    .into_iter()
                    .map(|run_id| Job::internal(JobKind::Read { run_id, read: None }));
                self.direct.extend(jobs);
            }
        }
    }

    /// Looks at the triggers of which something has changed: opens, closes and reads their feeds.
    pub(super) fn tend_triggers(&mut self) {
        while let Some((run_id, partition)) = self.triggers.noted.pop_first() {
            if !self.partitions.serves(partition) {
                self.triggers.of.remove(&run_id);
                continue;
            }
            match self.live.get(run_id) {
                Some(_) => self.tend_trigger(run_id, partition),
                // It had to leave the memory.
                None => self
                    .direct
                    .push_back(Job::internal(JobKind::Read { run_id, read: None })),
            }
        }
    }

    fn tend_trigger(&mut self, run_id: RunId, partition: i16) {
        let Some(live) = self.live.get(run_id) else { return };
        let state = &live.state;
        let stands = state.is_closed() || state.status().as_str() == "parked";
        let Some(trigger) = state.trigger().filter(|trigger| !stands && trigger.is_active()) else {
            self.triggers.of.remove(&run_id);
            self.triggers.tell_troubled(run_id, false);
            return;
        };
        let (opening, has_room, troubled) = (trigger.opening, trigger.has_room(), trigger.trouble.is_some());
        let (what, from): (_, ReadFrom) = (trigger.spec.source.clone(), trigger.from.clone());
        self.triggers.tell_troubled(run_id, troubled);
        let known = self
            .triggers
            .of
            .get(&run_id)
            .is_some_and(|source| source.opening == opening);
        if !known {
            let feed = self.bus.open_source(&what, &from);
            self.triggers.open(run_id, partition, opening, feed);
        }
        let Some(source) = self.triggers.of.get_mut(&run_id) else {
            return;
        };
        if source.busy || !has_room {
            return;
        }
        let Some(mut feed) = source.feed.take() else { return };
        source.busy = true;
        let reading = Reading {
            run_id,
            opening,
            number: source.number,
        };
        let (stop, life) = (source.stop.clone(), self.life);
        let ended = Done::SourceRead {
            life,
            reading,
            read: None,
        };
        self.beside(ended, async move {
            let items = stop.run_until_cancelled(feed.next(READ_MOST, READ_BYTES)).await;
            let read = items.map(|items| (feed, items));
            Done::SourceRead { life, reading, read }
        });
    }

    pub(super) fn source_read(&mut self, reading: Reading, read: Option<(Feed, Vec<SourceItem>)>) {
        let Reading {
            run_id,
            opening,
            number,
        } = reading;
        let Some(source) = self
            .triggers
            .of
            .get_mut(&run_id)
            .filter(|source| source.number == number)
        else {
            return;
        };
        let partition = source.partition;
        match read.filter(|(_, items)| !items.is_empty()) {
            Some((feed, items)) => {
                source.feed = Some(feed);
                let read = Some(Box::new(SourceRead { opening, items }));
                self.direct.push_back(Job::internal(JobKind::Read { run_id, read }));
            }
            // The feed has ended, which it does not do by itself: it is opened again.
            None => {
                self.triggers.of.remove(&run_id);
                self.triggers.note(run_id, partition);
            }
        }
    }

    /// For a run that is in memory.
    pub(super) fn read(&mut self, run_id: RunId, read: Option<Box<SourceRead>>) -> Applied {
        let Some(partition) = self.live.get(run_id).map(|live| live.row.partition) else {
            return Applied::Nothing;
        };
        self.triggers.note(run_id, partition);
        let Some(read) = read else { return Applied::Nothing };
        let Some(source) = self
            .triggers
            .of
            .get_mut(&run_id)
            .filter(|source| source.opening == read.opening)
        else {
            return Applied::Nothing;
        };
        let (skipped, opening) = (source.skipped, source.opening);
        let mut at_hand = read.items;
        // Whoever listens is never given them again, so there are no more than one transition decides.
        let at_once = self.live.get(run_id).and_then(|live| at_once(&live.state));
        let mut left = at_hand.split_off(at_once.unwrap_or(usize::MAX).min(at_hand.len()));
        let (mut items, mut events) = (Vec::with_capacity(at_hand.len()), 0);
        for item in &at_hand {
            items.push(match item {
                SourceItem::Message(message) => {
                    events += 1;
                    Item::Event(Box::new(self.source_event(message)))
                }
                SourceItem::Reached(place) => Item::Reached(place.clone()),
                SourceItem::Gap(gap) => Item::Gap(gap.clone()),
                SourceItem::Trouble(problem) => {
                    tracing::warn!(trigger = %run_id, problem, "a trigger cannot read its stream");
                    Item::Trouble(Arc::from(problem.as_str()))
                }
            });
        }
        self.triggers.at_hand = at_hand;
        let read = Read {
            opening,
            items,
            skipped,
        };
        let applied = self.apply(run_id, Input::Read(Box::new(read)));
        let mut read = std::mem::take(&mut self.triggers.at_hand);
        if let Some(live) = self.live.get(run_id).filter(|_| matches!(applied, Applied::Changed)) {
            let undecided = read.split_off(decided(&live.state, &read));
            left.splice(..0, undecided);
        }
        for item in &read {
            if let SourceItem::Gap(gap) = item {
                metrics::counter!(metric::TRIGGER_GAPS, "why" => gap.why.as_str()).increment(1);
                tracing::warn!(trigger = %run_id, why = gap.why.as_str(), after = gap.after.sequence, resumes = gap.resumes.sequence, "a trigger's stream lacks messages");
            }
        }
        let goes_on = !left.is_empty() && matches!(applied, Applied::Changed | Applied::Nothing);
        if let Some(source) = self.triggers.of.get_mut(&run_id) {
            source.skipped = match applied {
                Applied::Nothing => skipped + events,
                _ => 0,
            };
            source.busy = goes_on;
        }
        if goes_on {
            let read = Some(Box::new(SourceRead { opening, items: left }));
            self.direct.push_front(Job::internal(JobKind::Read { run_id, read }));
        }
        applied
    }

    fn source_event(&self, message: &SourceMessage) -> SourceEvent {
        let unreadable = |why: &str| Err(Arc::from(why));
        let data = match &message.flaw {
            Some(flaw) => unreadable(flaw),
            None => match self.reader.json(&message.payload) {
                Ok(data) => Ok(Arc::unwrap_or_clone(data)),
                Err(refusal) => unreadable(&refusal.message),
            },
        };
        SourceEvent {
            place: message.place.clone(),
            sequence: message.sequence,
            subject: Arc::from(&*message.subject),
            headers: message.headers.clone(),
            at: message.at,
            data,
            bytes: u32::try_from(message.payload.len()).unwrap_or(u32::MAX),
        }
    }
}

/// How many events of a subject that no stream keeps one transition is given, where what is made of each may be large.
fn at_once(state: &State) -> Option<usize> {
    let spec = &state.trigger()?.spec;
    let is_made = spec.source.stream.is_none() && spec.input.is_some();
    is_made.then(|| usize::try_from(MAX_BYTES_AT_ONCE).unwrap_or(usize::MAX) / MAX_VALUE_BYTES)
}

/// How many of the items that a trigger was given it has decided: where much came of the first, it has stopped before one.
fn decided(state: &State, items: &[SourceItem]) -> usize {
    let Some(place) = state.trigger().and_then(|trigger| trigger.place()) else {
        return items.len();
    };
    let is_beyond = |item: &SourceItem| match item {
        SourceItem::Message(message) => {
            let of = message.place.as_ref();
            of.is_some_and(|of| of.stream == place.stream && of.sequence > place.sequence)
        }
        _ => false,
    };
    items.iter().position(is_beyond).unwrap_or(items.len())
}

/// The dead letters of what could not be done, stored with the commit that says so.
pub(super) fn letters(state: &State, transition: &Transition, at_hand: &[SourceItem]) -> Vec<Outgoing> {
    let mut letters = Vec::new();
    for event in &transition.events {
        let Event::Trigger(event) = event else { continue };
        let TriggerEvent::Refused {
            id,
            sequence,
            flaw,
            message,
            input,
            ..
        } = &**event
        else {
            continue;
        };
        let Some(trigger) = state.trigger() else { continue };
        let code = match flaw {
            Flaw::Unreadable => &code::TRIGGER_EVENT,
            Flaw::Expression => &code::TRIGGER_EXPRESSION,
            Flaw::Refused => &code::EVENT_REFUSED,
        };
        let refusal = Refusal::new(code, &**message);
        let original = at_hand.iter().find_map(|item| match item {
            SourceItem::Message(message) => (message.sequence == *sequence).then_some(message),
            _ => None,
        });
        let of = outgoing::OfTrigger {
            namespace: state.namespace().as_str(),
            run: state.run_id(),
            transition: transition.seq,
            names: trigger_of(state.workflow_id()).unwrap_or_default(),
            stream: trigger.spec.source.stream.as_deref(),
            subject: &trigger.spec.source.subject,
            sequence: *sequence,
            workflow_id: id.as_ref(),
        };
        metrics::counter!(metric::DEAD_LETTERS, "reason" => code.title).increment(1);
        letters.push(outgoing::dead_letter_of_event(
            &of,
            input.as_deref(),
            original,
            &refusal,
        ));
    }
    letters
}

pub(super) fn count(event: &TriggerEvent) {
    let counted = |outcome: &'static str, number: u64| {
        if number > 0 {
            metrics::counter!(metric::TRIGGER_EVENTS, "outcome" => outcome).increment(number);
        }
    };
    match event {
        TriggerEvent::Passed { taken, skipped, .. } => {
            counted("taken", u64::from(*taken));
            counted("skipped", *skipped);
        }
        TriggerEvent::Done { .. } => counted("done", 1),
        TriggerEvent::Refused { .. } => counted("refused", 1),
        _ => {}
    }
}
