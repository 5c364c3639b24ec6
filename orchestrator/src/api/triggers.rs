//! Triggers: listing them, and describing one.

use knarr_core::ids::{Namespace, WorkflowId};
use knarr_core::run::trigger::{trigger_of, workflow_id};
use knarr_core::trigger::Trigger;
use knarr_schemas::api::{
    ListTriggers, MAX_PAGE, RefusedEvent, ShowTrigger, TriggerDescription, TriggerGap, TriggerName, TriggerPage,
    TriggerPlace, TriggerSummary,
};
use knarr_schemas::code;
use serde::Deserialize;
use serde_json::Value;

use crate::api::{Operations, Refusal};
use crate::engine::rebuild;
use crate::store::{LIST_LIMIT, RunRow, Store};

const DEFAULT_PAGE: u32 = 100;

/// What the row of a trigger says of it.
#[derive(Debug, Deserialize)]
struct Said {
    trigger: Value,
    paused: Option<String>,
    trouble: Option<String>,
    version: u32,
}

impl<S: Store> Operations<S> {
    /// By workflow and name.
    pub async fn list_triggers(&self, namespace: &Namespace, request: &ListTriggers) -> Result<TriggerPage, Refusal> {
        let limit = request.limit.unwrap_or(DEFAULT_PAGE).clamp(1, MAX_PAGE);
        let after = request
            .after
            .as_ref()
            .map(|after| workflow_id(&after.workflow, &after.name));
        let rows = self.store.list_triggers(namespace, after.as_ref(), limit + 1).await?;
        if rows.is_empty() {
            self.require_namespace(namespace).await?;
        }
        let limit = limit as usize;
        let triggers = rows.iter().take(limit).filter_map(summary).collect();
        let next = (rows.len() > limit)
            .then(|| name(&rows[limit - 1].workflow_id))
            .flatten();
        Ok(TriggerPage { triggers, next })
    }

    pub async fn show_trigger(
        &self,
        namespace: &Namespace,
        request: &ShowTrigger,
    ) -> Result<TriggerDescription, Refusal> {
        let asked = [(namespace.clone(), workflow_id(&request.workflow, &request.name), None)];
        let found = self.store.find_runs(&asked).await?;
        let open = found.runs.into_iter().find(|run| run.row.closed_at.is_none());
        let Some(row) = open.map(|found| found.row) else {
            self.require_namespace(namespace).await?;
            let problem = format!(
                "there is no trigger `{}` of `{}` in `{namespace}`",
                request.name, request.workflow
            );
            return Err(Refusal::not_found(&code::UNKNOWN_TRIGGER, problem));
        };
        let stored = self.store.load_runs(&[row.run_id]).await?;
        let unreadable = |problem: String| Refusal::new(500, &code::UNREADABLE_RUN, problem);
        let stored = stored.first().ok_or_else(|| unreadable("it is gone".to_owned()))?;
        let state = rebuild(stored).map_err(unreadable)?;
        match (state.trigger(), summary(&row)) {
            (Some(trigger), Some(mut summary)) => {
                // The transitions may be newer than the row.
                summary.paused = trigger.paused.as_ref().map(ToString::to_string);
                summary.trouble = trigger.trouble.as_ref().map(ToString::to_string);
                state.status().as_str().clone_into(&mut summary.status);
                summary.status = summary.standing().to_owned();
                Ok(description(summary, &row, trigger))
            }
            _ => Err(unreadable("it is no trigger".to_owned())),
        }
    }

    /// The names of a workflow's triggers that are not deleted.
    pub(super) async fn triggers_of(&self, namespace: &Namespace, workflow: &str) -> Result<Vec<String>, Refusal> {
        let mut names = Vec::new();
        let mut after = workflow_id(workflow, "");
        loop {
            let rows = self.store.list_triggers(namespace, Some(&after), LIST_LIMIT).await?;
            for row in &rows {
                match trigger_of(&row.workflow_id) {
                    Some((of, name)) if of == workflow => names.push(name.to_owned()),
                    _ => return Ok(names),
                }
            }
            match rows.last() {
                Some(last) if rows.len() == LIST_LIMIT as usize => after = last.workflow_id.clone(),
                _ => return Ok(names),
            }
        }
    }
}

fn name(id: &WorkflowId) -> Option<TriggerName> {
    let (workflow, name) = trigger_of(id)?;
    Some(TriggerName {
        workflow: workflow.to_owned(),
        name: name.to_owned(),
    })
}

/// `None` for a row that says nothing of a trigger.
fn summary(row: &RunRow) -> Option<TriggerSummary> {
    let said: Said = serde_json::from_str(row.search_attributes.as_deref()?).ok()?;
    let TriggerName { workflow, name } = name(&row.workflow_id)?;
    let mut summary = TriggerSummary {
        workflow,
        name,
        status: row.status.clone(),
        trigger: said.trigger,
        version: said.version,
        paused: said.paused,
        trouble: said.trouble,
    };
    summary.status = summary.standing().to_owned();
    Some(summary)
}

fn description(summary: TriggerSummary, row: &RunRow, trigger: &Trigger) -> TriggerDescription {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let lost = trigger.gaps.iter().map(|(at, gap)| TriggerGap {
        at: at.to_utc(),
        why: gap.why.as_str().to_owned(),
        after: gap.after.sequence,
        resumes: gap.resumes.sequence,
    });
    let past = trigger.past.iter().map(|past| RefusedEvent {
        at: past.at.to_utc(),
        sequence: past.sequence,
        workflow_id: past.id.as_ref().map(ToString::to_string),
        message: past.message.to_string(),
    });
    TriggerDescription {
        run_id: row.run_id.0,
        created_at: row.started_at.to_utc(),
        place: trigger.place().map(|place| TriggerPlace {
            sequence: place.sequence,
            at: place.at.to_utc(),
        }),
        moved_at: trigger.moved_at.to_utc(),
        sent: count(trigger.sent.len()),
        waiting: count(trigger.held.len()),
        gathering: count(trigger.gathered.len()),
        taken: trigger.counts.taken,
        skipped: trigger.counts.skipped,
        started: trigger.counts.started,
        signalled: trigger.counts.signalled,
        refused: trigger.counts.refused,
        gaps: trigger.counts.gaps,
        lost: lost.collect(),
        past: past.collect(),
        summary,
    }
}
