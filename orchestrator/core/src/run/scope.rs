//! What expressions of a run can see.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::failure::Failure;
use super::handler::{SIGNALS, UPDATES};
use super::open::Open;
use super::path::{around, is_within, iteration, last_segment, name_of};
use super::state::{State, Step};
use super::{blocked, schedule, tree};
use crate::definition::plan::{Node, NodeId, NodeKind, Plan};
use crate::expression::{ExpressionError, Scope, Template};
use crate::ids::StepPath;

/// The names in scope at one step.
pub(super) struct RunScope<'a> {
    plan: &'a Plan,
    state: &'a State,
    at: &'a StepPath,
    /// Set by earlier lines of the same `set`.
    assigned: Option<&'a BTreeMap<Arc<str>, Arc<Value>>>,
    /// The output of the step itself, where it is known though the state must not show it.
    own_output: Option<&'a Arc<Value>>,
    /// Of the iteration that a condition of `while` decides about.
    index: Option<u32>,
    /// In `match`.
    signal: Option<&'a Arc<Value>>,
    /// In `validate`.
    update: Option<&'a Arc<Value>>,
    /// What an undo is for, where no error can be seen from the step.
    undone_for: Option<&'a Failure>,
    /// Of a query, which sees how the run stands as well.
    queried: bool,
}

impl<'a> RunScope<'a> {
    pub(super) fn new(plan: &'a Plan, state: &'a State, at: &'a StepPath) -> Self {
        Self {
            plan,
            state,
            at,
            assigned: None,
            own_output: None,
            index: None,
            signal: None,
            update: None,
            undone_for: None,
            queried: false,
        }
    }

    #[must_use]
    pub(super) fn with_index(mut self, index: u32) -> Self {
        self.index = Some(index);
        self
    }

    #[must_use]
    pub(super) fn with_signal(mut self, body: &'a Arc<Value>) -> Self {
        self.signal = Some(body);
        self
    }

    #[must_use]
    pub(super) fn with_update(mut self, body: &'a Arc<Value>) -> Self {
        self.update = Some(body);
        self
    }

    #[must_use]
    pub(super) fn of_query(mut self) -> Self {
        self.queried = true;
        self
    }

    #[must_use]
    pub(super) fn with_undone_for(mut self, error: &'a Failure) -> Self {
        self.undone_for = Some(error);
        self
    }

    #[must_use]
    pub(super) fn with_assigned(mut self, assigned: &'a BTreeMap<Arc<str>, Arc<Value>>) -> Self {
        self.assigned = Some(assigned);
        self
    }

    #[must_use]
    pub(super) fn with_own_output(mut self, output: Option<&'a Arc<Value>>) -> Self {
        self.own_output = output;
        self
    }

    /// `null` where the definition gives no template. What an expression made is held to the limits of JSON from outside,
    /// because it becomes part of events and tasks.
    pub(super) fn evaluate(&self, template: Option<&Template>) -> Result<Arc<Value>, Failure> {
        let Some(template) = template else {
            return Ok(Arc::default());
        };
        let value = template
            .evaluate(self)
            .map_err(|error: ExpressionError| Failure::expression(&error))?;
        blocked::check(&value).map(|()| value)
    }

    fn run(&self) -> Value {
        json!({
            "id": self.state.run_id().to_string(),
            "workflow_id": self.state.workflow_id().as_str(),
            "attempt": self.state.attempt(),
            "started_at": self.state.started_at().to_utc().to_rfc3339_opts(chrono::SecondsFormat::Micros, true),
            "scheduled_at": schedule::scheduled_at(self.state),
        })
    }

    fn vars(&self) -> Value {
        let assigned = self.assigned.into_iter().flatten();
        let all = self.state.vars.iter().chain(assigned);
        Value::Object(
            all.map(|(name, value)| (name.to_string(), Value::clone(value)))
                .collect::<Map<_, _>>(),
        )
    }
}

impl<'a> RunScope<'a> {
    /// That of the innermost `catch`, or scope that is undone, around; else the run's.
    pub(super) fn failure(&self) -> Option<&'a Failure> {
        let state = self.state;
        let around = around(self.at.as_str()).filter(|_| !state.open.is_empty());
        let mut errors = around.filter_map(|path| match state.open.get(path) {
            Some(Open::Try { caught, .. }) => caught.as_ref(),
            Some(Open::Scope { error, .. }) => Some(error),
            _ => None,
        });
        errors.next().or(state.failure()).or(self.undone_for)
    }

    /// The iterations around, from the inside out, as loop and number.
    fn iterations(&self) -> impl Iterator<Item = (&'a str, u32)> {
        let at = self.at.as_str();
        std::iter::once(at).chain(around(at)).filter_map(iteration)
    }

    fn item(&self, name: &str) -> Option<&'a Value> {
        let mut iterations = self.iterations();
        iterations.find_map(|(path, index)| {
            let node = tree::find(self.plan, path)?;
            match &self.plan.node(node).kind {
                NodeKind::ForEach(each) if *each.item == *name => self.state.loops.get(path)?.items.get(index as usize),
                _ => None,
            }
        })
    }

    /// The instance of the step `id` that can be seen from here. Step ids are unique in a definition, so only iterations
    /// have several: within one, that iteration's; from outside, the last one's of a `while` and none of a `for_each`.
    fn instance(&self, id: &str) -> Option<&'a Step> {
        let steps = &self.state.steps;
        // Nearly always a step beside this one, or beside one of the steps around.
        let mut around = self.at.as_str();
        while let Some((outer, _)) = around.rsplit_once('.') {
            let mut path = String::with_capacity(outer.len() + 1 + id.len());
            path.push_str(outer);
            path.push('.');
            path.push_str(id);
            if let Some(step) = steps.get(path.as_str()) {
                return Some(step);
            }
            around = outer;
        }
        steps.get(id).or_else(|| steps.get(self.path_of(id)?.as_str()))
    }

    /// The path of the step `id` as seen from here, by the plan.
    fn path_of(&self, id: &str) -> Option<String> {
        let nodes = &self.plan.nodes;
        // Bodies have names too, which may be those of steps.
        let is_step = |node: &Node| {
            let parent = node.parent.map(|parent| &self.plan.node(parent).kind);
            matches!(parent, Some(NodeKind::Sequence { .. }))
        };
        let target = nodes.iter().position(|node| *node.name == *id && is_step(node))?;
        let mut way = vec![];
        let mut node = Some(NodeId(target));
        while let Some(id) = node {
            way.push(id);
            node = self.plan.node(id).parent;
        }
        let mut here = Some(self.at.as_str().split('.'));
        let mut path = String::new();
        for id in way.into_iter().rev() {
            let node = self.plan.node(id);
            if node.name.is_empty() {
                continue;
            }
            if !path.is_empty() {
                path.push('.');
            }
            // As long as the ways are the same, the instances are.
            let shared = here.as_mut().and_then(Iterator::next);
            let shared = shared.filter(|segment| name_of(segment) == &*node.name);
            if shared.is_none() {
                here = None;
            }
            path.push_str(shared.unwrap_or(&node.name));
            if id.0 != target && shared.is_none_or(|segment| !segment.ends_with(']')) {
                match &node.kind {
                    NodeKind::While(_) => {
                        let last = self.state.loops.get(path.as_str())?.last;
                        path.push_str(&format!("[{last}]"));
                    }
                    NodeKind::ForEach(_) | NodeKind::Handler(_) => return None,
                    _ => {}
                }
            }
        }
        Some(path)
    }
}

/// The error as expressions see it.
fn error(failure: &Failure) -> Value {
    json!({
        "step": failure.step.as_ref().map(StepPath::as_str),
        "type": &*failure.error_type,
        "message": &*failure.message,
    })
}

impl Scope for RunScope<'_> {
    fn root(&self, name: &str) -> Option<Cow<'_, Value>> {
        match name {
            "vars" => Some(Cow::Owned(self.vars())),
            "run" => Some(Cow::Owned(self.run())),
            "error" => self.failure().map(|failure| Cow::Owned(error(failure))),
            "status" if self.queried => Some(Cow::Owned(self.state.status().as_str().into())),
            "signal" => {
                let body = self.signal.or_else(|| self.state.handled_at(self.at, SIGNALS));
                body.map(|body| Cow::Borrowed(&**body))
            }
            // An item may have the name.
            "update" if self.update.is_some() || is_within(self.at.as_str(), UPDATES) => {
                let body = self.update.or_else(|| self.state.handled_at(self.at, UPDATES));
                body.map(|body| Cow::Borrowed(&**body))
            }
            "index" => {
                let index = self.index.or_else(|| self.iterations().next().map(|(_, index)| index));
                index.map(|index| Cow::Owned(index.into()))
            }
            item => self.item(item).map(Cow::Borrowed),
        }
    }

    fn step(&self, id: &str) -> Option<&Arc<Value>> {
        if let Some(own) = self.own_output
            && last_segment(self.at.as_str()) == id
        {
            return Some(own);
        }
        match self.instance(id)? {
            Step::Completed { output } => Some(output),
            Step::Skipped | Step::Passed | Step::Failed { .. } => None,
        }
    }

    fn input(&self) -> Option<&Arc<Value>> {
        Some(&self.state.birth.input)
    }
}
