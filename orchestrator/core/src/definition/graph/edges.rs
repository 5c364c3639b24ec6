//! The edges between the steps of a graph, forwards and for undoing.

use super::model::{Edge, EdgeKind, Lane, Role, Step, StepKind};

/// Where the flow stands: what was done last, and on what condition it goes on from there.
#[derive(Clone)]
struct Exit {
    from: String,
    kind: EdgeKind,
    label: String,
}

pub(super) fn of(steps: &[Step], handlers: &[Step]) -> Vec<Edge> {
    let mut edges = Vec::new();
    let exits = forward(steps, vec![next("start")], &mut edges);
    enter(exits, "end", &mut edges);
    steps_to_undos(steps, &mut edges);
    undo_order(steps, &mut edges);
    for handler in handlers {
        through(handler, &mut edges);
        let lanes = || handler.lanes.iter().map(|lane| lane.steps.as_slice());
        lanes().for_each(|steps| steps_to_undos(steps, &mut edges));
        lanes().for_each(|steps| drop(undo_order(steps, &mut edges)));
    }
    edges
}

pub(super) fn undo_name(path: &str) -> String {
    format!("undo {path}")
}

fn next(from: &str) -> Exit {
    exit(from, EdgeKind::Next, "")
}

fn exit(from: &str, kind: EdgeKind, label: &str) -> Exit {
    Exit {
        from: from.to_owned(),
        kind,
        label: label.to_owned(),
    }
}

fn enter(exits: Vec<Exit>, to: &str, edges: &mut Vec<Edge>) {
    for exit in exits {
        edges.push(Edge {
            from: exit.from,
            to: to.to_owned(),
            kind: exit.kind,
            label: exit.label,
        });
    }
}

fn forward(steps: &[Step], mut at: Vec<Exit>, edges: &mut Vec<Edge>) -> Vec<Exit> {
    for step in steps {
        enter(at, &step.path, edges);
        at = through(step, edges);
        if step.condition.is_some() && !at.iter().any(|exit| exit.from == step.path) {
            at.push(exit(&step.path, EdgeKind::Next, "if not"));
        }
    }
    at
}

/// The exits of a step that has been entered.
fn through(step: &Step, edges: &mut Vec<Edge>) -> Vec<Exit> {
    let path = step.path.as_str();
    let lane =
        |lane: &Lane, kind, edges: &mut Vec<Edge>| forward(&lane.steps, vec![exit(path, kind, &lane.title)], edges);
    match step.kind {
        StepKind::Fail => Vec::new(),
        StepKind::Complete | StepKind::ContinueAsNew => {
            enter(vec![next(path)], "end", edges);
            Vec::new()
        }
        StepKind::ForEach | StepKind::While | StepKind::Handler => {
            for body in &step.lanes {
                let mut ends = lane(body, EdgeKind::Next, edges);
                ends.retain(|end| end.from != path);
                ends.iter_mut().for_each(|end| end.kind = EdgeKind::Again);
                enter(ends, path, edges);
            }
            vec![exit(path, EdgeKind::Next, "done")]
        }
        StepKind::Switch => {
            let mut exits: Vec<Exit> = step
                .lanes
                .iter()
                .flat_map(|case| lane(case, EdgeKind::Next, edges))
                .collect();
            if step.lanes.iter().all(|case| case.title != "else") {
                exits.push(exit(path, EdgeKind::Next, "none"));
            }
            exits
        }
        StepKind::Try | StepKind::Scope | StepKind::WaitFor => guarded(step, edges),
        _ if !step.lanes.is_empty() => step
            .lanes
            .iter()
            .flat_map(|branch| lane(branch, EdgeKind::Next, edges))
            .collect(),
        _ => vec![next(path)],
    }
}

/// A body, what may be taken instead of its rest, and what is taken in any case.
fn guarded(step: &Step, edges: &mut Vec<Edge>) -> Vec<Exit> {
    let path = step.path.as_str();
    let mut exits = Vec::new();
    if step.kind == StepKind::WaitFor {
        exits.push(next(path));
    }
    for lane in &step.lanes {
        let kind = match lane.role {
            Role::Finally => {
                exits = forward(&lane.steps, exits, edges);
                continue;
            }
            Role::Catch | Role::Otherwise | Role::OnTimeout => EdgeKind::Failure,
            Role::Body | Role::Branch | Role::Case => EdgeKind::Next,
        };
        exits.extend(forward(&lane.steps, vec![exit(path, kind, &lane.title)], edges));
    }
    exits
}

fn steps_to_undos(steps: &[Step], edges: &mut Vec<Edge>) {
    for step in steps {
        if step.undo.is_some() {
            edges.push(Edge {
                from: step.path.clone(),
                to: undo_name(&step.path),
                kind: EdgeKind::Undo,
                label: String::new(),
            });
        }
        for lane in &step.lanes {
            steps_to_undos(&lane.steps, edges);
        }
    }
}

/// The undos that come first and last when a list or a step is undone.
#[derive(Default)]
struct Ports {
    first: Vec<String>,
    last: Vec<String>,
}

impl Ports {
    /// `self` is undone, then `then`.
    fn then(self, then: Self, edges: &mut Vec<Edge>) -> Self {
        if self.last.is_empty() {
            return then;
        }
        if then.first.is_empty() {
            return self;
        }
        for from in &self.last {
            for to in &then.first {
                edges.push(Edge {
                    from: from.clone(),
                    to: to.clone(),
                    kind: EdgeKind::UndoNext,
                    label: String::new(),
                });
            }
        }
        Self {
            first: self.first,
            last: then.last,
        }
    }

    fn beside(mut self, other: Self) -> Self {
        self.first.extend(other.first);
        self.last.extend(other.last);
        self
    }
}

fn undo_order(steps: &[Step], edges: &mut Vec<Edge>) -> Ports {
    let mut ports = Ports::default();
    for step in steps.iter().rev() {
        let of_step = undo_of(step, edges);
        ports = ports.then(of_step, edges);
    }
    ports
}

fn undo_of(step: &Step, edges: &mut Vec<Edge>) -> Ports {
    let mut ports = Ports::default();
    // What was taken last is undone first; lanes of one row stand beside each other.
    for row in (0..3).rev() {
        let beside = step
            .lanes
            .iter()
            .filter(|lane| lane.role.row() == row)
            .map(|lane| undo_order(&lane.steps, edges))
            .fold(Ports::default(), Ports::beside);
        ports = ports.then(beside, edges);
    }
    if step.undo.is_some() {
        let own = undo_name(&step.path);
        let own = Ports {
            first: vec![own.clone()],
            last: vec![own],
        };
        ports = ports.then(own, edges);
    }
    ports
}
