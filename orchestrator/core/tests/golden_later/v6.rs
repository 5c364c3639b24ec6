//! Handlers of signals and updates.

use knarr_core::run::input::{Input, ParkedAction};
use knarr_core::run::{QueueLimits, Status, UpdateAnswer, UpdateStage};
use serde_json::json;

use super::player::{Player, by};

pub(super) const BASKET: &str = r#"
workflow: basket
version: 1
defaults: { queue: main, start_to_close: 10s, retry: { maximum_attempts: 2 } }
steps:
  - hold: { activity: hold, compensate: unhold }
  - last: { activity: last, read_only: true }
signals:
  add:
    schema: { type: object, required: [sku] }
    steps:
      - reserve: { activity: reserve, input: "${ signal.sku }", compensate: { activity: release, input: "${ signal.sku }" } }
      - count: { set: { items: "${ vars.items | default(0) + 1 }" } }
updates:
  discount:
    schema: { type: integer }
    validate: "'too much' if update > 50 else true"
    steps: [ { check: { activity: check, read_only: true } } ]
    output: "${ [update, steps.check.id] }"
output: "${ vars.items | default(0) }"
"#;

/// What has come to a basket, and was decided about.
fn basket() -> Player {
    let mut run = Player::of(BASKET, json!({}), QueueLimits::default());
    for sku in ["a", "b"] {
        run.after(1).take(Input::Signal {
            name: "add".into(),
            body: json!({ "sku": sku }).into(),
            operation: by(sku),
        });
    }
    run.complete_step("$signals.add[0].reserve");
    let update = |n: u32, id: &str, to: &str, on: UpdateStage| Input::Update {
        name: "discount".into(),
        body: json!(n).into(),
        operation: by(id),
        answer: Some(UpdateAnswer { to: to.into(), on }),
    };
    run.take(update(10, "u-1", "inbox.1", UpdateStage::Accepted));
    run.take(Input::Park {
        reason: "broken".into(),
    });
    run.take(update(20, "u-2", "inbox.2", UpdateStage::Completed));
    run.take(update(60, "u-3", "inbox.3", UpdateStage::Completed));
    run.take(update(20, "u-2", "inbox.4", UpdateStage::Accepted));
    run.decide("", ParkedAction::Retry);
    run.complete_step("hold").complete_step("last");
    run.complete_step("$updates.discount[0].check");
    run
}

/// The run completes when its handlers have nothing left to do.
pub(super) fn handled() -> Player {
    let mut run = basket();
    run.complete_step("$signals.add[1].reserve");
    run.complete_step("$updates.discount[1].check");
    assert_eq!(run.state.status(), Status::Completed);
    run
}

/// A handler fails for good, and everything is undone.
pub(super) fn unhandled() -> Player {
    let mut run = basket();
    run.complete_step("$signals.add[1].reserve");
    run.give_up();
    run.complete().complete().complete();
    assert_eq!(run.state.status(), Status::Compensated);
    run
}
