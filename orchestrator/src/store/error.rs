//! How the store fails.

use knarr_schemas::code::{Code, split_id};

use super::code;

/// How a commit can fail.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The session's epoch or batch number is not the one the store holds, or a partition of the batch is not the
    /// session's: nothing was written.
    #[error("the session has been fenced off")]
    Fenced,
    /// The store refuses the data (SQLSTATE classes 22, 23, 54): nothing was written; bisect to the culprit.
    #[error("the store refuses the batch: {0}")]
    BadData(String),
    /// The connection failed: whether the batch was written is not known until the session is recovered.
    #[error("the outcome of the commit is unknown: {0}")]
    Unknown(String),
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Try again later.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    #[error("the session has been fenced off")]
    Fenced,
    /// What the cluster writes cannot be read by this binary; not retryable.
    #[error("KN0311: the database is at format {level}, this knarr reads up to {reads}; use a newer one")]
    TooOld { level: i32, reads: i32 },
    /// The answer would take longer than the store works on a question of people.
    #[error("the answer takes the store too long")]
    TooSlow,
    /// Another process of that name is alive; not retryable.
    #[error("KN0312: a replica named `{replica}` is running; give this one another name")]
    NameTaken { replica: String },
    /// A rule of the store is broken; not retryable.
    #[error("{0}")]
    Rejected(String),
}

impl StoreError {
    /// The code that the text begins with, so that a plain line of a log has it too.
    pub fn code(&self) -> Option<&'static Code> {
        let text = self.to_string();
        let (id, _) = split_id(&text)?;
        code::ALL.iter().copied().find(|code| code.id == id)
    }

    /// What is known beyond the code.
    pub fn cause(&self) -> String {
        let text = self.to_string();
        match split_id(&text) {
            Some((_, cause)) => cause.to_owned(),
            None => text,
        }
    }
}
