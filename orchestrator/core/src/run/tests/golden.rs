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
fn a_run_that_waits_for_its_id_then_for_its_place() {
    let mut limited = with_timeout(plan(vec![act("a")]), 60);
    limited.concurrency = Some(Box::new(crate::definition::plan::RunConcurrency {
        limit: 2,
        key: Some(template(&json!("${ input.customer }"))),
        on_conflict: crate::limit::OnConflict::CancelRunning,
    }));
    let start = crate::run::input::Start {
        queued: true,
        begins_at: None,
        priority: Some(1),
        ..begin(json!({"customer": "c1"}))
    };
    let mut run = Run::started(limited, start).unwrap();
    run.take(Input::IdFree);
    let number = run.pending()[0].0;
    let limit = run.state.place().unwrap().limit.clone();
    let by = crate::run::message::Sender {
        run: crate::ids::RunId(uuid::Uuid::from_u128(77)),
        namespace: "default".into(),
        workflow_id: "order-0".into(),
    };
    for answer in [
        crate::run::message::Answer::Occupied { by },
        crate::run::message::Answer::Granted { limit, at: None },
    ] {
        run.take(Input::MessageAnswered { number, answer });
    }
    run.complete("do a");
    insta::assert_snapshot!("waits", lines(&run));
}

#[test]
fn a_run_with_limits() {
    let limits = LimitsDef {
        concurrency: Some((2, Some("${ input.customer }"))),
        rate: Some(10),
        priority: Some(2),
        fairness_key: None,
    };
    let mut run = Run::of(plan(vec![act("a").limits(limits), act("b")]));
    let granted = |run: &mut Run| {
        let (number, body) = run.pending().pop().unwrap();
        let crate::run::message::Body::Ask(ask) = &*body else {
            panic!()
        };
        let limit = ask.limit.clone();
        let answer = crate::run::message::Answer::Granted { limit, at: None };
        run.take(Input::MessageAnswered { number, answer });
    };
    granted(&mut run);
    granted(&mut run);
    run.complete("do a");
    run.fail("do b");
    insta::assert_snapshot!("limited", lines(&run));
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

/// The oldest pending message is answered, and its child closes.
fn through_child(run: &mut Run, step: &str, status: crate::run::Status) {
    run.answered(crate::run::message::Answer::Accepted);
    run.child_closed(step, status);
}

#[test]
fn the_events_of_every_kind_of_step() {
    let branches = vec![("x", vec![act("a")]), ("y", vec![wait_for("w1", "go")])];
    let guard = attempt(
        "t",
        vec![scope("s", vec![workflow("k"), fail("f", "Broken")]).otherwise(vec![act("o")])],
    )
    .catch(&["Refused"], vec![])
    .finally(vec![wait("i", 5)]);
    let mut run = run(vec![
        parallel("p", branches).join(crate::definition::plan::Join::Any),
        for_each("e", json!(["r"]), vec![wait_for("w2", "go").timeout(9)]).collect(json!("${ item }")),
        repeat("w", "index < 1", 2, vec![emit("m", json!("orders.x"), json!(1))]),
        guard,
        act("pay").pivot(true),
        act("z").undo(UndoDef::NoUndo),
        complete("end", json!("done")),
    ]);
    run.signal("other", json!(1));
    run.complete("do p.x.a");
    run.signal("go", json!(2));
    through_child(&mut run, "t.s.k", crate::run::Status::Completed);
    through_child(&mut run, "t.s.k", crate::run::Status::Compensated);
    run.fail("do t.s.otherwise.o");
    run.wake_next();
    run.take(Input::Cancel(by("ann")));
    run.complete("do pay");
    run.end(
        "do z",
        TaskOutcome::Failed(crate::run::input::WorkerError {
            retryable: false,
            ..error("Broken")
        }),
    );
    run.operate("z", ParkedAction::Retry);
    run.complete("do z");
    insta::assert_snapshot!("kinds", lines(&run));
    let run = super::dsl::run(vec![continue_as_new("again", None)]);
    insta::assert_snapshot!("continued", lines(&run));
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
