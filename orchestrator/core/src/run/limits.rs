//! Every limit of a run's state machine, in one place. Those of single expressions and of JSON as such are in
//! [`crate::expression`] and [`crate::json`].

use serde::{Deserialize, Serialize};

use crate::time::Span;

/// Longest error message kept; the rest is cut off on a character boundary.
pub const MAX_ERROR_MESSAGE_BYTES: usize = 4 * 1024;
/// Longest error type kept.
pub const MAX_ERROR_TYPE_BYTES: usize = 256;
/// Most search attributes of one run.
pub const MAX_SEARCH_ATTRIBUTES: usize = 100;
/// Longest name of a search attribute, in bytes.
pub const MAX_SEARCH_ATTRIBUTE_NAME_BYTES: usize = 256;
/// Largest value of a search attribute, as JSON, in bytes.
pub const MAX_SEARCH_ATTRIBUTE_BYTES: usize = 2 * 1024;
/// First and longest pause before a task that a full stream refused is offered again.
pub const HELD_PAUSE_FIRST: Span = Span::from_millis(250);
pub const HELD_PAUSE_LONGEST: Span = Span::from_secs(5);
/// After so long a queue that has not said what became of a task to be taken out of it is asked again.
pub const WITHDRAWAL_PAUSE: Span = Span::from_secs(30);
/// And after so long at the latest, if it goes on saying nothing.
pub const WITHDRAWAL_PAUSE_LONGEST: Span = Span::from_secs(600);
/// Largest details of a heartbeat, as JSON, in bytes: they travel in a header.
pub const MAX_DETAILS_BYTES: usize = 2 * 1024;
/// Longest pause between two looks at a task that nobody has taken yet (a longer start-to-close is its own limit), unless it has
/// waited for more than four times as long, or its run has many of them.
pub const UNDELIVERED_PAUSE_LONGEST: Span = Span::from_secs(60);

/// Most events of a run, unless it was started with another limit; then it is parked until an operator lets it go on.
pub const MAX_EVENTS: u32 = 50_000;
/// Most bytes of a run's events as they are stored; likewise.
pub const MAX_HISTORY_BYTES: u64 = 50 * 1024 * 1024;
/// Most activities and children under way forwards, likewise but for the one that would be too many; and most undos at a time.
pub const MAX_PENDING: usize = 2_000;
/// A limit is warned of from this part of it on.
pub const WARNING_PART: u64 = 5;
/// Most iterations of one `for_each` under way at a time.
pub const MAX_ITERATIONS_AT_ONCE: u32 = 1_000;
/// Longest subject of an `emit`, in bytes.
pub const MAX_SUBJECT_BYTES: usize = 256;
/// First and longest pause before a message to another run that was not answered is sent again.
pub const MESSAGE_PAUSE_FIRST: Span = Span::from_secs(30);
pub const MESSAGE_PAUSE_LONGEST: Span = Span::from_secs(300);
/// The same of an ask for a permit: it may wait for days, and each offer is an event.
pub const ASK_PAUSE_LONGEST: Span = Span::from_secs(1_800);
/// Most refused starts that a trigger, which goes on for ever, knows of: the last ones. What has started a run all the same is a
/// repeat that was under way when the refusal was said.
pub const MAX_REFUSED_STARTS: usize = 256;
/// Most who wait for one run; one more is refused.
pub const MAX_WAITERS: usize = 1_000;
/// Most signals that wait in a run for a step to take them; one more is refused.
pub const MAX_BUFFERED_SIGNALS: usize = 1_000;
/// Longest name of a signal, in bytes.
pub const MAX_SIGNAL_NAME_BYTES: usize = 256;

/// How far one run may go before it waits for an operator. What is absent is as by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RunLimits {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<u32>,
}

impl RunLimits {
    /// With less a run could not begin.
    pub const LEAST: Self = Self {
        events: Some(100),
        history_bytes: Some(64 * 1024),
        pending: Some(1),
    };
    /// What a replica can hold of one run, and load in bounded time.
    pub const MOST: Self = Self {
        events: Some(2_000_000),
        history_bytes: Some(2 * 1024 * 1024 * 1024),
        pending: Some(20_000),
    };
    pub const DEFAULT: Self = Self {
        events: Some(MAX_EVENTS),
        history_bytes: Some(MAX_HISTORY_BYTES),
        pending: Some(MAX_PENDING as u32),
    };

    pub fn get(&self, limit: Limit) -> Option<u64> {
        match limit {
            Limit::Events => self.events.map(u64::from),
            Limit::HistoryBytes => self.history_bytes,
            Limit::Pending => self.pending.map(u64::from),
        }
    }

    /// Saturates.
    pub fn set(&mut self, limit: Limit, most: u64) {
        let short = u32::try_from(most).unwrap_or(u32::MAX);
        match limit {
            Limit::Events => self.events = Some(short),
            Limit::HistoryBytes => self.history_bytes = Some(most),
            Limit::Pending => self.pending = Some(short),
        }
    }

    /// What is said here goes before what `other` says.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            events: self.events.or(other.events),
            history_bytes: self.history_bytes.or(other.history_bytes),
            pending: self.pending.or(other.pending),
        }
    }
}

/// What of a run is limited, and can be raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    Events,
    HistoryBytes,
    /// Activities and children under way forwards.
    Pending,
}

impl Limit {
    pub const ALL: [Self; 3] = [Self::Events, Self::HistoryBytes, Self::Pending];

    /// A stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::HistoryBytes => "history_bytes",
            Self::Pending => "pending",
        }
    }
}

/// How much there is, and how much there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    pub used: u64,
    pub limit: u64,
}

impl Usage {
    pub fn is_reached(self) -> bool {
        self.used >= self.limit
    }

    /// From a fifth of the limit on.
    pub fn is_warned_of(self) -> bool {
        self.used >= self.limit.div_ceil(WARNING_PART)
    }
}

/// Cuts a text to at most `limit` bytes, on a character boundary.
pub(super) fn truncated(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_on_a_character_boundary() {
        assert_eq!(truncated("aé", 3), "aé");
        assert_eq!(truncated("aé", 2), "a");
        assert_eq!(truncated("", 0), "");
    }
}
