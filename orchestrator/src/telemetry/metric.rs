//! Every metric: its name, kind, unit and meaning. Names follow Prometheus. Labels take few values: a status, a kind, a
//! code; never an id, a workflow or a namespace.

/// How a metric behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Counter,
    Gauge,
    /// With the upper bounds of its buckets.
    Histogram(&'static [f64]),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub unit: metrics::Unit,
    pub help: &'static str,
    /// Each takes a handful of values, known when the code is written.
    pub labels: &'static [&'static str],
}

/// From a commit on a quiet machine to one that is about to time out.
const SECONDS: &[f64] = &[
    0.000_25, 0.000_5, 0.001, 0.002, 0.003, 0.005, 0.007_5, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0,
];
const COUNTS: &[f64] = &[
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0,
];

macro_rules! metrics_table {
    ($($name:ident = $text:literal, $kind:expr, $unit:ident, [$($label:literal),*], $help:literal;)*) => {
        $(#[doc = $help] pub const $name: &str = $text;)*
        /// In the order of this file.
        pub const ALL: &[Metric] = &[
            $(Metric { name: $text, kind: $kind, unit: metrics::Unit::$unit, help: $help, labels: &[$($label),*] }),*
        ];
    };
}

metrics_table! {
    TRANSITIONS = "knarr_transitions_total", Kind::Counter, Count, [], "Inputs applied to runs and committed.";
    RUNS_STARTED = "knarr_runs_started_total", Kind::Counter, Count, [], "Runs started.";
    RUNS_CLOSED = "knarr_runs_closed_total", Kind::Counter, Count, ["status"], "Runs closed, by `status`.";
    RUNS_RETRIED = "knarr_runs_retried_total", Kind::Counter, Count, [], "Runs closed without success that are followed by another attempt; each attempt counts as started and closed.";
    COMMIT_SECONDS = "knarr_commit_seconds", Kind::Histogram(SECONDS), Seconds, [], "Time of one commit, as its caller sees it.";
    BATCH_TRANSITIONS = "knarr_batch_transitions", Kind::Histogram(COUNTS), Count, [], "Transitions in one commit.";
    COMMIT_ERRORS = "knarr_commit_errors_total", Kind::Counter, Count, ["kind"], "Commits that failed, by `kind`: bad_data, unknown or fenced.";
    TASKS_DISPATCHED = "knarr_tasks_dispatched_total", Kind::Counter, Count, [], "Tasks published to workers.";
    RESULTS = "knarr_results_total", Kind::Counter, Count, ["inlet", "outcome"], "Results of tasks taken, by `inlet` (direct or log) and `outcome`.";
    TIMEOUTS = "knarr_timeouts_total", Kind::Counter, Count, [], "Attempts that ended because a deadline passed.";
    UNDO_PARKED = "knarr_undo_parked_total", Kind::Counter, Count, [], "Undos that were exhausted and wait for an operator.";
    SCHEDULE_STARTED = "knarr_schedule_started_total", Kind::Counter, Count, [], "Occurrences of schedules that were started.";
    SCHEDULE_SKIPPED = "knarr_schedule_skipped_total", Kind::Counter, Count, [], "Occurrences of schedules that were skipped, by overlap policy or for want of room.";
    TRIGGER_EVENTS = "knarr_trigger_events_total", Kind::Counter, Count, ["outcome"], "Events that triggers have read, by `outcome`: taken or skipped by the filter; done or refused once there was an answer; dropped where no stream keeps them and there was no room.";
    TRIGGER_GAPS = "knarr_trigger_gaps_total", Kind::Counter, Count, ["why"], "Times that a trigger's stream was found to lack messages, by `why`: recreated, purged or stepped_back.";
    TRIGGERS_TROUBLED = "knarr_triggers_troubled", Kind::Gauge, Count, [], "Triggers read here whose stream cannot be read.";
    SCHEDULE_MISSED = "knarr_schedule_missed_catchup_window_total", Kind::Counter, Count, [], "Occurrences of schedules that could not be started within the catch-up window.";
    LIMIT_WARNINGS = "knarr_limit_warnings_total", Kind::Counter, Count, ["limit"], "Runs that have a fifth of what they may have, by `limit` (events, history_bytes, pending or payload).";
    LIMIT_PARKED = "knarr_limit_parked_total", Kind::Counter, Count, ["limit"], "Runs and steps that wait for an operator because of a `limit`.";
    REJECTED = "knarr_rejected_total", Kind::Counter, Count, ["code"], "Messages and calls refused, by `code`.";
    DEAD_LETTERS = "knarr_dead_letters_total", Kind::Counter, Count, ["reason"], "Messages copied to the dead-letter stream, by `reason`.";
    PUBLISH_ERRORS = "knarr_publish_errors_total", Kind::Counter, Count, ["kind"], "Publications that were not acknowledged, by `kind`; they are repeated or held.";
    LOG_GAPS = "knarr_log_gaps_total", Kind::Counter, Count, [], "Times the log was found to lack messages: recreated, or put back in time.";
    LOG_FILL = "knarr_log_fill_percent", Kind::Gauge, Percent, [], "How full the log is, of its limit.";
    STARTS_THROTTLED = "knarr_starts_throttled_total", Kind::Counter, Count, [], "Times the log began to refuse starts, of all namespaces or some, to keep room for results.";
    LOG_GAP_MESSAGES = "knarr_log_gap_messages_total", Kind::Counter, Count, [], "Messages the log is known to have lost, where the range is known.";
    DEFERRED = "knarr_deferred_inputs_total", Kind::Counter, Count, [], "Messages of the log put aside until their run, which is large or loads slowly, is there.";
    PERMITS_GRANTED = "knarr_permits_granted_total", Kind::Counter, Count, [], "Tasks that a limit let go out.";
    PERMIT_WAIT_SECONDS = "knarr_permit_wait_seconds", Kind::Histogram(SECONDS), Seconds, [], "How long tasks waited at their limit.";
    LIMITERS_STOPPED = "knarr_limiters_stopped_total", Kind::Counter, Count, [], "Limits that stand still because of an error of knarr (KN0360).";
    OWED_UNREADABLE = "knarr_owed_unreadable_runs", Kind::Gauge, Count, [], "Runs that owe publications and cannot be read (KN0390); what they owe is tried again every minute.";
    PARTITIONS_OWNED = "knarr_partitions_owned", Kind::Gauge, Count, [], "Partitions this replica owns.";
    OPERATOR_ACTIONS = "knarr_operator_actions_total", Kind::Counter, Count, ["action"], "What operators did to runs, by `action`: cancel, terminate, limit, retry, edit, done, skip or migrate.";
    RUNS_PARKED = "knarr_runs_parked", Kind::Gauge, Count, [], "Runs of the cluster that wait for an operator; up to 100,000, and the same on every replica.";
    STARTS_WITHOUT_ROOM = "knarr_starts_without_room_total", Kind::Counter, Count, [], "Starts that were rejected or skipped because as many runs were open as `concurrency` allows.";
    FORMAT_LEVEL = "knarr_format_level", Kind::Gauge, Count, [], "The storage format that the cluster writes: the newest that every replica can read.";
    LIVE_RUNS = "knarr_live_runs", Kind::Gauge, Count, [], "Runs held in memory.";
    LIVE_BYTES = "knarr_live_bytes", Kind::Gauge, Bytes, [], "What they take up at most, by estimate; beyond live_max_bytes those used least leave.";
    INTAKE_BYTES = "knarr_intake_bytes", Kind::Gauge, Bytes, ["inlet"], "What is taken from the log and from direct inlets and not yet applied, by `inlet` (log or direct), as it was estimated at most.";
    PUBLISHING_BYTES = "knarr_publishing_bytes", Kind::Gauge, Bytes, [], "What committed batches let out and is not acknowledged yet.";
    PUBLICATIONS_PUT_OFF = "knarr_publications_put_off_total", Kind::Counter, Count, [], "Commits whose publications wait in the store, because too much was under way.";
    BUS_DROPPED = "knarr_bus_dropped_messages_total", Kind::Counter, Count, [], "Direct messages dropped because the replica could not keep up; their senders repeat them.";
    BUS_MALFORMED = "knarr_bus_malformed_direct_messages_total", Kind::Counter, Count, [], "Direct messages on no subject that Knarr knows.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_prometheus_names_and_say_what_they_are() {
        let mut seen = BTreeSet::new();
        for metric in ALL {
            let name = metric.name;
            assert!(seen.insert(name), "{name} twice");
            assert!(
                name.starts_with("knarr_") && name.chars().all(|c| c.is_ascii_lowercase() || c == '_'),
                "{name}"
            );
            assert_eq!(name.ends_with("_total"), metric.kind == Kind::Counter, "{name}");
            assert_eq!(
                name.ends_with("_seconds"),
                metric.unit == metrics::Unit::Seconds,
                "{name}"
            );
            assert!(metric.help.ends_with('.'), "{name}");
            assert!(
                metric
                    .labels
                    .iter()
                    .all(|label| metric.help.contains(&format!("`{label}`"))),
                "{name}"
            );
            if let Kind::Histogram(bounds) = metric.kind {
                assert!(bounds.is_sorted() && !bounds.is_empty(), "{name}");
            }
        }
    }

    /// A name that is used must be in the table, or it has no description and no buckets.
    #[test]
    fn nothing_is_counted_under_a_name_that_is_not_here() {
        let mut sources = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
        while let Some(path) = sources.pop() {
            if path.is_dir() {
                sources.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            for used in ["counter!(\"", "gauge!(\"", "histogram!(\""]
                .iter()
                .flat_map(|call| text.split(call).skip(1))
            {
                let name = used.split('"').next().unwrap();
                let known = ALL.iter().any(|metric| metric.name == name);
                assert!(known || !name.starts_with("knarr_"), "{name} in {}", path.display());
            }
        }
    }
}
