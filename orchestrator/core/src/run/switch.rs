//! `switch:`: the first case that is true. Remembers nothing; the end of the case is the end of the step.
//!
//! | what | then |
//! |---|---|
//! | a condition is true, or `else` is reached | that body is entered |
//! | none is, and there is no `else` | the step has passed |
//! | a condition cannot be evaluated | the step fails |

use super::decider::{Decider, Work};
use super::failure::Failure;
use super::tree;
use crate::definition::plan::{Case, NodeId};
use crate::ids::StepPath;

pub(super) fn enter(d: &mut Decider<'_>, node: NodeId, path: StepPath, cases: &[Case]) {
    for case in cases {
        let chosen = match &case.when {
            None => Ok(true),
            Some(when) => when.is_true(&d.scope(&path)),
        };
        match chosen {
            Ok(false) => {}
            Ok(true) => {
                let path = tree::child_path(&path, &d.plan.node(case.body).name);
                return d.push(Work::Enter { node: case.body, path });
            }
            Err(error) => return tree::fail(d, node, path, Failure::expression(&error)),
        }
    }
    d.passed(node, path);
}
