//! Undoing: which steps, with which input, in which order, and what the run ends as.
//!
//! A step is undone if it was completed or unknown (`compensate_on_failure` adds those that failed). The undo's input is
//! evaluated when that is known and stored in the ledger; one that reads the `error` is evaluated when there is one, before
//! the first undo is dispatched.
//!
//! | what is undone | when |
//! |---|---|
//! | the whole ledger | the run stops, and nothing is under way forwards any more |
//! | what a scope did | the scope has failed |
//! | what the losers of a `parallel` did | the `parallel` has succeeded |
//!
//! The entries of the last two are *discarded*: they are undone whenever there is something to undo about them, also when a
//! success comes late and the run goes on.
//!
//! **Order:** an entry waits until every entry that was dispatched after it and may depend on it is done or parked. Those of
//! different branches of a `parallel`, and of different iterations of a `for_each` that is not limited to one at a time, do
//! not depend on each other; everything else does, also what handlers did at any time. `order: sequential` lets everything depend on everything. A parked
//! undo holds up nothing (`on_exhausted: continue`): every other entry counts as independent of it and goes on in order,
//! since leaving more undone helps nobody; what really depends on it fails, is retried and is parked as well. With
//! `on_exhausted: halt`, of its step or else of the definition, it holds up everything.
//!
//! **The end:** a run with a parked undo stays open. Else it is `compensation_failed` if an operator skipped an undo,
//! whatever the run was stopped for; `cancelled` or `timed_out`; `compensated` if something was
//! undone or a parent asked for it; `failed` if there was nothing to undo.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::decider::Decider;
use super::effect::Direction;
use super::event::Event;
use super::failure::Failure;
use super::ledger::{LedgerEntry, UndoState};
use super::limits::MAX_PENDING;
use super::open::Open;
use super::path::{is_within, name_of};
use super::state::{Phase, State, Why};
use super::status::Status;
use super::{parallel, permit, savepoint, tree, workflow};
use crate::definition::plan::{Call, NodeKind, OnExhausted, Plan, Undo, UndoOrder};
use crate::expression::Template;
use crate::ids::StepPath;

/// Stores that a step will be undone if the run fails. `own_output` is the step's, where only a late result knows it.
pub(super) fn prepare(d: &mut Decider<'_>, step: &StepPath, call: &Call, own_output: Option<&Arc<Value>>) {
    if reads_error(call.input.as_ref()) && d.state.is_running() {
        d.emit(Event::UndoNeeded { step: step.clone() });
        return;
    }
    match evaluate(d, step, call, own_output) {
        Ok(input) => d.emit(Event::UndoReady {
            step: step.clone(),
            input,
        }),
        Err(error) => park(d, step.clone(), error),
    }
}

pub(super) fn evaluate(
    d: &Decider<'_>,
    step: &StepPath,
    call: &Call,
    own_output: Option<&Arc<Value>>,
) -> Result<Arc<Value>, Failure> {
    let not_needed = Failure::not_needed();
    d.scope(step)
        .with_own_output(own_output)
        .with_undone_for(&not_needed)
        .evaluate(call.input.as_ref())
        .map_err(|error| error.at(step))
}

pub(super) fn reads_error(template: Option<&Template>) -> bool {
    template.is_some_and(|template| {
        template
            .references()
            .iter()
            .any(|reference| &*reference.path.root == "error")
    })
}

pub(super) fn park(d: &mut Decider<'_>, step: StepPath, error: Failure) {
    d.emit(Event::UndoParked { step, error });
}

/// Whether this is undone now.
fn is_due(state: &State, entry: &LedgerEntry) -> bool {
    entry.discarded || state.is_stopping()
}

fn is_settled(entry: &LedgerEntry) -> bool {
    matches!(entry.state, UndoState::Dormant | UndoState::Done | UndoState::Skipped)
}

/// Whether something is being undone, or waits for an operator, in a run that goes on.
pub(super) fn is_undoing(state: &State) -> bool {
    state.ledger.iter().any(|entry| entry.discarded && !is_settled(entry))
}

/// Whether the ledger has something about these bodies, be it only what a late result may wake.
pub(super) fn is_anything_in(state: &State, bodies: &[StepPath]) -> bool {
    let within = |entry: &LedgerEntry| bodies.iter().any(|body| is_within(entry.step.as_str(), body.as_str()));
    !bodies.is_empty() && state.ledger.iter().any(within)
}

/// Goes on with undoing: dispatches what is next, and tells those who wait for its end.
pub(super) fn advance(d: &mut Decider<'_>) {
    if d.state.is_closed() || d.state.parked.is_some() {
        return;
    }
    if d.state.is_stopping() {
        if !d.state.is_quiet() {
            // Scopes and losers may be undone meanwhile.
            return advance_discarded(d);
        }
        undo_next(d, |_| true);
        if d.state.parked.is_none() && d.state.ledger.iter().all(is_settled) {
            close(d);
        }
        return;
    }
    advance_discarded(d);
}

fn advance_discarded(d: &mut Decider<'_>) {
    if is_undoing(d.state) {
        undo_next(d, |entry| entry.discarded);
    }
    if d.state.open.is_empty() || d.state.parked.is_some() {
        return;
    }
    let waiting = d.state.open.iter().filter_map(|(path, open)| match open {
        Open::Scope { undone: false, .. } => Some((path, true)),
        Open::Parallel(parallel) if parallel.undoing => Some((path, false)),
        _ => None,
    });
    let settled = |path: &StepPath| {
        let within = |entry: &&LedgerEntry| is_within(entry.step.as_str(), path.as_str());
        let mut entries = d.state.ledger.iter().filter(within);
        entries.all(|entry| !entry.discarded || is_settled(entry))
    };
    let finished: Vec<_> = waiting
        .filter(|(path, _)| settled(path))
        .map(|(path, is_scope)| (path.clone(), is_scope))
        .collect();
    for (path, is_scope) in finished {
        if is_scope {
            savepoint::undone(d, path);
        } else {
            parallel::undone(d, path);
        }
    }
}

/// Evaluates the inputs that could not be before, then dispatches every undo that nothing has to come before.
fn undo_next(d: &mut Decider<'_>, due: fn(&LedgerEntry) -> bool) {
    let needed = |d: &Decider<'_>| {
        let mut ledger = d.state.ledger.iter();
        let entry = ledger.find(|entry| due(entry) && entry.state == UndoState::Needed);
        entry.map(|entry| entry.step.clone())
    };
    while let Some(step) = needed(d) {
        let Some(call) = d.call(&step, Direction::Undo) else {
            return;
        };
        match evaluate(d, &step, call, None) {
            Ok(input) => d.emit(Event::UndoReady { step, input }),
            Err(error) => park(d, step, error),
        }
    }
    let region = concerned(d, due);
    for step in next(d.plan, d.state, due, region.as_str()) {
        if d.state.parked.is_none() {
            dispatch(d, step);
        }
    }
}

/// Where an undo may have become possible, so that a long list is not looked through for each of its items: when all that
/// has happened is that one undo is done, in what ran side by side with other things and has more to undo, only there.
fn concerned(d: &Decider<'_>, due: fn(&LedgerEntry) -> bool) -> StepPath {
    let everywhere = StepPath::new("");
    let [Event::TaskCompleted { task, .. }] = d.events_so_far() else {
        return everywhere;
    };
    // At the limit anything may have waited for room; and what handlers did may come before anything.
    if d.state.undoing.len() + 1 >= MAX_PENDING || !d.plan.handlers.is_empty() {
        return everywhere;
    }
    let mut way = vec![];
    if let Some(task) = d.state.task(*task) {
        find_way(d.plan, &task.step, &mut way);
    }
    let Some(fork) = way.iter().find(|fork| fork.side_by_side) else {
        return everywhere;
    };
    let region = fork.child;
    // What became due late may have been dispatched after all that ran side by side there, and comes before it.
    let behind = d.state.ledger.iter().rev();
    let mut behind = behind.take_while(|entry| !is_within(entry.step.as_str(), fork.place));
    if behind.any(|entry| due(entry) && entry.state == UndoState::Ready) {
        return everywhere;
    }
    let is_left = |entry: &LedgerEntry| {
        let open = matches!(entry.state, UndoState::Ready | UndoState::Running);
        open && due(entry) && is_within(entry.step.as_str(), region)
    };
    if d.state.ledger.iter().any(is_left) {
        StepPath::new(region)
    } else {
        everywhere
    }
}

/// Undos in a region that can be dispatched now, the last step first.
fn next(plan: &Plan, state: &State, due: fn(&LedgerEntry) -> bool, region: &str) -> Vec<StepPath> {
    let parked = |entry: &LedgerEntry| due(entry) && matches!(entry.state, UndoState::Parked { .. });
    let halts = |entry: &LedgerEntry| parked(entry) && on_exhausted(plan, entry) == OnExhausted::Halt;
    if state.ledger.iter().any(halts) {
        return vec![];
    }
    let mut claims = Claims::default();
    let mut way = vec![];
    let mut room = MAX_PENDING;
    // One that became due late waits for what is being undone already, though it was dispatched earlier.
    for entry in state.ledger.iter().filter(|entry| entry.state == UndoState::Running) {
        room = room.saturating_sub(1);
        if is_within(entry.step.as_str(), region) {
            find_way(plan, &entry.step, &mut way);
            claims.claim(&way);
        }
    }
    let mut next = vec![];
    let ready =
        |entry: &&LedgerEntry| due(entry) && entry.state == UndoState::Ready && is_within(entry.step.as_str(), region);
    for entry in state.ledger.iter().rev().filter(ready) {
        if room == 0 {
            break;
        }
        find_way(plan, &entry.step, &mut way);
        match claims.before(&way) {
            // Whatever was dispatched earlier has to wait as well.
            Some("") => break,
            Some(place) => {
                claims.0.insert(place, None);
            }
            None => {
                claims.claim(&way);
                room -= 1;
                next.push(entry.step.clone());
            }
        }
    }
    next
}

/// What it means for the others that this one is parked.
fn on_exhausted(plan: &Plan, entry: &LedgerEntry) -> OnExhausted {
    let said = tree::find(plan, entry.step.as_str()).and_then(|node| match &plan.node(node).kind {
        NodeKind::Activity(activity) => match &activity.undo {
            Undo::Compensate(call) => call.on_exhausted,
            Undo::ReadOnly | Undo::None { .. } => None,
        },
        _ => None,
    });
    said.unwrap_or(plan.compensation.on_exhausted)
}

/// For places whose children ran one after the other: the child that is undone first. `None`: one that was dispatched
/// earlier is being undone already, so that everything else there has to wait.
#[derive(Default)]
struct Claims<'a>(BTreeMap<&'a str, Option<&'a str>>);

/// A place on the way from the root to a step, and what of it the way goes on with.
struct Fork<'a> {
    place: &'a str,
    child: &'a str,
    /// Its children ran side by side.
    side_by_side: bool,
}

impl<'a> Claims<'a> {
    fn claim(&mut self, way: &[Fork<'a>]) {
        for fork in way.iter().filter(|fork| !fork.side_by_side) {
            self.0.insert(fork.place, Some(fork.child));
        }
    }

    /// The outermost place where something else comes first.
    fn before(&self, way: &[Fork<'a>]) -> Option<&'a str> {
        let mut forks = way.iter().filter(|fork| !fork.side_by_side);
        let claimed = |fork: &&Fork<'a>| {
            let first = self.0.get(fork.place);
            first.is_some_and(|child| *child != Some(fork.child))
        };
        forks.find(claimed).map(|fork| fork.place)
    }
}

/// Every place from the root to a step. Where everything depends on everything, the step lies in the root alone.
fn find_way<'a>(plan: &Plan, step: &'a StepPath, way: &mut Vec<Fork<'a>>) {
    let path = step.as_str();
    way.clear();
    if plan.compensation.order == UndoOrder::Sequential {
        return way.push(Fork {
            place: "",
            child: path,
            side_by_side: false,
        });
    }
    let mut node = Some(plan.root);
    let mut place = "";
    let mut start = 0;
    for segment in path.split('.') {
        let name = name_of(segment);
        let side_by_side = node.is_some_and(|node| matches!(plan.node(node).kind, NodeKind::Parallel(_)));
        let child = &path[..start + name.len()];
        way.push(Fork {
            place,
            child,
            side_by_side,
        });
        place = child;
        node = node.and_then(|node| tree::child_named(plan, node, name));
        if name.len() < segment.len() {
            let child = &path[..start + segment.len()];
            let side_by_side = node.is_some_and(|node| match &plan.node(node).kind {
                NodeKind::ForEach(each) => each.max_concurrency != Some(1),
                _ => false,
            });
            way.push(Fork {
                place,
                child,
                side_by_side,
            });
            place = child;
        }
        start += segment.len() + 1;
    }
}

fn dispatch(d: &mut Decider<'_>, step: StepPath) {
    if d.state.entry(&step).is_some_and(|entry| entry.child.is_some()) {
        let not_needed = Failure::not_needed();
        let error = d.scope(&step).with_undone_for(&not_needed).failure().cloned();
        return workflow::undo(d, step, error.unwrap_or(not_needed));
    }
    let Some(call) = d.call(&step, Direction::Undo) else {
        return;
    };
    let limits = d.state.entry(&step).and_then(|entry| entry.limits.as_deref());
    let waits = permit::have_tasks_wait(d, limits, &call.queue);
    d.emit(Event::UndoScheduled {
        step: step.clone(),
        task: permit::first_task(d.state, waits),
        start_to_close: call.start_to_close,
        timeouts: call.timeouts,
        max_attempts: call.retry.maximum_attempts,
    });
    if waits {
        permit::open(d, &step, Direction::Undo);
    }
}

fn close(d: &mut Decider<'_>) {
    let Phase::Stopping(stop) = &d.state.phase else {
        return;
    };
    let any = |state: UndoState| d.state.ledger.iter().any(|entry| entry.state == state);
    let status = match stop.why {
        _ if any(UndoState::Skipped) => Status::CompensationFailed,
        Why::Cancelled => Status::Cancelled,
        Why::TimedOut => Status::TimedOut,
        Why::Failed if any(UndoState::Done) || d.state.reopened.is_some() => Status::Compensated,
        Why::Failed => Status::Failed,
    };
    d.emit(Event::RunClosed { status });
}

impl State {
    /// Undos that are due and wait for an operator.
    pub(super) fn is_undo_parked(&self) -> bool {
        let parked = |entry: &LedgerEntry| matches!(entry.state, UndoState::Parked { .. });
        self.ledger.iter().any(|entry| parked(entry) && is_due(self, entry))
    }
}
