//! A run told to a person while it happens: what `knarr demo` prints.
//!
//! Reads the history as it grows, by the API, like anyone else could. Works on events as they are stored; one that has
//! nothing to say here is left out, for `knarr history` shows them all.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use knarr_schemas::api::{HistoryPage, HistoryTransition, RunName, ShowHistory, verb};
use owo_colors::OwoColorize as _;
use serde_json::Value;

use crate::api::client::{ApiClient, CallError};
use crate::cli::globals::Look;
use crate::cli::output;

/// Between two looks at the history.
const LOOK: Duration = Duration::from_millis(20);

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    pub status: String,
}

#[derive(Debug, thiserror::Error)]
pub enum StoryError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("`{workflow_id}` has not come to its end within {} s", limit.as_secs())]
    TooLong { workflow_id: String, limit: Duration },
}

/// Tells the newest run under this workflow id, from its start to its end.
pub async fn tell(
    api: &ApiClient,
    workflow_id: &str,
    look: &Look,
    limit: Duration,
    mut say: impl FnMut(&str),
) -> Result<Ending, StoryError> {
    let deadline = Instant::now() + limit;
    let mut story = Story::default();
    let mut request = ShowHistory {
        run: RunName::WorkflowId(workflow_id.to_owned()),
        after: None,
        limit: None,
    };
    loop {
        let page = match api.call::<_, HistoryPage>(verb::RUN_HISTORY, &request).await {
            Ok(page) => page,
            // Its start may not have been taken yet.
            Err(CallError::Refused(_)) if request.after.is_none() && Instant::now() < deadline => {
                tokio::time::sleep(LOOK).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        request.run = RunName::RunId(page.run.run_id);
        for transition in &page.transitions {
            request.after = Some(transition.seq);
            for line in story.lines(transition, look) {
                say(&line);
            }
        }
        if let Some(status) = story.ended.take() {
            return Ok(Ending { status });
        }
        if Instant::now() > deadline {
            return Err(StoryError::TooLong {
                workflow_id: workflow_id.to_owned(),
                limit,
            });
        }
        if page.transitions.is_empty() {
            tokio::time::sleep(LOOK).await;
        }
    }
}

#[derive(Debug, Default)]
struct Story {
    began: Option<DateTime<Utc>>,
    tasks: BTreeMap<u64, Task>,
    /// The activity of a step.
    dos: BTreeMap<String, String>,
    /// The one that would undo it.
    undos: BTreeMap<String, String>,
    ended: Option<String>,
}

#[derive(Debug, Clone)]
struct Task {
    activity: String,
    undo: bool,
}

#[derive(Debug, Clone, Copy)]
enum Tone {
    Plain,
    Good,
    Bad,
    Undo,
}

impl Story {
    fn lines(&mut self, transition: &HistoryTransition, look: &Look) -> Vec<String> {
        let began = *self.began.get_or_insert(transition.at);
        let mut at = Some((transition.at - began).num_milliseconds());
        let mut lines = Vec::new();
        for event in &transition.events {
            let Some((tone, sign, what, detail)) = self.sentence(event, transition.at - began) else {
                continue;
            };
            let time = at.take().map_or(String::new(), |ms| format!("{ms} ms"));
            let head = format!("{sign} {what}");
            let head = match tone {
                _ if !look.color => format!("{head:<32}"),
                Tone::Plain => format!("{head:<32}"),
                Tone::Good => format!("{head:<32}").green().to_string(),
                Tone::Bad => format!("{head:<32}").red().to_string(),
                Tone::Undo => format!("{head:<32}").yellow().to_string(),
            };
            let line = format!(
                "  {}  {head}  {}",
                output::dim(look, &format!("{time:>8}")),
                output::dim(look, &detail)
            );
            lines.push(line.trim_end().to_owned());
        }
        lines
    }

    fn sentence(&mut self, event: &Value, since: chrono::TimeDelta) -> Option<(Tone, &'static str, String, String)> {
        let (kind, body) = match event {
            Value::Object(object) => object.iter().next().map(|(kind, body)| (kind.as_str(), body))?,
            Value::String(kind) => (kind.as_str(), &Value::Null),
            _ => return None,
        };
        let text = |pointer: &str| {
            body.pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let number = body.get("task").and_then(Value::as_u64).unwrap_or_default();
        let task = self.tasks.get(&number).cloned();
        let activity = task.as_ref().map(|task| task.activity.clone()).unwrap_or_default();
        let undo = task.as_ref().is_some_and(|task| task.undo);
        let error = || format!("{}: {}", text("/error/error_type"), text("/error/message"));
        let spent = output::span(since.num_milliseconds());
        Some(match kind {
            "run_started" => {
                let (workflow, id) = (text("/workflow"), text("/workflow_id"));
                (
                    Tone::Plain,
                    "●",
                    format!("{id} started"),
                    format!("from now on it survives any crash; workflow {workflow}"),
                )
            }
            "activity_scheduled" => {
                let activity = text("/activity");
                self.dos.insert(text("/step"), activity.clone());
                self.tasks.insert(
                    number,
                    Task {
                        activity: activity.clone(),
                        undo: false,
                    },
                );
                let detail = match text("/undo/activity") {
                    none if none.is_empty() => "nothing would undo this".to_owned(),
                    undo => {
                        let detail = format!("if need be, {undo} will undo it");
                        self.undos.insert(text("/step"), undo);
                        detail
                    }
                };
                (Tone::Plain, "→", activity, detail)
            }
            "undo_scheduled" => {
                let activity = self.undos.get(&text("/step")).cloned().unwrap_or_else(|| text("/step"));
                self.tasks.insert(
                    number,
                    Task {
                        activity: activity.clone(),
                        undo: true,
                    },
                );
                (Tone::Undo, "↶", activity, format!("undoes {}", text("/step")))
            }
            "task_opened" => {
                let attempt = body.get("attempt").and_then(Value::as_u64).unwrap_or_default();
                let step = text("/step");
                let undo = text("/direction") == "undo";
                let activities = if undo { &self.undos } else { &self.dos };
                let activity = activities.get(&step).cloned().unwrap_or(step);
                self.tasks.insert(
                    number,
                    Task {
                        activity: activity.clone(),
                        undo,
                    },
                );
                let (tone, sign) = if undo {
                    (Tone::Undo, "↶")
                } else {
                    (Tone::Plain, "→")
                };
                (tone, sign, activity, format!("attempt {attempt}"))
            }
            "task_completed" => {
                let output = body
                    .get("output")
                    .map(|output| output::short_json(output, 60))
                    .unwrap_or_default();
                let tone = if undo { Tone::Undo } else { Tone::Good };
                (tone, "✓", activity, output)
            }
            "task_failed" => (Tone::Bad, "✗", activity, format!("{}, surely not done", error())),
            "task_withdrawn" => (Tone::Bad, "✗", activity, format!("{}, not begun", error())),
            "task_unknown" | "task_timed_out" | "task_lost" => {
                (Tone::Bad, "?", activity, format!("{}, perhaps done", error()))
            }
            "retry_scheduled" => (Tone::Plain, "…", "waits and tries again".to_owned(), String::new()),
            "run_failed" | "run_timed_out" | "cancel_requested" => {
                let detail = "what was done is undone, the last step first";
                (Tone::Undo, "!", "the saga cannot go on".to_owned(), detail.to_owned())
            }
            "undo_parked" => (Tone::Bad, "✗", "an undo waits for an operator".to_owned(), error()),
            "run_completed" => {
                self.ended = Some("completed".to_owned());
                (Tone::Good, "■", format!("completed in {spent}"), String::new())
            }
            "run_closed" => {
                let status = text("/status");
                self.ended = Some(status.clone());
                let detail = match status.as_str() {
                    "compensated" => "nothing is left half done",
                    "failed" => "there was nothing to undo",
                    _ => "",
                };
                (Tone::Undo, "■", format!("{status} in {spent}"), detail.to_owned())
            }
            "run_terminated" => {
                self.ended = Some("terminated".to_owned());
                (Tone::Bad, "■", format!("terminated after {spent}"), error())
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;
    use serde_json::json;

    use super::*;

    #[test]
    fn an_order_that_is_undone_reads_as_a_story() {
        let error = json!({"error_type": "on_request", "message": "reserve-inventory fails, as asked"});
        let transitions: [(i64, &[Value]); 6] = [
            (
                0,
                &[
                    json!({"run_started": {"workflow_id": "order-2", "workflow": "order", "version": 1}}),
                    json!({"activity_scheduled": {"step": "create_order", "task": 1, "activity": "create-order",
                        "queue": "orders", "undo": {"activity": "cancel-order", "queue": "orders"}}}),
                ],
            ),
            (5, &[json!({"task_started": {"task": 1, "at": 5}})]),
            (
                160,
                &[
                    json!({"task_completed": {"task": 1, "output": {"order_id": "ord-1"}}}),
                    json!({"undo_ready": {"step": "create_order", "input": {"order_id": "ord-1"}}}),
                    json!({"activity_scheduled": {"step": "stock", "task": 2, "activity": "reserve-inventory",
                        "queue": "orders"}}),
                ],
            ),
            (
                320,
                &[
                    json!({"task_failed": {"task": 2, "error": error}}),
                    json!({"step_failed": {"step": "stock", "outcome": "failed", "error": error}}),
                    json!({"run_failed": {"error": error}}),
                    json!({"undo_scheduled": {"step": "create_order", "task": 3, "start_to_close": 1}}),
                ],
            ),
            (
                470,
                &[json!({"task_completed": {"task": 3, "output": {"undone": true}}})],
            ),
            (470, &[json!({"run_closed": {"status": "compensated"}})]),
        ];
        let look = Look {
            color: false,
            width: None,
            now: DateTime::UNIX_EPOCH,
        };
        let mut story = Story::default();
        let mut lines = Vec::new();
        for ((ms, events), seq) in transitions.into_iter().zip(1..) {
            assert_eq!(story.ended, None);
            let at = Utc.timestamp_millis_opt(1_795_000_000_000 + ms).unwrap();
            let transition = HistoryTransition {
                seq,
                at,
                events: events.to_vec(),
                omitted_bytes: None,
            };
            lines.extend(story.lines(&transition, &look));
        }
        assert_eq!(story.ended.as_deref(), Some("compensated"));
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn what_is_unknown_is_left_out() {
        let mut story = Story::default();
        for event in [json!("new_event"), json!({"newer": {"step": 7}}), json!(3), json!({})] {
            assert!(story.sentence(&event, chrono::TimeDelta::zero()).is_none());
        }
    }
}
