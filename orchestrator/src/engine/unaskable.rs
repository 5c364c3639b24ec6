//! What the store refuses to be asked: found among the questions of a look-up, so that the others are answered.
//!
//! Messages are checked before they become jobs, so that this is a net: without it one question that the store cannot
//! take would hold up every start of every partition for as long as it is repeated.

use std::collections::{HashMap, HashSet};

use knarr_core::ids::{Namespace, RequestId, RunId, WorkflowId, WorkflowName};
use knarr_core::run::message::Body;

use super::job::{JobKind, Verb};
use super::live::IdKey;
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

    /// Whether a workflow id cannot be asked about.
    pub(super) fn asks_of(&self, (namespace, workflow_id): &IdKey) -> bool {
        let of_id = |asked: &AskedId| asked.0 == *namespace && asked.1 == *workflow_id;
        self.ids.iter().any(of_id)
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
            JobKind::Signal(signal) => {
                let of = |request| (signal.namespace.clone(), signal.workflow_id.clone(), request);
                let start = signal.start.as_ref().map(|start| of(Some(start.request_id.clone())));
                self.ids.contains(&of(None)) || start.is_some_and(|id| self.ids.contains(&id))
            }
            JobKind::Message(message) => {
                let id = (message.namespace.clone(), message.workflow_id.clone(), None);
                let of_child = match &message.body {
                    Body::StartChild(start) => version(&message.namespace, &start.workflow, start.version),
                    _ => false,
                };
                self.ids.contains(&id) || of_child
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
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use knarr_core::ids::{MessageNo, StepPath};
    use knarr_core::run::input::Operation;
    use knarr_core::run::message::{OnParentClose, Sender, StartChild};

    use super::super::job::{Conflict, Reuse, RunMessage, SignalRequest, StartRequest};
    use super::*;
    use crate::store::memory::MemoryStore;

    fn id(workflow_id: &str, request: Option<&str>) -> AskedId {
        let request = request.map(RequestId::new);
        (Namespace::new("default"), WorkflowId::new(workflow_id), request)
    }

    /// Whatever speaks to an id, or names a version, waits for what it has asked about.
    #[test]
    fn every_job_that_asks_is_held_up_by_its_question() {
        let start = |version| {
            Box::new(StartRequest {
                namespace: Namespace::new("default"),
                workflow_id: WorkflowId::new("a"),
                workflow: WorkflowName::new("order"),
                version,
                input: Arc::default(),
                request_id: RequestId::new("r"),
                reuse: Reuse::AllowDuplicate,
                conflict: Conflict::Fail,
                search_attributes: BTreeMap::new(),
                answer: None,
                traceparent: None,
                priority: None,
                begins_at: None,
            })
        };
        let signal = |start| {
            JobKind::Signal(Box::new(SignalRequest {
                namespace: Namespace::new("default"),
                workflow_id: WorkflowId::new("a"),
                name: Arc::from("go"),
                body: Arc::default(),
                operation: Operation::default(),
                answer_to: None,
                start,
            }))
        };
        let message = |body| {
            JobKind::Message(Box::new(RunMessage {
                namespace: Namespace::new("default"),
                workflow_id: WorkflowId::new("a"),
                from: Sender {
                    run: RunId(uuid::Uuid::from_u128(1)),
                    namespace: Namespace::new("default"),
                    workflow_id: WorkflowId::new("parent"),
                },
                number: MessageNo(1),
                to_run: None,
                body,
            }))
        };
        let child = |version| {
            Body::StartChild(StartChild {
                run_id: RunId(uuid::Uuid::from_u128(2)),
                workflow: WorkflowName::new("order"),
                version,
                input: Arc::default(),
                step: StepPath::new("child"),
                parent_close: OnParentClose::default(),
                detached: false,
                scheduled: None,
                priority: None,
                triggered: None,
            })
        };
        let cancel = || Body::Cancel {
            operation: Operation::default(),
        };
        let of_id = |request| Unaskable {
            ids: HashSet::from([id("a", request)]),
            ..Unaskable::default()
        };
        let of_version = Unaskable {
            versions: HashSet::from([(Namespace::new("default"), WorkflowName::new("order"), 7)]),
            ..Unaskable::default()
        };
        for (asks, job, waits) in [
            (of_id(Some("r")), JobKind::Start(start(None)), true),
            (of_id(None), signal(None), true),
            (of_id(None), signal(Some(start(None))), true),
            (of_id(Some("r")), signal(Some(start(None))), true),
            (of_id(Some("r")), signal(None), false),
            (of_id(None), message(cancel()), true),
            (of_id(None), message(child(None)), true),
            (of_id(Some("r")), message(child(None)), false),
        ] {
            assert_eq!(asks.holds_up(&job), waits, "{asks:?}: {job:?}");
        }
        for (job, waits) in [
            (JobKind::Start(start(Some(7))), true),
            (message(child(Some(7))), true),
            (message(child(Some(8))), false),
            (message(child(None)), false),
            (message(cancel()), false),
        ] {
            assert_eq!(of_version.holds_up(&job), waits, "{job:?}");
        }
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
