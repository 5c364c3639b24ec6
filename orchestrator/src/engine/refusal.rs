//! What could not be taken, and what is said about it: to who asked, and to the dead-letter stream.

use knarr_core::run::input::Rejected;
use knarr_schemas::body::ErrorBody;
use knarr_schemas::code::{self, Code};

/// A message or request that is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: &'static Code,
    /// One sentence, with the particulars; up to 1 KiB.
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(code: &'static Code, message: impl Into<String>) -> Self {
        // It may repeat what was sent, which has no limit of its own.
        let mut message = message.into();
        message.truncate(message.floor_char_boundary(1_024));
        Self { code, message }
    }

    pub(super) fn body(&self) -> ErrorBody {
        ErrorBody {
            code: self.code.id.to_owned(),
            message: self.message.clone(),
            remedy: self.code.remedy.to_owned(),
        }
    }
}

impl From<Rejected> for Refusal {
    fn from(rejected: Rejected) -> Self {
        let code = match &rejected {
            Rejected::InputSchema(_) => &code::INPUT_SCHEMA,
            Rejected::SearchAttribute { .. } => &code::SEARCH_ATTRIBUTE,
            Rejected::Closed(_) => &code::RUN_CLOSED,
            Rejected::UnknownTask(_) => &code::UNKNOWN_TASK,
            Rejected::NotParked(_) | Rejected::RunNotParked => &code::NOT_PARKED,
            Rejected::CannotMigrate(_) => &code::NOT_MIGRATABLE,
            Rejected::NotForThis(_) => &code::NOT_FOR_THIS,
            Rejected::SignalName => &code::SIGNAL_NAME,
            Rejected::SignalSchema(_) => &code::SIGNAL_SCHEMA,
            // The wire gives every request an id.
            Rejected::UpdateId => &code::BAD_HEADER,
            Rejected::UnknownUpdate(_) => &code::UNKNOWN_UPDATE,
            Rejected::UpdateSchema(_) => &code::UPDATE_SCHEMA,
            Rejected::UpdateRefused(_) => &code::UPDATE_REFUSED,
            Rejected::UpdateBefore => &code::UPDATE_BEFORE,
            Rejected::UpdatesFull => &code::UPDATES_FULL,
            Rejected::SignalsFull => &code::SIGNALS_FULL,
            Rejected::TooManyWaiters => &code::TOO_MANY_WAITERS,
            Rejected::PastPivot => &code::PAST_PIVOT,
            Rejected::ScheduleExists => &code::SCHEDULE_EXISTS,
            Rejected::Schedule(_) => &code::SCHEDULE_REFUSED,
            Rejected::Trigger(_) => &code::TRIGGER_REFUSED,
            Rejected::Limit(_) => &code::LIMIT,
            Rejected::Expression(_) => &code::EXPRESSION,
        };
        Self::new(code, rejected.to_string())
    }
}
