//! What is stored: the JSON of events, as people read it and as every later version must.

use serde_json::json;

use super::dsl::*;
use crate::run::Event;
use crate::run::input::{Input, ParkedAction, TaskOutcome};
use crate::time::Span;

fn lines(run: &Run) -> String {
    let lines: Vec<_> = run
        .history
        .iter()
        .map(|transition| {
            format!(
                "{} {}",
                transition.seq,
                serde_json::to_string(&transition.events).unwrap()
            )
        })
        .collect();
    lines.join("\n")
}

#[test]
fn the_history_of_a_completed_and_of_an_undone_run() {
    let mut run = Run::of(with_timeout(plan(vec![act("a"), act("b").attempts(Some(2))]), 60));
    run.complete("do a");
    run.fail("do b");
    run.wake_next();
    run.end("do b", unknown());
    run.complete("undo b");
    run.complete("undo a");
    insta::assert_snapshot!("undone", lines(&run));
}

#[test]
fn the_rarer_events() {
    let mut run = run(vec![
        set("vars", &[("v", json!({"n": 1}))]),
        act("skipped").when("false"),
        act("a")
            .attempts(None)
            .undo_input(json!("${ error.message }"))
            .undo_attempts(1),
    ]);
    let task = run.task("do a");
    run.take(Input::DispatchHeld { task, in_doubt: false });
    run.wake_next();
    run.later(10);
    run.take(Input::Wake(crate::run::input::Horizon {
        delivered_to: std::collections::BTreeMap::from([("main".into(), crate::time::Timestamp(0))]),
        ..Default::default()
    }));
    run.time_out("do a");
    run.wake_next();
    run.end(
        "do a",
        TaskOutcome::RetryLater {
            after: Some(Span::from_secs(1)),
        },
    );
    run.wake_next();
    let task = run.task("do a");
    run.take(Input::TaskLost { task });
    run.wake_next();
    run.take(Input::Park {
        reason: "broken".into(),
    });
    run.operate("", ParkedAction::Retry);
    run.take(Input::Cancel(by("ann")));
    run.end("do a", TaskOutcome::Cancelled);
    run.fail("undo a");
    run.operate("a", ParkedAction::Retry);
    run.fail("undo a");
    run.operate("a", ParkedAction::Skip);
    run.take(Input::TaskEnded {
        task,
        outcome: done(json!(1)),
    });
    insta::assert_snapshot!("rarer", lines(&run));
}

#[test]
fn absent_fields_are_read_as_their_defaults() {
    let event: Event = serde_json::from_value(json!({"task_completed": {"task": 3}})).unwrap();
    assert_eq!(
        event,
        Event::TaskCompleted {
            task: crate::ids::TaskNo(3),
            output: json!(null).into()
        }
    );
}
