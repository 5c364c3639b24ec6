//! What an error of PostgreSQL means to its caller: wait, give in, or look for the culprit.

use sqlx::Error;

use crate::store::{CommitError, StoreError};

/// Raised by the commit statement: a partition is not the session's.
pub(super) const NOT_OWNER: &str = "KN001";
/// Raised by the commit statement: an update of a run that is not there.
pub(super) const NO_SUCH_RUN: &str = "KN002";

pub(super) fn to_store_error(error: Error) -> StoreError {
    match &error {
        Error::Database(database) => {
            let code = database.code().unwrap_or_default();
            // query_canceled: most likely by statement_timeout.
            if code == "57014" {
                return StoreError::TooSlow;
            }
            // Wrong data, wrong names, missing rights, unknown user or database: waiting does not mend it.
            if matches!(code.get(..2), Some("21" | "22" | "23" | "28" | "3D" | "42" | "54")) {
                StoreError::Rejected(describe(&error))
            } else {
                StoreError::Unavailable(describe(&error))
            }
        }
        Error::Configuration(_) | Error::Encode(_) | Error::Decode(_) | Error::ColumnDecode { .. } => {
            StoreError::Rejected(describe(&error))
        }
        _ => StoreError::Unavailable(describe(&error)),
    }
}

/// Class 22, 23 and 54, and 21 (one row written twice by one statement): the statement was refused as a whole and a part
/// of it will be refused again. Everything else may have happened: even an error that reports a shutdown can follow a
/// commit that took effect.
pub(super) fn to_commit_error(error: Error) -> CommitError {
    match &error {
        Error::Database(database) => match database.code().as_deref() {
            Some(NOT_OWNER) => CommitError::Fenced,
            Some(NO_SUCH_RUN) => CommitError::BadData(describe(&error)),
            Some(code) if matches!(code.get(..2), Some("21" | "22" | "23" | "54")) => {
                CommitError::BadData(describe(&error))
            }
            _ => CommitError::Unknown(describe(&error)),
        },
        // Not sent.
        Error::Encode(_) => CommitError::BadData(describe(&error)),
        _ => CommitError::Unknown(describe(&error)),
    }
}

/// Without the values PostgreSQL would show: they are the user's.
fn describe(error: &Error) -> String {
    match error {
        Error::Database(database) => match database.code() {
            Some(code) => format!("{} (SQLSTATE {code})", database.message()),
            None => database.message().to_owned(),
        },
        other => other.to_string(),
    }
}
