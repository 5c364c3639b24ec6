//! Head-room in the log for results and operators' commands: which namespaces' starts the log takes, as it fills.
//!
//! The log refuses new messages at its limit, whoever sends them. So that starts alone cannot fill it, they are no longer
//! taken from three quarters of the limit on, first those of the namespaces that have the most of them waiting, and from
//! nine tenths on those of all. What is left belongs to results, signals and commands. Starts are taken again when the log
//! has fallen to half: the gap keeps the decision from going back and forth.

use std::collections::BTreeSet;

use knarr_core::ids::Namespace;

/// In percent of the log's limit.
const THROTTLE_FROM: u64 = 75;
const TAKE_NONE_FROM: u64 = 90;
const TAKE_ALL_UP_TO: u64 = 50;

/// How full the log is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fill {
    pub bytes: u64,
    pub limit: u64,
}

impl Fill {
    /// Rounded down; a log without a limit is never full.
    pub fn percent(self) -> u64 {
        (self.bytes.saturating_mul(100)).checked_div(self.limit).unwrap_or(0)
    }

    /// Whether the answer depends on who has how many starts waiting.
    pub(super) fn asks_for_backlogs(self) -> bool {
        (TAKE_ALL_UP_TO + 1..TAKE_NONE_FROM).contains(&self.percent())
    }
}

/// Whose starts the log takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    All,
    Of(BTreeSet<Namespace>),
}

/// `backlogs` are the starts that wait in the log, for every namespace there is. A namespace keeps within its share when it
/// has fewer waiting than an equal part of all.
pub(super) fn decide(fill: Fill, before: &Taken, backlogs: &[(Namespace, u64)]) -> Taken {
    let percent = fill.percent();
    if percent <= TAKE_ALL_UP_TO || (*before == Taken::All && percent < THROTTLE_FROM) {
        return Taken::All;
    }
    if percent >= TAKE_NONE_FROM {
        return Taken::Of(BTreeSet::new());
    }
    let waiting = backlogs.iter().filter(|(_, backlog)| *backlog > 0).count() as u64;
    let all: u64 = backlogs.iter().map(|(_, backlog)| backlog).sum();
    let within = |backlog: u64| backlog == 0 || backlog.saturating_mul(waiting) < all;
    let stays = |namespace: &Namespace| match before {
        Taken::All => true,
        Taken::Of(taken) => taken.contains(namespace),
    };
    let taken = backlogs
        .iter()
        .filter(|(namespace, backlog)| within(*backlog) && stays(namespace));
    Taken::Of(taken.map(|(namespace, _)| namespace.clone()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: &[&str]) -> Taken {
        Taken::Of(names.iter().map(|name| Namespace::new(name)).collect())
    }

    #[test]
    fn who_is_over_its_share_is_throttled_first_and_until_there_is_room() {
        let uneven = [("a", 1_000), ("b", 10), ("c", 0)];
        let even = [("a", 500), ("b", 500), ("c", 0)];
        let alone = [("a", 7)];
        for (percent, before, backlogs, after) in [
            (0, Taken::All, &uneven[..], Taken::All),
            (74, Taken::All, &uneven, Taken::All),
            (75, Taken::All, &uneven, of(&["b", "c"])),
            (75, Taken::All, &even, of(&["c"])),
            (75, Taken::All, &alone, of(&[])),
            (89, Taken::All, &uneven, of(&["b", "c"])),
            (90, Taken::All, &uneven, of(&[])),
            (100, of(&["b"]), &uneven, of(&[])),
            // Once throttled, until half of it is free again.
            (60, of(&["b", "c"]), &uneven, of(&["b", "c"])),
            (60, of(&["b", "c"]), &even, of(&["c"])),
            (51, of(&[]), &uneven, of(&[])),
            (50, of(&[]), &uneven, Taken::All),
        ] {
            let backlogs: Vec<_> = backlogs.iter().map(|(name, n)| (Namespace::new(name), *n)).collect();
            let fill = Fill {
                bytes: percent,
                limit: 100,
            };
            assert_eq!(
                decide(fill, &before, &backlogs),
                after,
                "{percent} {before:?} {backlogs:?}"
            );
        }
    }

    #[test]
    fn a_log_without_a_limit_is_never_full() {
        let fill = Fill {
            bytes: u64::MAX,
            limit: 0,
        };
        assert_eq!(decide(fill, &Taken::All, &[]), Taken::All);
    }
}
