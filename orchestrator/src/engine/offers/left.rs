//! What of a commit is still to be offered: runs whose tasks or events were not acknowledged, and messages beside them.

use std::collections::BTreeSet;

use knarr_core::ids::{Namespace, RunId};

use crate::store::InheritedCommit;

/// Runs remembered by name; beyond that all of a commit is offered again.
pub(super) const MOST_RUNS: usize = 100_000;

/// What a commit owes and nobody can read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::engine) struct Unreadable {
    pub(in crate::engine) runs: BTreeSet<RunId>,
    /// The messages that no run's events contain.
    pub(in crate::engine) messages: bool,
}

impl Unreadable {
    pub(in crate::engine) fn is_empty(&self) -> bool {
        self.runs.is_empty() && !self.messages
    }
}

/// What of a commit is still to be offered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::engine) enum Left {
    #[default]
    Nothing,
    /// What these runs owe, and perhaps the messages that no run's events contain.
    Some {
        runs: BTreeSet<RunId>,
        /// Whose tasks are among it.
        namespaces: BTreeSet<Namespace>,
        messages: bool,
        unreadable: Unreadable,
    },
    All,
}

/// What there is to add to.
struct Parts<'a> {
    runs: &'a mut BTreeSet<RunId>,
    namespaces: &'a mut BTreeSet<Namespace>,
    messages: &'a mut bool,
    unreadable: &'a mut Unreadable,
}

impl Left {
    pub(in crate::engine) fn add_runs(&mut self, more: impl IntoIterator<Item = RunId>) {
        let more: BTreeSet<RunId> = more.into_iter().collect();
        if !more.is_empty()
            && let Some(parts) = self.parts()
        {
            parts.runs.extend(more);
        }
    }

    pub(in crate::engine) fn add_unreadable(&mut self, more: impl IntoIterator<Item = RunId>) {
        self.add_all_unreadable(Unreadable {
            runs: more.into_iter().collect(),
            messages: false,
        });
    }

    pub(in crate::engine) fn add_all_unreadable(&mut self, more: Unreadable) {
        if !more.is_empty()
            && let Some(parts) = self.parts()
        {
            parts.unreadable.runs.extend(more.runs);
            parts.unreadable.messages |= more.messages;
        }
    }

    /// A task of the run.
    pub(in crate::engine) fn add_task(&mut self, run: RunId, namespace: &Namespace) {
        if let Some(parts) = self.parts() {
            parts.runs.insert(run);
            if !parts.namespaces.contains(namespace) {
                parts.namespaces.insert(namespace.clone());
            }
        }
    }

    pub(in crate::engine) fn add_messages(&mut self) {
        if let Some(parts) = self.parts() {
            *parts.messages = true;
        }
    }

    pub(in crate::engine) fn add(&mut self, other: Self) {
        match other {
            Self::Nothing => {}
            Self::All => *self = Self::All,
            Self::Some {
                runs,
                namespaces,
                messages,
                unreadable,
            } => {
                if let Some(parts) = self.parts() {
                    parts.runs.extend(runs);
                    parts.namespaces.extend(namespaces);
                    *parts.messages |= messages;
                    parts.unreadable.runs.extend(unreadable.runs);
                    parts.unreadable.messages |= unreadable.messages;
                }
            }
        }
    }

    /// To add to; `None` where that is all already.
    fn parts(&mut self) -> Option<Parts<'_>> {
        if *self == Self::Nothing {
            *self = Self::Some {
                runs: BTreeSet::new(),
                namespaces: BTreeSet::new(),
                messages: false,
                unreadable: Unreadable::default(),
            };
        }
        match self {
            Self::Some {
                runs,
                namespaces,
                messages,
                unreadable,
            } => Some(Parts {
                runs,
                namespaces,
                messages,
                unreadable,
            }),
            Self::Nothing | Self::All => None,
        }
    }

    /// Whose tasks may be unpublished; `None` = anybody's.
    pub(super) fn owing(&self) -> Owing {
        match self {
            Self::Nothing => Some(BTreeSet::new()),
            Self::Some { namespaces, .. } => Some(namespaces.clone()),
            Self::All => None,
        }
    }

    pub(super) fn runs(&self) -> usize {
        match self {
            Self::Some { runs, unreadable, .. } => runs.len() + unreadable.runs.len(),
            Self::Nothing | Self::All => 0,
        }
    }

    /// What nobody could read of it.
    pub(super) fn unreadable(&self) -> Option<&Unreadable> {
        match self {
            Self::Some { unreadable, .. } => Some(unreadable),
            Self::Nothing | Self::All => None,
        }
    }

    /// Whether it is no use to offer soon what this run owes.
    pub(in crate::engine) fn is_unreadable(&self, run: RunId) -> bool {
        self.unreadable()
            .is_some_and(|unreadable| unreadable.runs.contains(&run))
    }

    /// Nothing that is still to be offered can be: offering it again soon is no use.
    pub(super) fn only_unreadable(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Some { runs, messages, .. } => runs.is_empty() && !messages,
            Self::All => false,
        }
    }

    /// Leaves of `owing` what is still to be offered.
    pub(super) fn restrict(&self, owing: &mut InheritedCommit) {
        match self {
            Self::All => {}
            Self::Nothing => owing.owed = crate::store::Owed::default(),
            Self::Some {
                runs,
                messages,
                unreadable,
                ..
            } => {
                let owes = |run: &RunId| runs.contains(run) || unreadable.runs.contains(run);
                owing.owed.spans.retain(|span| owes(&span.run_id));
                if !messages && !unreadable.messages {
                    owing.owed.messages = None;
                }
            }
        }
    }
}

pub(super) type Owing = Option<BTreeSet<Namespace>>;
