//! Throttling starts by what the log's stream listens to.
//!
//! A stream has one limit for all its subjects, and one stream there must be, for the order of what concerns a run. So a start
//! is refused by not being listened to: while there is little room the stream's subjects are those of everything else, and
//! of the starts of each namespace within its share. Whoever publishes another start hears at once, from the server, that
//! nobody takes it. An update of the subjects leaves what is stored, the consumers and the sorting into partitions alone.
//!
//! Every replica does this, from what the stream says of itself; that two do it at once is harmless.

use std::collections::BTreeSet;

use knarr_core::ids::Namespace;
use knarr_schemas::subject::{LOG_STREAM, decode_token, encode_token};
use serde_json::{Value, json};

use super::Shared;
use super::jetstream::StreamInfo;
use crate::bus::head_room::{Fill, Taken, decide};
use crate::bus::{BusError, HeadRoom};

/// Of a log that takes everything.
pub(super) const ALL_SUBJECTS: [&str; 2] = ["knarr.run.>", "knarr.start.>"];
/// Everything but starts: verbs without a name, and those with one.
const NO_STARTS: [&str; 3] = ["knarr.run.*.*.*", "knarr.run.*.*.signal.>", "knarr.run.*.*.update.>"];

pub(super) async fn keep(shared: &Shared, namespaces: &[Namespace]) -> Result<HeadRoom, BusError> {
    let info = shared.js.stream(LOG_STREAM).await?;
    let fill = Fill {
        bytes: info.state.bytes,
        limit: info.config.get("max_bytes").and_then(Value::as_u64).unwrap_or(0),
    };
    let before = taken_by(&info);
    let mut backlogs = Vec::new();
    if fill.asks_for_backlogs() && (before != Taken::All || decide(fill, &before, &[]) != Taken::All) {
        for namespace in namespaces {
            backlogs.push((namespace.clone(), backlog(shared, namespace).await?));
        }
    }
    let taken = decide(fill, &before, &backlogs);
    let changed = taken != before;
    if changed {
        shared.streams.take_starts(&subjects(&taken)).await?;
    }
    Ok(HeadRoom { fill, taken, changed })
}

/// Whether it was made to take only some starts.
pub(super) fn is_throttled(info: &StreamInfo) -> bool {
    let subjects = info.config.get("subjects").and_then(Value::as_array);
    subjects.is_some_and(|subjects| subjects.iter().any(|subject| subject == NO_STARTS[0]))
}

/// Whose starts the stream listens to.
fn taken_by(info: &StreamInfo) -> Taken {
    let subjects = info.config.get("subjects").and_then(Value::as_array);
    let subjects: Vec<&str> = subjects.into_iter().flatten().filter_map(Value::as_str).collect();
    if subjects.contains(&ALL_SUBJECTS[0]) {
        return Taken::All;
    }
    let namespaces = subjects.iter().filter_map(|subject| {
        let token = subject.strip_prefix("knarr.start.")?.strip_suffix(".>")?;
        Some(Namespace::new(&decode_token(token).ok()?))
    });
    Taken::Of(namespaces.collect())
}

fn subjects(taken: &Taken) -> Vec<String> {
    let Taken::Of(namespaces) = taken else {
        return ALL_SUBJECTS.map(str::to_owned).to_vec();
    };
    let mut subjects = NO_STARTS.map(str::to_owned).to_vec();
    let tokens: BTreeSet<_> = namespaces
        .iter()
        .filter_map(|namespace| encode_token(namespace.as_str()).ok())
        .collect();
    for token in tokens {
        subjects.push(format!("knarr.run.{token}.*.start.>"));
        subjects.push(format!("knarr.start.{token}.>"));
    }
    subjects
}

/// The starts of a namespace that the log holds: a consumer that is never asked for anything knows their number.
async fn backlog(shared: &Shared, namespace: &Namespace) -> Result<u64, BusError> {
    let Ok(token) = encode_token(namespace.as_str()) else {
        return Ok(0);
    };
    let inbox = shared.js.client().new_inbox();
    let name = format!("b_{}", inbox.rsplit('.').next().unwrap_or_default());
    let config = json!({
        "name": name,
        "filter_subjects": [format!("knarr.in.*.{token}.*.start.>"), format!("knarr.start.{token}.>")],
        "deliver_policy": "all", "ack_policy": "none", "replay_policy": "instant",
        "mem_storage": true, "num_replicas": 1, "inactive_threshold": 5_000_000_000_u64,
    });
    let info = shared.js.put_consumer(LOG_STREAM, &name, &config).await?;
    shared.js.forget_consumer(LOG_STREAM, &name).await;
    Ok(info.num_pending)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_say_whose_starts_are_taken() {
        let names = ["a", "b c"].map(Namespace::new);
        for taken in [
            Taken::All,
            Taken::Of(BTreeSet::new()),
            Taken::Of(names.into_iter().collect()),
        ] {
            let info = StreamInfo {
                config: json!({ "subjects": subjects(&taken) }),
                created: String::new(),
                state: super::super::jetstream::StreamState {
                    first_seq: 0,
                    last_seq: 0,
                    bytes: 0,
                },
            };
            assert_eq!(taken_by(&info), taken);
        }
    }
}
