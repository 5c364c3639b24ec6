//! `set:`: assigns variables in the order written; a later line sees what an earlier one assigned. All or nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::decider::{Decider, End, Work};
use super::event::Event;
use super::scope::RunScope;
use super::tree;
use crate::definition::plan::NodeId;
use crate::expression::Template;
use crate::ids::StepPath;

pub(super) fn enter(d: &mut Decider<'_>, node: NodeId, path: StepPath, assignments: &[(Arc<str>, Template)]) {
    let mut vars = BTreeMap::new();
    for (name, template) in assignments {
        let scope = RunScope::new(d.state, &path).with_assigned(&vars);
        match scope.evaluate(Some(template)) {
            Ok(value) => {
                vars.insert(name.clone(), value);
            }
            Err(error) => return tree::fail(d, node, path, error),
        }
    }
    d.emit(Event::VarsSet {
        step: path.clone(),
        vars,
    });
    d.push(Work::Ended {
        node,
        path,
        end: End::Passed,
    });
}
