//! What is said to schedules and triggers, and what triggers read.

use std::collections::BTreeMap;

use serde_json::json;

use super::World;
use super::inputs::{TOO_MANY, input, resume};
use crate::definition::{from_schedule_json, from_trigger_json};
use crate::ids::{MessageNo, RunId};
use crate::run::input::{Input, Operation};
use crate::run::{Status, schedule, trigger};
use crate::schedule::{self as calendars, Overlap};
use crate::simulation::actor::{Actor, Calendar, Item, Stream, Teller, birth};
use crate::time::Timestamp;
use crate::trigger as triggers;
use crate::trigger::event::Stage;
use crate::trigger::spec::Conflict;

/// Schedules and triggers of one case.
const MOST: usize = 6;

impl World<'_> {
    pub(super) fn find_actor(&self, run: RunId) -> Option<usize> {
        self.actors.iter().position(|actor| actor.run_id() == run)
    }

    pub(super) fn tell(&mut self, at: usize, input: Input) -> bool {
        self.inputs += 1;
        let effects = self.actors[at].apply(input, self.now);
        let changed = effects.is_some();
        let sender = self.actors[at].sender();
        for effect in effects.into_iter().flatten() {
            self.send(&sender, effect);
        }
        self.starts_alone(at);
        changed
    }

    /// Where nothing else may be open, nothing is: a run that is said to have ended has.
    fn starts_alone(&self, at: usize) {
        let Teller::Schedule(calendar) = &self.actors[at].teller else {
            return;
        };
        if calendar.alone.is_empty() {
            return;
        }
        let ended = |run: &&RunId| !calendar.running.contains_key(run) && !calendar.refused.contains(run);
        for run in calendar.started.iter().filter(ended) {
            let mut last = self.find(*run);
            while let Some(index) = last
                && let Some(successor) = self.runs[index].state.successor()
            {
                last = self.find(successor.run_id);
            }
            let is_open = last.is_some_and(|index| !self.runs[index].state.is_closed());
            assert!(!is_open, "{run} is open, and its schedule starts another");
        }
    }

    fn operation(&mut self, how: u32) -> Operation {
        // Some come twice.
        self.asked += u32::from(!how.is_multiple_of(4));
        Operation {
            request_id: (how & 1 > 0).then(|| format!("ask-{}", self.asked).as_str().into()),
            by: Some("ann".into()),
            reason: None,
        }
    }

    fn workflow(&self, which: u32) -> &str {
        let count = self.plans.len();
        let played = (!which.is_multiple_of(16)).then(|| &self.plans[which as usize % count]);
        played.map_or("nobody", |played| played.plan.workflow.as_str())
    }

    fn calendar(&self, which: u32, how: u32) -> Box<calendars::Spec> {
        let mut document = json!({
            "workflow": self.workflow(which / 7),
            "every": { "every": (["5s", "7s", "20s", "60s"][which as usize % 4]), "phase": (["0s", "2s"][how as usize % 2]) },
            "overlap": Overlap::ALL[which as usize / 4 % 6].as_str(),
            "catch_up_window": (["10s", "30s", "2m"][how as usize / 2 % 3]),
            "pause_on_failure": which.is_multiple_of(5),
            "input": input(which % 0x1000),
        });
        if how.is_multiple_of(7) {
            document["actions"] = json!(1 + how % 4);
        }
        if how.is_multiple_of(5) {
            document["jitter"] = json!("3s");
        }
        if which.is_multiple_of(11) {
            document["paused"] = json!(true);
        }
        if which.is_multiple_of(23) {
            document["input"] = json!("${ schedule.nominal_time.nothing.there }");
        }
        Box::new(from_schedule_json(&document).unwrap())
    }

    /// By an operator, or by a definition.
    pub(super) fn ask_a_schedule(&mut self, which: u32, how: u32) {
        let id = schedule::workflow_id(["tick", "tock"][how as usize / 16 % 2]);
        let mut open = self.actors.iter();
        let Some(at) = open.position(|actor| *actor.state.workflow_id() == id && !actor.state.is_closed()) else {
            if self.actors.len() < MOST {
                let spec = self.calendar(which, how);
                let command = match how.is_multiple_of(3) {
                    true => calendars::Command::Define {
                        version: 1,
                        spec: Some(spec),
                    },
                    false => calendars::Command::Create(spec),
                };
                let number = u32::try_from(self.actors.len()).unwrap() + 1;
                let teller = Teller::Schedule(Box::<Calendar>::default());
                self.raise(schedule::plan(), birth(number, id, &command), teller);
            }
            return;
        };
        let overlap = Overlap::ALL.get(which as usize / 16 % 8).copied();
        let command = match which % 16 {
            0 | 1 => calendars::Command::Pause,
            2..=4 => calendars::Command::Resume,
            5 | 6 => calendars::Command::Update(self.calendar(which / 16, how)),
            7 | 8 => calendars::Command::Define {
                version: 1 + how % 3,
                spec: (!how.is_multiple_of(8)).then(|| self.calendar(which / 16, how)),
            },
            9..=11 => calendars::Command::Trigger { overlap },
            12 | 13 => {
                let until = Timestamp(self.now.0 - i64::from(how % 16) * 1_000_000);
                calendars::Command::Backfill {
                    from: Timestamp(until.0 - i64::from(which / 16 % 64) * 1_000_000),
                    until,
                    overlap,
                }
            }
            14 if how.is_multiple_of(8) => calendars::Command::Delete,
            14 => calendars::Command::Create(self.calendar(which / 16, how)),
            _ => return self.park_actor(at, which),
        };
        let operation = self.operation(how / 2);
        let command = Box::new(command);
        self.tell(at, Input::Schedule { command, operation });
    }

    fn raise(&mut self, plan: crate::definition::plan::Plan, start: crate::run::input::Start, teller: Teller) {
        self.inputs += 1;
        let (actor, effects) = Actor::start(plan, start, teller, self.now);
        let sender = actor.sender();
        self.actors.push(actor);
        for effect in effects {
            self.send(&sender, effect);
        }
    }

    /// An input that broke the shell, and an operator who has looked at it.
    fn park_actor(&mut self, at: usize, which: u32) {
        let input = match self.actors[at].state.parked_reason() {
            None if which.is_multiple_of(3) => Input::Park {
                reason: "broken".into(),
            },
            _ => resume(),
        };
        self.tell(at, input);
    }

    pub(super) fn ask_a_trigger(&mut self, which: u32, how: u32) {
        let (name, workflow) = (["t", "u"][how as usize / 16 % 2], self.plans[0].plan.workflow.as_str());
        let id = trigger::workflow_id(workflow, name);
        let mut document = json!({
            "trigger": name,
            "workflow": workflow,
            "stream": "S",
            "id": "${ event.data.id }",
            "from": (["all", "new"][which as usize % 2]),
        });
        if which & 2 > 0 {
            document["filter"] = json!("event.data.wanted");
        }
        match which / 4 % 4 {
            0 => document["signal"] = json!("go"),
            1 => {
                document["signal"] = json!("go");
                document["start"] = json!(true);
            }
            2 => document["id_conflict"] = json!("use_existing"),
            _ => document["id_reuse"] = json!((["reject_duplicate", "allow_duplicate_failed_only"][how as usize % 2])),
        }
        match which / 16 % 4 {
            0 => document["debounce"] = json!({ "quiet": "2s", "max_wait": "5s" }),
            1 => document["batch"] = json!({ "max": 3, "wait": "4s" }),
            _ => {}
        }
        let spec = Box::new(from_trigger_json(&document).unwrap());
        let mut open = self.actors.iter();
        let Some(at) = open.position(|actor| *actor.state.workflow_id() == id && !actor.state.is_closed()) else {
            if self.actors.len() < MOST {
                let number = u32::try_from(self.actors.len()).unwrap() + 1;
                let (version, spec) = (1, Some(spec));
                let start = birth(number, id, &triggers::Command::Define { version, spec });
                self.raise(trigger::plan(), start, Teller::Trigger(Box::<Stream>::default()));
            }
            return;
        };
        let command = match how % 8 {
            0 | 1 => triggers::Command::Define {
                version: 1 + which % 4,
                spec: Some(spec),
            },
            2 => triggers::Command::Pause,
            3..=5 => triggers::Command::Resume,
            6 if which.is_multiple_of(8) => triggers::Command::Define { version: 9, spec: None },
            _ => return self.park_actor(at, which),
        };
        let operation = self.operation(how / 2);
        let command = Box::new(command);
        self.tell(at, Input::Trigger { command, operation });
    }

    pub(super) fn store_and_read(&mut self, which: u32, how: u32) {
        if !how.is_multiple_of(3) {
            let mut data = input(which % 0x1000);
            data["id"] = json!(["t-0", "t-1", "t-2", "root-0"][which as usize % 4]);
            data["wanted"] = json!(!which.is_multiple_of(3));
            let readable = !which.is_multiple_of(17);
            let at = self.stream.last().map_or(self.now, |last| last.at.max(self.now));
            self.stream.push(Item { at, data, readable });
        }
        let most = 1 + how as usize / 4 % 6;
        // As a new owner, or one that is none any more.
        let behind = if how.is_multiple_of(8) { which % 4 } else { 0 };
        for at in 0..self.actors.len() {
            if (which as usize / 4 + at).is_multiple_of(2) {
                self.read(at, most, behind.into());
            }
        }
    }

    fn read(&mut self, at: usize, most: usize, behind: u64) -> bool {
        let actor = &mut self.actors[at];
        let before = actor.state.clone();
        let Teller::Trigger(stream) = &mut actor.teller else {
            return false;
        };
        if before.is_closed() || before.trigger().is_none_or(|trigger| !trigger.is_active()) {
            return false;
        }
        if before.parked_reason().is_some() {
            // What is read now counts for nothing, and is read again.
            stream.feed_again();
            return false;
        }
        let Some(read) = stream.read(&before, &self.stream, most, behind) else {
            return false;
        };
        let changed = self.tell(at, Input::Read(Box::new(read.clone())));
        if let Teller::Trigger(stream) = &mut self.actors[at].teller {
            stream.was_read(&before, &self.stream, &read, changed);
        }
        true
    }

    /// Time passes for one of them, or its owner is another.
    pub(super) fn befalls_an_actor(&mut self, what: u32, which: u32, how: u32) {
        if self.actors.is_empty() {
            return;
        }
        let at = which as usize % self.actors.len();
        match what {
            87 => {
                let effects = self.actors[at].restart(how.is_multiple_of(2));
                let sender = self.actors[at].sender();
                for effect in effects {
                    self.send(&sender, effect);
                }
            }
            _ => drop(self.wake_actor(at)),
        }
    }

    fn wake_actor(&mut self, at: usize) -> bool {
        let Some(due) = self.actors[at].state.wake_at() else {
            return false;
        };
        self.now = self.now.max(due);
        // Enough has been started; what is due from here on is not made up for.
        let is_crowded = self.runs.len() + self.log.len() >= TOO_MANY;
        if is_crowded
            && let Some(schedule) = self.actors[at].state.schedule()
            && schedule.paused.is_none()
        {
            self.pause(at);
        }
        self.tell(at, Input::Wake(Default::default()))
    }

    fn pause(&mut self, at: usize) {
        let (command, operation) = (Box::new(calendars::Command::Pause), Operation::default());
        self.tell(at, Input::Schedule { command, operation });
    }

    pub(super) fn wake_actors(&mut self) -> bool {
        let mut changed = false;
        for at in 0..self.actors.len() {
            changed |= self.wake_actor(at);
        }
        changed
    }

    /// What they wait for by themselves: nothing more is due, and everything is read.
    pub(super) fn calm_actors(&mut self) {
        for at in 0..self.actors.len() {
            let state = &self.actors[at].state;
            if state.is_closed() {
                continue;
            }
            let (parked, is_schedule) = (state.parked_reason().is_some(), state.schedule().is_some());
            if parked {
                self.tell(at, resume());
            }
            if is_schedule {
                self.pause(at);
            } else {
                let (command, operation) = (Box::new(triggers::Command::Resume), Operation::default());
                self.tell(at, Input::Trigger { command, operation });
            }
        }
    }

    pub(super) fn read_on(&mut self) {
        for at in 0..self.actors.len() {
            while self.read(at, 5, 0) {}
        }
    }

    /// At rest: they are told to go. Whether any was there.
    pub(super) fn dismiss_actors(&mut self) -> bool {
        let mut any = false;
        for at in 0..self.actors.len() {
            let actor = &self.actors[at];
            if actor.state.is_closed() {
                continue;
            }
            any = true;
            actor.is_at_rest();
            let operation = Operation::default();
            let input = match &actor.teller {
                Teller::Schedule(_) => Input::Schedule {
                    command: Box::new(calendars::Command::Delete),
                    operation,
                },
                Teller::Trigger(stream) => {
                    assert!(stream.has_read(&self.stream), "somebody has stopped reading");
                    let (version, spec) = (99, None);
                    Input::Trigger {
                        command: Box::new(triggers::Command::Define { version, spec }),
                        operation,
                    }
                }
            };
            assert!(self.tell(at, input), "it does not go");
        }
        any
    }

    pub(super) fn check_actors(&self) {
        for actor in &self.actors {
            assert!(actor.state.is_closed() && actor.state.status() == Status::Completed);
            assert_eq!(actor.state.unanswered().count(), 0, "it is owed an answer");
            let of = |times: &BTreeMap<(RunId, MessageNo), u32>, number| {
                times.get(&(actor.run_id(), number)).copied().unwrap_or_default()
            };
            let Teller::Trigger(stream) = &actor.teller else {
                continue;
            };
            actor.is_at_rest();
            let conflict = actor.state.trigger().map(|trigger| trigger.spec.act.conflict);
            for (number, stage, accepted) in &stream.settled {
                match stage {
                    Stage::Signal if *accepted => assert_eq!(of(&self.taken, *number), 1, "a signal was taken"),
                    Stage::Start if *accepted && conflict == Some(Conflict::Fail) => {
                        assert!(of(&self.opened, *number) <= 1, "an event has started two runs");
                    }
                    _ => {}
                }
            }
        }
    }
}
