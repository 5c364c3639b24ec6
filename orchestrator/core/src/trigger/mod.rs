//! Triggers: what a definition does with the messages of the user's own subjects ([`spec`]), and how far it has read ([`state`]).
//!
//! A trigger is an actor like a schedule ([`crate::run::trigger`]). What it reads is handed in by the shell, in the order of
//! its stream ([`source`]); what it starts and signals leaves as messages that are owed until they are answered.
//!
//! **Invariant:** the place up to which a stream has been read changes in the transition that decides about what was read, and
//! in no other.

pub mod code;
pub mod command;
pub mod event;
pub mod source;
pub mod spec;
pub mod state;

pub use command::{Command, Position};
pub use event::TriggerEvent;
pub use source::{Place, Read};
pub use spec::Spec;
pub use state::Trigger;
