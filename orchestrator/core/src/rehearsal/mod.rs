//! Plays a case of a test file: a run of the production core against mocked activities, in virtual time.
//!
//! The world around the run is as kind as it can be: a task is taken the moment it is given out, messages are answered at
//! once, nothing is lost. What goes wrong is what the case says goes wrong. Time jumps from one thing that happens to the
//! next, so a case that waits for a year takes no longer than one that does not.
//!
//! **Invariant:** the same case gives the same report for ever: nothing here reads a clock or draws a number.

mod children;
mod compare;
mod record;
mod report;
mod workers;
mod world;

pub use report::{CaseReport, Deviation, Happening};
pub use world::{history, play};

#[cfg(test)]
mod tests;
