//! Warnings of limits, from a fifth of each on: a line in the log and a count, once for each run and limit.
//!
//! What was warned of is kept in memory. Of events and of the history, which only grow, a run that is loaded again knows what
//! it was warned of; of the others it may be warned again.

use knarr_core::run::limits::{Limit, Usage};
use knarr_core::run::{Event, State, error_type};

use crate::telemetry::metric;

/// Limits that a run was warned of, a bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Warned(u8);

const PAYLOAD: u8 = 1 << 7;

impl Warned {
    /// Of a run that is loaded.
    pub(super) fn before(state: &State) -> Self {
        let mut warned = Self::default();
        for limit in Limit::ALL {
            if state.usage(limit).is_warned_of() {
                warned.0 |= bit(limit);
            }
        }
        warned
    }

    /// After a transition of so many bytes, of which a body may be up to `most`.
    pub(super) fn look(&mut self, state: &State, bytes: usize, most: usize) {
        for limit in Limit::ALL {
            let usage = state.usage(limit);
            if self.0 & bit(limit) == 0 && usage.is_warned_of() {
                self.0 |= bit(limit);
                warn(state, limit.as_str(), usage);
            }
        }
        let usage = Usage {
            used: bytes as u64,
            limit: most as u64,
        };
        if self.0 & PAYLOAD == 0 && usage.is_warned_of() {
            self.0 |= PAYLOAD;
            warn(state, "payload", usage);
        }
    }
}

fn bit(limit: Limit) -> u8 {
    match limit {
        Limit::Events => 1,
        Limit::HistoryBytes => 2,
        Limit::Pending => 4,
    }
}

fn warn(state: &State, limit: &'static str, usage: Usage) {
    metrics::counter!(metric::LIMIT_WARNINGS, "limit" => limit).increment(1);
    tracing::warn!(
        namespace = %state.namespace(),
        workflow = %state.workflow(),
        workflow_id = %state.workflow_id(),
        run = %state.run_id(),
        limit,
        used = usage.used,
        most = usage.limit,
        "a run has a fifth of what it may have; at its limit it waits for an operator"
    );
}

/// Of what waits for an operator, that which a limit made wait.
pub(super) fn count_parked(state: &State, event: &Event) {
    let limit = match event {
        Event::RunParked { .. } => state.reached().map(Limit::as_str),
        Event::StepParked { error, .. } if &*error.error_type == error_type::LIMIT => {
            let full = state.usage(Limit::Pending).is_reached();
            Some(if full { Limit::Pending.as_str() } else { "payload" })
        }
        _ => None,
    };
    if let Some(limit) = limit {
        metrics::counter!(metric::LIMIT_PARKED, "limit" => limit).increment(1);
    }
}
