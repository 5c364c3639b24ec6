//! What can happen to a run in a state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{MAX_HANDLED, MAX_PARKED};
use crate::definition::plan::{NodeId, NodeKind, OnExhausted, Plan};
use crate::ids::{MessageNo, Namespace, RunId, StepPath, TaskNo};
use crate::run::effect::Direction;
use crate::run::input::{Horizon, Input, Operation, Rejected, TaskOutcome, WorkerError};
use crate::run::message::{Answer, Body, ChildClosed, Recipient, Refusal, Sender};
use crate::run::{self, Failure, OpenChild, Passing, SIGNALS, State, Status, Transition, UPDATES, error_type};
use crate::time::Timestamp;

/// An error type that no `try` names.
const ANY: &str = "any_error";

pub(super) struct Move {
    /// Empty for what is of no interest to people.
    pub(super) words: String,
    /// What went wrong by it.
    pub(super) faults: u32,
    pub(super) kind: Kind,
}

pub(super) enum Kind {
    Input(Box<Input>),
    Passing(Passing),
}

impl Move {
    fn input(words: impl Into<String>, faults: u32, input: Input) -> Self {
        Self {
            words: words.into(),
            faults,
            kind: Kind::Input(Box::new(input)),
        }
    }

    /// Whether the run goes on by it without anybody outside.
    pub(super) fn is_by_itself(&self) -> bool {
        match &self.kind {
            Kind::Passing(_) => true,
            Kind::Input(input) => !matches!(**input, Input::Signal { .. } | Input::Update { .. } | Input::Cancel(_)),
        }
    }

    pub(super) fn apply(&self, plan: &Plan, state: &mut State) -> Result<Option<Transition>, Rejected> {
        let at = state.at();
        let input = match &self.kind {
            Kind::Input(input) => (**input).clone(),
            Kind::Passing(passing) => {
                state.hasten(passing);
                Input::Wake(Horizon {
                    log_read_to: at,
                    delivered_to: BTreeMap::new(),
                    listening_since: Timestamp::default(),
                    heard: Default::default(),
                })
            }
        };
        run::apply(plan, state, input, at)
    }
}

/// Those that are worth looking at.
pub(super) fn moves(plan: &Plan, state: &State) -> Vec<Move> {
    all(plan, state, true)
}

/// `reduced`: without those whose consequences differ in nothing from those of others.
pub(super) fn all(plan: &Plan, state: &State, reduced: bool) -> Vec<Move> {
    let mut moves = Vec::new();
    if state.is_closed() || state.parked_reason().is_some() {
        return moves;
    }
    // What is sure to happen, and changes nothing else, happens first.
    for (number, body) in state.unanswered() {
        if matches!(body, Body::Cancel { .. } | Body::Terminate { .. }) {
            moves.push(answer("", 0, number, Answer::Accepted));
            return moves;
        }
    }
    tasks(plan, state, reduced, &mut moves);
    for passing in state.passing() {
        let (words, faults) = match &passing {
            Passing::Timer(step) => (format!("`{step}` is over"), 0),
            Passing::Timeout(step) => (format!("no signal comes for `{step}` in time"), 1),
            Passing::Pause(direction, step) => (format!("{} is tried again", name(*direction, step)), 0),
        };
        let kind = Kind::Passing(passing);
        moves.push(Move { words, faults, kind });
    }
    for signal in state.awaited() {
        moves.push(Move::input(
            format!("the signal `{signal}` comes"),
            0,
            Input::Signal {
                name: signal,
                body: Arc::new(super::choice::OPAQUE.into()),
                operation: Operation::default(),
            },
        ));
    }
    // Of those that wait for the one under way nothing is said that is not said of those that come after it.
    if state.is_running_on() {
        let comes = |group: &str, name: &str| {
            let (begun, open) = state.handled(group, name);
            (!open && (begun as usize) < MAX_HANDLED).then_some(begun)
        };
        let body = || Arc::new(super::choice::OPAQUE.into());
        for (id, _) in plan.signal_handlers() {
            let name = plan.node(id).name.clone();
            if comes(SIGNALS, &name).is_some() {
                let words = format!("the signal `{name}` comes");
                let (body, operation) = (body(), Operation::default());
                moves.push(Move::input(words, 0, Input::Signal { name, body, operation }));
            }
        }
        for (id, _) in plan.update_handlers() {
            let name = plan.node(id).name.clone();
            if let Some(begun) = comes(UPDATES, &name) {
                let words = format!("the update `{name}` comes");
                let input = Input::Update {
                    operation: Operation {
                        request_id: Some(format!("{name}-{begun}").as_str().into()),
                        ..Operation::default()
                    },
                    name,
                    body: body(),
                    answer: None,
                };
                moves.push(Move::input(words, 0, input));
            }
        }
    }
    children(plan, state, &mut moves);
    if !state.is_leaving() && !state.is_past_pivot() {
        let cancel = Input::Cancel(Operation::default());
        moves.push(Move::input("the run is cancelled", 1, cancel));
    }
    moves
}

fn name(direction: Direction, step: &StepPath) -> String {
    match direction {
        Direction::Do => format!("`{step}`"),
        Direction::Undo => format!("the undo of `{step}`"),
    }
}

fn tasks(plan: &Plan, state: &State, reduced: bool, moves: &mut Vec<Move>) {
    let mut seen = BTreeSet::new();
    let one = reduced && one_is_enough(plan, state);
    for view in state.open_tasks() {
        if one && !seen.is_empty() {
            break;
        }
        if !seen.insert(stand(state, view.step, view.direction)) && reduced {
            continue;
        }
        let task = view.open.task;
        let name = name(view.direction, view.step);
        moves.push(outcome(format!("{name} completes"), 0, task, done()));
        if view.direction == Direction::Undo {
            if !reduced || state.parked_undos().count() < MAX_PARKED {
                moves.push(outcome(format!("{name} keeps failing"), 1, task, failed(ANY)));
            }
            continue;
        }
        if state.is_unwanted(task) {
            let words = format!("{name} stops as it is asked to");
            moves.push(outcome(words, 0, task, TaskOutcome::Cancelled));
        } else {
            for error_type in error_types(plan, view.step) {
                let of = if error_type == ANY {
                    String::new()
                } else {
                    format!(" ({error_type})")
                };
                let words = format!("{name} fails for good{of}");
                moves.push(outcome(words, 1, task, failed(&error_type)));
            }
        }
        let words = format!("it stays unknown whether {name} was done");
        moves.push(outcome(
            words,
            1,
            task,
            TaskOutcome::Unknown(error(error_type::TIMEOUT)),
        ));
    }
}

/// Whether what is under way can end in any order, with the same result: in a run that stops, forward tasks that are waited
/// for, or undos side by side. Undos are ordered by when their steps were dispatched, not by when those ended.
fn one_is_enough(plan: &Plan, state: &State) -> bool {
    if !state.stops() || !state.passing().is_empty() {
        return false;
    }
    let waited_for = |view: run::OpenTaskView<'_>| view.direction == Direction::Do && state.is_unwanted(view.open.task);
    let undo = |view: run::OpenTaskView<'_>| view.direction == Direction::Undo;
    let independent = plan.compensation.on_exhausted == OnExhausted::Continue;
    state.open_tasks().all(waited_for) || independent && state.open_tasks().all(undo)
}

/// Equal for tasks of iterations of one loop that stand the same: what may follow of one may follow of the other.
fn stand(state: &State, step: &StepPath, direction: Direction) -> (String, String, Direction, u128) {
    let path = step.as_str();
    match path.rfind(']') {
        None => (path.to_owned(), String::new(), direction, 0),
        Some(end) => {
            let (iteration, rest) = path.split_at(end + 1);
            let of = iteration.rsplit_once('[').map_or(iteration, |(of, _)| of);
            (of.to_owned(), rest.to_owned(), direction, state.stand_of(iteration))
        }
    }
}

/// Those that a `try` around the step tells apart.
pub(super) fn error_types(plan: &Plan, step: &StepPath) -> Vec<String> {
    let mut types = vec![ANY.to_owned()];
    let mut node = find(plan, step.as_str());
    while let Some(id) = node {
        let parent = plan.node(id).parent;
        if let Some(NodeKind::Try(guard)) = parent.map(|parent| &plan.node(parent).kind)
            && guard.body == id
        {
            for name in guard.catches.iter().flat_map(|catch| &catch.types) {
                if !types.iter().any(|other| **other == **name) {
                    types.push(name.to_string());
                }
            }
        }
        node = parent;
    }
    types
}

/// The step at a path, whatever its iterations.
pub(super) fn find(plan: &Plan, path: &str) -> Option<NodeId> {
    let wanted = crate::definition::test_file::plain(path);
    let mut ids = (0..plan.nodes.len()).map(NodeId);
    ids.find(|id| {
        let is_step = !matches!(plan.node(*id).kind, NodeKind::Sequence { .. });
        is_step && crate::definition::test_file::path(plan, *id) == wanted
    })
}

fn children(plan: &Plan, state: &State, moves: &mut Vec<Move>) {
    for child in state.open_children() {
        if child.started {
            closings(plan, state, &child, moves);
            continue;
        }
        for (number, body) in state.unanswered() {
            if matches!(body, Body::StartChild(start) if start.run_id == child.run) {
                moves.push(answer("", 0, number, Answer::Accepted));
                let refused = Answer::refused(Refusal::UnknownWorkflow, "there is no such definition");
                let words = format!("the child of `{}` cannot be started", child.step);
                moves.push(answer(&words, 1, number, refused));
            }
        }
    }
    for child in state.undone_children() {
        let unanswered = state
            .unanswered()
            .find(|(number, body)| matches!(body, Body::Undo { .. }) && state.is_addressed_to(*number, child.run));
        if let Some((number, _)) = unanswered {
            moves.push(answer("", 0, number, Answer::Accepted));
            let refused = Answer::refused(Refusal::PastPivot, "the child has completed its pivot");
            let words = format!("the child of `{}` refuses to be undone", child.step);
            moves.push(answer(&words, 1, number, refused));
            continue;
        }
        let words = format!("the child of `{}` has undone itself", child.step);
        let closed = closed(&child.step, child.run, Status::Compensated, None);
        moves.push(child_closed(state, words, 0, (&child.to, child.run), closed));
    }
}

fn closings(plan: &Plan, state: &State, child: &OpenChild, moves: &mut Vec<Move>) {
    let step = &child.step;
    let to = (&child.to, child.run);
    let completed = closed(step, child.run, Status::Completed, None);
    moves.push(child_closed(
        state,
        format!("the child of `{step}` completes"),
        0,
        to,
        completed,
    ));
    if child.stopping {
        let closed = closed(step, child.run, Status::Cancelled, Some(error_type::CANCELLED));
        let words = format!("the child of `{step}` is cancelled");
        moves.push(child_closed(state, words, 0, to, closed));
        return;
    }
    for error_type in error_types(plan, step) {
        let of = if error_type == ANY {
            String::new()
        } else {
            format!(" ({error_type})")
        };
        let closed = closed(step, child.run, Status::Compensated, Some(&error_type));
        let words = format!("the child of `{step}` fails{of}, and has undone itself");
        moves.push(child_closed(state, words, 1, to, closed));
    }
}

fn closed(step: &StepPath, child: RunId, status: Status, error: Option<&str>) -> ChildClosed {
    ChildClosed {
        child,
        step: step.clone(),
        status,
        output: Arc::new(super::choice::OPAQUE.into()),
        error: error.map(|error_type| Failure {
            step: None,
            error_type: Arc::from(error_type),
            message: Arc::from("explored"),
        }),
    }
}

fn child_closed(
    state: &State,
    words: String,
    faults: u32,
    (to, run): (&Recipient, RunId),
    closed: ChildClosed,
) -> Move {
    let from = Sender {
        run,
        namespace: Namespace::new("default"),
        workflow_id: to.workflow_id.clone(),
    };
    let number = MessageNo(state.taken_of(run).saturating_add(1));
    let body = Body::ChildClosed(closed);
    Move::input(words, faults, Input::Message { from, number, body })
}

fn answer(words: &str, faults: u32, number: MessageNo, answer: Answer) -> Move {
    Move::input(words, faults, Input::MessageAnswered { number, answer })
}

fn outcome(words: String, faults: u32, task: TaskNo, outcome: TaskOutcome) -> Move {
    Move::input(words, faults, Input::TaskEnded { task, outcome })
}

fn done() -> TaskOutcome {
    TaskOutcome::Completed {
        output: Arc::new(super::choice::OPAQUE.into()),
    }
}

fn failed(error_type: &str) -> TaskOutcome {
    TaskOutcome::Failed(error(error_type))
}

/// Not to be tried again: attempts in between change nothing.
fn error(error_type: &str) -> WorkerError {
    WorkerError {
        error_type: Arc::from(error_type),
        message: Arc::from("explored"),
        retryable: false,
        not_done: false,
        retry_after: None,
    }
}
