//! Everything the model holds, for comparison with PostgreSQL.

use knarr_core::ids::RunId;
use uuid::Uuid;

use super::MemoryStore;
use crate::store::conformance::{CommitDump, Dump, PartitionDump, SessionDump};
use crate::store::{Append, PermitRow, StoredDefinition, StoredTransition};

impl MemoryStore {
    pub(crate) fn partition_of(&self, run: RunId) -> Option<i16> {
        self.lock().runs.get(&run).map(|row| row.partition)
    }

    pub(crate) fn dump(&self, name: impl Fn(Uuid) -> usize) -> Dump {
        let state = self.lock();
        Dump {
            sessions: state
                .sessions
                .iter()
                .map(|(id, row)| SessionDump {
                    session: name(*id),
                    replica: row.replica.clone(),
                    epoch: row.epoch,
                    batch_no: row.batch_no,
                    claimed_by: row.claimed_by.map(&name),
                })
                .collect(),
            partitions: state
                .partitions
                .iter()
                .map(|(partition, row)| PartitionDump {
                    partition: *partition,
                    owner: row.owner.map(&name),
                    cursor: row.cursor.clone(),
                })
                .collect(),
            commits: state
                .commits
                .iter()
                .map(|(id, row)| CommitDump {
                    session: name(id.session),
                    batch_no: id.batch_no,
                    holder: name(row.holder),
                    owed: row.owed.clone(),
                })
                .collect(),
            runs: state.runs.values().cloned().collect(),
            events: state
                .events
                .iter()
                .map(|((retention_class, run_id, seq), (at, body))| Append {
                    retention_class: *retention_class,
                    run_id: *run_id,
                    transition: StoredTransition {
                        seq: *seq,
                        at: *at,
                        body: body.clone(),
                    },
                })
                .collect(),
            snapshots: state.snapshots.values().cloned().collect(),
            deferred: state.deferred.values().cloned().collect(),
            permits: state
                .permits
                .iter()
                .map(|(id, body)| PermitRow {
                    id: id.clone(),
                    body: body.clone(),
                })
                .collect(),
            definitions: state
                .definitions
                .values()
                .map(|there| StoredDefinition::clone(there))
                .collect(),
            definitions_epoch: state.definitions_epoch,
            namespaces: state
                .namespaces
                .iter()
                .map(|(name, row)| (name.to_string(), row.retention_class))
                .collect(),
        }
        .normalised()
    }
}
