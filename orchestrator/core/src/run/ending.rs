//! `fail:`, `complete:` and `continue_as_new:`: what ends more than itself.
//!
//! | step | then |
//! |---|---|
//! | `fail` | the step fails with that error: the innermost `try`, `scope`, or the run decides what follows |
//! | `complete` | the run is to end with that output: everything else under way is halted and has ended (`finally` included) before it does; the ledger stays as it is |
//! | `continue_as_new` | likewise, and the successor starts with that input, or with the run's own; what was done is not the successor's to undo |
//!
//! Where there are handlers, they do first what has come, and what the step says is evaluated once more then: a plan that was
//! changed at the last moment is that of the run which goes on. What cannot be evaluated then stands as it was said; so does what a step
//! in a loop or in a `catch` says, for what it sees of those is gone.
//!
//! In a run that stops, or is to end already, `complete` and `continue_as_new` change nothing. An input that the successor
//! would refuse fails the step, so that the successor can always be started.

use serde_json::Value;

use super::apply;
use super::decider::{Decider, End, Work};
use super::event::{Event, StepOutcome};
use super::failure::{Failure, error_type};
use super::keys::successor_run_id;
use super::open::Exit;
use super::{compensation, halt, handler, tree};
use crate::definition::plan::{Fail, NodeId, NodeKind};
use crate::expression::Template;
use crate::ids::StepPath;

pub(super) fn fail(d: &mut Decider<'_>, node: NodeId, path: StepPath, fail: &Fail) {
    let scope = d.scope(&path);
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    let error = scope.evaluate(Some(&fail.error_type)).and_then(|error_type| {
        let message = scope.evaluate(fail.message.as_ref())?;
        let message = match &*message {
            Value::Null => "the definition says so".to_owned(),
            message => text(message),
        };
        Ok(Failure::new(&text(&error_type), &message))
    });
    match error {
        Ok(error) => {
            let error = error.at(&path);
            tree::step_failed(d, node, path, StepOutcome::Failed, error);
        }
        Err(error) => tree::fail(d, node, path, error),
    }
}

pub(super) fn complete(d: &mut Decider<'_>, node: NodeId, path: StepPath, output: Option<&Template>) {
    match d.scope(&path).evaluate(output) {
        Ok(output) => exit(d, node, path, Exit::Completed { output }),
        Err(error) => tree::fail(d, node, path, error),
    }
}

pub(super) fn continue_as_new(d: &mut Decider<'_>, node: NodeId, path: StepPath, input: Option<&Template>) {
    let input = match input {
        None => Ok(d.state.input().clone()),
        Some(_) => d.scope(&path).evaluate(input),
    };
    let checked = input.and_then(|input| {
        let start = d.state.succeeding(d.state.run_id(), &input);
        apply::birth(d.plan, start, d.at)
            .map(|_| input)
            .map_err(|rejected| Failure::new(error_type::CONTINUE_AS_NEW, &rejected.to_string()))
    });
    match checked {
        Ok(input) => exit(d, node, path, Exit::ContinuedAsNew { input }),
        Err(error) => tree::fail(d, node, path, error),
    }
}

fn exit(d: &mut Decider<'_>, node: NodeId, path: StepPath, exit: Exit) {
    d.emit(Event::StepPassed { step: path.clone() });
    if !d.state.is_running() || d.state.exit.is_some() {
        return d.passed(node, path);
    }
    let stands = d.plan.handlers.is_empty() || path.as_str().contains('[') || d.scope(&path).failure().is_some();
    let step = (!stands).then(|| path.clone());
    d.emit(Event::ExitRequested { exit, step });
    halt::halt(d, &StepPath::new(""));
    d.push(Work::Ended {
        node,
        path,
        end: End::Halted,
    });
}

/// Ends a run that is to end, once nothing is under way and nothing is being undone any more.
pub(super) fn leave(d: &mut Decider<'_>) {
    if d.state.parked.is_some() || !d.state.is_running() || !d.state.is_quiet() || compensation::is_undoing(d.state) {
        return;
    }
    if handler::has_more_to_do(d.plan, d.state) {
        return;
    }
    let exit = said_anew(d).or_else(|| d.state.exit.clone().map(|(exit, _)| exit));
    match exit {
        None => {}
        Some(Exit::Completed { output }) => d.emit(Event::RunCompleted { output }),
        Some(Exit::ContinuedAsNew { input }) => d.emit(Event::RunContinued {
            successor: successor_run_id(d.state.run_id(), d.at),
            input,
        }),
    }
}

/// As the run stands now.
fn said_anew(d: &Decider<'_>) -> Option<Exit> {
    let path = d.state.handling.ends_at.as_ref()?;
    let node = tree::find(d.plan, path.as_str())?;
    let evaluated = |template: &Option<Template>| d.scope(path).evaluate(template.as_ref()).ok();
    match (&d.plan.node(node).kind, &d.state.exit.as_ref()?.0) {
        (NodeKind::Complete(output), Exit::Completed { .. }) => Some(Exit::Completed {
            output: evaluated(output)?,
        }),
        (NodeKind::ContinueAsNew(input @ Some(_)), Exit::ContinuedAsNew { .. }) => {
            let input = evaluated(input)?;
            let start = d.state.succeeding(d.state.run_id(), &input);
            apply::birth(d.plan, start, d.at).ok()?;
            Some(Exit::ContinuedAsNew { input })
        }
        _ => None,
    }
}
