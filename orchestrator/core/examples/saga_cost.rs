//! What one saga costs the core: four activities, a 500-byte input, 200-byte results, five transitions with their JSON.
//!
//! `cargo run --release -p knarr-core --example saga_cost [sagas]`

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use knarr_core::definition::plan::Plan;
use knarr_core::ids::{RunId, TaskNo};
use knarr_core::run::input::{Input, Start, TaskOutcome};
use knarr_core::run::{State, Transition, apply, effects, start};
use knarr_core::time::Timestamp;
use serde_json::{Value, json};

const DEFINITION: &str = r#"
workflow: order
version: 1
defaults: { queue: orders, start_to_close: 30s }
steps:
  - create_order:
      activity: create-order
      input: { items: "${ input.items }" }
      compensate: { activity: cancel-order, input: { id: "${ steps.create_order.id | default(none) }" } }
  - payment:
      activity: process-payment
      input: { id: "${ steps.create_order.id }", amount: 12 }
      compensate: { activity: refund-payment, input: { id: "${ steps.create_order.id }" } }
  - stock:
      activity: reserve-inventory
      input: { id: "${ steps.create_order.id }", items: "${ input.items }" }
      compensate: { activity: release-inventory, input: { id: "${ steps.create_order.id }" } }
  - confirm:
      activity: send-confirmation
      input: { id: "${ steps.create_order.id }" }
      no_undo: a message cannot be unsent
output: { id: "${ steps.create_order.id }" }
"#;

/// Bytes of stored JSON.
fn saga(plan: &Plan, number: u128, input: &Arc<Value>, output: &Arc<Value>) -> Result<usize, Box<dyn Error>> {
    let begin = Start {
        run_id: RunId(uuid::Uuid::from_u128(number)),
        namespace: "default".into(),
        workflow_id: "order".into(),
        input: Arc::clone(input),
        request_id: None,
        search_attributes: BTreeMap::new(),
        answer: None,
        traceparent: None,
        parent: None,
        priority: None,
        queued: false,
        begins_at: None,
        continues: None,
    };
    let (mut state, transition) = start(plan, begin, Timestamp(0))?;
    let mut bytes = publish(&state, &transition)?;
    for task in 1..=4 {
        let ended = Input::TaskEnded {
            task: TaskNo(task),
            outcome: TaskOutcome::Completed {
                output: Arc::clone(output),
            },
        };
        if let Some(transition) = apply(plan, &mut state, ended, Timestamp(i64::from(task)))? {
            bytes += publish(&state, &transition)?;
        }
    }
    assert!(state.is_closed());
    Ok(bytes)
}

fn publish(state: &State, transition: &Transition) -> serde_json::Result<usize> {
    std::hint::black_box(effects(state, transition));
    serde_json::to_string(&transition.events).map(|body| body.len())
}

fn main() -> Result<(), Box<dyn Error>> {
    let sagas = std::env::args().nth(1).map_or(Ok(20_000), |text| text.parse())?;
    let checked = knarr_core::definition::read(DEFINITION, &|name| Err(format!("there is no file {name}")))
        .map_err(|findings| format!("{findings:?}"))?;
    let input =
        Arc::new(json!({"items": ["x".repeat(120), "y".repeat(120), "z".repeat(120)], "note": "n".repeat(100)}));
    let output = Arc::new(json!({"id": "order-17", "text": "r".repeat(160)}));
    let began = Instant::now();
    let mut bytes = 0;
    for number in 0..sagas {
        bytes += saga(&checked.plan, number, &input, &output)?;
    }
    let nanoseconds = began.elapsed().as_nanos() / sagas.max(1);
    println!(
        "{nanoseconds} ns and {} bytes of events a saga",
        bytes / sagas.max(1) as usize
    );
    Ok(())
}
