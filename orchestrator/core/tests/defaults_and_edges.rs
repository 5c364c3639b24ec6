//! What activities, limits, timers and schedules do where nobody says otherwise, and at their edges: SEMANTICS §3 and §4, of §1
//! the retry of runs, and of §5 what decides about starts and what is told and asked of runs, sentence by sentence, each with the
//! tests that fail when it does not hold any more. Values
//! that users of other systems know are marked (T) and are tested as they are.
//!
//! | §1 Retry of a run | tests |
//! |---|---|
//! | the fields and defaults of activities, which are those of workflows (T); unlimited attempts are legal | `runs_are_tried_again_as_activities_are_where_nothing_else_is_said`, `unlimited_attempts_have_no_last_one` |
//! | a definition without it | `without_it_no_run_is_tried_again_and_with_it_the_definition_is_another_one`, `a_run_without_a_policy_is_not_followed` |
//! | failed, compensated and timed out are followed, nothing else is | `a_run_that_was_undone_is_followed_by_another_attempt`, `failed_and_timed_out_runs_are_followed_as_well`, `no_other_end_is_followed` |
//! | `maximum_attempts` counts the first (T); each pause is twice the one before | `attempts_are_counted_and_each_pause_is_twice_the_one_before` |
//! | `non_retryable` is the type of the run's own error; *do not retry* is of an activity (T) | `an_error_that_is_excluded_is_not_tried_again`, `an_activity_that_is_not_to_be_retried_keeps_no_run_from_being_tried_again` |
//! | `run.attempt` | `each_attempt_sees_its_number` |
//! | continue as new begins with the first attempt (T) | `continue_as_new_begins_with_the_first_attempt` |
//! | never early, and on time after a takeover | `an_attempt_dispatches_nothing_before_its_pause_has_passed_and_never_early`, `an_attempt_that_waits_survives_a_takeover_and_begins_on_time` |
//! | cancelled while it waits, or while the one before undid itself | `cancel_and_terminate_end_an_attempt_that_waits`, `a_run_that_somebody_asked_to_cancel_while_it_undid_is_not_followed`, `an_attempt_that_waits_is_cancelled_and_none_follows` |
//! | the timeout is of each attempt, from when it begins | `the_timeout_of_an_attempt_counts_from_when_it_begins` |
//! | the workflow id stays taken; callers and parents hear of the last end | `the_workflow_id_stays_taken_while_an_attempt_waits`, `who_waits_for_the_end_is_answered_by_the_last_attempt`, `a_parent_waits_for_the_last_attempt_of_its_child_and_cancels_the_present_one` |
//! | signals, place and parent move along | `signals_are_buffered_while_an_attempt_waits_and_carried_from_the_one_before`, `an_attempt_has_the_place_of_the_one_before_also_while_it_waits`, `a_parent_hears_of_the_last_attempt_of_its_child` |
//! | past the pivot there is none | `what_comes_after_the_pivot_goes_forward_and_so_never_comes_to_another_attempt` |
//! | whoever dies | `attempts_follow_each_other_whenever_a_replica_dies`, `attempts_follow_each_other_across_the_death_of_replicas`, `an_attempt_is_owed_until_it_is_stored` |
//! | `defaults.concurrency` and `defaults.priority` | `what_a_step_does_not_say_of_its_limit_and_priority_it_takes_from_defaults` |
//! | `on_exhausted` of a step's undo, before that of the definition | `an_undo_says_what_it_means_for_the_others`, `an_undo_holds_up_the_others_where_its_own_step_says_so` |
//!
//! | §3 Activities | tests |
//! |---|---|
//! | the first pause is 1 s (T), the coefficient 2.0 (T), attempts are unlimited (T) | `retries_default_to_those_of_the_field` |
//! | the longest pause is 100 × the first (T) | `the_longest_pause_is_a_hundred_times_the_first_wherever_that_is_said`, `intervals_grow_up_to_the_maximum_within_ten_percent` |
//! | of an undo: 10 attempts, up to 5 m apart | `retries_default_to_those_of_the_field`, `the_longest_pause_is_a_hundred_times_the_first_wherever_that_is_said` |
//! | `non_retryable` types, and *do not retry* | `attempts_end_where_policy_or_worker_say_so`, `whether_there_is_another_attempt` |
//! | *retry after* | `the_worker_may_name_the_pause`, `the_workers_own_pause_is_taken_as_it_is` |
//! | ±10 % jitter | `the_jitter_reaches_a_tenth_either_way`, `jitter_is_deterministic_and_differs_between_steps_attempts_and_directions` |
//! | four timeouts, from the step or from `defaults` | `timeouts_default_to_none_but_one`, `defaults_are_fitted_to_the_step`, `an_undo_has_timeouts_of_its_own` |
//! | start-to-close and heartbeat are retried, schedule-to-start and schedule-to-close are not (T) | `start_to_close_and_heartbeat_are_retried_and_the_other_two_are_not` |
//! | schedule-to-close spans the retries (T) | `schedule_to_close_spans_the_attempts`, `a_worker_that_asks_for_time_does_not_get_it_past_schedule_to_close` |
//! | 10 s and a notice without `defaults`, an error with them | `a_definition_without_timeouts_is_told_of_ten_seconds_and_one_with_defaults_is_refused`, `schedule_to_close_stands_in_for_start_to_close` |
//! | a task that no worker has taken is not late | `a_task_that_nobody_has_taken_is_not_late`, `an_hour_of_backlog_makes_no_timeout_and_no_undo` |
//! | start-to-close counts from the first beat | `a_beat_is_recorded_only_where_it_decides` |
//! | … or from when its queue is known to have delivered past it | `start_to_close_counts_from_when_the_task_is_known_to_be_delivered`, `how_far_a_queue_was_delivered_is_known_by_time` |
//! | schedule-to-start only for what was not delivered: the task is deleted, and *failed* | `a_task_that_nobody_took_in_time_is_taken_back`, `a_task_that_nobody_takes_is_taken_out_of_its_queue`, `a_task_is_taken_out_of_its_queue_if_nobody_has_had_it` |
//! | … what cannot be deleted counts as delivered | `a_task_that_cannot_be_taken_back_was_delivered`, `a_task_that_was_delivered_in_time_is_left_where_it_is_in_a_backlog_too` |
//! | SDK workers beat every 5 s | `a_worker_beats_every_five_seconds_or_three_times_in_a_heartbeat` |
//! | … and are lost after three missed | `a_worker_that_misses_three_beats_is_lost`, `a_silent_worker_is_lost` |
//! | a lease of 30 s, or the largest start-to-close of the queue | `a_lease_is_thirty_seconds_or_the_longest_start_to_close_of_its_queue`, `queues_are_made_as_their_definitions_ask` |
//! | … and a setting of the queue | `what_an_operator_says_of_a_lease_goes_before_the_definitions`, `a_lease_is_asserted_when_it_is_said_and_when_it_is_taken_back`, `the_lease_of_a_queue_that_is_there_is_changed` |
//! | details reach the next attempt | `details_reach_the_next_attempt`, `a_missed_heartbeat_ends_the_attempt_and_its_details_reach_the_next` |
//! | the answer to a heartbeat tells of a cancellation | `a_cancellation_reaches_the_worker_twice_unless_it_is_abandoned`, `a_cancellation_reaches_the_handler_by_beat_and_by_push` |
//! | `try_cancel` by default | `cancellation_defaults_to_asking` |
//! | `try_cancel`, `wait_cancelled`, `abandon` | `try_cancel_waits_within_the_timeouts`, `wait_cancelled_waits_for_the_worker`, `abandon_waits_for_nobody` |
//! | a task is finished hours later, from anywhere | `a_task_that_is_finished_later_is_not_lost`, `a_task_that_is_finished_later_is_waited_for`, `a_task_is_completed_from_elsewhere` |
//! | with one attempt, and only then, the task is claimed before its handler is called | `what_has_one_attempt_is_claimed_and_nothing_else_is`, `a_handler_that_runs_at_most_once_is_called_when_its_claim_is_granted` |
//! | a claim is granted once, and durable before | `a_claim_is_granted_once`, `a_claim_is_granted_once_and_survives_a_takeover` |
//! | a claim that is never resolved ends unknown | `a_claim_that_is_never_resolved_ends_unknown` |
//! | limits of an activity, each with a key; a rate is in a second | `limits_of_activities_are_per_second_for_all_and_by_no_priority_unless_they_say_so`, `each_key_has_a_limit_of_its_own` |
//! | limits and priorities at their bounds | `limits_and_priorities_are_taken_at_their_bounds_and_not_one_past_them` |
//! | limits of a queue, over all its activities | `an_operators_limit_of_a_queue_counts_for_every_activity_and_follows_their_word` |
//! | priority 1 to 5, 3 by default | `who_says_nothing_of_priority_and_fairness_asks_with_three_and_under_the_key_of_the_limit`, `undos_come_first_then_priorities` |
//! | fairness between keys under backlog | `one_of_each_key_in_turn_however_long_a_backlog`, `tenants_take_turns_and_nobody_waits_for_a_backlog_of_others` |
//! | over all workers, partitions and replicas | `a_queue_and_each_key_of_an_activity_are_never_above_their_limits_across_the_death_of_replicas` |
//! | a rate is reached and not passed | `a_rate_is_reached_though_every_wake_up_is_late_and_never_passed_by_more_than_a_tenth`, `what_a_limit_allows_is_reached_within_a_tenth` |
//! | each (namespace, limit, key) belongs to one partition | `addresses_are_stable_and_differ_by_every_part` |
//! | permits are durable | `never_more_than_the_limit_across_the_death_of_a_replica`, `commits_of_unknown_outcome_neither_lose_nor_double_a_permit` |
//! | a step waits in its run's state | `a_task_goes_out_when_it_is_granted_and_its_end_gives_the_permit_back` |
//! | activities without limits pay nothing | `an_activity_without_limits_pays_nothing_for_them` |
//!
//! | §4 Time | tests |
//! |---|---|
//! | timers are exact to 100 ms under load | `timers_fire_within_a_tenth_of_a_second_under_load_and_never_early` |
//! | … and never early | `a_timer_fires_when_it_is_due_whatever_is_known_of_the_log_and_never_early`, `nothing_fires_early` |
//! | a wait of a year costs one row | `a_wait_of_a_year_costs_one_row_and_nothing_while_it_lasts` |
//! | a clock that jumps fires nothing early or twice | `a_clock_that_jumps_fires_no_timer_early_or_twice`, `a_clock_that_jumps_starts_nothing_early_or_twice`, `one_reading_that_is_far_off_changes_nothing`, `a_step_is_taken_when_readings_agree_and_undone_without_standing_still` |
//! | cron of 5, 6 or 7 fields | `a_cron_string_has_five_to_seven_fields`, `cron_strings_of_five_and_six_fields_agree` |
//! | calendars, and intervals with a phase | `calendars_are_and_and_intervals_have_a_phase`, `what_a_calendar_does_not_name_is_midnight_and_any_day` |
//! | exclusions, start and end | `what_is_excluded_and_outside_of_the_bounds_does_not_occur` |
//! | time zones of the IANA, jitter, note, paused, limited actions | `occurrences_increase_and_are_the_same_after_a_restart_at_any_instant`, `jitter_is_a_function_of_schedule_and_nominal_time`, `the_canonical_form_says_the_same_and_keeps_itself`, `a_pause_is_not_made_up_for`, `limited_actions_end_it` |
//! | … of which there is none by default | `the_defaults_are_those_of_the_field` |
//! | weekdays 0 to 7, both ends Sunday; either of two days suffices | `cron_strings_follow_vixie`, `weekdays_by_name_and_the_seventh_agree`, `weekdays_are_those_of_crontabs` |
//! | calendars are AND | `calendars_are_and_and_intervals_have_a_phase` |
//! | `gap: shift` by default, or `skip` | `a_gap_shifts_or_skips_and_an_hour_that_comes_twice_is_meant_once`, `the_defaults_are_those_of_the_field` |
//! | `overlap: first` by default, `both` for wildcard hours | `hours_that_begin_with_a_star_are_meant_whenever_they_come`, `a_gap_shifts_or_skips_and_an_hour_that_comes_twice_is_meant_once` |
//! | the next one is strictly later, whatever the zone does | `occurrences_increase_and_are_the_same_after_a_restart_at_any_instant`, `a_daily_time_occurs_once_a_day_in_every_zone` |
//! | the five next ones are printed at registration | `what_is_asked_of_a_schedule_is_answered`, `a_registration_tells_when_its_schedule_comes_due`, `a_definition_makes_changes_and_deletes_the_schedule_named_after_it` |
//! | overlap (T): `skip` by default, and five others | `overlap_policies_have_the_names_of_the_field`, `the_defaults_are_those_of_the_field`, `policies_hold_over_runs_that_really_overlap` |
//! | `skip`, `buffer_one`, `buffer_all` | `skip_leaves_out_what_comes_due_while_a_run_is_open`, `buffer_one_keeps_one_and_buffer_all_keeps_all` |
//! | `cancel_other`, `terminate_other`, `allow_all` | `cancel_and_terminate_other_stop_what_is_open_and_start_the_latest`, `allow_all_starts_everything_up_to_a_limit` |
//! | the catch-up window is 1 year (T) | `what_is_a_year_late_is_made_up_for_and_a_microsecond_more_is_not`, `the_defaults_are_those_of_the_field` |
//! | … and 10 s at least (T) | `the_defaults_are_those_of_the_field` |
//! | what is missed is counted | `what_is_older_than_the_catch_up_window_is_missed_and_counted`, `what_was_missed_is_counted_in_its_metric` |
//! | a backfill has both its ends | `a_backfill_takes_both_ends_and_one_after_the_other` |
//! | trigger now, also while it is paused | `a_trigger_is_an_occurrence_of_its_own`, `who_triggers_a_schedule_is_told_what_becomes_of_it` |
//! | pause on failure | `a_failure_pauses_where_that_is_asked_for` |
//! | (schedule, nominal time) is unique in PostgreSQL | `an_occurrence_is_started_once`, `each_nominal_time_is_started_once_whenever_a_replica_dies`, `each_second_is_started_once_while_replicas_are_killed` |
//!
//! | §5 Starts and triggers | tests |
//! |---|---|
//! | id reuse (T): `allow_duplicate` by default, `allow_duplicate_failed_only`, `reject_duplicate` | `earlier_runs_decide_about_a_start`, `a_closed_id_is_used_again_as_the_start_allows` |
//! | conflict: `fail` by default, `use_existing`, `terminate_existing` | `earlier_runs_decide_about_a_start`, `a_start_may_terminate_the_run_that_has_its_id` |
//! | conflict: `queue` | `starts_are_queued_for_their_id_and_begin_in_order_across_the_death_of_a_replica`, `a_line_has_an_end_and_who_is_in_it_is_told_so` |
//! | a request id makes a retry harmless | `a_request_starts_one_run_however_often_it_is_repeated` |
//! | a trigger starts, or signals, on any subject of the user's | `with_a_start_the_signal_follows_it`, `a_signal_that_comes_before_its_run_waits_for_it`, `a_subject_that_no_stream_keeps_is_heard_while_somebody_listens` |
//! | id, filter and input are expressions | `what_means_nothing_is_refused_and_passed`, `events_that_match_nothing_are_recorded_by_the_thousand_or_after_a_while` |
//! | no event is lost or taken twice | `each_event_is_sent_once`, `each_event_counts_once_whenever_a_replica_dies`, `each_event_counts_once_while_whoever_reads_is_killed` |
//! | debounce and batch, and what they are when little is said | `what_is_gathered_counts_when_it_is_due_full_or_the_trigger_goes`, `what_a_trigger_does_not_say_is_usual` |
//!
//! | §5 Signals, updates and queries | tests |
//! |---|---|
//! | a signal is durable and in order, and a repeat changes nothing | `signals_are_kept_in_order_and_once`, `signals_are_buffered_in_order_and_a_repeat_changes_nothing` |
//! | … buffered until a step waits for it; one that does not match stays | `a_signal_that_comes_before_it_is_waited_for_is_taken_then`, `one_signal_is_taken_by_one_step` |
//! | … also while the run is parked, or waits to be tried again | `a_signal_for_a_parked_run_is_taken_when_it_goes_on`, `signals_are_buffered_while_an_attempt_waits_and_carried_from_the_one_before` |
//! | … up to a bound | `the_limits_of_signals_hold_at_the_limit_and_one_past_it`, `at_the_limit_of_events_signals_wait_and_nothing_is_lost` |
//! | signal-with-start | `a_signal_may_start_its_run_once`, `a_signal_that_has_started_a_run_is_not_given_to_the_next_one` |
//! | a signal to no run is a dead letter | `a_signal_starts_its_run_once_and_one_to_nobody_is_a_dead_letter` |
//! | a handler takes each signal of its name as it comes, one at a time; those of other names run beside | `signals_of_a_name_are_taken_one_after_the_other_and_those_of_others_beside_them`, `each_signal_is_handled_once_though_its_replica_dies` |
//! | a signal that does not fit is refused and changes nothing | `a_body_that_does_not_fit_is_refused_and_changes_nothing`, `a_signal_that_does_not_fit_is_refused_and_starts_nothing` |
//! | what handlers did is undone in the reverse order of everything | `what_they_did_is_undone_in_the_reverse_order_of_everything_each_with_its_own_data` |
//! | a failure of theirs is the run's, and a stop of the run is theirs | `a_failure_in_a_handler_fails_the_run_and_halts_the_rest`, `a_run_that_fails_or_is_cancelled_halts_its_handlers_before_anything_is_undone` |
//! | a run completes when they have nothing left to do | `a_run_completes_when_nothing_is_left_to_do_beside_it_and_its_output_knows_of_it`, `a_run_completes_when_what_was_accepted_is_done`, `what_comes_to_a_parked_run_is_handled_before_it_completes` |
//! | a handler sees `signal`, and others what it sets | `signals_of_a_name_are_taken_one_after_the_other_and_those_of_others_beside_them`, `queries_read_what_handlers_set_and_not_what_their_steps_say` |
//! | an update has a schema and a validator; one that is refused leaves no trace | `what_is_refused_leaves_no_trace`, `one_that_is_refused_leaves_no_trace_and_its_caller_hears_why` |
//! | … as the run stands; what cannot be decided about yet is, before the run completes | `those_of_a_name_are_done_one_after_the_other_and_each_is_validated_as_the_run_stands`, `what_comes_while_the_run_is_parked_is_decided_about_when_it_goes_on`, `what_comes_to_a_parked_run_is_decided_about_before_it_completes`, `what_was_put_off_is_decided_about_before_a_run_completes` |
//! | whoever waits hears of it in the end | `one_that_is_cut_off_hears_of_the_end_of_the_run`, `what_nobody_decided_about_is_refused_when_the_run_is_stopped`, `an_answer_that_cannot_be_made_fails_the_update_and_not_the_run`, `one_that_fails_fails_the_run_and_what_they_did_is_undone_in_reverse_order` |
//! | acceptance and completion can be waited for | `who_waits_for_the_acceptance_is_told_of_it_and_of_nothing_else`, `an_update_is_done_and_answered_with_its_output` |
//! | the update id makes a repeat harmless | `a_repeat_does_nothing_and_is_told_what_became_of_the_first`, `it_is_done_once_and_answered_though_its_replica_dies` |
//! | what is done at the last moment is in the output, or in the input of the run that goes on | `what_is_done_at_the_last_moment_is_in_what_the_run_ends_with`, `what_a_step_in_a_loop_ends_with_stands` |
//! | `continue_as_new` keeps what waits | `a_run_that_goes_on_as_another_ends_what_is_under_way_and_hands_over_what_waits`, `a_run_that_goes_on_as_another_does_what_it_accepted_and_hands_over_the_rest` |
//! | … and so does a run that is tried again; what it had accepted fails with it | `what_an_attempt_accepted_fails_with_it_and_what_it_put_off_goes_to_the_next`, `what_no_attempt_follows_to_decide_about_is_refused`, `an_update_that_waits_goes_to_the_next_attempt_and_one_that_was_accepted_hears_of_the_end` |
//! | those that wait are shown | `updates_that_are_not_done_and_signals_that_nobody_took_are_told_of` |
//! | a query is named, or any expression | `what_cannot_be_answered_says_why`, `a_run_is_told_updated_and_asked_while_it_goes_on_and_asked_when_it_has_closed` |
//! | a query is of open and closed runs and changes nothing | `a_query_is_answered_from_what_is_committed_and_changes_nothing`, `a_closed_run_is_asked_like_an_open_one` |

use std::path::{Path, PathBuf};

/// Texts of all sources below.
fn sources(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("a text");
            found.push((path, text));
        }
    }
}

/// Whether the source defines a test of that name, or one that every store has to pass.
fn has_test(path: &Path, text: &str, name: &str) -> bool {
    let Some(at) = text.find(&format!("fn {name}(")) else {
        return false;
    };
    let before: Vec<&str> = text[..at].lines().rev().take(4).collect();
    let marked = |line: &&str| line.trim_start().starts_with("#[test]") || line.contains("#[tokio::test");
    before.iter().any(marked) || path.components().any(|part| part.as_os_str() == "conformance")
}

#[test]
fn every_sentence_has_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut found = Vec::new();
    for folder in ["orchestrator", "tests", "workers/rust"] {
        sources(&root.join(folder), &mut found);
    }
    let (mut rows, mut missing) = (0, Vec::new());
    for line in include_str!("defaults_and_edges.rs").lines() {
        let Some(row) = line.strip_prefix("//! | ") else {
            continue;
        };
        let cells: Vec<&str> = row.trim_end_matches(" |").split(" | ").collect();
        let [sentence, tests] = cells[..] else {
            panic!("a row has two cells: {line}");
        };
        if tests == "tests" {
            continue;
        }
        rows += 1;
        let names: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "{sentence}");
        missing.extend(names.into_iter().filter(|name| {
            let mut texts = found.iter();
            !texts.any(|(path, text)| has_test(path, text, name))
        }));
    }
    assert_eq!(missing, [""; 0]);
    assert!(rows > 60, "{rows}");
}
