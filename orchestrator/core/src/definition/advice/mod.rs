//! What is legal and unwise: sagas that leave something behind or never get to compensate.

mod left_behind;
mod never_compensates;

use super::check::Forward;
use super::diagnostic::Diagnostic;
use super::model::Definition;

pub(super) fn give(definition: &Definition, forward: &Forward<'_>, found: &mut Vec<Diagnostic>) {
    left_behind::warn(definition, forward, found);
    never_compensates::warn(definition, forward, found);
}
