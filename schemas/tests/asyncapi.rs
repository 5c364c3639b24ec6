//! The AsyncAPI document says what the code says: every header, every subject, every schema.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use knarr_schemas::{api, subject};
use serde_json::Value;

const TEXT: &str = include_str!("../asyncapi.yaml");

fn document() -> Value {
    serde_saphyr::from_str(TEXT).unwrap()
}

fn visit<'a>(value: &'a Value, see: &mut impl FnMut(&'a str, &'a Value)) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                see(name, field);
                visit(field, see);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| visit(item, see)),
        _ => {}
    }
}

#[test]
fn every_reference_leads_somewhere() {
    let document = document();
    assert_eq!(document["asyncapi"], "3.0.0");
    let mut references = 0;
    visit(&document, &mut |name, value| {
        let ("$ref", Some(target)) = (name, value.as_str()) else {
            return;
        };
        references += 1;
        match target.strip_prefix('#') {
            Some(pointer) => assert!(document.pointer(pointer).is_some(), "{target}"),
            None => assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(target).is_file(), "{target}"),
        }
    });
    assert!(references > 40, "only {references} references");
}

#[test]
fn every_channel_has_an_operation_and_every_message_a_channel() {
    let document = document();
    let used = document["operations"].to_string();
    for name in document["channels"].as_object().unwrap().keys() {
        assert!(
            used.contains(&format!(r##""#/channels/{name}""##)),
            "{name} has no operation"
        );
    }
    let used = document["channels"].to_string();
    for name in document["components"]["messages"].as_object().unwrap().keys() {
        assert!(
            used.contains(&format!(r##""#/components/messages/{name}""##)),
            "{name} has no channel"
        );
    }
}

#[test]
fn every_header_is_described_and_no_other() {
    let described = described_headers();
    let known: Vec<&str> = include_str!("../src/header.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("pub const "))
        .map(|line| line.split('"').nth(1).unwrap())
        .collect();
    for header in &known {
        assert!(described.iter().any(|d| d == header), "{header} is not in the document");
    }
    for header in &described {
        let of_services = [api::ERROR, api::ERROR_CODE].contains(&header.as_str());
        assert!(
            of_services || known.contains(&header.as_str()),
            "{header} is not in header.rs"
        );
    }
}

fn described_headers() -> Vec<String> {
    let document = document();
    let mut headers = Vec::new();
    for (name, message) in document["components"]["messages"].as_object().unwrap() {
        let Some(properties) = message["headers"]["properties"].as_object() else {
            continue;
        };
        headers.extend(properties.keys().cloned());
        for required in message["headers"]["required"].as_array().into_iter().flatten() {
            assert!(
                properties.contains_key(required.as_str().unwrap()),
                "{name}: {required}"
            );
        }
    }
    headers
}

#[test]
fn the_addresses_are_those_that_subjects_are_composed_with() {
    let document = document();
    let addresses: Vec<&str> = document["channels"]
        .as_object()
        .unwrap()
        .values()
        .map(|channel| channel["address"].as_str().unwrap())
        .collect();
    // A composed subject with the values that stand for the parameters put back.
    for (composed, parameters) in [
        (
            subject::unkeyed_start("NS", "WF"),
            vec![("NS", "{namespace}"), ("WF", "{workflow}")],
        ),
        (
            subject::start("NS", "ID", "WF"),
            vec![("NS", "{namespace}"), ("ID", "{workflowId}"), ("WF", "{workflow}")],
        ),
        (
            subject::run_verb("NS", "ID", "cancel"),
            vec![("NS", "{namespace}"), ("ID", "{workflowId}")],
        ),
        (
            subject::run_verb("NS", "ID", "terminate"),
            vec![("NS", "{namespace}"), ("ID", "{workflowId}")],
        ),
        (
            subject::run_verb("NS", "ID", "limit"),
            vec![("NS", "{namespace}"), ("ID", "{workflowId}")],
        ),
        (
            subject::run_verb("NS", "ID", "result"),
            vec![("NS", "{namespace}"), ("ID", "{workflowId}")],
        ),
        (
            subject::signal("NS", "ID", "SI"),
            vec![("NS", "{namespace}"), ("ID", "{workflowId}"), ("SI", "{signal}")],
        ),
        (
            subject::update("NS", "ID", "UP"),
            vec![("NS", "{namespace}"), ("ID", "{workflowId}"), ("UP", "{update}")],
        ),
        (
            subject::parked("NS", "ID", "AN"),
            vec![("NS", "{namespace}"), ("ID", "{workflowId}"), ("AN", "{action}")],
        ),
        (
            subject::run_verb("NS", "ID", "migrate"),
            vec![("NS", "{namespace}"), ("ID", "{workflowId}")],
        ),
        (
            subject::event("NS", "WF", "ID", "KI"),
            vec![
                ("NS", "{namespace}"),
                ("WF", "{workflow}"),
                ("ID", "{workflowId}"),
                ("KI", "{kind}"),
            ],
        ),
        (
            subject::run_verb("NS", "ID", "message"),
            vec![("NS", "{namespace}"), ("ID", "{workflowId}")],
        ),
        (
            subject::run_verb("NS", "ID", "schedule"),
            vec![("NS", "{namespace}"), ("ID", "{workflowId}")],
        ),
        (
            subject::run_verb("NS", "ID", "trigger"),
            vec![("NS", "{namespace}"), ("ID", "{workflowId}")],
        ),
        (
            subject::run_verb("NS", "ID", "answer"),
            vec![("NS", "{namespace}"), ("ID", "{workflowId}")],
        ),
        (
            subject::direct("NS", 17).map(|s| s + ".result"),
            vec![("NS", "{namespace}"), ("17", "{partition}")],
        ),
        (
            subject::direct("NS", 17).map(|s| s + ".beat"),
            vec![("NS", "{namespace}"), ("17", "{partition}")],
        ),
        (
            subject::direct("NS", 17).map(|s| s + ".claim"),
            vec![("NS", "{namespace}"), ("17", "{partition}")],
        ),
        (
            subject::task("NS", "QU", "AC"),
            vec![("NS", "{namespace}"), ("QU", "{queue}"), ("AC", "{activity}")],
        ),
        (
            subject::cancel("NS", "QU"),
            vec![("NS", "{namespace}"), ("QU", "{queue}")],
        ),
        (
            Ok(subject::dead_letter(Some("NS"), "RE")),
            vec![("NS", "{namespace}"), ("RE", "{reason}")],
        ),
    ] {
        let mut address = composed.unwrap();
        for (value, parameter) in parameters {
            address = address.replacen(value, parameter, 1);
        }
        assert!(addresses.contains(&address.as_str()), "{address}");
    }
    for verb in api::verb::ALL {
        let address = subject::api("NS", verb).unwrap().replacen("NS", "{namespace}", 1);
        assert!(addresses.contains(&address.as_str()), "{address}");
    }
    let others = addresses.iter().filter(|address| address.starts_with("knarr."));
    assert_eq!(others.count(), 21 + api::verb::ALL.len());
}

#[test]
fn parameters_are_those_of_the_address() {
    for (name, channel) in document()["channels"].as_object().unwrap() {
        let address = channel["address"].as_str().unwrap();
        for parameter in channel["parameters"].as_object().unwrap().keys() {
            assert!(address.contains(&format!("{{{parameter}}}")), "{name}: {parameter}");
        }
        assert_eq!(
            address.matches('{').count(),
            channel["parameters"].as_object().unwrap().len(),
            "{name}"
        );
    }
}
