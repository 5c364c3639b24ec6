//! Limits of queues, and what of limits is in use.

use std::collections::BTreeMap;

use knarr_core::ids::Namespace;
use knarr_core::limit::{LimitName, Limiter, Row};

use super::state::State;
use crate::store::{LIST_LIMIT, LimitLine, LimitUse, PlaceAsked, QueueRow, StoreError};

impl State {
    pub(super) fn set_queue(&mut self, row: &QueueRow) -> Result<(), StoreError> {
        let bad_rate = row.rate.is_some_and(|rate| rate.limit < 1 || rate.per.0 == 0);
        let name = row.queue.as_str();
        if bad_rate
            || row.ack_wait.is_some_and(|wait| wait.0 == 0)
            || row.max_concurrent.is_some_and(|limit| limit < 1)
            || name.is_empty()
            || name.contains('\0')
            || !self.namespaces.contains_key(&row.namespace)
        {
            return Err(StoreError::Rejected("the limit breaks a rule of the store".to_owned()));
        }
        let key = (row.namespace.clone(), row.queue.clone());
        if row.says_nothing() {
            self.queues.remove(&key);
        } else {
            self.queues.insert(key, row.clone());
        }
        self.definitions_epoch += 1;
        Ok(())
    }

    pub(super) fn queues(&self) -> Vec<QueueRow> {
        self.queues.values().cloned().collect()
    }

    pub(super) fn limits_in_use(&self, namespace: &Namespace) -> Vec<LimitUse> {
        let mut uses: BTreeMap<LimitName, LimitUse> = BTreeMap::new();
        for (_, body) in self
            .permits
            .iter()
            .filter(|(id, _)| id.namespace == *namespace && id.no > 0)
        {
            let Ok(Row::Permit(permit)) = serde_json::from_str(body) else {
                continue;
            };
            let limit = permit.ask.limit;
            let used = uses.entry(limit.clone()).or_insert(LimitUse {
                limit,
                held: 0,
                waiting: 0,
                since: None,
            });
            if permit.granted_at.is_some() {
                used.held += 1;
            } else {
                used.waiting += 1;
                used.since = Some(used.since.map_or(permit.asked_at, |since| since.min(permit.asked_at)));
            }
        }
        let mut uses: Vec<_> = uses.into_values().collect();
        uses.sort_by_key(|used| (std::cmp::Reverse(used.waiting), used.limit.address()));
        uses.truncate(LIST_LIMIT as usize);
        uses
    }
    pub(super) fn line_of(&self, namespace: &Namespace, asked: &PlaceAsked) -> LimitLine {
        let address = asked.limit.address();
        let rows = self
            .permits
            .iter()
            .filter(|(id, _)| id.namespace == *namespace && id.limiter == address.as_str());
        let limiter = Limiter::load(rows.filter_map(|(id, body)| Some((id.no, serde_json::from_str(body).ok()?))));
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        LimitLine {
            held: i64::from(limiter.held()),
            waiting: count(limiter.waiting()),
            ahead: limiter.ahead_of(asked.run, asked.number).map(count),
        }
    }
}
