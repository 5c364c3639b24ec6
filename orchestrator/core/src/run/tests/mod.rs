//! Rules of the state machine as scenarios, one file a behaviour, and properties over random plans and inputs.

mod attempts;
mod deadlines;
mod dsl;
mod effects;
mod forward;
mod golden;
mod late;
mod messages;
mod operators;
mod properties;
mod stored;
mod undo;
