//! The operations against the memory store, and the service against a real nats-server.

use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use knarr_core::definition::{self, Checked};
use knarr_core::ids::{Namespace, RequestId, RunId, TaskNo, WorkflowId};
use knarr_core::run::event::Transition;
use knarr_core::run::input::{Input, Operation, Start, TaskOutcome, WorkerError};
use knarr_core::run::{State, UpdateAnswer, UpdateStage, apply, start};
use knarr_core::time::Timestamp;
use knarr_schemas::api::{RegisterDefinition, RegisteredDefinition, TriggerName};
use knarr_schemas::body::TriggerRequest;
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::store::memory::MemoryStore;
use crate::store::{Append, Batch, FORMAT_LEVEL, RunRow, RunWrite, Session, StoredTransition};

mod operations;
mod parked;
mod queries;
mod results;
mod service;

const ORDER: &str = r#"
workflow: order
version: 1
defaults: { queue: orders, start_to_close: 45s, retry: { maximum_attempts: 1 } }
steps:
  - create_order:
      activity: create-order
      input: "${ input }"
      compensate: { activity: cancel-order, queue: undo, start_to_close: 5s }
  - payment:
      activity: process-payment
      compensate: { activity: refund-payment }
output: "${ steps.payment }"
"#;

/// A cluster of one session, with its operations and what was told to the bus.
struct World {
    store: Arc<MemoryStore>,
    session: Mutex<Session>,
    operations: Arc<Operations<MemoryStore>>,
    told: Arc<Mutex<Vec<Told>>>,
    /// What schedules were told.
    scheduled: Arc<Mutex<Vec<(String, ScheduleRequest)>>>,
    /// What triggers were told.
    triggered: Arc<Mutex<Vec<(TriggerName, TriggerRequest)>>>,
}

type Told = (String, Vec<QueueSettings>);

impl World {
    async fn new() -> Self {
        Self::of_level(FORMAT_LEVEL).await
    }

    /// A cluster whose replicas read this storage format.
    async fn of_level(level: i32) -> Self {
        let store = Arc::new(MemoryStore::new().reading(level));
        store.prepare(4).await.unwrap();
        let session = store.open_session("test").await.unwrap();
        store.keep(&session, &[]).await.unwrap();
        let told: Arc<Mutex<Vec<_>>> = Arc::default();
        let record = Arc::clone(&told);
        let asked: Arc<Mutex<Vec<(String, ScheduleRequest)>>> = Arc::default();
        let noted = Arc::clone(&asked);
        let scheduled: OnScheduled = Arc::new(move |_, name, request| {
            // As an engine would, of what is there and of what is gone.
            let told = match request.schedule {
                Some(_) => json!({ "schedule": name, "next": ["2026-11-27T00:00:00Z"], "zone": "UTC", "paused": null }),
                None => json!({ "schedule": name, "next": [], "zone": "UTC", "paused": null, "deleted": true }),
            };
            noted.lock().unwrap().push((name, request));
            Box::pin(async { Ok(Some(told)) })
        });
        let told_triggers: Arc<Mutex<Vec<(TriggerName, TriggerRequest)>>> = Arc::default();
        let noted = Arc::clone(&told_triggers);
        let triggered: OnTriggered = Arc::new(move |_, name, request| {
            noted.lock().unwrap().push((name, request));
            Box::pin(async { Ok(()) })
        });
        let hook: OnRegistered = Arc::new(move |namespace, queues| {
            record.lock().unwrap().push((namespace.to_string(), queues));
            async { Ok(()) }.boxed()
        });
        Self {
            operations: Arc::new(Operations::new(Arc::clone(&store), hook, scheduled, triggered)),
            store,
            session: Mutex::new(session),
            told,
            scheduled: asked,
            triggered: told_triggers,
        }
    }

    async fn register(&self, source: &str) -> RegisteredDefinition {
        let request = RegisterDefinition {
            source: source.to_owned(),
            file_name: None,
            files: Default::default(),
        };
        self.operations
            .register_definition(&"default".into(), request)
            .await
            .unwrap()
    }

    /// Stores a run as an engine would.
    async fn add(&self, run: &TestRun) {
        let row = run.row();
        let batch = Batch {
            appends: run
                .transitions
                .iter()
                .map(|transition| Append {
                    retention_class: 0,
                    run_id: row.run_id,
                    transition: stored(transition),
                })
                .collect(),
            runs: vec![RunWrite::Insert(row)],
            ..Batch::default()
        };
        let session = *self.session.lock().unwrap();
        self.store.commit(&session, &batch).await.unwrap();
        self.session.lock().unwrap().batch_no += 1;
    }
}

fn stored(transition: &Transition) -> StoredTransition {
    StoredTransition {
        seq: i32::try_from(transition.seq).unwrap(),
        at: transition.at,
        body: serde_json::to_string(&transition.events).unwrap(),
    }
}

/// A run of the order definition, driven by core.
struct TestRun {
    definition: Checked,
    state: State,
    transitions: Vec<Transition>,
}

impl TestRun {
    fn start(number: u128, workflow_id: &str, input: Value) -> Self {
        Self::start_of(ORDER, number, workflow_id, input)
    }

    fn start_of(text: &str, number: u128, workflow_id: &str, input: Value) -> Self {
        let definition = definition::read(text, &|_| Err(String::new())).unwrap();
        let birth = Start {
            run_id: RunId(Uuid::from_u128(number)),
            namespace: Namespace::new("default"),
            workflow_id: WorkflowId::new(workflow_id),
            input: Arc::new(input),
            request_id: Some(RequestId::new("r-1")),
            search_attributes: [("customer".to_owned(), json!("c-1"))].into_iter().collect(),
            answer: None,
            traceparent: None,
            parent: None,
            priority: None,
            queued: false,
            begins_at: None,
            continues: None,
        };
        let at = Timestamp(1_795_000_000_000_000 + i64::try_from(number).unwrap() * 1_000_000);
        let (state, first) = start(&definition.plan, birth, at).unwrap();
        Self {
            definition,
            state,
            transitions: vec![first],
        }
    }

    fn end(&mut self, task: u32, outcome: TaskOutcome) {
        let at = Timestamp(self.state.at().0 + 5_000);
        let input = Input::TaskEnded {
            task: TaskNo(task),
            outcome,
        };
        let transition = apply(&self.definition.plan, &mut self.state, input, at).unwrap();
        self.transitions.extend(transition);
    }

    fn tell(&mut self, input: Input) {
        let at = Timestamp(self.state.at().0 + 1_000);
        let transition = apply(&self.definition.plan, &mut self.state, input, at).unwrap();
        self.transitions.extend(transition);
    }

    /// Of `change`; somebody waits for it.
    fn update(&mut self, id: &str, on: UpdateStage) {
        self.tell(Input::Update {
            name: "change".into(),
            body: Arc::new(json!(id)),
            operation: Operation {
                request_id: Some(RequestId::new(id)),
                ..Operation::default()
            },
            answer: Some(UpdateAnswer { to: "inbox".into(), on }),
        });
    }

    fn complete(&mut self, task: u32, output: Value) {
        self.end(
            task,
            TaskOutcome::Completed {
                output: Arc::new(output),
            },
        );
    }

    fn fail(&mut self, task: u32) {
        self.end(
            task,
            TaskOutcome::Failed(WorkerError {
                error_type: "card_declined".into(),
                message: "the card was declined".into(),
                retryable: false,
                not_done: false,
                retry_after: None,
            }),
        );
    }

    fn row(&self) -> RunRow {
        RunRow {
            run_id: self.state.run_id(),
            retention_class: 0,
            namespace: self.state.namespace().clone(),
            workflow_id: self.state.workflow_id().clone(),
            workflow: self.state.workflow().clone(),
            version: 1,
            definition: self.state.definition_hash().clone(),
            partition: 0,
            status: self.state.status().as_str().to_owned(),
            started_at: self.state.started_at(),
            closed_at: self.state.closed_at(),
            wake_at: self.state.wake_at(),
            request_id: None,
            search_attributes: None,
            outcome: self.state.outcome().map(|outcome| outcome.to_json()),
            attempt: i32::try_from(self.state.attempt()).unwrap(),
            begins_at: self.state.attempt_made().map(|attempt| attempt.begins_at),
            retried_by: self.state.retried_by().map(|(run, _)| run),
            tenure: None,
        }
    }
}
