//! What operators allow queues, as this replica knows it: read at its start, and again when the store's epoch has moved, which the
//! renewal of the lease tells. So a change counts everywhere within a second, and nothing is asked for when nothing changes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use knarr_core::ids::{Namespace, QueueName};
use knarr_core::limit::{Bound, LimitKind, LimitName, Rate, Setting};
use knarr_core::run::{QueueLimits, TaskLimit};

use super::run_loop::Loop;
use crate::bus::Bus;
use crate::store::{QueueRow, Store};

/// By namespace.
pub(super) type AllLimits = HashMap<Namespace, QueueLimits>;

#[derive(Debug, Default)]
pub(super) struct KnownLimits {
    of: Arc<AllLimits>,
    /// Of a namespace where nothing is limited.
    none: QueueLimits,
}

impl KnownLimits {
    pub(super) fn new(of: AllLimits) -> Self {
        Self {
            of: Arc::new(of),
            none: QueueLimits::new(),
        }
    }

    pub(super) fn of(&self, namespace: &Namespace) -> &QueueLimits {
        if self.of.is_empty() {
            return &self.none;
        }
        self.of.get(namespace).unwrap_or(&self.none)
    }

    /// What a limiter is to go by.
    pub(super) fn setting(&self, namespace: &Namespace, name: &LimitName) -> Setting {
        if !name.kind.is_of_queue() {
            return Setting::AsAsked;
        }
        let limits = self.of(namespace).get(&QueueName::new(&name.of));
        let limit = limits.and_then(|limits| limits.iter().find(|limit| limit.name == *name));
        limit.map_or(Setting::Unlimited, |limit| Setting::Bound(limit.bound))
    }
}

/// As core reads it.
pub(super) fn read(rows: Vec<QueueRow>) -> AllLimits {
    let mut all = AllLimits::new();
    for row in rows {
        let name = |kind| LimitName {
            kind,
            of: Arc::from(row.queue.as_str()),
            key: Arc::default(),
        };
        let number = |number: i32| u32::try_from(number).unwrap_or(1);
        let concurrency = row.max_concurrent.map(|limit| TaskLimit {
            name: name(LimitKind::Queue),
            bound: Bound::Concurrent(number(limit)),
        });
        let rate = row.rate.map(|rate| TaskLimit {
            name: name(LimitKind::QueueRate),
            bound: Bound::Rate(Rate {
                limit: number(rate.limit),
                per: rate.per,
            }),
        });
        let limits: Vec<_> = concurrency.into_iter().chain(rate).collect();
        // Of its lease alone nothing is asked for.
        if limits.is_empty() {
            continue;
        }
        all.entry(row.namespace).or_default().insert(row.queue, limits);
    }
    all
}

impl<S: Store, B: Bus> Loop<S, B> {
    /// The store has definitions, namespaces or limits that this replica may not know yet.
    pub(super) fn see_epoch(&mut self, epoch: i64) {
        self.epoch.store(epoch, Ordering::Relaxed);
        if self.definitions.knows(epoch) {
            // The look-up that has read it may have said nothing here: it was void for partitions taken meanwhile, or for all
            // that has been dropped since.
            self.learn_queue_limits();
        } else {
            self.wanted.definitions();
        }
    }

    /// Takes in what a look-up has found of queues; those who wait go by the new word.
    pub(super) fn learn_queue_limits(&mut self) {
        let epoch = self.definitions.epoch();
        if self.limiters.knows != epoch {
            self.limiters.knows = epoch;
            self.wake_limiters();
        }
        let Some(found) = self.definitions.queue_limits() else {
            return;
        };
        if Arc::ptr_eq(&found, &self.queue_limits.of) {
            return;
        }
        let changed = *found != *self.queue_limits.of;
        self.queue_limits.of = found;
        if changed {
            self.wake_limiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use knarr_core::time::Span;

    use super::*;

    /// Tasks of a queue that is not limited ask nobody.
    #[test]
    fn a_queue_of_which_only_the_lease_is_said_is_not_limited() {
        let row = |max_concurrent| QueueRow {
            namespace: Namespace::new("default"),
            queue: QueueName::new("orders"),
            max_concurrent,
            rate: None,
            ack_wait: Some(Span::from_secs(60)),
        };
        assert!(read(vec![row(None)]).is_empty());
        assert_eq!(read(vec![row(Some(3))])[&Namespace::new("default")].len(), 1);
    }
}
