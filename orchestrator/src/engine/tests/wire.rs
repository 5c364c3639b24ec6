//! What is sent is what the golden files say.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use knarr_core::definition;
use knarr_core::ids::{ActivityName, Namespace, QueueName, RunId, StepPath, TaskNo, WorkflowId};
use knarr_core::run;
use knarr_core::run::effect::{Direction, Dispatch};
use knarr_core::run::input::Start;
use knarr_core::time::{Span, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::super::outgoing::{self, RunRef};
use super::super::token::TokenKey;

#[derive(Debug, Deserialize)]
struct Golden {
    subject: String,
    headers: BTreeMap<String, String>,
    body: Value,
}

#[test]
fn a_task_is_sent_as_its_golden_file_has_it() {
    let text = "workflow: order\nversion: 1\nsteps: [ { note: { set: { x: 1 } } } ]\n";
    let plan = definition::read(text, &|_| Err(String::new())).unwrap().plan;
    let run_id = RunId(Uuid::from_u128(0x019a_c000_0000_7000_8000_0000_0000_002a));
    let start = Start {
        run_id,
        namespace: Namespace::new("default"),
        workflow_id: WorkflowId::new("order:4711 für Zoë"),
        input: Arc::new(Value::Null),
        request_id: None,
        search_attributes: BTreeMap::new(),
        answer: None,
        traceparent: Some(Arc::from("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")),
        parent: None,
        priority: None,
        queued: false,
        begins_at: None,
        continues: None,
    };
    let (state, _) = run::start(&plan, start, Timestamp(1)).unwrap();
    let dispatch = Dispatch {
        task: TaskNo(2),
        step: StepPath::new("payment"),
        activity: ActivityName::new("process-payment"),
        queue: QueueName::new("orders"),
        direction: Direction::Do,
        attempt: 2,
        max_attempts: Some(5),
        idempotency_key: run::idempotency_key(run_id, &StepPath::new("payment"), Direction::Do),
        input: Arc::new(json!({ "order_id": "ord-1", "amount": 3 })),
        start_to_close: Span::from_secs(30),
        deadline: Some(Timestamp(1_795_435_200_000_000)),
        heartbeat: Some(Span::from_secs(5)),
        last_details: Some(Arc::new(json!({ "für": "alle", "page": 7 }))),
        waits_cancelled: true,
        offer: 0,
    };
    let sent = outgoing::task(
        &RunRef::new(&state, 17).unwrap(),
        &dispatch,
        &TokenKey::new(&[7; 32]),
        false,
    );
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas/golden/v1/task-encoded.json");
    let golden: Golden = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let headers: BTreeMap<_, _> = sent
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.clone()))
        .collect();
    assert_eq!(sent.subject, golden.subject);
    assert_eq!(headers, golden.headers);
    assert_eq!(serde_json::from_slice::<Value>(&sent.payload).unwrap(), golden.body);
}
