//! The configuration of a stream, as JetStream writes it: whose it is, and what is compared.
//!
//! **Invariant:** a stream says in its metadata to which cluster it belongs, so that a database and a NATS that are not each
//! other's are told apart. One without this is adopted: it is of an earlier version.

use knarr_schemas::subject;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::stream_settings::Setting;
use crate::bus::BusError;

const METADATA: &str = "metadata";
/// The cluster's id.
const CLUSTER: &str = "knarr.cluster";
/// Of the server's own metadata.
const RESERVED: &str = "_nats.";

/// What a stream is to be.
#[derive(Debug)]
pub(super) struct Asked {
    config: Value,
    /// What of it is for a new stream alone.
    at_first: Vec<&'static str>,
}

impl Asked {
    pub(super) fn new(config: Value) -> Self {
        Self {
            config,
            at_first: Vec::new(),
        }
    }

    pub(super) fn set<T>(&mut self, key: &'static str, setting: &Setting<T>, value: Value) {
        self.config[key] = value;
        if matches!(setting, Setting::AtFirst(_)) {
            self.at_first.push(key);
        }
    }

    pub(super) fn name(&self) -> &str {
        self.config["name"].as_str().unwrap_or_default()
    }

    pub(super) fn config(&self) -> &Value {
        &self.config
    }

    /// What is to be compared with the stream there is, or made where there is none: with the cluster's mark, and what was
    /// for a new stream as it is there.
    pub(super) fn beside(&self, existing: Option<&Value>, cluster: Option<&Uuid>) -> Value {
        let mut config = self.config.clone();
        for key in &self.at_first {
            if let Some(value) = existing.and_then(|existing| existing.get(key)) {
                config[*key] = value.clone();
            }
        }
        if let Some(cluster) = cluster {
            let metadata = existing.and_then(|existing| existing.get(METADATA)?.as_object());
            let mut metadata: Map<String, Value> = metadata.cloned().unwrap_or_default();
            metadata.retain(|key, _| !key.starts_with(RESERVED));
            metadata.insert(CLUSTER.to_owned(), json!(cluster));
            config[METADATA] = Value::Object(metadata);
        }
        config
    }
}

/// The configuration of an update: a part that is left out would be set back, also what is none of Knarr's.
pub(super) fn over(existing: &Value, config: &Value) -> Value {
    let mut whole = existing.clone();
    if let (Some(whole), Some(config)) = (whole.as_object_mut(), config.as_object()) {
        whole.extend(config.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
    whole
}

/// Refuses a stream that names another cluster.
pub(super) fn belongs_to(name: &str, cluster: Uuid, existing: &Value) -> Result<(), BusError> {
    let owner = existing.get(METADATA).and_then(|metadata| metadata.get(CLUSTER));
    match owner {
        Some(owner) if *owner != json!(cluster) => Err(BusError::Misconfigured(format!(
            "KN0309: the stream {name} belongs to the cluster {owner}, the database to \"{cluster}\". Check the addresses of \
             NATS and PostgreSQL: one of them is another cluster's. If that cluster is given up, delete its streams \
             (KNARR_*), or give this one its own NATS account; `knarr dev --fresh` begins anew with both."
        ))),
        _ => Ok(()),
    }
}

/// A log that sorts into another number of partitions belongs to another cluster, or to another time of this one.
pub(super) fn refuse_other_partitions(asked: &Value, existing: &Value) -> Result<(), BusError> {
    let (Some(asked), Some(found)) = (
        asked.pointer("/subject_transform/dest"),
        existing.pointer("/subject_transform/dest"),
    ) else {
        return Ok(());
    };
    if asked == found {
        return Ok(());
    }
    Err(BusError::Misconfigured(format!(
        "KN0307: the stream {} sorts messages by {found}, this cluster needs {asked}. Two clusters cannot share one NATS \
         account; give this one its own account, or delete the stream if it is left over.",
        subject::LOG_STREAM
    )))
}

/// Older servers ignore what they do not know, and say so only by what they return.
pub(super) fn echoes(what: &str, asked: &Value, got: &Value) -> Result<(), BusError> {
    let Some(asked) = asked.as_object() else { return Ok(()) };
    for (key, value) in asked {
        let returned = got.get(key).unwrap_or(&Value::Null);
        // The server adds to it.
        if key == METADATA && is_part(value, returned) {
            continue;
        }
        if returned != value && !(returned.is_null() && is_default(value)) {
            return Err(BusError::Misconfigured(format!(
                "KN0308: {what} was to have {key} = {value}, but NATS keeps {returned}. Run nats-server 2.12 or later, or \
                 lift the account's limit."
            )));
        }
    }
    Ok(())
}

fn is_part(asked: &Value, got: &Value) -> bool {
    let Some(asked) = asked.as_object() else { return false };
    asked.iter().all(|(key, value)| got.get(key) == Some(value))
}

fn is_default(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(set) => !set,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_echoed_is_an_error() {
        let asked = json!({ "name": "A", "max_bytes": 5, "allow_direct": false });
        assert!(echoes("x", &asked, &json!({ "name": "A", "max_bytes": 5, "more": 1 })).is_ok());
        assert!(echoes("x", &asked, &json!({ "name": "A", "max_bytes": 6 })).is_err());
        assert!(echoes("x", &asked, &json!({ "name": "A" })).is_err());
    }

    #[test]
    fn a_stream_is_marked_and_another_clusters_is_refused() {
        let (ours, theirs) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let asked = Asked::new(json!({ "name": "A" }));
        let existing = json!({ "name": "A", "metadata": { "_nats.level": "1", "team": "a" } });
        assert!(belongs_to("A", ours, &existing).is_ok());
        let adopted = asked.beside(Some(&existing), Some(&ours));
        assert_eq!(adopted["metadata"], json!({ "team": "a", "knarr.cluster": ours }));
        assert!(echoes("A", &adopted, &existing).is_err());
        let returned = json!({ "name": "A", "metadata": { "_nats.level": "1", "team": "a", "knarr.cluster": ours } });
        assert!(echoes("A", &adopted, &returned).is_ok());
        assert!(belongs_to("A", ours, &returned).is_ok());
        let error = belongs_to("A", theirs, &returned).unwrap_err().to_string();
        assert!(error.contains("KN0309"), "{error}");
    }

    #[test]
    fn what_an_operator_changed_stays_unless_it_is_set() {
        let existing = json!({ "name": "A", "num_replicas": 3, "max_bytes": 9, "placement": { "tags": ["ssd"] } });
        let mut asked = Asked::new(json!({ "name": "A" }));
        asked.set("num_replicas", &Setting::AtFirst(1), json!(1));
        asked.set("max_bytes", &Setting::AtFirst(5), json!(5));
        assert_eq!(asked.beside(None, None)["num_replicas"], 1);
        let beside = asked.beside(Some(&existing), None);
        assert!(echoes("A", &beside, &existing).is_ok());
        asked.at_first.clear();
        let beside = asked.beside(Some(&existing), None);
        assert!(echoes("A", &beside, &existing).is_err());
        let whole = over(&existing, &beside);
        assert_eq!((&whole["num_replicas"], &whole["max_bytes"]), (&json!(1), &json!(5)));
        assert_eq!(whole["placement"], existing["placement"]);
    }

    #[test]
    fn a_log_of_other_partitions_is_refused() {
        let config = |n: u32| json!({ "subject_transform": { "dest": format!("knarr.in.{{partition({n})}}") } });
        assert!(refuse_other_partitions(&config(64), &config(64)).is_ok());
        let error = refuse_other_partitions(&config(64), &config(32)).unwrap_err();
        assert!(error.to_string().contains("KN0307"), "{error}");
    }
}
