//! What is committed, folded as it grows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use futures_util::FutureExt as _;
use knarr_core::ids::{RunId, TaskNo};
use knarr_core::run::{Event, State, Transition, evolve};

use crate::engine::fetch;
use crate::store::memory::MemoryStore;
use crate::store::{HISTORY_LIMIT, Store as _, StoredTransition};

/// What is committed of each run. A history only ever grows, so each transition is folded once.
#[derive(Debug)]
pub(crate) struct Committed {
    store: MemoryStore,
    runs: Mutex<BTreeMap<RunId, Folded>>,
}

#[derive(Debug)]
pub(crate) struct Folded {
    pub(crate) state: State,
    /// The tasks that its events have opened.
    pub(crate) opened: BTreeSet<TaskNo>,
}

impl Committed {
    pub(crate) fn new(store: MemoryStore) -> Arc<Self> {
        Arc::new(Self {
            store,
            runs: Mutex::default(),
        })
    }

    /// As the last commit has left it.
    pub(crate) fn of<T>(&self, run: RunId, look: impl FnOnce(&Folded) -> T) -> Option<T> {
        let history = |after: u32| {
            let after = i32::try_from(after).unwrap();
            let news = self.store.history(run, after, HISTORY_LIMIT).now_or_never();
            news.expect("the memory store does not wait").unwrap()
        };
        let mut runs = self.runs.lock().unwrap();
        let mut known = runs.remove(&run);
        let mut news = history(known.as_ref().map_or(0, |folded| folded.state.seq()));
        // Of a schedule the first events are not kept.
        let next = known.as_ref().map_or(1, |folded| folded.state.seq() + 1);
        if news.first().is_some_and(|first| i64::from(first.seq) > i64::from(next)) {
            known = self.of_snapshot(run);
            news = history(known.as_ref()?.state.seq());
        }
        for stored in news {
            let transition = Transition::read(u32::try_from(stored.seq).unwrap(), stored.at, stored.body).unwrap();
            match &mut known {
                Some(folded) => evolve(&mut folded.state, &transition),
                None => known = State::born(&transition).map(Folded::new),
            }
            let folded = known.as_mut().unwrap();
            folded.opened.extend(transition.events.iter().filter_map(opens));
        }
        let folded = known?;
        let seen = look(&folded);
        runs.insert(run, folded);
        Some(seen)
    }

    fn of_snapshot(&self, run: RunId) -> Option<Folded> {
        let stored = self.store.load_runs(&[run]).now_or_never();
        let stored = stored.expect("the memory store does not wait").unwrap().pop()?;
        Some(Folded::new(fetch::rebuild(&stored).unwrap()))
    }
}

impl Folded {
    fn new(state: State) -> Self {
        Self {
            state,
            opened: BTreeSet::new(),
        }
    }
}

fn opens(event: &Event) -> Option<TaskNo> {
    match event {
        Event::ActivityScheduled(scheduled) => Some(scheduled.task),
        Event::TaskOpened { task, .. } | Event::UndoScheduled { task, .. } => Some(*task),
        _ => None,
    }
}

pub(crate) async fn events_of(store: &MemoryStore, run: RunId) -> Vec<Event> {
    let transitions = store.history(run, 0, HISTORY_LIMIT).await.unwrap_or_default();
    let read = |row: StoredTransition| serde_json::from_str::<Vec<Event>>(&row.body).unwrap();
    transitions.into_iter().flat_map(read).collect()
}
