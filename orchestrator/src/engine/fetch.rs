//! Loading what a batch lacks, beside the loop: runs by id, what is known of workflow ids, definitions.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use knarr_core::definition::plan::Plan;
use knarr_core::ids::{Namespace, RequestId, RunId, WorkflowName};
use knarr_core::json;
use knarr_core::run::{State, Transition};

use super::definitions::Definitions;
use super::live::IdKey;
use super::repeats::{self, Question, Taken};
use super::unaskable::{self, AskedId, AskedVersion, Unaskable};
use crate::store::{HISTORY_LIMIT, RunRow, RunSize, Store, StoreError, StoredRun, StoredTransition};

/// What to look up. Collected while a look-up is under way, so that many jobs share one.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    ids: HashSet<AskedId>,
    /// Ids whose open run is to be loaded as well.
    open_runs: HashSet<IdKey>,
    /// Ids of which the first one in line is loaded as well.
    lines: HashSet<IdKey>,
    /// Of what may be repeats.
    repeats: HashMap<IdKey, HashSet<Question>>,
    runs: BTreeSet<RunId>,
    versions: HashSet<AskedVersion>,
    definitions: bool,
}

impl Wanted {
    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.runs.is_empty() && self.versions.is_empty() && !self.definitions
    }

    pub(super) fn id(&mut self, key: &IdKey, request: Option<&RequestId>) {
        self.ids.insert((key.0.clone(), key.1.clone(), request.cloned()));
    }

    pub(super) fn open_run(&mut self, key: &IdKey) {
        self.id(key, None);
        self.open_runs.insert(key.clone());
    }

    pub(super) fn first_in_line(&mut self, key: &IdKey) {
        self.id(key, None);
        self.lines.insert(key.clone());
    }

    pub(super) fn repeat(&mut self, key: &IdKey, question: Question) {
        self.id(key, None);
        self.repeats.entry(key.clone()).or_default().insert(question);
    }

    pub(super) fn run(&mut self, id: RunId) {
        self.runs.insert(id);
    }

    pub(super) fn version(&mut self, namespace: &Namespace, workflow: &WorkflowName, version: u32) {
        self.versions.insert((namespace.clone(), workflow.clone(), version));
    }

    /// Spares runs that are there by now.
    pub(super) fn forget_runs(&mut self, is_there: impl Fn(RunId) -> bool) {
        self.runs.retain(|run_id| !is_there(*run_id));
        // The jobs that wanted them wait for the answer.
        self.definitions |= self.is_empty();
    }

    /// The newest definitions and namespaces, if they have changed.
    pub(super) fn definitions(&mut self) {
        self.definitions = true;
    }
}

/// A run, folded and ready.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) state: State,
    pub(super) plan: Arc<Plan>,
    pub(super) row: RunRow,
    /// Of what it was read from.
    pub(super) weight: usize,
}

#[derive(Debug, Default)]
pub(super) struct Fetched {
    /// Every id asked about; none of its runs = it was never used.
    pub(super) ids: HashMap<IdKey, Vec<RunRow>>,
    /// Who had taken what may be repeats.
    pub(super) repeats: Vec<(IdKey, Vec<(Question, Taken)>)>,
    pub(super) runs: Vec<Loaded>,
    /// Runs that were asked for and do not exist.
    pub(super) missing: Vec<RunId>,
    pub(super) unaskable: Unaskable,
    /// Runs that exist and cannot be read.
    pub(super) unreadable: Vec<RunId>,
    /// Runs too large to be loaded together with others, with their partitions.
    pub(super) huge: Vec<(RunId, i16)>,
}

/// How much a look-up may load, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    pub(super) run: u64,
    pub(super) all: u64,
}

pub(super) async fn fetch<S: Store>(
    store: &S,
    definitions: &Definitions,
    wanted: Wanted,
    budget: Budget,
) -> Result<Fetched, StoreError> {
    let mut fetched = Fetched::default();
    let named = wanted.runs;
    let mut runs = named.clone();
    if wanted.definitions || !wanted.ids.is_empty() || !wanted.versions.is_empty() {
        let asked: Vec<_> = wanted.ids.into_iter().collect();
        let found = unaskable::find_runs(store, &asked, &mut fetched.unaskable.ids).await?;
        for id in asked {
            if !fetched.unaskable.ids.contains(&id) {
                let (namespace, workflow_id, _) = id;
                fetched.ids.entry((namespace, workflow_id)).or_default();
            }
        }
        for run in found.runs {
            let key = (run.row.namespace.clone(), run.row.workflow_id.clone());
            if run.row.closed_at.is_none() && wanted.open_runs.contains(&key) {
                runs.insert(run.row.run_id);
            }
            fetched.ids.entry(key).or_default().push(run.row);
        }
        for key in &wanted.lines {
            let queued = fetched.ids.get(key).into_iter().flatten();
            let queued = queued.filter(|row| row.is_queued()).map(|row| row.run_id);
            runs.extend(queued.min());
        }
        definitions.refresh(store, found.definitions_epoch).await?;
    }
    for (key, questions) in wanted.repeats {
        if !fetched.unaskable.asks_of(&key) {
            let answers = repeats::ask(store, &key, questions.into_iter().collect(), budget.run).await?;
            fetched.repeats.push((key, answers));
        }
    }
    for named in wanted.versions {
        let (namespace, workflow, version) = &named;
        match definitions.load_version(store, namespace, workflow, *version).await {
            Err(StoreError::Rejected(problem)) => {
                // What is refused whatever is asked is not the question's fault.
                store.definition_heads().await?;
                tracing::error!(%problem, "the store refuses to look up a version");
                fetched.unaskable.versions.insert(named);
            }
            other => other?,
        }
    }
    if !runs.is_empty() {
        let asked: Vec<_> = runs.iter().copied().collect();
        let sizes = store.run_sizes(&asked).await?;
        for size in &sizes {
            if size.bytes > budget.run {
                fetched.huge.push((size.run_id, size.partition));
            }
        }
        let fitting = fitting(&sizes, &named, budget);
        // The others are neither there nor missing: they are asked for again.
        for size in sizes.iter().filter(|size| !fitting.contains(&size.run_id)) {
            runs.remove(&size.run_id);
        }
        let fitting_ids: Vec<_> = fitting.iter().copied().collect();
        fetched.runs = load(store, definitions, &fitting_ids).await?.runs;
        for loaded in &fetched.runs {
            runs.remove(&loaded.row.run_id);
        }
        // They had a size.
        fetched.unreadable = fitting.into_iter().filter(|run_id| runs.remove(run_id)).collect();
        fetched.missing = runs.into_iter().collect();
    }
    Ok(fetched)
}

/// What is loaded at once. Who was asked for by name is lacked for certain; one that comes along with its id may be in memory, and
/// taken first it would keep the others waiting for ever.
fn fitting(sizes: &[RunSize], named: &BTreeSet<RunId>, budget: Budget) -> BTreeSet<RunId> {
    let mut sizes: Vec<_> = sizes.iter().filter(|size| size.bytes <= budget.run).collect();
    sizes.sort_by_key(|size| (!named.contains(&size.run_id), size.run_id));
    let mut bytes = 0;
    let fits = sizes.into_iter().filter(|size| {
        let fits = bytes == 0 || bytes + size.bytes <= budget.all;
        bytes += if fits { size.bytes } else { 0 };
        fits
    });
    fits.map(|size| size.run_id).collect()
}

/// What of the runs that were asked for is there. Those that do not exist are in neither.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) runs: Vec<Loaded>,
    /// Their definition is missing, or their history says nothing to this binary.
    pub(super) unreadable: Vec<RunId>,
}

/// Loads and folds runs.
pub(super) async fn load<S: Store>(store: &S, definitions: &Definitions, ids: &[RunId]) -> Result<Read, StoreError> {
    let mut found = Read::default();
    for stored in store.load_runs(ids).await? {
        match read(store, &stored).await? {
            // Of a run that has moved the events say by which it goes.
            Ok(state) => match definitions.load(store, state.definition_hash()).await? {
                Some(plan) => found.runs.push(Loaded {
                    state,
                    plan,
                    weight: weight(&stored),
                    row: stored.row,
                }),
                None => {
                    tracing::error!(run = %stored.row.run_id, "the definition of a stored run is missing");
                    found.unreadable.push(stored.row.run_id);
                }
            },
            Err(error) => {
                tracing::error!(run = %stored.row.run_id, %error, "the history of a run cannot be read");
                found.unreadable.push(stored.row.run_id);
            }
        }
    }
    Ok(found)
}

fn weight(stored: &StoredRun) -> usize {
    let snapshot = stored.snapshot.iter().map(|snapshot| &snapshot.body);
    let transitions = stored.transitions.iter().map(|transition| &transition.body);
    snapshot
        .chain(transitions)
        .map(|text| json::weight(text.as_bytes()))
        .sum()
}

/// Where the snapshot is not to be read, all is folded from the first event: the snapshot is only a shorter way.
pub(super) async fn read<S: Store>(store: &S, stored: &StoredRun) -> Result<Result<State, String>, StoreError> {
    let problem = match rebuild(stored) {
        Err(problem) if stored.snapshot.is_some() => problem,
        other => return Ok(other),
    };
    let run_id = stored.row.run_id;
    tracing::error!(run = %run_id, %problem, "a snapshot cannot be read; the run is folded from its first event");
    let mut whole = StoredRun {
        row: stored.row.clone(),
        snapshot: None,
        transitions: Vec::new(),
    };
    loop {
        let after = whole.transitions.last().map_or(0, |transition| transition.seq);
        let page = store.history(run_id, after, HISTORY_LIMIT).await?;
        if page.is_empty() {
            return Ok(rebuild(&whole));
        }
        whole.transitions.extend(page);
    }
}

/// The state a stored run is in: its snapshot, and what came after folded over it.
pub(crate) fn rebuild(stored: &StoredRun) -> Result<State, String> {
    let mut state: Option<State> = match &stored.snapshot {
        Some(snapshot) => Some(serde_json::from_str(&snapshot.body).map_err(|error| format!("snapshot: {error}"))?),
        None => None,
    };
    for row in &stored.transitions {
        let transition = transition(row)?;
        match &mut state {
            Some(state) => knarr_core::run::evolve(state, &transition),
            None => state = State::born(&transition),
        }
    }
    state.ok_or_else(|| "it does not begin with a start".to_owned())
}

/// A transition as it was stored.
pub(super) fn transition(row: &StoredTransition) -> Result<Transition, String> {
    let seq = u32::try_from(row.seq).map_err(|_| "a negative sequence".to_owned())?;
    Transition::read(seq, row.at, row.body.clone()).map_err(|error| format!("transition {}: {error}", row.seq))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    /// One that is in memory already came first for ever, beside those that were lacked.
    #[test]
    fn who_is_lacked_for_certain_is_loaded_before_who_comes_along() {
        let id = |n: u128| RunId(Uuid::from_u128(n));
        let size = |n: u128, bytes| RunSize {
            run_id: id(n),
            partition: 0,
            bytes,
        };
        let sizes = [size(1, 60), size(2, 60), size(3, 40), size(4, 500)];
        let of = |named: &[u128], all| {
            let named = named.iter().map(|n| id(*n)).collect();
            let fitting = fitting(&sizes, &named, Budget { run: 400, all });
            fitting.iter().map(|run| run.0.as_u128()).collect::<Vec<_>>()
        };
        assert_eq!(of(&[], 50), [1], "one at least");
        assert_eq!(of(&[2], 50), [2]);
        assert_eq!(of(&[3, 4], 50), [3], "one that is too large is loaded by itself");
        assert_eq!(of(&[3], 100), [1, 3]);
        assert_eq!(of(&[2, 3], 1_000), [1, 2, 3]);
    }
}
