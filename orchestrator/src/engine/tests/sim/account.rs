//! What became of every occurrence, event and start that a seed has had, by what is committed.

use std::collections::{BTreeMap, BTreeSet};

use knarr_core::ids::{MessageNo, RunId, WorkflowId};
use knarr_core::run::message::Answer;
use knarr_core::run::trigger::trigger_of;
use knarr_core::run::{Event, Transition};
use knarr_core::simulation::actor::calendar::Calendar;
use knarr_core::simulation::actor::stream::Stream;
use knarr_core::trigger::event::Stage;
use knarr_schemas::header as names;

use super::super::world::World;
use super::beside::Beside;
use crate::bus::header;
use crate::store::Store as _;

/// What runs say of those who have spoken to them.
#[derive(Default)]
struct Heard {
    /// Signals that were taken, by sender, in the order of taking.
    signals: BTreeMap<RunId, Vec<MessageNo>>,
    /// Runs that were started by a message.
    started: BTreeSet<(RunId, MessageNo)>,
    runs: BTreeMap<RunId, WorkflowId>,
}

/// How many occurrences were started, events counted, and starts made of ids that others had.
pub(super) async fn check(world: &World, beside: &Beside, actors: &[RunId]) -> (u64, u64, u64) {
    let heard = heard(world).await;
    let (mut started, mut counted) = (0, 0);
    for run in actors {
        let history = world.store.history(*run, 0, 100_000).await.unwrap();
        // What lies behind the snapshots of a long one is gone.
        if history.first().is_none_or(|first| first.seq != 1) {
            continue;
        }
        let (mut calendar, mut stream) = (Calendar::default(), Stream::default());
        for stored in history {
            let transition = Transition::read(u32::try_from(stored.seq).unwrap(), stored.at, stored.body).unwrap();
            calendar.take(&transition);
            stream.take(&transition);
        }
        let state = world.state(*run).await;
        assert!(state.wake_at().is_none(), "{run} is owed an answer");
        if state.schedule().is_some() {
            occurrences(&calendar, &heard);
            started += calendar.started.len() as u64;
        } else if let Some((_, name)) = trigger_of(state.workflow_id()) {
            events(world, beside, (*run, name), &stream, &heard);
            counted += stream.decided.len() as u64;
        }
    }
    starts(world, beside);
    (started, counted, beside.again.len() as u64)
}

async fn heard(world: &World) -> Heard {
    let mut heard = Heard::default();
    for row in world.rows().into_iter().rev() {
        heard.runs.insert(row.run_id, row.workflow_id.clone());
        for event in world.events(row.run_id).await {
            match event {
                Event::RunStarted(birth) => {
                    if let Some(parent) = birth.parent.as_ref().filter(|_| birth.continues.is_none()) {
                        heard.started.insert((parent.run, parent.message));
                    }
                }
                Event::MessageTaken(taken) if taken.answer == Answer::Accepted => {
                    heard.signals.entry(taken.from.run).or_default().push(taken.number);
                }
                _ => {}
            }
        }
    }
    heard
}

/// Each has one run, unless it was refused, and no two have the same.
fn occurrences(calendar: &Calendar, heard: &Heard) {
    let mut ids = BTreeSet::new();
    for run in &calendar.started {
        match heard.runs.get(run) {
            Some(id) => assert!(ids.insert(id), "{id} was started twice"),
            None => assert!(
                calendar.refused.contains(run) || calendar.others.contains(run) || calendar.running.contains_key(run),
                "{run} is said to have been started, and is not there"
            ),
        }
    }
}

fn events(world: &World, beside: &Beside, (run, name): (RunId, &str), stream: &Stream, heard: &Heard) {
    stream.is_at_rest();
    let numbered = (1..).zip(&beside.stored);
    let wanted: BTreeSet<u64> = numbered
        .filter(|(_, stored)| beside.counts(name, stored))
        .map(|(sequence, _)| sequence)
        .collect();
    assert_eq!(stream.decided, wanted, "events of {name} that count");
    let taken = heard.signals.get(&run).map(Vec::as_slice).unwrap_or_default();
    let times = |number: &MessageNo| taken.iter().filter(|one| *one == number).count();
    let mut refused = 0;
    for (number, stage, accepted) in &stream.settled {
        match stage {
            Stage::Signal if *accepted => assert_eq!(times(number), 1, "{number:?} of {name} was taken"),
            Stage::Start if *accepted => {}
            _ => refused += usize::from(!accepted),
        }
    }
    let letters = world.bus.dead_letters();
    let of = format!("first/{name}");
    let told = letters
        .iter()
        .filter(|letter| header(&letter.headers, names::TRIGGER) == Some(&of));
    assert!(
        told.count() >= refused,
        "a refused event of {name} is not among the dead letters"
    );
}

/// Each was taken once, or refused; those that are queued are all taken.
fn starts(world: &World, beside: &Beside) {
    let rows = world.rows();
    for (request, again) in &beside.again {
        let of = rows
            .iter()
            .filter(|row| row.request_id.as_ref().is_some_and(|id| id.as_str() == request));
        let count = of.count();
        assert!(count <= 1, "{request} was taken {count} times");
        let is_sure = again.conflict == "queue" && again.reuse == "allow_duplicate";
        assert!(!is_sure || count == 1, "{request} is lost");
    }
}
