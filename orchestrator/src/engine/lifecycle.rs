//! Changes of runs' status, as CloudEvents 1.0 in binary mode on `knarr.event.<ns>.<workflow>.<workflow id>.<kind>`, for
//! namespaces that want them.
//!
//! Owed like anything a run publishes: after the commit that made it true, again by whoever takes over, with the same id and
//! body. A type that begins with `knarr.run.` tells them from what runs emit under the same subjects.
//!
//! A schedule is a run to knarr alone: nothing is told of it, and of what it starts all is.
//!
//! Not here: a promise that nobody hears one twice, or in the order of the commits; the id says which change it is, and its
//! number in the run which came first.

use bytes::Bytes;
use knarr_core::run::{self, State, Transition, Turn};
use knarr_schemas::body::RunEvent;
use knarr_schemas::{header, subject};

use super::outgoing::{self, Publication, RunRef};
use crate::bus::{Delivery, Headers, Outgoing};

/// An output above this is left out, and its size is said: who wants it asks for it.
const MAX_OUTPUT_BYTES: usize = 16 << 10;

/// Into what the run publishes; whether there was anything.
pub(super) fn tell(state: &State, run: &RunRef, transition: &Transition, into: &mut Vec<Publication>) -> bool {
    if state.schedule().is_some() {
        return false;
    }
    let before = into.len();
    let turns = run::turns(state, transition);
    let told = turns.iter().filter_map(|turn| message(run, turn, state.attempt()));
    into.extend(told.map(|message| Publication::OfRun(run.run_id, message)));
    into.len() > before
}

fn message(run: &RunRef, turn: &Turn, attempt: u32) -> Option<Outgoing> {
    let kind = if turn.started { "started" } else { turn.status.as_str() };
    let workflow = run.workflow.as_str();
    let subject = subject::event(run.namespace.as_str(), workflow, &run.workflow_id_token, kind).ok()?;
    let id = format!("{}/{}/{kind}", run.run_id, turn.seq);
    let (mut output, mut output_bytes) = (None, None);
    if let Some(value) = &turn.output {
        let bytes = value.to_string().len();
        if bytes <= MAX_OUTPUT_BYTES {
            output = Some((**value).clone());
        } else {
            output_bytes = u64::try_from(bytes).ok();
        }
    }
    let body = RunEvent {
        run_id: run.run_id.0,
        workflow_id: run.workflow_id.to_string(),
        workflow: workflow.to_owned(),
        version: run.version,
        status: turn.status.as_str().to_owned(),
        seq: turn.seq,
        error: turn.error.as_ref().map(outgoing::failure_body),
        output,
        output_bytes,
        continued_by: turn.successor.map(|run| run.0),
        attempt: (attempt > 1).then_some(attempt),
    };
    let headers: Headers = [
        (header::NATS_MSG_ID, id.clone()),
        (header::CE_SPECVERSION, "1.0".to_owned()),
        (header::CE_ID, id),
        (header::CE_SOURCE, run.source()),
        (header::CE_TYPE, format!("knarr.run.{kind}")),
        (header::CE_SUBJECT, run.run_id.to_string()),
        (
            header::CE_TIME,
            turn.at.to_utc().to_rfc3339_opts(chrono::SecondsFormat::Micros, true),
        ),
        (header::CE_DATACONTENTTYPE, "application/json".to_owned()),
    ]
    .into_iter()
    .map(|(name, value)| (name.into(), value))
    .collect();
    Some(Outgoing {
        subject,
        headers,
        payload: Bytes::from(serde_json::to_vec(&body).unwrap_or_default()),
        delivery: Delivery::Stream,
    })
}
