//! What of a definition a test may name.

use crate::definition::plan::{NodeId, NodeKind, Plan, Undo};
use crate::run::UPDATES;

/// Everything that has a name.
pub(super) struct Names {
    /// Paths of every step, without the numbers of iterations.
    pub(super) steps: Vec<String>,
    /// Those of activities and children: they have tasks and ledger entries.
    pub(super) activities: Vec<String>,
    pub(super) ids: Vec<String>,
    /// Of what a worker does, forwards or as an undo.
    pub(super) tasks: Vec<String>,
    pub(super) children: Vec<String>,
    pub(super) signals: Vec<String>,
    pub(super) updates: Vec<String>,
    pub(super) vars: Vec<String>,
    pub(super) queries: Vec<String>,
}

impl Names {
    pub(super) fn of(plan: &Plan) -> Self {
        let mut names = Self {
            steps: Vec::new(),
            activities: Vec::new(),
            ids: Vec::new(),
            tasks: Vec::new(),
            children: Vec::new(),
            signals: Vec::new(),
            updates: Vec::new(),
            vars: Vec::new(),
            queries: plan.queries.keys().map(ToString::to_string).collect(),
        };
        for (index, node) in plan.nodes.iter().enumerate() {
            let path = path(plan, NodeId(index));
            match &node.kind {
                NodeKind::Sequence { .. } | NodeKind::Handlers { .. } => continue,
                NodeKind::Handler(_) => {
                    match path.starts_with(UPDATES) {
                        true => names.updates.push(node.name.to_string()),
                        false => names.signals.push(node.name.to_string()),
                    }
                    continue;
                }
                NodeKind::Activity(activity) => {
                    names.activities.push(path.clone());
                    names.tasks.push(activity.call.activity.to_string());
                    if let Undo::Compensate(undo) = &activity.undo {
                        names.tasks.push(undo.activity.to_string());
                    }
                }
                NodeKind::Workflow(child) => {
                    names.activities.push(path.clone());
                    names.children.push(child.workflow.to_string());
                }
                NodeKind::WaitFor(wait) => names.signals.push(wait.signal.to_string()),
                NodeKind::Set(entries) => names.vars.extend(entries.iter().map(|(name, _)| name.to_string())),
                _ => {}
            }
            names.ids.push(node.name.to_string());
            names.steps.push(path);
        }
        names
    }
}

/// The ids on the way to a node, joined by dots.
pub(crate) fn path(plan: &Plan, id: NodeId) -> String {
    let mut segments = Vec::new();
    let mut at = Some(id);
    while let Some(id) = at {
        let node = plan.node(id);
        if !node.name.is_empty() {
            segments.push(&*node.name);
        }
        at = node.parent;
    }
    segments.reverse();
    segments.join(".")
}

/// A path without the numbers of iterations.
pub(crate) fn plain(path: &str) -> String {
    let segments = path.split('.');
    let names = segments.map(|segment| segment.split_once('[').map_or(segment, |(name, _)| name));
    names.collect::<Vec<_>>().join(".")
}
