//! Schedules: listing them, and describing one.

use knarr_core::ids::{Namespace, RunId, WorkflowId};
use knarr_core::run::schedule::{occurrence_id, schedule_of, workflow_id};
use knarr_core::schedule::state::Became;
use knarr_core::schedule::{Schedule, Spec};
use knarr_core::time::Timestamp;
use knarr_schemas::api::{
    BackfillRange, ListSchedules, MAX_PAGE, OpenOccurrence, PastOccurrence, ScheduleDescription, SchedulePage,
    ScheduleSummary, ShowSchedule, UpcomingOccurrence,
};
use knarr_schemas::code;
use serde::Deserialize;
use serde_json::Value;

use crate::api::{Operations, Refusal};
use crate::engine::rebuild;
use crate::store::{RunRow, Store};

const DEFAULT_PAGE: u32 = 100;
const DEFAULT_NEXT: u32 = 10;
const MOST_NEXT: u32 = 1_000;

/// What the row of a schedule says of it.
#[derive(Debug, Deserialize)]
struct Said {
    schedule: Value,
    paused: Option<String>,
    remaining: Option<u32>,
    version: Option<u32>,
}

impl<S: Store> Operations<S> {
    /// By name.
    pub async fn list_schedules(
        &self,
        namespace: &Namespace,
        request: &ListSchedules,
    ) -> Result<SchedulePage, Refusal> {
        let limit = request.limit.unwrap_or(DEFAULT_PAGE).clamp(1, MAX_PAGE);
        let after = request.after.as_deref().map(workflow_id);
        let rows = self.store.list_schedules(namespace, after.as_ref(), limit + 1).await?;
        if rows.is_empty() {
            self.require_namespace(namespace).await?;
        }
        let now = self.store.now().await?;
        let limit = limit as usize;
        let schedules = rows.iter().take(limit).filter_map(|row| summary(row, now)).collect();
        let next = (rows.len() > limit).then(|| name(&rows[limit - 1].workflow_id));
        Ok(SchedulePage { schedules, next })
    }

    pub async fn show_schedule(
        &self,
        namespace: &Namespace,
        request: &ShowSchedule,
    ) -> Result<ScheduleDescription, Refusal> {
        let asked = [(namespace.clone(), workflow_id(&request.name), None)];
        let found = self.store.find_runs(&asked).await?;
        let open = found.runs.into_iter().find(|run| run.row.closed_at.is_none());
        let Some(row) = open.map(|found| found.row) else {
            self.require_namespace(namespace).await?;
            let problem = format!("there is no schedule `{}` in `{namespace}`", request.name);
            return Err(Refusal::not_found(&code::UNKNOWN_SCHEDULE, problem));
        };
        let stored = self.store.load_runs(&[row.run_id]).await?;
        let unreadable = |problem: String| Refusal::new(500, &code::UNREADABLE_RUN, problem);
        let stored = stored.first().ok_or_else(|| unreadable("it is gone".to_owned()))?;
        let state = rebuild(stored).map_err(unreadable)?;
        let now = self.store.now().await?;
        match (state.schedule(), summary(&row, now)) {
            (Some(schedule), Some(mut summary)) => {
                // The transitions may be newer than the row.
                summary.paused = schedule.paused.as_ref().map(ToString::to_string);
                summary.remaining = schedule.remaining;
                summary.next = summary.next.filter(|_| schedule.is_active());
                state.status().as_str().clone_into(&mut summary.status);
                summary.status = summary.standing().to_owned();
                let next = request.next.unwrap_or(DEFAULT_NEXT).min(MOST_NEXT) as usize;
                Ok(description(summary, &row, schedule, next))
            }
            _ => Err(unreadable("it is no schedule".to_owned())),
        }
    }
}

fn name(id: &WorkflowId) -> String {
    schedule_of(id).unwrap_or_default().to_owned()
}

/// `None` for a row that says nothing of a schedule.
fn summary(row: &RunRow, now: Timestamp) -> Option<ScheduleSummary> {
    let said: Said = serde_json::from_str(row.search_attributes.as_deref()?).ok()?;
    let spec = Spec::try_from(said.schedule.clone()).ok()?;
    let active = said.paused.is_none() && said.remaining != Some(0);
    let next = spec.times.next_after(now).filter(|_| active);
    let mut summary = ScheduleSummary {
        name: name(&row.workflow_id),
        workflow: spec.action.workflow.to_string(),
        status: row.status.clone(),
        schedule: said.schedule,
        paused: said.paused,
        remaining: said.remaining,
        version: said.version,
        next: next.map(Timestamp::to_utc),
    };
    summary.status = summary.standing().to_owned();
    Some(summary)
}

fn description(summary: ScheduleSummary, row: &RunRow, schedule: &Schedule, next: usize) -> ScheduleDescription {
    let times = &schedule.spec.times;
    let name = summary.name.clone();
    let upcoming = times
        .between(schedule.decided_to, Timestamp::MAX)
        .map(|nominal| UpcomingOccurrence {
            nominal_time: nominal.to_utc(),
            fires_at: times.fires_at(&name, nominal).to_utc(),
        });
    let upcoming = match schedule.is_active() {
        true => {
            let remaining = schedule.remaining.map_or(usize::MAX, |remaining| remaining as usize);
            upcoming.take(next.min(remaining)).collect()
        }
        false => Vec::new(),
    };
    let open = schedule.running.iter().map(|(run, running)| OpenOccurrence {
        nominal_time: running.due.nominal.to_utc(),
        trigger: running.due.trigger,
        workflow_id: occurrence_id(&name, running.due).to_string(),
        run_id: run.0,
        since: running.since.to_utc(),
        started: running.started,
        stopping: running.stopping.is_some(),
    });
    let past = schedule.past.iter().map(|past| PastOccurrence {
        nominal_time: past.due.nominal.to_utc(),
        trigger: past.due.trigger,
        workflow_id: past.run.map(|_| occurrence_id(&name, past.due).to_string()),
        run_id: past.run.map(|RunId(run)| run),
        became: past.became.as_str().to_owned(),
        message: match &past.became {
            Became::NotStarted { message, .. } => Some(message.to_string()),
            _ => None,
        },
        at: past.at.to_utc(),
    });
    let backfills = schedule.backfills.iter().map(|backfill| BackfillRange {
        after: backfill.after.to_utc(),
        until: backfill.until.to_utc(),
        overlap: backfill.overlap.as_str().to_owned(),
    });
    ScheduleDescription {
        run_id: row.run_id.0,
        created_at: row.started_at.to_utc(),
        upcoming,
        open: open.collect(),
        waiting: schedule.buffer.iter().map(|due| due.nominal.to_utc()).collect(),
        backfills: backfills.collect(),
        past: past.collect(),
        started: schedule.started(),
        skipped: schedule.counts.skipped,
        missed: schedule.counts.missed,
        failed: schedule.counts.failed,
        summary,
    }
}
