//! The behaviours that a saga orchestrator must get right, and the tests that say so: of core, of the engine, of workers and of
//! the whole on real servers (`tests/tests`).
//!
//! | behaviour | tests |
//! |---|---|
//! | 1 three outcomes | `each_way_to_end_says_what_is_known`, `unknown_sticks_until_a_worker_asserts_that_nothing_was_done`, `a_lost_task_is_unknown_and_retried` |
//! | 2 unknown is retried under the same key, then undone too | `an_attempt_is_retried_under_the_same_key_with_a_new_task`, `completed_and_unknown_steps_are_undone_in_reverse_order_of_dispatch` |
//! | 3 the undo is durable before the do | `the_entry_is_in_the_event_of_the_dispatch_and_the_input_in_that_of_the_outcome` |
//! | 4 an undo before its do | `one_after_the_other`, `every_interleaving_of_two`; its undo is sent all the same: `completed_and_unknown_steps_are_undone_in_reverse_order_of_dispatch` |
//! | 5 a do after its undo | `every_interleaving_of_two`, `a_worker_that_comes_back_after_the_undo_is_refused` |
//! | 6 duplicates change nothing, keys are stable | `a_repeated_result_changes_nothing_whatever_it_says`, `keys_have_the_documented_form_for_ever`, `a_message_is_taken_once_and_every_repeat_can_be_answered` |
//! | 7 late replies are recorded and move nothing | `a_late_result_is_recorded_once_and_changes_nothing_else`, `a_late_success_of_a_step_that_was_not_going_to_be_undone_is_undone` |
//! | 8 siblings in flight | `a_failure_halts_the_siblings_and_waits_for_them_before_anything_is_undone` |
//! | 9 order by dependency, and against it | `independent_branches_are_undone_side_by_side_and_each_in_reverse`, `a_sequential_policy_forbids_undoing_side_by_side` |
//! | 10 one undo an iteration | `a_failed_iteration_halts_the_others_and_every_one_is_undone_with_its_own_data` |
//! | 11 the pivot | `a_pivot_that_is_unknown_is_asked_again_until_it_is_known`, `past_the_pivot_steps_are_tried_again_without_limit_and_nothing_cuts_them`, `a_run_that_is_cancelled_waits_for_what_an_operator_says_of_its_pivot` |
//! | 12 what a step is decides | `what_is_undone_depends_on_the_kind_of_step_and_its_outcome` |
//! | 13 failure, error, still running, poison | `attempts_end_where_policy_or_worker_say_so`, `retry_later_consumes_no_attempt`, `a_lost_task_is_unknown_and_retried` |
//! | 14 undos have their own budget and are parked | `an_undo_is_retried_by_its_own_policy_and_then_parked_while_others_go_on`, `the_runs_timeout_stops_it_and_undoes_and_does_not_cut_the_undo` |
//! | 15 the operators' queue | `a_parked_undo_is_retried_with_all_its_attempts_and_the_same_or_other_input`, `marked_done_counts_as_undone_and_skipped_does_not` |
//! | 16 a failed undo and the others | `an_undo_is_retried_by_its_own_policy_and_then_parked_while_others_go_on`, `an_exhausted_undo_halts_the_others_where_the_policy_says_so` |
//! | 17 children | `a_completed_child_is_told_to_undo_and_waited_for_in_its_turn`, `a_cancel_reaches_the_leaves_first`, `a_detached_child_is_started_and_left_alone` |
//! | 18 cancel and terminate | `cancel_is_idempotent_and_changes_nothing_while_undoing`, `terminate_stops_at_once_and_undoes_nothing` |
//! | 19 savepoints | `a_scope_that_fails_undoes_its_own_steps_and_takes_the_other_way` |
//! | 20 isolation | one at a time for a key, of runs and of activities: `never_more_open_than_the_limit_across_the_death_of_a_replica`, `each_key_has_a_limit_of_its_own`; the rest is the participants' |
//! | 21 a deadline against a reply | `a_timeout_fires_only_when_the_log_has_been_read_that_far`, `what_was_due_first_happens_first` |
//! | 22 signals before their wait | `a_signal_that_comes_before_it_is_waited_for_is_taken_then` |
//! | 23 a start with the caller's data | `a_request_starts_one_run_however_often_it_is_repeated`, `each_event_counts_once_whenever_a_replica_dies`; a child's: `a_child_answers_its_start_by_its_birth_and_a_repeat_from_its_state` |
//! | 24 a run keeps its definition, undos included | `an_undo_calls_whom_its_step_has_stored`, `a_run_loaded_with_a_definition_that_lacks_its_step_is_parked_and_goes_on_with_the_right_one` |
//! | 25 the final status says which | `the_final_status_says_how_a_run_ended` |

use serde_json::json;

use super::dsl::*;
use crate::run::Status;
use crate::run::effect::Direction;
use crate::run::input::{Input, ParkedAction};

/// Where the tests are that may be named.
fn sources() -> Vec<String> {
    fn read(folder: &std::path::Path, into: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                read(&path, into);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                into.push(std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = vec![];
    for folder in [
        "src/run",
        "../src/engine/tests",
        "../../workers/rust/tests",
        "../../tests/tests",
    ] {
        read(&here.join(folder), &mut all);
    }
    all
}

#[test]
fn every_test_of_the_table_exists() {
    let table = include_str!("behaviours.rs");
    let sources = sources();
    let mut rows = 0;
    for row in table
        .lines()
        .filter(|line| line.starts_with("//! | ") && !line.contains("behaviour |"))
    {
        rows += 1;
        let names: Vec<_> = row.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "nothing proves {row}");
        for name in names {
            let test = format!("fn {name}()");
            assert!(sources.iter().any(|source| source.contains(&test)), "{name}");
        }
    }
    assert_eq!(rows, 25);
}

#[test]
fn an_undo_calls_whom_its_step_has_stored() {
    let mut run = run(vec![act("a"), act("b")]);
    run.complete("do a");
    let stored = run.state.clone();
    // Another definition under the same names.
    let other = plan(vec![act("a").undo_input(json!("other")), act("b")]);
    let mut run = Run::loaded(other, stored);
    run.fail("do b");
    let dispatch = run.last_dispatch();
    assert_eq!(
        (dispatch.direction, dispatch.activity.as_str()),
        (Direction::Undo, "undo-a")
    );
    assert_eq!(*dispatch.input, json!({"id": "a-1"}), "and with what it has stored");
}

#[test]
fn the_final_status_says_how_a_run_ended() {
    let two = || vec![act("a"), act("b")];
    let at_b = || {
        let mut run = Run::of(with_timeout(plan(two()), 60));
        run.complete("do a");
        run
    };
    let mut ended = vec![];

    let mut run = at_b();
    run.complete("do b");
    ended.push(run.status());

    let mut run = super::dsl::run(two());
    run.fail("do a");
    ended.push(run.status());

    let mut run = at_b();
    run.fail("do b");
    assert_eq!(run.status(), Status::Compensating);
    run.complete("undo a");
    ended.push(run.status());

    let mut run = at_b();
    run.fail("do b");
    for _ in 0..2 {
        run.fail("undo a");
        run.wake_next();
    }
    run.fail("undo a");
    assert_eq!(run.status(), Status::Parked, "it is not closed: somebody has to act");
    run.operate("a", ParkedAction::Skip);
    ended.push(run.status());

    let mut run = at_b();
    run.take(Input::Cancel(by("ann")));
    run.fail("do b");
    run.complete("undo a");
    ended.push(run.status());

    let mut run = at_b();
    run.later(61);
    run.wake();
    run.fail("do b");
    run.complete("undo a");
    ended.push(run.status());

    let mut run = at_b();
    run.take(Input::Terminate(by("ann")));
    ended.push(run.status());

    let run = super::dsl::run(vec![continue_as_new("again", None)]);
    ended.push(run.status());

    ended.push(super::admission::skipped().status());

    let closed = Status::ALL.into_iter().filter(|status| status.is_closed());
    assert_eq!(ended, closed.collect::<Vec<_>>());
}
