//! What must hold of what is committed, told by the histories alone.

use std::collections::BTreeMap;

use knarr_core::definition;
use knarr_core::definition::plan::{NodeKind, Plan, Undo};
use knarr_core::ids::{DefinitionHash, RunId, WorkflowId};
use knarr_core::limit::{LimitKind, LimitName};
use knarr_core::run::event::Resolution;
use knarr_core::run::{Event, Transition, UndoState};
use knarr_core::simulation::told::Told;

use super::super::world::World;
use crate::store::{RunRow, Store as _};

#[derive(Debug)]
pub(super) struct Witness {
    plans: BTreeMap<DefinitionHash, Plan>,
    /// The most that any definition allows of tasks, by activity.
    tasks: BTreeMap<String, usize>,
    /// The most that any version of a workflow allows of runs, where each says something: the one that starts take counts, and
    /// one that says nothing allows any number.
    runs: BTreeMap<String, usize>,
}

impl Witness {
    pub(super) fn new(texts: &[String]) -> Self {
        let plans = texts.iter().map(|text| {
            let checked = definition::read(text, &|_| Err("no files".to_owned())).unwrap();
            (checked.hash, checked.plan)
        });
        let plans: BTreeMap<_, _> = plans.collect();
        let (mut tasks, mut runs) = (BTreeMap::new(), BTreeMap::new());
        let allow = |of: &mut BTreeMap<String, usize>, name: &str, limit: u32| {
            let most = of.entry(name.to_owned()).or_insert(0);
            *most = (*most).max(limit as usize);
        };
        for plan in plans.values() {
            if let Some(concurrency) = &plan.concurrency {
                allow(&mut runs, plan.workflow.as_str(), concurrency.limit);
            }
            for node in &plan.nodes {
                if let NodeKind::Activity(activity) = &node.kind
                    && let Some(concurrency) = activity.limiting.as_ref().and_then(|it| it.concurrency.as_ref())
                {
                    allow(&mut tasks, activity.call.activity.as_str(), concurrency.to);
                }
            }
        }
        for plan in plans.values().filter(|plan| plan.concurrency.is_none()) {
            runs.remove(plan.workflow.as_str());
        }
        Self { plans, tasks, runs }
    }

    /// What holds of the store at any moment: no more is out, and no more runs are open, than may be, and a
    /// workflow id has one run.
    pub(super) fn moment(&self, world: &World) {
        let mut out: BTreeMap<LimitName, Vec<RunId>> = BTreeMap::new();
        let mut open: BTreeMap<WorkflowId, RunId> = BTreeMap::new();
        for row in world.rows().into_iter().filter(|row| row.closed_at.is_none()) {
            if row.has_id()
                && let Some(other) = open.insert(row.workflow_id.clone(), row.run_id)
            {
                panic!("{other} and {} are open under one workflow id", row.run_id);
            }
            world.look(row.run_id, |state| {
                for view in state.open_tasks().filter(|view| !state.has_heard_of(view.open.task)) {
                    let limits = view.execution.limits.iter().flat_map(|limits| &limits.of);
                    for limit in limits.filter(|limit| limit.name.kind == LimitKind::Activity) {
                        out.entry(limit.name.clone()).or_default().push(row.run_id);
                    }
                }
                if let Some(place) = state.place().filter(|_| state.admission().is_none()) {
                    out.entry(place.limit.clone()).or_default().push(row.run_id);
                }
            });
        }
        for (name, runs) in out {
            let most = match name.kind {
                LimitKind::Workflow => self.runs.get(&*name.of).copied().unwrap_or(usize::MAX),
                _ => self.tasks.get(&*name.of).copied().unwrap_or_default(),
            };
            assert!(
                runs.len() <= most,
                "{} are out by {name}, and {most} may be: {runs:?}; its rows {:#?}",
                runs.len(),
                world.store.dump(|_| 0).permits
            );
        }
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
                // In line for its workflow id, it waits for another run.
                let waits =
                    state.wake_at().is_some() || state.admission().is_some() || state.status().as_str() == "parked";
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
