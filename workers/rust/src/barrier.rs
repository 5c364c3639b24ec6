//! The participant's barrier: a step and its undo, each at most once and never in the wrong order, inside the participant's
//! own PostgreSQL transaction.
//!
//! Messages are delivered more than once, and an undo may be delivered before its do: a worker that was believed dead comes
//! back after the step has been undone. Looking first and acting then does not help, since both can look at the same moment.
//! The barrier is a row that is inserted *in the transaction that does the work*, by a key that do and undo share, so that the
//! database itself lets one of them in. It is that of DTM, with the answer kept beside it.
//!
//! | key | verdict | what the handler does |
//! |---|---|---|
//! | do | [`Proceed`](Verdict::Proceed) | its work |
//! | do | [`Duplicate`](Verdict::Duplicate) | nothing; it answers what was recorded |
//! | do | [`Refused`](Verdict::Refused) | nothing: the step was undone before; it has failed |
//! | undo | [`Proceed`](Verdict::Proceed) | undoes the work, of which it is told what the do has recorded |
//! | undo | [`NotDone`](Verdict::NotDone) | nothing but commit: there is nothing to undo, and the do is refused from then on |
//! | undo | [`Duplicate`](Verdict::Duplicate) | nothing; it answers what was recorded |
//!
//! The table and its functions are installed with `psql -1 -f deploy/barrier/postgres.sql`; retention is documented there.
//! With the feature `sqlx-postgres`, `enter` does all of this over a transaction of sqlx; any other client of PostgreSQL
//! executes [`ENTER`] and [`RECORD`] itself.

/// Takes the idempotency key as text, and returns one row of `verdict` and `output` (JSON as text, or null). The first
/// statement of the transaction that does the work.
pub const ENTER: &str = "select verdict, output::text from knarr_barrier.enter($1)";

/// Takes the idempotency key and the handler's answer (JSON as text), before the commit.
pub const RECORD: &str = "select knarr_barrier.record($1, $2::text::jsonb)";

/// What the barrier says to a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Proceed,
    Duplicate,
    /// Of a do whose undo came first.
    Refused,
    /// Of an undo whose do never was.
    NotDone,
}

impl Verdict {
    /// Of the column `verdict`; `None` for a text that this version does not know.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "proceed" => Some(Self::Proceed),
            "duplicate" => Some(Self::Duplicate),
            "refused" => Some(Self::Refused),
            "not_done" => Some(Self::NotDone),
            _ => None,
        }
    }
}

#[cfg(feature = "sqlx-postgres")]
pub use with_sqlx::{Entered, Passage, enter};

#[cfg(feature = "sqlx-postgres")]
mod with_sqlx {
    use serde::Serialize;
    use serde_json::Value;
    use sqlx::{PgConnection, Postgres, Transaction};

    use super::{ENTER, RECORD, Verdict};
    use crate::error::ActivityError;

    /// What a handler has to do.
    #[derive(Debug)]
    pub enum Entered<'c> {
        /// Its work, and [`Passage::commit`].
        Proceed(Passage<'c>),
        /// Nothing: this is its answer. The transaction has been ended.
        Settled(Value),
    }

    /// A transaction in which the barrier let a task pass. Dropped without a commit, everything is as it was before.
    #[derive(Debug)]
    pub struct Passage<'c> {
        transaction: Transaction<'c, Postgres>,
        key: String,
        recorded: Option<Value>,
    }

    /// Asks the barrier about a task, by its [idempotency key](crate::Context::idempotency_key), in a transaction that has
    /// just begun.
    ///
    /// A do that comes after its undo fails with the type `undone_before`, not to be retried. Errors of the database are
    /// *unknown* and retried, as by `?`: the next attempt is told what became of this one.
    pub async fn enter<'c>(
        mut transaction: Transaction<'c, Postgres>,
        idempotency_key: &str,
    ) -> Result<Entered<'c>, ActivityError> {
        let (verdict, output): (String, Option<String>) = sqlx::query_as(ENTER)
            .bind(idempotency_key)
            .fetch_one(&mut *transaction)
            .await?;
        let recorded: Option<Value> = output.map(|text| serde_json::from_str(&text)).transpose()?;
        match Verdict::parse(&verdict) {
            Some(Verdict::Proceed) => Ok(Entered::Proceed(Passage {
                transaction,
                key: idempotency_key.to_owned(),
                recorded,
            })),
            Some(Verdict::Duplicate) => {
                transaction.rollback().await?;
                Ok(Entered::Settled(recorded.unwrap_or_default()))
            }
            Some(Verdict::NotDone) => {
                // The row is what refuses the do from now on.
                transaction.commit().await?;
                Ok(Entered::Settled(Value::Null))
            }
            Some(Verdict::Refused) => {
                transaction.rollback().await?;
                Err(
                    ActivityError::failed("undone_before", "the step was undone before this task came to be done")
                        .non_retryable(),
                )
            }
            None => Err(ActivityError::unknown(
                "barrier",
                format!("the barrier says `{verdict}`, which this version of the SDK does not know"),
            )),
        }
    }

    impl Passage<'_> {
        /// For the work, in the barrier's own transaction.
        pub fn connection(&mut self) -> &mut PgConnection {
            &mut self.transaction
        }

        /// To an undo: what the do answered, also where the orchestrator never heard of it. `None` for a do.
        pub fn recorded(&self) -> Option<&Value> {
            self.recorded.as_ref()
        }

        /// Records the answer, commits it together with the work, and returns it. After an error the work may be done; the
        /// next attempt is told.
        pub async fn commit<O: Serialize>(mut self, output: O) -> Result<O, ActivityError> {
            let text = serde_json::to_string(&output)?;
            sqlx::query(RECORD)
                .bind(&self.key)
                .bind(text)
                .execute(&mut *self.transaction)
                .await?;
            self.transaction.commit().await?;
            Ok(output)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_those_of_the_function() {
        let sql = include_str!("../../../deploy/barrier/postgres.sql");
        for name in ["proceed", "duplicate", "refused", "not_done"] {
            assert!(sql.contains(&format!("'{name}'")), "{name}");
            assert!(Verdict::parse(name).is_some(), "{name}");
        }
        assert_eq!(Verdict::parse("Proceed"), None);
    }
}
