//! What commits still owe the outside.

use knarr_core::ids::RunId;
use sqlx::postgres::PgBindIterExt;

use super::PostgresStore;
use super::error::to_store_error;
use crate::store::{CommitId, InheritedCommit, Owed, OwedSpan, Session, StoreError};

impl PostgresStore {
    pub(super) async fn owed_by(
        &self,
        session: &Session,
        commits: &[CommitId],
    ) -> Result<Vec<InheritedCommit>, StoreError> {
        let mut connection = self.reads.take().await?;
        let rows = sqlx::query!(
            r#"select c.session as "session!", c.batch_no as "batch_no!", c.run_ids as "run_ids!",
                      c.first_seqs as "first_seqs!", c.last_seqs as "last_seqs!", c.messages as "messages?"
               from unnest($2::uuid[], $3::bigint[]) as w (session, batch_no)
               join commits c on c.session = w.session and c.batch_no = w.batch_no and c.holder = $1"#,
            session.id,
            commits.iter().map(|id| id.session).bind_iter() as _,
            commits.iter().map(|id| id.batch_no).bind_iter() as _,
        )
        .fetch_all(&mut *connection)
        .await
        .map_err(to_store_error)?;
        connection.put_back();
        let commits = rows.into_iter().map(|row| InheritedCommit {
            id: CommitId {
                session: row.session,
                batch_no: row.batch_no,
            },
            owed: Owed {
                spans: row
                    .run_ids
                    .into_iter()
                    .zip(row.first_seqs.into_iter().zip(row.last_seqs))
                    .map(|(run_id, (first_seq, last_seq))| OwedSpan {
                        run_id: RunId(run_id),
                        first_seq,
                        last_seq,
                    })
                    .collect(),
                messages: row.messages,
            },
        });
        Ok(commits.collect())
    }
}
