//! Steps, and the kinds that hold other steps or talk to the outside without a worker.

use super::{Activity, Text};
use crate::definition::plan::{Join, Losers, ParentClose};
use crate::definition::tree::{Node, Place};
use crate::time::Span;

/// A `steps:` list.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    pub(crate) list: Vec<Step>,
}

#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) id: Text,
    pub(crate) condition: Option<Text>,
    pub(crate) kind: StepKind,
}

#[derive(Debug)]
pub(crate) enum StepKind {
    Activity(Box<Activity>),
    Set(Vec<(Text, Node)>),
    Parallel(Parallel),
    ForEach(Box<ForEach>),
    Switch(Vec<Case>),
    While(Box<While>),
    Try(Try),
    Scope(Savepoint),
    Wait(Wait),
    WaitFor(Box<WaitFor>),
    Workflow(Box<ChildWorkflow>),
    Emit(Emit),
    Fail(Fail),
    Complete(Option<Node>),
    ContinueAsNew(Option<Node>),
    /// Findings say why; kept, so that references to it are not findings too.
    Broken,
}

#[derive(Debug)]
pub(crate) struct Parallel {
    pub(crate) branches: Vec<Branch>,
    pub(crate) join: Join,
    pub(crate) losers: Losers,
}

#[derive(Debug)]
pub(crate) struct Branch {
    pub(crate) name: Text,
    pub(crate) steps: Steps,
}

#[derive(Debug)]
pub(crate) struct ForEach {
    pub(crate) list: Node,
    /// `item` where the author gives no name.
    pub(crate) item: Text,
    pub(crate) max_concurrency: Option<u32>,
    pub(crate) steps: Steps,
    pub(crate) collect: Option<Node>,
}

#[derive(Debug)]
pub(crate) struct Case {
    /// `None` = `else`.
    pub(crate) when: Option<Text>,
    pub(crate) steps: Steps,
    pub(crate) place: Place,
}

#[derive(Debug)]
pub(crate) struct While {
    pub(crate) when: Text,
    pub(crate) max_iterations: u32,
    pub(crate) steps: Steps,
}

#[derive(Debug)]
pub(crate) struct Try {
    pub(crate) steps: Steps,
    pub(crate) catches: Vec<Catch>,
    pub(crate) finally: Option<Steps>,
}

#[derive(Debug)]
pub(crate) struct Catch {
    /// Empty = every error.
    pub(crate) types: Vec<String>,
    pub(crate) steps: Steps,
    pub(crate) place: Place,
}

#[derive(Debug)]
pub(crate) struct Savepoint {
    pub(crate) steps: Steps,
    pub(crate) otherwise: Option<Steps>,
}

#[derive(Debug)]
pub(crate) enum Wait {
    For(Span),
    Until(Node),
}

#[derive(Debug)]
pub(crate) struct WaitFor {
    pub(crate) signal: Text,
    pub(crate) matches: Option<Text>,
    pub(crate) timeout: Option<Span>,
    pub(crate) on_timeout: OnTimeout,
}

#[derive(Debug)]
pub(crate) enum OnTimeout {
    Fail,
    Continue,
    Steps(Steps),
}

#[derive(Debug)]
pub(crate) struct ChildWorkflow {
    pub(crate) name: Text,
    pub(crate) version: Option<u32>,
    pub(crate) id: Option<Node>,
    pub(crate) input: Option<Node>,
    pub(crate) parent_close: ParentClose,
    pub(crate) detached: bool,
}

#[derive(Debug)]
pub(crate) struct Emit {
    pub(crate) subject: Node,
    pub(crate) body: Option<Node>,
}

#[derive(Debug)]
pub(crate) struct Fail {
    pub(crate) error_type: Node,
    pub(crate) message: Option<Node>,
}

impl Step {
    pub(crate) fn activity(&self) -> Option<&Activity> {
        match &self.kind {
            StepKind::Activity(activity) => Some(activity),
            _ => None,
        }
    }

    /// The bodies of the step, each with its segment of the path (empty for a main body), in the order they are written.
    pub(crate) fn bodies(&self) -> Vec<(String, &Steps)> {
        match &self.kind {
            StepKind::Parallel(parallel) => parallel
                .branches
                .iter()
                .map(|branch| (branch.name.text.clone(), &branch.steps))
                .collect(),
            StepKind::ForEach(each) => vec![(String::new(), &each.steps)],
            StepKind::Switch(cases) => cases
                .iter()
                .enumerate()
                .map(|(at, case)| (case.name(at), &case.steps))
                .collect(),
            StepKind::While(repeat) => vec![(String::new(), &repeat.steps)],
            StepKind::Try(guard) => {
                let mut bodies = vec![(String::new(), &guard.steps)];
                let catches = guard.catches.iter().enumerate();
                bodies.extend(catches.map(|(at, catch)| (Catch::name(at), &catch.steps)));
                bodies.extend(guard.finally.iter().map(|steps| ("finally".to_owned(), steps)));
                bodies
            }
            StepKind::Scope(scope) => {
                let mut bodies = vec![(String::new(), &scope.steps)];
                bodies.extend(scope.otherwise.iter().map(|steps| ("otherwise".to_owned(), steps)));
                bodies
            }
            StepKind::WaitFor(wait) => match &wait.on_timeout {
                OnTimeout::Steps(steps) => vec![("on_timeout".to_owned(), steps)],
                OnTimeout::Fail | OnTimeout::Continue => Vec::new(),
            },
            StepKind::Activity(_)
            | StepKind::Set(_)
            | StepKind::Wait(_)
            | StepKind::Workflow(_)
            | StepKind::Emit(_)
            | StepKind::Fail(_)
            | StepKind::Complete(_)
            | StepKind::ContinueAsNew(_)
            | StepKind::Broken => Vec::new(),
        }
    }
}

impl Case {
    /// The segment of the path of the case at this position.
    pub(crate) fn name(&self, at: usize) -> String {
        match self.when {
            Some(_) => format!("case_{}", at + 1),
            None => "else".to_owned(),
        }
    }
}

impl Catch {
    pub(crate) fn name(at: usize) -> String {
        format!("catch_{}", at + 1)
    }
}

impl Steps {
    /// Every step in it and below it, in the order of the text.
    pub(crate) fn visit<'a>(&'a self, each: &mut dyn FnMut(&'a Step)) {
        for step in &self.list {
            each(step);
            for (_, body) in step.bodies() {
                body.visit(each);
            }
        }
    }

    pub(crate) fn visit_mut(&mut self, each: &mut dyn FnMut(&mut Step)) {
        for step in &mut self.list {
            each(step);
            for body in step.kind.bodies_mut() {
                body.visit_mut(each);
            }
        }
    }
}

impl StepKind {
    fn bodies_mut(&mut self) -> Vec<&mut Steps> {
        match self {
            Self::Parallel(parallel) => parallel.branches.iter_mut().map(|branch| &mut branch.steps).collect(),
            Self::ForEach(each) => vec![&mut each.steps],
            Self::Switch(cases) => cases.iter_mut().map(|case| &mut case.steps).collect(),
            Self::While(repeat) => vec![&mut repeat.steps],
            Self::Try(guard) => {
                let mut bodies = vec![&mut guard.steps];
                bodies.extend(guard.catches.iter_mut().map(|catch| &mut catch.steps));
                bodies.extend(&mut guard.finally);
                bodies
            }
            Self::Scope(scope) => {
                let mut bodies = vec![&mut scope.steps];
                bodies.extend(&mut scope.otherwise);
                bodies
            }
            Self::WaitFor(wait) => match &mut wait.on_timeout {
                OnTimeout::Steps(steps) => vec![steps],
                OnTimeout::Fail | OnTimeout::Continue => Vec::new(),
            },
            _ => Vec::new(),
        }
    }
}
