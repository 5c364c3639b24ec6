//! From a plan to its graph.

use super::edges;
use super::model::{Graph, Lane, Role, Step, StepKind};
use crate::definition::duration;
use crate::definition::plan::{
    Activity, Catch, ChildWorkflow, Join, Losers, Node, NodeId, NodeKind, OnFailure, OnTimeout, Parallel, Plan, Undo,
    Wait, WaitFor,
};
use crate::run::{SIGNALS, UPDATES};

impl Graph {
    pub fn of(plan: &Plan) -> Self {
        let builder = Builder { plan };
        let steps = builder.sequence(plan.root, "");
        let signals = plan.signal_handlers().map(|(id, _)| builder.step(id, SIGNALS));
        let updates = plan.update_handlers().map(|(id, _)| builder.step(id, UPDATES));
        let handlers: Vec<Step> = signals.chain(updates).collect();
        Self {
            workflow: plan.workflow.to_string(),
            version: plan.version,
            edges: edges::of(&steps, &handlers),
            steps,
            handlers,
        }
    }
}

struct Builder<'a> {
    plan: &'a Plan,
}

impl Builder<'_> {
    fn sequence(&self, id: NodeId, path: &str) -> Vec<Step> {
        match &self.plan.node(id).kind {
            NodeKind::Sequence { children } => children.iter().map(|child| self.step(*child, path)).collect(),
            _ => Vec::new(),
        }
    }

    fn step(&self, id: NodeId, parent: &str) -> Step {
        let node = self.plan.node(id);
        let path = joined(parent, &node.name);
        let mut step = Step {
            id: node.name.to_string(),
            condition: node.condition.as_ref().map(|condition| condition.source().to_owned()),
            label: String::new(),
            kind: kind(node),
            pivot: false,
            notes: Vec::new(),
            undo: None,
            lanes: Vec::new(),
            path,
        };
        self.describe(node, &mut step);
        step
    }

    fn describe(&self, node: &Node, step: &mut Step) {
        match &node.kind {
            // Never a step of its own.
            NodeKind::Sequence { .. } | NodeKind::Handlers { .. } => {}
            NodeKind::Handler(handler) => {
                let is_update = node.parent.is_some_and(|group| *self.plan.node(group).name == *UPDATES);
                step.label = format!("for each {} {}", if is_update { "update" } else { "signal" }, node.name);
                step.notes.extend(
                    handler
                        .validate
                        .iter()
                        .map(|validate| format!("if {}", validate.source())),
                );
                step.notes.push("one by one, beside the steps".to_owned());
                self.lane(step, Role::Body, "", handler.body);
            }
            NodeKind::Activity(activity) => describe_activity(activity, step),
            NodeKind::Set(entries) => {
                let names: Vec<&str> = entries.iter().map(|(name, _)| &**name).collect();
                step.label = format!("set {}", names.join(", "));
            }
            NodeKind::Parallel(parallel) => {
                step.label = join(parallel);
                for branch in &parallel.branches {
                    self.lane(step, Role::Branch, &self.plan.node(*branch).name, *branch);
                }
            }
            NodeKind::ForEach(each) => {
                step.label = format!("for each {} in {}", each.item, each.list.source());
                step.notes.extend(each.max_concurrency.map(|limit| match limit {
                    1 => "one by one".to_owned(),
                    limit => format!("{limit} at once"),
                }));
                self.lane(step, Role::Body, "", each.body);
            }
            NodeKind::Switch(cases) => {
                "the first that is true".clone_into(&mut step.label);
                for case in cases {
                    let title = match &case.when {
                        Some(when) => format!("when {}", when.source()),
                        None => "else".to_owned(),
                    };
                    self.lane(step, Role::Case, &title, case.body);
                }
            }
            NodeKind::While(repeat) => {
                step.label = format!("while {}", repeat.when.source());
                step.notes.push(format!("at most {} times", repeat.max_iterations));
                self.lane(step, Role::Body, "", repeat.body);
            }
            NodeKind::Try(guard) => {
                "try".clone_into(&mut step.label);
                self.lane(step, Role::Body, "", guard.body);
                for catch in &guard.catches {
                    self.lane(step, Role::Catch, &catch_title(catch), catch.body);
                }
                if let Some(finally) = guard.finally {
                    self.lane(step, Role::Finally, "finally", finally);
                }
            }
            NodeKind::Scope(scope) => {
                "scope: fails alone, undoes its own".clone_into(&mut step.label);
                self.lane(step, Role::Body, "", scope.body);
                if let Some(otherwise) = scope.otherwise {
                    self.lane(step, Role::Otherwise, "otherwise", otherwise);
                }
            }
            NodeKind::Wait(Wait::For(span)) => step.label = format!("wait {}", duration::format(*span)),
            NodeKind::Wait(Wait::Until(until)) => step.label = format!("wait until {}", until.source()),
            NodeKind::WaitFor(wait) => {
                step.label = wait_for(wait, &mut step.notes);
                if let OnTimeout::Steps(body) = wait.on_timeout {
                    self.lane(step, Role::OnTimeout, "on timeout", body);
                }
            }
            NodeKind::Workflow(child) => describe_child(child, step),
            NodeKind::Emit(emit) => step.label = format!("emit {}", emit.subject.source()),
            NodeKind::Fail(fail) => step.label = format!("fail {}", fail.error_type.source()),
            NodeKind::Complete(_) => "complete the run".clone_into(&mut step.label),
            NodeKind::ContinueAsNew(_) => "continue as a new run".clone_into(&mut step.label),
        }
    }

    fn lane(&self, step: &mut Step, role: Role, title: &str, body: NodeId) {
        let steps = self.sequence(body, &joined(&step.path, &self.plan.node(body).name));
        step.lanes.push(Lane {
            role,
            title: title.to_owned(),
            steps,
        });
    }
}

/// A main body has an empty name and adds nothing.
fn joined(parent: &str, name: &str) -> String {
    match (parent, name) {
        ("", name) => name.to_owned(),
        (parent, "") => parent.to_owned(),
        (parent, name) => format!("{parent}.{name}"),
    }
}

fn kind(node: &Node) -> StepKind {
    match &node.kind {
        NodeKind::Activity(_) => StepKind::Activity,
        NodeKind::Set(_) => StepKind::Set,
        NodeKind::Parallel(_) => StepKind::Parallel,
        NodeKind::ForEach(_) => StepKind::ForEach,
        NodeKind::Switch(_) => StepKind::Switch,
        NodeKind::While(_) => StepKind::While,
        NodeKind::Try(_) => StepKind::Try,
        NodeKind::Sequence { .. } | NodeKind::Handlers { .. } | NodeKind::Scope(_) => StepKind::Scope,
        NodeKind::Handler(_) => StepKind::Handler,
        NodeKind::Wait(_) => StepKind::Wait,
        NodeKind::WaitFor(_) => StepKind::WaitFor,
        NodeKind::Workflow(_) => StepKind::Workflow,
        NodeKind::Emit(_) => StepKind::Emit,
        NodeKind::Fail(_) => StepKind::Fail,
        NodeKind::Complete(_) => StepKind::Complete,
        NodeKind::ContinueAsNew(_) => StepKind::ContinueAsNew,
    }
}

fn describe_activity(activity: &Activity, step: &mut Step) {
    step.label = activity.call.activity.to_string();
    if activity.pivot {
        step.pivot = true;
        step.notes.push("pivot: from here only forward".to_owned());
    }
    match &activity.undo {
        Undo::Compensate(call) => step.undo = Some(call.activity.to_string()),
        Undo::ReadOnly => step.notes.push("read only".to_owned()),
        Undo::None { .. } if activity.pivot => {}
        Undo::None { reason } => step.notes.push(format!("no undo: {reason}")),
    }
    if activity.compensate_on_failure {
        step.notes.push("undone also when it failed".to_owned());
    }
    if activity.on_failure == OnFailure::Continue {
        step.notes.push("goes on when it fails".to_owned());
    }
}

fn describe_child(child: &ChildWorkflow, step: &mut Step) {
    let version = child.version.map(|version| format!(" v{version}")).unwrap_or_default();
    step.label = format!("run {}{version}", child.workflow);
    if child.detached {
        step.notes.push("detached: not waited for".to_owned());
    } else {
        step.undo = Some(format!("undo of {}", child.workflow));
    }
}

fn join(parallel: &Parallel) -> String {
    let text = match parallel.join {
        Join::All => return "all at once, all of them".to_owned(),
        Join::Any => "all at once, the first to succeed".to_owned(),
        Join::AtLeast(count) => format!("all at once, {count} have to succeed"),
    };
    match parallel.losers {
        Losers::Undo => format!("{text}; the others are undone"),
        Losers::Keep => format!("{text}; the others are kept"),
    }
}

fn catch_title(catch: &Catch) -> String {
    if catch.types.is_empty() {
        return "catch everything".to_owned();
    }
    format!("catch {}", catch.types.join(", "))
}

fn wait_for(wait: &WaitFor, notes: &mut Vec<String>) -> String {
    if let Some(matches) = &wait.matches {
        notes.push(format!("where {}", matches.source()));
    }
    if let Some(timeout) = wait.timeout {
        let then = match wait.on_timeout {
            OnTimeout::Fail => ", then fails",
            OnTimeout::Continue => ", then goes on",
            OnTimeout::Steps(_) => "",
        };
        notes.push(format!("at most {}{then}", duration::format(timeout)));
    }
    format!("wait for {}", wait.signal)
}
