//! What the loop hears of the work beside it.

use std::time::Duration;

use knarr_core::ids::{Namespace, RunId, WorkflowId};
use knarr_core::time::Timestamp;
use tokio::time::Instant;

use super::fetch::{Fetched, Loaded};
use super::gate::HorizonAnswer;
use super::look_up::Absent;
use super::offers::{LaneName, Left};
use super::outgoing::Withdrawal;
use super::publication::Published;
use super::run_loop::Loop;
use super::triggers::Reading;
use super::withdrawals::Place;
use crate::bus::Bus;
use crate::bus::source::{Feed, SourceItem};
use crate::store::{
    CommitError, CommitId, DeferredInput, DeferredName, Due, OwnedPartition, PermitRow, Session, Share, Store,
    StoreError,
};

/// What happened beside the loop. `life` tells what belongs to a state that has since been dropped.
#[derive(Debug)]
pub(super) enum Done {
    Committed {
        life: u64,
        result: Result<(), CommitError>,
        took: Duration,
    },
    Fetched {
        life: u64,
        number: u64,
        result: Result<Fetched, StoreError>,
    },
    /// Of what weighed so many bytes; nothing is known of it where the engine stopped first.
    Published {
        bytes: usize,
        published: Option<Published>,
    },
    Offered(LaneName, Vec<Published>),
    /// What became of tasks that were to be taken out of their queue; nothing where it did not answer.
    Withdrawn(Place, Vec<(Withdrawal, Option<bool>)>),
    QueuesRestored(Namespace),
    Kept {
        life: u64,
        share: Result<Share, StoreError>,
        published: Vec<CommitId>,
        clock: Option<(Timestamp, Instant)>,
    },
    Released {
        life: u64,
        partitions: Vec<i16>,
        result: Result<(), StoreError>,
    },
    Due {
        life: u64,
        until: Timestamp,
        result: Result<Due, StoreError>,
    },
    Horizon {
        life: u64,
        answer: Option<HorizonAnswer>,
    },
    Recovered {
        life: u64,
        session: Session,
        fenced: bool,
        owned: Vec<OwnedPartition>,
    },
    /// A run that is held back, loaded by itself; what was asked before `readers` were opened.
    HeldLoaded {
        life: u64,
        readers: u64,
        load: (RunId, u64),
        result: Result<Result<Box<Loaded>, Absent>, StoreError>,
    },
    /// Deferred inputs of a run.
    ReadBack {
        life: u64,
        run: RunId,
        result: Result<Vec<DeferredInput>, StoreError>,
    },
    /// What is deferred of a partition that was taken over; nothing if that could not be found out.
    DeferredFound {
        life: u64,
        partition: i16,
        reader: u64,
        names: Option<Vec<DeferredName>>,
    },
    /// What limiters of a partition that was taken over are made of; nothing if that could not be found out.
    PermitsFound {
        life: u64,
        partition: i16,
        reader: u64,
        rows: Option<Vec<PermitRow>>,
        /// Workflow ids that starts are queued for.
        lines: Vec<(Namespace, WorkflowId)>,
    },
    /// Triggers of partitions that were taken over; nothing if they could not be found out.
    TriggersFound {
        life: u64,
        partitions: Vec<i16>,
        runs: Option<Vec<RunId>>,
    },
    /// What a feed has brought, and the feed.
    SourceRead {
        life: u64,
        reading: Reading,
        read: Option<(Feed, Vec<SourceItem>)>,
    },
    /// It ended without having recovered.
    RecoveryLost {
        life: u64,
    },
    /// This replica cannot go on: the cluster writes what it cannot read, or another has its name.
    Over(StoreError),
}

impl<S: Store, B: Bus> Loop<S, B> {
    pub(super) fn report(&mut self, report: Done) {
        match report {
            Done::Published { bytes, published } => {
                self.publishing_bytes = self.publishing_bytes.saturating_sub(bytes);
                if let Some(published) = published {
                    self.publication_ended(published);
                }
            }
            Done::Withdrawn(place, answers) => self.withdrawn(&place, answers),
            Done::Offered(lane, ended) => self.offered(&lane, ended),
            Done::QueuesRestored(namespace) => {
                self.restoring.remove(&namespace);
            }
            Done::Committed { life, result, took } if life == self.life => self.commit_returned(result, took),
            Done::Fetched { life, number, result } if life == self.life => self.fetched(number, result),
            Done::Kept {
                life,
                share,
                published,
                clock,
            } => {
                self.keeping = false;
                if let Some((now, at)) = clock {
                    self.clock.adjust(now, at);
                }
                if share.is_err() {
                    self.published.extend(published);
                }
                if life == self.life {
                    self.kept(share);
                } else if let Ok(share) = share {
                    // What was owed by the dead is not said twice; the partitions are in the recovered list.
                    for commit in share.inherited {
                        self.offers.put(commit, Left::All);
                    }
                }
            }
            Done::Released {
                life,
                partitions,
                result: Err(error),
            } if life == self.life => {
                tracing::warn!(%error, ?partitions, "partitions could not be released");
                self.reset("a release failed");
            }
            Done::Due { life, until, result } if life == self.life => self.scanned(until, result),
            Done::Horizon { life, answer } if life == self.life => self.horizon_answered(answer),
            Done::Recovered {
                life,
                session,
                fenced,
                owned,
            } if life == self.life => {
                self.recovered(session, fenced, owned);
            }
            Done::HeldLoaded {
                life,
                readers,
                load,
                result,
            } if life == self.life => self.held_loaded(readers, load, result),
            Done::ReadBack { life, run, result } if life == self.life => self.was_read_back(run, result),
            Done::DeferredFound {
                life,
                partition,
                reader,
                names,
            } if life == self.life => self.deferred_found(partition, reader, names),
            Done::PermitsFound {
                life,
                partition,
                reader,
                rows,
                lines,
            } if life == self.life => self.permits_found(partition, reader, rows, lines),
            Done::TriggersFound { life, partitions, runs } if life == self.life => {
                self.triggers_found(partitions, runs);
            }
            Done::SourceRead { life, reading, read } if life == self.life => self.source_read(reading, read),
            Done::Over(error) => self.over = Some(error),
            Done::RecoveryLost { life } if life == self.life => self.recover(),
            _ => {}
        }
    }
}
