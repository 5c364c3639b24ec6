//! `set:`: assigns variables.
//!
//! | what | then |
//! |---|---|
//! | every line can be evaluated, in the order written; a later one sees what an earlier one assigned | all are assigned, and the step has passed |
//! | one cannot be | none is assigned, and the step fails |

use std::collections::BTreeMap;
use std::sync::Arc;

use super::decider::Decider;
use super::event::Event;
use super::tree;
use crate::definition::plan::NodeId;
use crate::expression::Template;
use crate::ids::StepPath;

pub(super) fn enter(d: &mut Decider<'_>, node: NodeId, path: StepPath, assignments: &[(Arc<str>, Template)]) {
    let mut vars = BTreeMap::new();
    for (name, template) in assignments {
        let scope = d.scope(&path).with_assigned(&vars);
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
    d.passed(node, path);
}
