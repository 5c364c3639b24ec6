//! Turns: by them those who wait are served key by key.
//!
//! Every ask gets the number of a round when it comes: the one after the round that is being served, or after the last one of its
//! own key. So a key has one ask in a round, and a key that comes new is in the next one, behind those that wait there
//! already. A round is as long as there are keys, so nobody is passed over for longer. What is taken back leaves its round empty
//! where others of its key wait behind it, and is forgotten where it was the last.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::permit::Permit;

/// Of one limiter, by rank.
#[derive(Debug, Default)]
pub(super) struct Turns(BTreeMap<u8, Rank>);

#[derive(Debug, Default)]
struct Rank {
    /// The round that is being served.
    now: u64,
    /// Keys that wait, and the rounds of their asks.
    waiting: BTreeMap<Arc<str>, BTreeSet<u64>>,
}

impl Turns {
    /// Gives a new ask its turn.
    pub(super) fn next(&mut self, rank: u8, key: &Arc<str>) -> u64 {
        let rank = self.0.entry(rank).or_default();
        let rounds = rank.waiting.entry(Arc::clone(key)).or_default();
        let last = rounds.last().copied().unwrap_or(0);
        let next = rank.now.max(last).saturating_add(1);
        rounds.insert(next);
        next
    }

    /// An ask waits no longer, because it is `served` or was taken back.
    pub(super) fn left(&mut self, permit: &Permit, served: bool) {
        let Some(rank) = self.0.get_mut(&permit.ask.rank()) else {
            return;
        };
        if served {
            rank.now = rank.now.max(permit.turn);
        }
        if let Some(rounds) = rank.waiting.get_mut(&permit.ask.fairness_key) {
            rounds.remove(&permit.turn);
            if rounds.is_empty() {
                rank.waiting.remove(&permit.ask.fairness_key);
            }
        }
        // Rounds are counted anew when nobody waits.
        if rank.waiting.is_empty() {
            self.0.remove(&permit.ask.rank());
        }
    }

    /// Brings back what rows tell.
    pub(super) fn restore<'p>(&mut self, permits: impl Iterator<Item = &'p Permit>) {
        for permit in permits.filter(|permit| permit.granted_at.is_none()) {
            let rank = self.0.entry(permit.ask.rank()).or_insert_with(|| Rank {
                now: u64::MAX,
                ..Rank::default()
            });
            let rounds = rank.waiting.entry(Arc::clone(&permit.ask.fairness_key)).or_default();
            rounds.insert(permit.turn);
            // Nobody waits for a round that is over.
            rank.now = rank.now.min(permit.turn.saturating_sub(1));
        }
    }
}
