//! A family of definitions, and what happens to its runs; as numbers and texts, so that it can be kept and repeated.

use serde::{Deserialize, Serialize};

use super::draft::Draft;
use super::draw;
use super::watched::Played;
use super::words::Words;
use super::world::World;
use crate::definition;
use crate::run::Status;

/// How often the runs of one family are played for a seed: reading definitions costs more than running them.
pub const FATES: u64 = 24;

/// What, to whom, which of them, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Op(pub [u32; 4]);

/// What takes part beside the runs of a family; each can be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Parts(pub u32);

impl Parts {
    pub const ALL: [&str; 4] = ["schedules", "triggers", "starts", "queues"];

    pub fn schedules(self) -> bool {
        self.0 & 1 > 0
    }

    pub fn triggers(self) -> bool {
        self.0 & 2 > 0
    }

    /// Of workflow ids that others have.
    pub fn starts(self) -> bool {
        self.0 & 4 > 0
    }

    /// What operators allow queues.
    pub fn queues(self) -> bool {
        self.0 & 8 > 0
    }

    pub fn without(self, part: usize) -> Self {
        Self(self.0 & !(1 << part))
    }
}

/// What happens to the runs of a family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fate {
    pub temper: u32,
    pub input: u32,
    #[serde(default)]
    pub parts: Parts,
    pub ops: Vec<Op>,
}

/// Definitions, ready to be run any number of times.
#[derive(Debug)]
pub struct Family {
    pub drafts: Vec<Draft>,
    pub texts: Vec<String>,
    plans: Vec<Played>,
}

/// One that failed, to be kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// The first is started; children are of the others.
    pub definitions: Vec<String>,
    pub fate: Fate,
}

/// What has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    pub inputs: u64,
    pub transitions: u64,
    /// How each run, schedule and trigger ended, and its transitions as they are stored.
    pub runs: Vec<(Status, Vec<String>)>,
}

impl Family {
    /// As a seed has it.
    pub fn of_seed(seed: u64) -> Self {
        Self::of_drafts(draw::family(&mut Words::of_seed(seed)))
    }

    /// Without the steps that a person would have been told to remove.
    pub fn of_drafts(drafts: Vec<Draft>) -> Self {
        let checked = drafts.into_iter().filter_map(Draft::checked);
        let (drafts, plans): (Vec<_>, Vec<_>) = checked.map(|(draft, checked)| (draft, checked.plan)).unzip();
        Self {
            texts: drafts.iter().map(Draft::text).collect(),
            drafts,
            plans: plans.into_iter().map(Played::new).collect(),
        }
    }

    /// # Panics
    /// Where an invariant does not hold.
    pub fn run(&self, fate: &Fate) -> Ended {
        run(&self.plans, fate)
    }

    pub fn case(&self, fate: &Fate) -> Case {
        Case {
            definitions: self.texts.clone(),
            fate: fate.clone(),
        }
    }
}

impl Fate {
    /// As a seed has it, of its [`FATES`].
    pub fn of_seed(seed: u64, number: u64) -> Self {
        Self::draw(&mut Words::of_seed(
            seed.wrapping_mul(FATES).wrapping_add(number) ^ 0xFA7E_0000_0000_0000,
        ))
    }

    /// From bytes, as many things happen as there are bytes for.
    pub fn draw(words: &mut Words) -> Self {
        let temper = words.below(256);
        let input = words.below(0x1000);
        let parts = Parts(if words.one_in(2) { words.below(16) } else { 0 });
        let mut left = 10 + words.below(246);
        let mut ops = Vec::with_capacity(left as usize);
        while left > 0 && !words.is_over() {
            left -= 1;
            ops.push(Op([
                words.below(if parts.0 == 0 { 64 } else { 96 }),
                words.below(256),
                words.below(0x1_0000),
                words.below(0x1_0000),
            ]));
        }
        Self {
            temper,
            input,
            parts,
            ops,
        }
    }
}

impl Case {
    /// # Panics
    /// Where an invariant does not hold, or a definition is not one.
    pub fn run(&self) -> Ended {
        let read = |text: &String| definition::read(text, &|_| Err("there are no files".to_owned()));
        let plans = self.definitions.iter().map(|text| match read(text) {
            Ok(checked) => checked.plan,
            Err(found) => panic!("{}", definition::diagnostic::render("the case", text, &found)),
        });
        run(&plans.map(Played::new).collect::<Vec<_>>(), &self.fate)
    }
}

fn run(plans: &[Played], fate: &Fate) -> Ended {
    let mut world = World::new(plans, fate.temper, fate.parts);
    if !plans.is_empty() {
        world.begin(fate.input);
    }
    for op in &fate.ops {
        if world.runs.is_empty() {
            break;
        }
        world.step(*op);
    }
    world.finish();
    let (inputs, transitions) = (world.inputs, world.transitions());
    let actors = world.actors.into_iter().map(super::actor::Actor::into_history);
    let runs = world.runs.into_iter().map(super::watched::Watched::into_history);
    Ended {
        inputs,
        transitions,
        runs: runs.chain(actors).collect(),
    }
}
