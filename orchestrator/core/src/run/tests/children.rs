//! `workflow:` – the parent's side.

use serde_json::json;

use super::dsl::*;
use crate::definition::plan::ParentClose;
use crate::ids::MessageNo;
use crate::run::effect::Effect;
use crate::run::input::{Input, ParkedAction, TaskOutcome};
use crate::run::message::{Answer, Body, Refusal};
use crate::run::{Status, UndoState};

fn refused(reason: Refusal) -> Answer {
    Answer::refused(reason, "no")
}

fn bodies(run: &Run) -> Vec<&'static str> {
    let name = |body: &Body| match body {
        Body::StartChild(_) => "start",
        Body::ChildClosed(_) => "closed",
        Body::Cancel { .. } => "cancel",
        Body::Terminate { .. } => "terminate",
        Body::Undo { .. } => "undo",
        Body::Signal { .. } => "signal",
        Body::Ask(_) => "ask",
        Body::Release { .. } => "release",
    };
    run.pending().iter().map(|(_, body)| name(body)).collect()
}

#[test]
fn a_child_is_started_with_a_run_id_of_the_parents_and_its_output_is_the_steps() {
    let mut run = run(vec![
        workflow("ship").child_input(json!({"of": "${ run.workflow_id }"})),
        act("z").input(json!("${ steps.ship.from }")),
    ]);
    let [Effect::Send { number, to, body }] = &run.sent[..] else {
        panic!("{:?}", run.sent);
    };
    assert_eq!((*number, to.workflow_id.as_str()), (MessageNo(1), "order-1/ship"));
    let Body::StartChild(start) = &**body else {
        panic!("{body:?}");
    };
    assert_eq!(to.run, Some(start.run_id));
    assert_eq!(
        (&*start.input, start.step.as_str()),
        (&json!({"of": "order-1"}), "ship")
    );
    run.answered(Answer::Accepted);
    assert_eq!(run.state.wake_at(), None, "it waits for the child alone");
    run.child_closed("ship", Status::Completed);
    assert_eq!(*run.last_dispatch().input, json!("ship"));
}

#[test]
fn an_end_may_be_heard_before_the_answer_to_the_start() {
    let mut run = run(vec![workflow("ship"), act("z")]);
    run.child_closed("ship", Status::Completed);
    assert_eq!(run.dispatched(), ["do z"]);
    run.answered(Answer::Accepted);
    run.complete("do z");
    assert_eq!(run.status(), Status::Completed);
}

/// Its start could not be sent, and nobody would ever answer it.
#[test]
fn a_child_that_no_subject_can_name_fails_its_step() {
    for (id, why) in [
        ("x".repeat(201), "201 bytes"),
        ("\u{fc}".repeat(34), "204 bytes"),
        ("a\nb".to_owned(), "control character"),
    ] {
        let mut run = run(vec![act("a"), workflow("ship").id(json!(id))]);
        run.complete("do a");
        let failure = run.state.failure().unwrap();
        assert_eq!(&*failure.error_type, "child_not_started");
        assert!(failure.message.contains(why), "{}", failure.message);
        assert!(run.pending().is_empty());
        assert_eq!(run.undone(), ["undo a"]);
    }
    let run = run(vec![workflow("ship").id(json!("x".repeat(200)))]);
    assert_eq!(bodies(&run), ["start"]);
}

#[test]
fn a_refused_start_and_a_failed_child_fail_the_step_and_leave_nothing_to_undo() {
    let mut run = run(vec![act("a"), workflow("ship")]);
    run.complete("do a");
    run.answered(refused(Refusal::IdTaken));
    assert_eq!(&*run.state.failure().unwrap().error_type, "child_not_started");
    assert_eq!(run.undone(), ["undo a"]);
    let mut run = super::dsl::run(vec![act("a"), workflow("ship")]);
    run.complete("do a");
    run.answered(Answer::Accepted);
    run.child_closed("ship", Status::Compensated);
    let failure = run.state.failure().unwrap();
    assert_eq!(
        (&*failure.error_type, failure.step.as_ref().unwrap().as_str()),
        ("ChildBroke", "ship")
    );
    assert_eq!(bodies(&run), Vec::<&str>::new());
    run.complete("undo a");
    assert_eq!(run.status(), Status::Compensated);
}

/// There was no room for it, and it has done nothing; the run said that it was compensated.
#[test]
fn a_child_that_was_skipped_leaves_nothing_to_undo() {
    let mut run = run(vec![workflow("ship"), act("z")]);
    run.answered(Answer::Accepted);
    run.child_closed("ship", Status::Skipped);
    run.fail("do z");
    assert_eq!(bodies(&run), Vec::<&str>::new());
    assert_eq!(run.status(), Status::Failed);
}

#[test]
fn a_start_that_succeeds_after_its_refusal_is_cancelled() {
    let mut run = run(vec![workflow("ship")]);
    run.answered(refused(Refusal::IdTaken));
    let accepted = Input::MessageAnswered {
        number: MessageNo(1),
        answer: Answer::Accepted,
    };
    run.take(accepted.clone());
    assert_eq!(bodies(&run), ["cancel"]);
    run.ignores(accepted);
    run.answered(refused(Refusal::Closed));
    run.child_closed("ship", Status::Completed);
    assert_eq!(bodies(&run), ["undo"], "the cancel came too late");
    run.answered(Answer::Accepted);
    run.child_closed("ship", Status::Compensated);
    assert_eq!(bodies(&run), Vec::<&str>::new());
    assert_eq!(run.status(), Status::Failed);
}

#[test]
fn a_completed_child_is_told_to_undo_and_waited_for_in_its_turn() {
    let mut run = run(vec![act("a"), workflow("ship"), act("b"), act("z")]);
    run.complete("do a");
    run.answered(Answer::Accepted);
    run.child_closed("ship", Status::Completed);
    run.complete("do b");
    run.fail("do z");
    assert_eq!(run.undone(), ["undo b"]);
    run.complete("undo b");
    assert_eq!(bodies(&run), ["undo"]);
    run.answered(Answer::Accepted);
    assert_eq!(run.undone(), ["undo b"]);
    run.child_closed("ship", Status::Compensated);
    assert_eq!(run.undone(), ["undo b", "undo a"]);
    run.complete("undo a");
    assert_eq!(run.status(), Status::Compensated);
}

#[test]
fn a_child_that_refuses_to_undo_is_parked_and_can_be_told_again() {
    let mut run = run(vec![workflow("ship"), act("z")]);
    run.answered(Answer::Accepted);
    run.child_closed("ship", Status::Completed);
    run.fail("do z");
    run.answered(refused(Refusal::PastPivot));
    assert_eq!(run.status(), Status::Parked);
    run.operate("ship", ParkedAction::Retry);
    assert_eq!(bodies(&run), ["undo"]);
    run.answered(Answer::Accepted);
    run.child_closed("ship", Status::CompensationFailed);
    assert_eq!(run.state.ledger()[0].state, UndoState::Skipped);
    assert_eq!(run.status(), Status::CompensationFailed);
}

#[test]
fn a_refusal_that_is_heard_after_the_child_has_completed_changes_nothing() {
    let mut run = run(vec![workflow("ship"), act("z")]);
    run.child_closed("ship", Status::Completed);
    run.answered(refused(Refusal::IdTaken));
    run.fail("do z");
    run.answered(Answer::Accepted);
    run.child_closed("ship", Status::Compensated);
    assert_eq!(run.status(), Status::Compensated);
}

#[test]
fn an_answer_that_comes_after_the_undo_was_settled_changes_nothing() {
    let mut run = run(vec![workflow("ship"), act("z")]);
    run.answered(Answer::Accepted);
    run.child_closed("ship", Status::Completed);
    run.take(Input::Cancel(by("ann")));
    run.end("do z", TaskOutcome::Cancelled);
    run.child_closed("ship", Status::Compensated);
    assert_eq!(run.status(), Status::Cancelled);
    run.answered(refused(Refusal::Closed));
    assert_eq!(run.state.ledger()[0].state, UndoState::Done);
    assert_eq!(run.status(), Status::Cancelled);
}

#[test]
fn a_cancel_reaches_the_leaves_first() {
    let mut run = run(vec![act("a"), workflow("ship")]);
    run.complete("do a");
    run.answered(Answer::Accepted);
    run.take(Input::Cancel(by("ann")));
    assert_eq!(bodies(&run), ["cancel"]);
    run.answered(Answer::Accepted);
    assert_eq!(run.undone(), Vec::<String>::new(), "the child undoes itself first");
    run.child_closed("ship", Status::Cancelled);
    run.complete("undo a");
    assert_eq!(run.status(), Status::Cancelled);
}

#[test]
fn a_child_whose_start_is_not_answered_is_told_to_stop_once_it_is() {
    for (answer, told) in [(Answer::Accepted, vec!["cancel"]), (refused(Refusal::IdTaken), vec![])] {
        let mut run = run(vec![workflow("ship")]);
        run.take(Input::Cancel(by("ann")));
        assert_eq!(bodies(&run), ["start"]);
        run.answered(answer);
        assert_eq!(bodies(&run), told);
        if !told.is_empty() {
            run.answered(refused(Refusal::Closed));
            run.child_closed("ship", Status::Completed);
            run.answered(Answer::Accepted);
            run.child_closed("ship", Status::Compensated);
        }
        assert_eq!(run.status(), Status::Cancelled);
    }
}

#[test]
fn a_child_that_has_vanished_is_unknown_and_its_undo_is_parked() {
    let mut run = run(vec![workflow("ship")]);
    run.answered(Answer::Accepted);
    run.take(Input::Cancel(by("ann")));
    run.answered(refused(Refusal::NoRun));
    assert_eq!(run.status(), Status::Compensating);
    run.answered(refused(Refusal::NoRun));
    assert_eq!(run.status(), Status::Parked);
    run.operate("ship", ParkedAction::MarkDone);
    assert_eq!(run.status(), Status::Cancelled);
}

#[test]
fn what_becomes_of_children_when_the_parent_closes_before_them() {
    let table = [
        (ParentClose::RequestCancel, vec!["cancel"]),
        (ParentClose::Terminate, vec!["terminate"]),
        (ParentClose::Abandon, vec![]),
    ];
    for (policy, told) in table {
        let mut run = run(vec![workflow("ship").parent_close(policy)]);
        run.answered(Answer::Accepted);
        run.take(Input::Terminate(by("ann")));
        assert_eq!(bodies(&run), told, "{policy:?}");
        let mut run = super::dsl::run(vec![workflow("ship").parent_close(policy)]);
        run.answered(Answer::Accepted);
        run.take(Input::Cancel(by("ann")));
        assert_eq!(bodies(&run), told, "{policy:?}");
        assert_eq!(run.state.is_closed(), policy == ParentClose::Abandon);
        // A parent that was terminated before its child has started tells it when it hears of it.
        let mut run = super::dsl::run(vec![workflow("ship").parent_close(policy)]);
        run.take(Input::Terminate(by("ann")));
        run.answered(Answer::Accepted);
        assert_eq!(bodies(&run), told, "{policy:?}");
    }
}

#[test]
fn a_detached_child_is_started_and_left_alone() {
    let mut run = run(vec![
        workflow("ship").detached(true),
        act("z").input(json!("${ steps.ship.workflow_id }")),
    ]);
    assert_eq!(run.dispatched(), Vec::<String>::new(), "its start has to be accepted");
    run.answered(Answer::Accepted);
    assert_eq!(*run.last_dispatch().input, json!("order-1/ship"));
    run.fail("do z");
    assert_eq!((run.status(), bodies(&run).len()), (Status::Failed, 0));
}

#[test]
fn losers_children_are_cancelled_and_undone() {
    let branches = vec![("x", vec![workflow("ship")]), ("y", vec![act("b")])];
    let mut run = run(vec![parallel("p", branches).join(crate::definition::plan::Join::Any)]);
    run.answered(Answer::Accepted);
    run.complete("do p.y.b");
    run.answered(Answer::Accepted);
    run.child_closed("p.x.ship", Status::Completed);
    assert_eq!(bodies(&run), ["undo"], "it had completed all the same");
    run.answered(Answer::Accepted);
    run.child_closed("p.x.ship", Status::Compensated);
    assert_eq!(run.status(), Status::Completed);
}

#[test]
fn a_child_with_a_bad_id_fails_its_step() {
    for id in [json!(null), json!(""), json!([1]), json!("${ steps.none.id }")] {
        let run = run(vec![workflow("ship").id(id)]);
        assert_eq!(run.status(), Status::Failed);
    }
    let mut run = run(vec![workflow("ship").id(json!(7)), act("z")]);
    assert_eq!(run.pending().len(), 1);
    run.take(Input::Cancel(by("ann")));
    run.answered(refused(Refusal::IdTaken));
    assert_eq!(run.status(), Status::Cancelled);
}
