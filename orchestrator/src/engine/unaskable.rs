//! What the store refuses to be asked: found among the questions of a look-up, so that the others are answered.
//!
//! Messages are checked before they become jobs, so that this is a net: without it one question that the store cannot
//! take would hold up every start of every partition for as long as it is repeated.

use std::collections::{HashMap, HashSet};

use knarr_core::ids::{Namespace, RequestId, RunId, WorkflowId, WorkflowName};

use super::job::{JobKind, Verb};
use crate::store::{Found, FoundRun, Store, StoreError};

/// A workflow id, with a request id of which it is to be known what it started.
pub(super) type AskedId = (Namespace, WorkflowId, Option<RequestId>);
pub(super) type AskedVersion = (Namespace, WorkflowName, u32);

/// Questions that are refused whenever they are asked.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Unaskable {
    pub(super) ids: HashSet<AskedId>,
    pub(super) versions: HashSet<AskedVersion>,
}

impl Unaskable {
    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.versions.is_empty()
    }

    /// Whether the job waits for the answer to one of these.
    pub(super) fn holds_up(&self, job: &JobKind) -> bool {
        let version = |namespace: &Namespace, workflow: &WorkflowName, version: Option<u32>| {
            version.is_some_and(|version| self.versions.contains(&(namespace.clone(), workflow.clone(), version)))
        };
        match job {
            JobKind::Start(start) => {
                let request = Some(start.request_id.clone());
                let id = (start.namespace.clone(), start.workflow_id.clone(), request);
                self.ids.contains(&id) || version(&start.namespace, &start.workflow, start.version)
            }
            JobKind::Schedule(asked) => {
                let request = Some(asked.request_id.clone());
                let (namespace, id) = (asked.namespace.clone(), asked.workflow_id.clone());
                self.ids.contains(&(namespace.clone(), id.clone(), request))
                    || self.ids.contains(&(namespace, id, None))
            }
            JobKind::UnkeyedStart(start) => version(&start.namespace, &start.workflow, start.version),
            JobKind::Verb(verb) => {
                let id = (verb.namespace.clone(), verb.workflow_id.clone(), None);
                let of_target = match &verb.verb {
                    Verb::Migrate {
                        workflow,
                        version: number,
                    } => version(&verb.namespace, workflow, Some(*number)),
                    _ => false,
                };
                self.ids.contains(&id) || of_target
            }
            _ => false,
        }
    }
}

/// As [`Store::find_runs`], in halves where it refuses, down to the single questions it refuses.
pub(super) async fn find_runs<S: Store>(
    store: &S,
    asked: &[AskedId],
    unaskable: &mut HashSet<AskedId>,
) -> Result<Found, StoreError> {
    let mut runs: HashMap<RunId, FoundRun> = HashMap::new();
    let mut parts = vec![asked];
    let mut definitions_epoch = None;
    while let Some(part) = parts.pop() {
        match (store.find_runs(part).await, part) {
            (Ok(found), _) if part.len() == asked.len() => return Ok(found),
            (Ok(found), _) => {
                definitions_epoch.get_or_insert(found.definitions_epoch);
                runs.extend(found.runs.into_iter().map(|run| (run.row.run_id, run)));
            }
            (Err(StoreError::Rejected(problem)), [one]) => {
                // What is refused whatever is asked is not the question's fault.
                let found = store.find_runs(&[]).await?;
                definitions_epoch.get_or_insert(found.definitions_epoch);
                tracing::error!(%problem, "the store refuses to look up a workflow id");
                unaskable.insert(one.clone());
            }
            (Err(StoreError::Rejected(_)), [_, ..]) => {
                let (left, right) = part.split_at(part.len() / 2);
                parts.extend([left, right]);
            }
            (Err(error), _) => return Err(error),
        }
    }
    Ok(Found {
        runs: runs.into_values().collect(),
        definitions_epoch: definitions_epoch.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;

    fn id(workflow_id: &str, request: Option<&str>) -> AskedId {
        let request = request.map(RequestId::new);
        (Namespace::new("default"), WorkflowId::new(workflow_id), request)
    }

    #[tokio::test]
    async fn refused_questions_are_found_among_the_others() {
        let store = MemoryStore::new();
        store.prepare(4).await.unwrap();
        let bad = [id("a\0", None), id("b", Some("\0"))];
        for count in [0, 1, 2, 7, 100] {
            let mut asked: Vec<AskedId> = (0..count).map(|n| id(&n.to_string(), Some("r"))).collect();
            asked.extend(bad.clone());
            let mut unaskable = HashSet::new();
            find_runs(&store, &asked, &mut unaskable).await.unwrap();
            assert_eq!(unaskable, HashSet::from(bad.clone()));
        }
    }
}
