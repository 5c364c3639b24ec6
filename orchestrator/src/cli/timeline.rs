//! A history as people read it: one line an event, with the time, the distance to the transition before, the step, and
//! what there is to know.
//!
//! Works on events as they are stored, not on the types of this build: what is unknown here is shown as it is.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use comfy_table::{Attribute, Cell, Color};
use knarr_schemas::api::HistoryTransition;
use serde_json::Value;

use crate::cli::globals::Look;
use crate::cli::output;

const DETAIL: usize = 90;

/// Grows page by page.
#[derive(Debug, Default)]
pub struct Timeline {
    tasks: BTreeMap<u64, Task>,
    lines: Vec<Line>,
    started: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone)]
struct Task {
    step: String,
    undo: bool,
    attempt: u64,
}

#[derive(Debug)]
struct Line {
    /// The first of its transition.
    at: Option<DateTime<Utc>>,
    event: String,
    tone: Tone,
    step: String,
    detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tone {
    Plain,
    Good,
    Bad,
    Attention,
}

impl Timeline {
    pub fn add(&mut self, transition: &HistoryTransition) {
        self.started.get_or_insert(transition.at);
        let mut at = Some(transition.at);
        for event in &transition.events {
            let mut line = self.line(event);
            line.at = at.take();
            self.lines.push(line);
        }
        if let Some(bytes) = transition.omitted_bytes {
            self.lines.push(Line {
                at: Some(transition.at),
                event: "(not shown)".to_owned(),
                tone: Tone::Attention,
                step: String::new(),
                detail: format!(
                    "transition {} is of {bytes} bytes, too large for one answer",
                    transition.seq
                ),
            });
        }
    }

    pub fn render(&self, look: &Look) -> String {
        let mut table = output::table(look, &["TIME", "", "EVENT", "STEP", "DETAIL"]);
        let mut before: Option<DateTime<Utc>> = None;
        for line in &self.lines {
            let (time, delta) = match (line.at, before) {
                (None, _) => (String::new(), String::new()),
                (Some(at), None) => (self.time(at), String::new()),
                (Some(at), Some(before)) => (
                    self.time(at),
                    format!("+{}", output::span((at - before).num_milliseconds())),
                ),
            };
            before = line.at.or(before);
            let dim = |text: String| {
                let cell = Cell::new(text);
                if look.color {
                    cell.add_attribute(Attribute::Dim)
                } else {
                    cell
                }
            };
            let event = Cell::new(&line.event);
            let event = match line.tone {
                Tone::Good if look.color => event.fg(Color::Green),
                Tone::Bad if look.color => event.fg(Color::Red),
                Tone::Attention if look.color => event.fg(Color::Yellow),
                _ => event,
            };
            table.add_row([
                Cell::new(time),
                dim(delta),
                event,
                Cell::new(&line.step),
                dim(line.detail.clone()),
            ]);
        }
        output::table_text(&table, 0)
    }

    /// Moments in events are microseconds since 1970.
    fn moment(&self, body: &Value, name: &str, before: &str) -> String {
        body.get(name)
            .and_then(Value::as_i64)
            .and_then(DateTime::<Utc>::from_timestamp_micros)
            .map(|at| format!("{before}{}", self.time(at)))
            .unwrap_or_default()
    }

    /// The day where it is not that of the start.
    fn time(&self, at: DateTime<Utc>) -> String {
        match self.started {
            Some(started) if started.date_naive() != at.date_naive() => at.format("%m-%d %H:%M:%S%.3f").to_string(),
            _ => output::clock(at),
        }
    }

    fn line(&mut self, event: &Value) -> Line {
        let (kind, body) = split(event);
        let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let number = |name: &str| body.get(name).and_then(Value::as_u64);
        let undo = body.get("direction").and_then(Value::as_str) == Some("undo");
        let value = |name: &str| match body.get(name) {
            None | Some(Value::Null) => String::new(),
            Some(value) => output::short_json(value, DETAIL),
        };
        let task = number("task").unwrap_or_default();
        let (ask, release) = (body.pointer("/body/ask"), body.pointer("/body/release"));
        let granted = body.pointer("/answer/granted");
        let asks = |name: &str| ask.and_then(|ask| ask.get(name)).and_then(Value::as_str);
        let undo = undo || asks("direction") == Some("undo");
        let same = |known: &Task| known.undo == undo && body.get("step").and_then(Value::as_str) == Some(&*known.step);
        let first = kind == "task_opened" && !self.tasks.values().any(same);
        self.learn(kind, body, task, undo);
        let known = self.tasks.get(&task);
        let step = match known {
            Some(known) if body.get("step").is_none() => known.step.clone(),
            _ => asks("step").map_or_else(|| text("step"), str::to_owned),
        };
        let undo = undo || kind.starts_with("undo_") || known.is_some_and(|task| task.undo);
        let noun = if undo { "undo" } else { "step" };
        let attempt = known.map_or(0, |task| task.attempt);
        let nth = if attempt > 1 {
            format!(" (attempt {attempt})")
        } else {
            String::new()
        };
        let operation = operation(body);
        let line = |event: String, tone, detail: String| Line {
            at: None,
            event,
            tone,
            step,
            detail,
        };
        match kind {
            "run_started" => {
                let version = number("version").unwrap_or_default();
                let input = value("input");
                line(
                    "run started".into(),
                    Tone::Plain,
                    format!(
                        "{} v{version}{}  {input}",
                        text("workflow"),
                        self.moment(body, "begins_at", ", begins at ")
                    ),
                )
            }
            "step_skipped" => line("skipped".into(), Tone::Plain, "its condition is false".into()),
            "vars_set" => line("vars set".into(), Tone::Plain, value("vars")),
            "activity_scheduled" | "undo_scheduled" if task == 0 => {
                line("limited".into(), Tone::Plain, "waits for a permit".into())
            }
            "message_sent" if ask.is_some() => line(format!("{noun} asks for a permit"), Tone::Plain, limit(ask)),
            "message_sent" if release.is_some() => line("permit given back".into(), Tone::Plain, limit(release)),
            "message_answered" if granted.is_some() => line("permit granted".into(), Tone::Plain, limit(granted)),
            "task_opened" if first => line("dispatched".into(), Tone::Plain, String::new()),
            "activity_scheduled" => {
                let detail = format!("{} on queue {}  {}", text("activity"), text("queue"), value("input"));
                line("dispatched".into(), Tone::Plain, detail)
            }
            "task_opened" => line(format!("{noun} tried again"), Tone::Plain, format!("attempt {attempt}")),
            "dispatch_held" => line("held back".into(), Tone::Attention, "the task stream is full".into()),
            "task_offered" => line("offered again".into(), Tone::Plain, String::new()),
            "task_started" => line("worker began".into(), Tone::Plain, String::new()),
            "task_delivered" => line("delivered".into(), Tone::Plain, String::new()),
            "deadline_deferred" => line(
                "still queued".into(),
                Tone::Attention,
                "no worker has taken the task yet; it is not late".into(),
            ),
            "task_completed" if undo => line(format!("undone{nth}"), Tone::Good, value("output")),
            "task_completed" => line(format!("completed{nth}"), Tone::Good, value("output")),
            "task_failed" => line(format!("{noun} failed{nth}"), Tone::Bad, failure(body)),
            "task_unknown" => line(format!("{noun} unclear{nth}"), Tone::Bad, failure(body)),
            "task_timed_out" => line(format!("{noun} timed out{nth}"), Tone::Bad, failure(body)),
            "heartbeat_taken" => line("heartbeat".into(), Tone::Plain, value("details")),
            "worker_silent" => line(
                "worker silent".into(),
                Tone::Attention,
                "it has not been heard of as long as it had promised".into(),
            ),
            "task_claimed" => line("claimed".into(), Tone::Plain, text("by")),
            "task_left" => line(
                "goes on elsewhere".into(),
                Tone::Plain,
                "its outcome comes later".into(),
            ),
            "withdrawal_requested" => {
                let why = match text("timeout").as_str() {
                    "not_needed" => "not needed any more, unless a worker has it".to_owned(),
                    timeout => format!("no worker took it in time ({timeout})"),
                };
                line("taken back".into(), Tone::Attention, why)
            }
            "task_withdrawn" => line(format!("{noun} not begun{nth}"), Tone::Bad, failure(body)),
            "schedule_to_close_passed" => line("out of time".into(), Tone::Bad, failure(body)),
            "timeout_voided" => line("timeout void".into(), Tone::Plain, "the run only goes forward".into()),
            "task_abandoned" => line("abandoned".into(), Tone::Attention, "its worker is left alone".into()),
            "task_lost" => line(format!("{noun} lost{nth}"), Tone::Bad, failure(body)),
            "task_cancelled" => line(format!("{noun} stopped by worker"), Tone::Attention, String::new()),
            "task_deferred" => {
                let detail = self.moment(body, "until", "asked again at ");
                line("still running".into(), Tone::Plain, detail)
            }
            "retry_scheduled" => {
                let attempt = number("attempt").unwrap_or_default();
                let at = self.moment(body, "at", " at ");
                line("retry waits".into(), Tone::Plain, format!("attempt {attempt}{at}"))
            }
            "step_failed" => {
                let outcome = text("outcome");
                line(format!("ended {outcome}"), Tone::Bad, failure(body))
            }
            "undo_ready" | "undo_needed" => line("can be undone".into(), Tone::Plain, value("input")),
            "undo_scheduled" => line("undo dispatched".into(), Tone::Attention, String::new()),
            "undo_parked" => line("undo parked".into(), Tone::Bad, failure(body)),
            "undo_resumed" => line("undo resumed".into(), Tone::Attention, operation),
            "undo_resolved" => {
                let how = text("how");
                line(format!("undo resolved: {how}"), Tone::Attention, operation)
            }
            "handler_started" => {
                let (signal, update) = (number("signal"), number("update"));
                let what = |what: &str, n: u64| (format!("{what} handled"), format!("{what} {n}"));
                let said = signal.map(|n| what("signal", n)).or(update.map(|n| what("update", n)));
                let (said, detail) = said.unwrap_or_default();
                line(said, Tone::Plain, detail)
            }
            "handler_ended" => match body.pointer("/end/failed") {
                Some(failed) => line(
                    "handler failed".into(),
                    Tone::Bad,
                    failure(&serde_json::json!({ "error": failed })),
                ),
                None => line("handler ended".into(), Tone::Plain, value("output")),
            },
            "update_accepted" => line(
                "update accepted".into(),
                Tone::Plain,
                format!("{}  {}", text("name"), value("body")),
            ),
            "update_put_off" => line(
                "update waits".into(),
                Tone::Plain,
                format!("{}  {}", text("name"), value("body")),
            ),
            "update_admitted" => line("update accepted".into(), Tone::Plain, text("id")),
            "update_refused" => line("update refused".into(), Tone::Attention, failure(body)),
            "update_awaited" => line("somebody waits".into(), Tone::Plain, text("id")),
            "main_body_passed" => line("steps passed".into(), Tone::Plain, "handlers are at work".into()),
            "step_parked" => line("step parked".into(), Tone::Bad, failure(body)),
            "step_resumed" => line("step resumed".into(), Tone::Attention, operation),
            "step_resolved" => {
                let how = text("how");
                let detail = [operation, value("output")].join("  ");
                line(
                    format!("step resolved: {how}"),
                    Tone::Attention,
                    detail.trim().to_owned(),
                )
            }
            "run_failed" => line("run failed".into(), Tone::Bad, failure(body)),
            "run_timed_out" => line("run timed out".into(), Tone::Bad, failure(body)),
            "cancel_requested" => line("cancel requested".into(), Tone::Attention, operation),
            "run_parked" => line("run parked".into(), Tone::Bad, output::cut(&text("reason"), DETAIL)),
            "limits_raised" => {
                let limits = body.get("limits").map(|limits| output::short_json(limits, DETAIL));
                let detail = [limits.unwrap_or_default(), operation].join("  ");
                line("limits raised".into(), Tone::Attention, detail.trim().to_owned())
            }
            "run_resumed" => line("run resumed".into(), Tone::Attention, operation),
            "run_migrated" => {
                let version = number("version").unwrap_or_default();
                line(format!("moved to v{version}"), Tone::Attention, operation)
            }
            "awaited" => line("somebody waits".into(), Tone::Plain, format!("until {}", text("on"))),
            "late_result" => {
                let outcome = text("outcome");
                line(format!("late result: {outcome}"), Tone::Attention, value("output"))
            }
            "run_completed" => line("run completed".into(), Tone::Good, value("output")),
            "run_closed" => {
                let status = text("status");
                line(format!("run {status}"), Tone::Attention, String::new())
            }
            "run_retried" => {
                let attempt = body.get("attempt").unwrap_or(&Value::Null);
                let number = attempt.get("number").and_then(Value::as_u64).unwrap_or_default();
                let most = attempt.get("most").and_then(Value::as_u64);
                let of = most.map_or(String::new(), |most| format!(" of {most}"));
                let at = self.moment(attempt, "begins_at", ", begins at ");
                line(
                    "run tried again".into(),
                    Tone::Attention,
                    format!("attempt {number}{of}{at}"),
                )
            }
            "run_admitted" if text("to") == "pause" => line("attempt begins".into(), Tone::Plain, String::new()),
            "retry_waived" => line("not tried again".into(), Tone::Attention, operation),
            "run_terminated" => line("run terminated".into(), Tone::Bad, operation),
            "signal_received" => {
                let detail = [text("name"), value("body"), operation];
                let detail = detail.into_iter().filter(|part| !part.is_empty());
                line(
                    "signal received".into(),
                    Tone::Plain,
                    detail.collect::<Vec<_>>().join("  "),
                )
            }
            "signal_awaited" => {
                let until = self.moment(body, "due", ", until ");
                line(
                    "signal awaited".into(),
                    Tone::Plain,
                    format!("{}{until}", text("signal")),
                )
            }
            "signal_taken" => line("signal taken".into(), Tone::Plain, String::new()),
            "signal_timed_out" => line("no signal in time".into(), Tone::Attention, String::new()),
            "timer_set" => line("waits".into(), Tone::Plain, self.moment(body, "due", "until ")),
            "step_passed" => line("passed".into(), Tone::Plain, String::new()),
            "step_completed" => line("completed".into(), Tone::Good, value("output")),
            "emitted" => {
                let detail = format!("{}  {}", text("subject"), value("body"));
                line("emitted".into(), Tone::Plain, detail.trim_end().to_owned())
            }
            "error_caught" => line("caught".into(), Tone::Attention, failure(body)),
            "scope_failed" => line("scope failed".into(), Tone::Bad, failure(body)),
            "iteration_started" => {
                let index = number("index").unwrap_or_default();
                line("iteration started".into(), Tone::Plain, format!("[{index}]"))
            }
            other => line(output::cut(&other.replace('_', " "), 40), Tone::Plain, rest(body)),
        }
    }

    /// Later events name a task by its number alone.
    fn learn(&mut self, kind: &str, body: &Value, number: u64, undo: bool) {
        let (undo, attempt) = match kind {
            "activity_scheduled" => (false, 1),
            "undo_scheduled" => (true, 1),
            "task_opened" => (undo, body.get("attempt").and_then(Value::as_u64).unwrap_or_default()),
            _ => return,
        };
        // What waits for a permit has no task yet.
        if number == 0 {
            return;
        }
        let step = body.get("step").and_then(Value::as_str).unwrap_or_default().to_owned();
        self.tasks.insert(number, Task { step, undo, attempt });
    }
}

/// What the limit of an ask, a release or a grant is called.
fn limit(said: Option<&Value>) -> String {
    let name = said.and_then(|said| said.get("limit"));
    let text = |key: &str| {
        name.and_then(|name| name.get(key))
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let kind = text("kind").replace('_', " ");
    match text("key") {
        "" => format!("{kind} {}", text("of")),
        key => format!("{kind} {} for {key}", text("of")),
    }
}

/// `{"kind": {…}}`, or `"kind"`.
fn split(event: &Value) -> (&str, &Value) {
    match event {
        Value::Object(object) if object.len() == 1 => object
            .iter()
            .next()
            .map_or(("", &Value::Null), |(kind, body)| (kind.as_str(), body)),
        Value::String(kind) => (kind, &Value::Null),
        other => ("", other),
    }
}

fn failure(body: &Value) -> String {
    let text = |name| body.pointer(name).and_then(Value::as_str).unwrap_or_default();
    let (kind, message) = (text("/error/error_type"), text("/error/message"));
    let separator = if kind.is_empty() || message.is_empty() {
        ""
    } else {
        ": "
    };
    output::cut(&format!("{kind}{separator}{message}"), DETAIL)
}

fn operation(body: &Value) -> String {
    let text = |name| body.pointer(name).and_then(Value::as_str);
    let by = text("/operation/by").map(|by| format!("by {by}"));
    let reason = text("/operation/reason").map(str::to_owned);
    let parts: Vec<_> = by.into_iter().chain(reason).collect();
    output::cut(&parts.join(": "), DETAIL)
}

/// What there is no line of its own for, without what stands in another column.
fn rest(body: &Value) -> String {
    match body {
        Value::Null => String::new(),
        Value::Object(fields) => {
            let fields: serde_json::Map<_, _> = fields
                .iter()
                .filter(|(name, _)| *name != "step")
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect();
            if fields.is_empty() {
                String::new()
            } else {
                output::short_json(&Value::Object(fields), DETAIL)
            }
        }
        other => output::short_json(other, DETAIL),
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;
    use serde_json::json;

    use super::*;

    fn transition(seq: u32, ms: i64, events: &[Value]) -> HistoryTransition {
        HistoryTransition {
            seq,
            at: Utc.timestamp_millis_opt(1_795_000_000_000 + ms).unwrap(),
            events: events.to_vec(),
            omitted_bytes: None,
        }
    }

    fn look(color: bool) -> Look {
        Look {
            color,
            width: None,
            now: Utc.timestamp_opt(1_795_000_100, 0).unwrap(),
        }
    }

    #[test]
    fn a_failing_order_reads_as_a_story() {
        let mut timeline = Timeline::default();
        let error = json!({"error_type": "card_declined", "message": "the card was declined"});
        for transition in [
            transition(
                1,
                0,
                &[
                    json!({"run_started": {"workflow": "order", "version": 3, "input": {"amount": 12}}}),
                    json!({"activity_scheduled": {"step": "create_order", "task": 1, "activity": "create-order", "queue": "orders", "input": {"a": 1}}}),
                ],
            ),
            transition(
                2,
                8,
                &[
                    json!({"task_completed": {"task": 1, "output": {"order_id": "o-1"}}}),
                    json!({"undo_ready": {"step": "create_order", "input": {"order_id": "o-1"}}}),
                    json!({"activity_scheduled": {"step": "payment", "task": 2, "activity": "process-payment", "queue": "orders"}}),
                ],
            ),
            transition(
                3,
                30_020,
                &[
                    json!({"task_timed_out": {"task": 2, "error": {"error_type": "timeout", "message": "no outcome within 30000 ms"}}}),
                    json!({"retry_scheduled": {"step": "payment", "attempt": 2, "at": 1_795_000_031_000_000_i64}}),
                ],
            ),
            transition(
                4,
                31_000,
                &[json!({"task_opened": {"task": 3, "step": "payment", "attempt": 2}})],
            ),
            transition(
                5,
                31_009,
                &[
                    json!({"task_failed": {"task": 3, "error": error}}),
                    json!({"step_failed": {"step": "payment", "outcome": "unknown", "error": error}}),
                    json!({"run_failed": {"error": error}}),
                    json!({"undo_scheduled": {"step": "create_order", "task": 4, "start_to_close": 30_000_000}}),
                ],
            ),
            transition(
                6,
                31_020,
                &[
                    json!({"task_completed": {"task": 4}}),
                    json!({"from_the_future": {"x": 1}}),
                    json!({"run_closed": {"status": "compensated"}}),
                ],
            ),
        ] {
            timeline.add(&transition);
        }
        insta::assert_snapshot!("timeline", timeline.render(&look(false)));
        assert!(timeline.render(&look(true)).contains("\u{1b}["));
    }

    #[test]
    fn that_a_run_is_tried_again_is_told() {
        let attempt = json!({"number": 2, "most": 3, "first": "a", "begins_at": 1_795_000_012_000_000_i64});
        let mut timeline = Timeline::default();
        for (seq, event) in [
            json!({"run_closed": {"status": "compensated"}}),
            json!({"run_retried": {"successor": "b", "attempt": attempt}}),
            json!({"run_admitted": {"to": "pause"}}),
            json!({"retry_waived": {"operation": {"by": "ann", "reason": "enough"}}}),
        ]
        .into_iter()
        .enumerate()
        {
            timeline.add(&transition(u32::try_from(seq).unwrap(), 0, &[event]));
        }
        let told = timeline.render(&look(false));
        for words in [
            "run compensated",
            "run tried again",
            "attempt 2 of 3, begins at 11:06:52.000",
            "attempt begins",
            "not tried again",
            "by ann: enough",
        ] {
            assert!(told.contains(words), "{words}: {told}");
        }
    }

    #[test]
    fn a_run_that_waits_says_for_what_and_until_when() {
        let mut timeline = Timeline::default();
        let due = 1_795_000_000_000_000_i64 + 86_400_000_000;
        timeline.add(&transition(
            1,
            0,
            &[
                json!({"run_started": {"workflow": "order", "version": 3}}),
                json!({"signal_awaited": {"step": "approval", "signal": "approve", "due": due}}),
            ],
        ));
        let operation = json!({"request_id": "r-1", "by": "eve"});
        timeline.add(&transition(
            2,
            50,
            &[
                json!({"signal_received": {"name": "approve", "body": {"ok": true}, "operation": operation}}),
                json!({"signal_taken": {"step": "approval", "signal": 1}}),
                json!({"iteration_started": {"step": "poll", "index": 2}}),
                json!({"timer_set": {"step": "pause", "due": 1_795_000_002_050_000_i64}}),
            ],
        ));
        timeline.add(&transition(
            3,
            2_050,
            &[
                json!({"step_passed": {"step": "pause"}}),
                json!({"emitted": {"step": "tell", "subject": "shop.done", "body": 1}}),
                json!({"scope_undone": {"step": "try_it"}}),
            ],
        ));
        insta::assert_snapshot!("timeline_of_waiting", timeline.render(&look(false)));
    }

    #[test]
    fn what_is_no_event_does_not_stop_the_reader() {
        let mut timeline = Timeline::default();
        timeline.add(&transition(
            1,
            0,
            &[
                json!(null),
                json!("odd"),
                json!({"a": 1, "b": 2}),
                json!({"task_failed": 7}),
            ],
        ));
        let mut large = transition(2, 5, &[]);
        large.omitted_bytes = Some(2_000_000);
        timeline.add(&large);
        insta::assert_snapshot!("timeline_of_oddities", timeline.render(&look(false)));
    }
}
