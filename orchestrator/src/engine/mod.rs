//! The engine of one replica: *take a batch, load what it needs, apply, commit, publish, acknowledge*.
//!
//! One task owns everything in memory and is the only caller of core; commits, fetches and publications run beside it and
//! report back. While one batch commits, the next is being applied.
//!
//! **Invariants:**
//! - Nothing leaves the replica before the batch that says so is committed.
//! - A partition's log is applied strictly in order, and its cursor is committed with the transitions it caused.
//! - After any failed commit everything in memory is dropped and read again; nothing of that batch is confirmed.

mod apply;
mod batch;
mod beats;
mod beside;
mod clock;
pub mod code;
mod commit;
mod config;
mod continued;
mod deadlines;
mod deferral;
mod deferred_runs;
mod definitions;
mod emitted;
mod failpoint;
mod fetch;
mod gate;
mod in_line;
mod intake;
mod job;
mod job_reader;
mod lease;
mod leaving;
mod lifecycle;
mod limits;
mod live;
mod log_clock;
mod look_up;
mod message;
mod message_reader;
mod offers;
mod operator_reader;
mod outgoing;
mod partitions;
mod perform;
mod places;
mod poison;
mod publication;
mod queue_limits;
mod queues;
mod readers;
mod recovery;
mod refusal;
mod repeats;
mod replica;
mod report;
mod result;
mod run_loop;
mod schedule;
mod schedule_reader;
mod signal;
mod spans;
mod start;
mod stored_answer;
mod token;
mod too_large;
mod trigger_reader;
mod triggers;
mod unaskable;
mod upkeep;
mod verb;
mod warnings;
#[cfg(any(test, feature = "fuzz"))]
pub mod wire;
mod withdrawals;

#[cfg(test)]
mod tests;

pub use config::EngineConfig;
pub use definitions::Definitions;
pub(crate) use fetch::rebuild;
pub use replica::{Engine, EngineError, Health};
