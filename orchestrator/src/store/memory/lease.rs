//! The cluster, its sessions, their leases, and who owns which partition.

use std::collections::BTreeSet;

use knarr_core::ids::Namespace;
use knarr_core::time::{Span, Timestamp};
use uuid::Uuid;

use super::state::{PartitionRow, SessionRow, State};
use crate::store::{
    Cluster, CommitId, EVENTS_BY_DEFAULT, InheritedCommit, NamespaceRow, OwnedPartition, Session, Share, StoreError,
    fair_share,
};

/// As in production.
pub(super) const LEASE: Span = Span::from_millis(1_500);

impl State {
    pub(super) fn prepare(&mut self, partitions: u16, reads: i32) -> Result<Cluster, StoreError> {
        let last = i16::try_from(partitions)
            .ok()
            .filter(|count| (1..i16::MAX).contains(count))
            .ok_or_else(|| StoreError::Rejected("KN0314: a cluster has 1 to 32,766 partitions".to_owned()))?;
        if let Some(cluster) = &self.cluster {
            readable(cluster.format_level, reads)?;
            return Ok(cluster.clone());
        }
        let cluster = Cluster {
            id: Uuid::from_u128(1),
            partitions,
            secret: [7; 32],
            format_level: reads,
        };
        self.partitions = (0..=last)
            .map(|partition| (partition, PartitionRow::default()))
            .collect();
        let namespace = NamespaceRow {
            name: Namespace::new("default"),
            retention_class: 0,
            events: EVENTS_BY_DEFAULT,
        };
        self.namespaces.insert(namespace.name.clone(), namespace);
        self.cluster = Some(cluster.clone());
        Ok(cluster)
    }

    pub(super) fn open_session(&mut self, process: u64, reads: i32, replica: &str) -> Result<Session, StoreError> {
        let locked = self.locks.get(replica).is_none_or(|holder| *holder == process);
        if !locked
            && self
                .sessions
                .values()
                .any(|row| row.replica == replica && self.is_live(row))
        {
            return Err(StoreError::NameTaken {
                replica: replica.to_owned(),
            });
        }
        readable(self.format_level(), reads)?;
        self.sessions_opened += 1;
        let id = Uuid::from_u128((1 << 64) | u128::from(self.sessions_opened));
        if locked {
            self.locks.insert(replica.to_owned(), process);
            for row in self.sessions.values_mut().filter(|row| row.replica == replica) {
                row.epoch += 1;
                row.claimed_by = Some(id);
            }
        }
        let lease_until = self.now.plus(LEASE);
        self.sessions.insert(
            id,
            SessionRow {
                replica: replica.to_owned(),
                epoch: 1,
                batch_no: 0,
                lease_until,
                reads_format: reads,
                claimed_by: None,
                told_partitions: BTreeSet::new(),
                told_commits: BTreeSet::new(),
            },
        );
        Ok(Session {
            id,
            epoch: 1,
            batch_no: 0,
        })
    }

    pub(super) fn keep(&mut self, session: &Session, published: &[CommitId]) -> Result<Share, StoreError> {
        let lease_until = self.now.plus(LEASE);
        self.session(session)?.lease_until = lease_until;
        self.forget_published(session.id, published);
        self.take_over(session.id);

        let live_sessions = self.sessions.values().filter(|row| self.is_live(row)).count();
        let share = fair_share(self.partitions.len(), live_sessions);
        let owned = self.owned(session.id).len();
        self.claim_free(session.id, share.saturating_sub(owned));

        let owned = self.owned(session.id);
        let inherited: Vec<CommitId> = self
            .commits
            .iter()
            .filter(|(id, row)| row.holder == session.id && id.session != session.id)
            .map(|(id, _)| *id)
            .collect();
        let all_read = self.sessions.values().map(|row| row.reads_format).min();
        if let (Some(cluster), Some(all_read)) = (&mut self.cluster, all_read) {
            cluster.format_level = cluster.format_level.max(all_read);
        }
        let (format_level, definitions_epoch) = (self.format_level(), self.definitions_epoch);
        let telling = self.namespaces.values().filter(|row| row.events);
        let telling = telling.map(|row| row.name.clone()).collect();
        let row = self.session(session)?;
        let partitions = owned.iter().map(|owned| owned.partition).collect();
        let commits = inherited.iter().copied().collect();
        let told_partitions = std::mem::replace(&mut row.told_partitions, partitions);
        let told_commits = std::mem::replace(&mut row.told_commits, commits);
        Ok(Share {
            surplus: owned.len().saturating_sub(share),
            live_sessions,
            format_level,
            definitions_epoch,
            telling,
            now: self.now,
            gained: owned
                .into_iter()
                .filter(|owned| !told_partitions.contains(&owned.partition))
                .collect(),
            inherited: inherited
                .into_iter()
                .filter(|commit| !told_commits.contains(commit))
                .collect(),
        })
    }

    pub(super) fn owed(&self, session: &Session, commits: &[CommitId]) -> Result<Vec<InheritedCommit>, StoreError> {
        let held = commits.iter().filter_map(|id| self.commits.get_key_value(id));
        Ok(held
            .filter(|(_, row)| row.holder == session.id)
            .map(|(id, row)| InheritedCommit {
                id: *id,
                owed: row.owed.clone(),
            })
            .collect())
    }

    pub(super) fn release(&mut self, session: &Session, partitions: &[i16]) -> Result<(), StoreError> {
        let row = self.session(session)?;
        row.told_partitions.retain(|partition| !partitions.contains(partition));
        for partition in partitions {
            if let Some(row) = self.partitions.get_mut(partition)
                && row.owner == Some(session.id)
            {
                row.owner = None;
            }
        }
        Ok(())
    }

    pub(super) fn close_session(&mut self, process: u64, session: &Session) -> Result<(), StoreError> {
        let row = self.session(session)?;
        row.epoch += 1;
        row.lease_until = Timestamp(i64::MIN);
        let replica = row.replica.clone();
        for row in self.partitions.values_mut().filter(|row| row.owner == Some(session.id)) {
            row.owner = None;
        }
        if !self.commits.values().any(|row| row.holder == session.id) {
            self.sessions.remove(&session.id);
        }
        if self.locks.get(&replica) == Some(&process) {
            self.locks.remove(&replica);
        }
        Ok(())
    }

    pub(super) fn recover(&mut self, session: &Session) -> Result<Session, StoreError> {
        let lease_until = self.now.plus(LEASE);
        let row = self
            .sessions
            .get_mut(&session.id)
            .filter(|row| row.epoch >= session.epoch && row.claimed_by.is_none())
            .ok_or(StoreError::Fenced)?;
        row.epoch += 1;
        row.lease_until = lease_until;
        Ok(Session {
            id: session.id,
            epoch: row.epoch,
            batch_no: row.batch_no,
        })
    }

    pub(super) fn cursors(&mut self, session: &Session) -> Result<Vec<OwnedPartition>, StoreError> {
        if self.session(session).is_err() {
            return Ok(Vec::new());
        }
        Ok(self.owned(session.id))
    }

    pub(super) fn all_cursors(&self) -> Result<Vec<OwnedPartition>, StoreError> {
        let every = self.partitions.iter();
        Ok(every
            .map(|(partition, row)| OwnedPartition {
                partition: *partition,
                cursor: row.cursor.clone(),
                deferred: self.deferred.keys().any(|id| id.partition == *partition),
                permits: self.permits.keys().any(|id| id.partition == *partition),
            })
            .collect())
    }

    fn session(&mut self, session: &Session) -> Result<&mut SessionRow, StoreError> {
        self.sessions
            .get_mut(&session.id)
            .filter(|row| row.epoch == session.epoch)
            .ok_or(StoreError::Fenced)
    }

    pub(super) fn format_level(&self) -> i32 {
        self.cluster.as_ref().map_or(1, |cluster| cluster.format_level)
    }

    fn is_live(&self, row: &SessionRow) -> bool {
        row.lease_until >= self.now
    }

    fn take_over(&mut self, claimant: Uuid) {
        let dead: Vec<Uuid> = self
            .sessions
            .iter()
            .filter(|(id, row)| **id != claimant && (!self.is_live(row) || row.claimed_by == Some(claimant)))
            .map(|(id, _)| *id)
            .collect();
        for id in dead {
            self.sessions.remove(&id);
            for partition in self.partitions.values_mut().filter(|row| row.owner == Some(id)) {
                partition.owner = Some(claimant);
            }
            for commit in self.commits.values_mut().filter(|row| row.holder == id) {
                commit.holder = claimant;
            }
        }
    }

    fn owned(&self, session: Uuid) -> Vec<OwnedPartition> {
        self.partitions
            .iter()
            .filter(|(_, row)| row.owner == Some(session))
            .map(|(partition, row)| OwnedPartition {
                partition: *partition,
                cursor: row.cursor.clone(),
                deferred: self.deferred.keys().any(|id| id.partition == *partition),
                permits: self.permits.keys().any(|id| id.partition == *partition),
            })
            .collect()
    }

    fn claim_free(&mut self, session: Uuid, wanted: usize) {
        for row in self
            .partitions
            .values_mut()
            .filter(|row| row.owner.is_none())
            .take(wanted)
        {
            row.owner = Some(session);
        }
    }

    pub(super) fn forget_published(&mut self, session: Uuid, published: &[CommitId]) {
        for id in published {
            if self.commits.get(id).is_some_and(|row| row.holder == session) {
                self.commits.remove(id);
            }
        }
    }
}

fn readable(level: i32, reads: i32) -> Result<(), StoreError> {
    if level > reads {
        return Err(StoreError::TooOld { level, reads });
    }
    Ok(())
}
