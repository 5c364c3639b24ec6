//! What must hold of what is committed, told by the histories alone.

use std::collections::BTreeMap;

use knarr_core::definition;
use knarr_core::definition::plan::{NodeKind, Plan, Undo};
use knarr_core::ids::DefinitionHash;
use knarr_core::run::event::Resolution;
use knarr_core::run::{Event, Transition, UndoState};
use knarr_core::simulation::told::Told;

use super::super::world::World;
use crate::store::{RunRow, Store as _};

#[derive(Debug)]
pub(super) struct Witness {
    plans: BTreeMap<DefinitionHash, Plan>,
}

impl Witness {
    pub(super) fn new(texts: &[String]) -> Self {
        let plans = texts.iter().map(|text| {
            let checked = definition::read(text, &|_| Err("no files".to_owned())).unwrap();
            (checked.hash, checked.plan)
        });
        Self { plans: plans.collect() }
    }

    /// Every event of every run may have happened, after those before it. Returns the transitions of all runs.
    pub(super) async fn check(&self, world: &World) -> u64 {
        let mut transitions = 0;
        for row in world.rows() {
            let mut told = None;
            let history = world.store.history(row.run_id, 0, 100_000).await.unwrap();
            for stored in history {
                transitions += 1;
                let seq = u32::try_from(stored.seq).unwrap();
                let transition = Transition::read(seq, stored.at, stored.body).unwrap();
                if let Some(Event::RunStarted(birth)) = transition.events.first() {
                    told = Some(Told::new(&self.plans[&birth.definition]));
                }
                let told = told.as_mut().expect("a history begins with a start");
                told.take(&transition);
                for event in &transition.events {
                    if let Event::RunMigrated { definition, .. } = event {
                        told.goes_by(&self.plans[definition]);
                    }
                }
            }
            let (told, plan) = (told.expect("a run has a history"), &self.plans[&row.definition]);
            let state = world.state(row.run_id).await;
            if state.is_closed() {
                told.end(state.status());
                self.effects(world, &row, plan).await;
            } else {
                let waits = state.wake_at().is_some() || state.status().as_str() == "parked";
                assert!(
                    waits || state.waiting().next().is_some() || is_undoing_a_child(&state),
                    "{} waits for nothing: {state:?}",
                    row.run_id
                );
            }
        }
        transitions
    }

    /// What was done in the world is undone there, in a run that says so.
    async fn effects(&self, world: &World, row: &RunRow, plan: &Plan) {
        if !matches!(
            row.status.as_str(),
            "failed" | "compensated" | "cancelled" | "timed_out"
        ) {
            return;
        }
        let events = world.events(row.run_id).await;
        // A child of a closed run, or an attempt that came too late for it, is told as such.
        let late = events
            .iter()
            .any(|event| matches!(event, Event::LateResult(late) if late.after_close));
        // An operator has said that it is undone.
        let by_hand = |step: &str| {
            let mut events = events.iter();
            events.any(|event| {
                matches!(event, Event::UndoResolved { step: of, how: Resolution::Done, operation }
                    if of.as_str() == step && operation.by.is_some())
            })
        };
        for (step, seen) in world.effects_of(row.run_id) {
            let name = step.rsplit('.').next().unwrap_or_default();
            let node = plan.nodes.iter().find(|node| *node.name == *name);
            let compensated = node.is_some_and(|node| match &node.kind {
                NodeKind::Activity(activity) => matches!(activity.undo, Undo::Compensate(_)),
                _ => false,
            });
            assert!(
                late || by_hand(&step) || !compensated || !seen.contains("do") || seen.contains("undo"),
                "{step} of {} ({}) was done and is not undone",
                row.workflow_id,
                row.status
            );
        }
    }
}

fn is_undoing_a_child(state: &knarr_core::run::State) -> bool {
    let mut entries = state.ledger().iter();
    entries.any(|entry| entry.child.is_some() && entry.state == UndoState::Running)
}
