use serde_json::{Value, json};

use super::keys;
use super::read::{definition_of, read};
use crate::definition::fields::Keys;
use crate::definition::plan::Plan;
use crate::definition::{diagnostic, yaml};
use crate::run::Status;

const DEFINITION: &str = r#"
workflow: order
version: 1
defaults: { queue: q, start_to_close: 5s, retry: { maximum_attempts: 3 } }
steps:
  - payment: { activity: process-payment, compensate: refund-payment }
  - lines: { for_each: { in: input.lines, steps: [ { reserve: { activity: reserve-line, compensate: release-line } } ] } }
  - trip: { workflow: { name: travel } }
  - approval: { wait_for: { signal: approve, timeout: 1h } }
  - note: { set: { seen: true } }
"#;

fn plan() -> Plan {
    crate::definition::read(DEFINITION, &|_| Err("no files".to_owned()))
        .unwrap()
        .plan
}

fn findings(text: &str) -> String {
    match read(text, &plan()) {
        Ok(_) => "none".to_owned(),
        Err(findings) => diagnostic::render("order.test.yaml", text, &findings),
    }
}

#[test]
fn everything_that_a_test_can_say_is_read() {
    let text = r#"
definition: order.yaml
input: { lines: [1] }
mocks: { process-payment: [ { fail: busy }, { result: { id: "${ input }" }, after: 2s } ], "lines[0].reserve": timeout }
children: { travel: { result: null, undo: { refuse: gone } } }
cases:
  - name: one
    start: 2026-03-01T10:00:00+01:00
    input: null
    mocks:
      payment: { unknown: crash, after: 0s, when_cancelled: stops }
      undo lines.reserve: { fail: { type: a, message: b, retryable: false, not_done: true, retry_after: 3s } }
      reserve-line: { retry_later: 0s }
    children: { travel: [ { fail: a }, { refuse: no } ] }
    events:
      - { at: 2s, cancel: true }
      - { signal: approve, body: 1 }
      - { at: 1s, retry: payment, input: 2 }
      - { at: 1s, skip: payment }
      - { at: 1s, mark_done: trip }
      - { at: 1h, terminate: enough }
    expect:
      status: completed
      output: 1
      next_input: 2
      error: { step: payment, type: a, message: b }
      steps: [payment, "lines[0].reserve", trip]
      skipped: [note]
      undos: [payment]
      parked: []
      attempts: { undo payment: 2 }
      run_attempts: 2
      inputs: { "lines[0].reserve": null }
      ledger: { payment: done }
      vars: { seen: true }
      emitted: [ a.b, { subject: c, body: 1 } ]
      took: { at_least: 1s }
"#;
    assert_eq!(findings(text), "none");
    let file = read(text, &plan()).unwrap();
    let case = &file.cases[0];
    assert_eq!(file.definition.as_deref(), Some("order.yaml"));
    assert_eq!(definition_of(text).as_deref(), Some("order.yaml"));
    let at: Vec<_> = case.events.iter().map(|event| event.at.as_millis()).collect();
    assert_eq!(at, [0, 1_000, 1_000, 1_000, 2_000, 3_600_000]);
    // A null of the case is its own word.
    assert!(case.input.is_null());
}

#[test]
fn everything_that_is_wrong_is_said_at_its_place() {
    let text = r#"
input: 1
mock: {}
mocks:
  process-paymant: { result: 1 }
  payment: { result: 1, unknown: crash }
  lines[0].reserv: timeout
  refund-payment: {}
  reserve-line: { result: "${ input. }" }
children: { travle: { result: 1 } }
cases:
  - name: one
    events:
      - { at: soon, signal: aprove }
      - { cancel: true, terminate: true }
    expect: { status: complete, steps: [paymnt], ledger: { payment: undone }, attempts: { payment: many } }
  - name: one
    expect: { undos: payment, vars: { sean: 1 }, took: 3 }
  - input: 3
  - { name: two }
"#;
    insta::assert_snapshot!("findings", findings(text));
}

#[test]
fn a_file_without_cases_tests_nothing() {
    assert!(findings("cases: []").contains("a list with a case in it"));
    assert!(findings("input: 1").contains("needs `cases`"));
    assert!(findings("[1]").contains("must be a mapping"));
    assert!(findings("a: [").contains("KN0101"));
}

/// The JSON Schema of test files, for editors.
fn schema() -> Value {
    serde_json::from_str(include_str!("../../../../../schemas/test.schema.json")).unwrap()
}

fn misfits(text: &str) -> Vec<String> {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    let value = yaml::parse(text).unwrap().to_json();
    validator.iter_errors(&value).map(|error| error.to_string()).collect()
}

const MAPPINGS: &[(&str, Keys)] = &[
    ("", keys::FILE),
    ("case", keys::CASE),
    ("mock", keys::MOCK),
    ("fail", keys::FAIL),
    ("child", keys::CHILD),
    ("child_undo", keys::CHILD_UNDO),
    ("event", keys::EVENT),
    ("expect", keys::EXPECT),
    ("error", keys::ERROR),
    ("emitted", keys::EMITTED),
    ("took", keys::TOOK),
];

#[test]
fn the_schema_has_the_keys_that_are_read_and_no_others() {
    let schema = schema();
    for (name, keys) in MAPPINGS {
        let mapping = match *name {
            "" => &schema,
            name => &schema["definitions"][name],
        };
        let properties = mapping["properties"].as_object().unwrap();
        let mut here: Vec<&str> = properties.keys().map(String::as_str).collect();
        let mut read = keys.known.to_vec();
        here.sort_unstable();
        read.sort_unstable();
        assert_eq!(here, read, "{}", keys.of);
        assert_eq!(mapping["additionalProperties"], json!(false), "{}", keys.of);
    }
    // A table that is missing above would go unnoticed.
    assert_eq!(include_str!("keys.rs").matches(": Keys =").count(), MAPPINGS.len());
    let mut statuses: Vec<&str> = Status::ALL.map(Status::as_str).to_vec();
    let said = schema["definitions"]["expect"]["properties"]["status"]["enum"].as_array();
    let mut said: Vec<&str> = said.unwrap().iter().filter_map(Value::as_str).collect();
    statuses.sort_unstable();
    said.sort_unstable();
    assert_eq!(said, statuses);
}

#[test]
fn good_test_files_fit_the_schema_and_wrong_shapes_do_not() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../workers/examples");
    let mut count = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if path.to_string_lossy().ends_with(".test.yaml") {
            count += 1;
            let text = std::fs::read_to_string(&path).unwrap();
            assert_eq!(misfits(&text), Vec::<String>::new(), "{}", path.display());
        }
    }
    assert!(count >= 10, "{count}");
    let case = |more: &str| format!("cases: [ {{ name: one, {more} }} ]");
    for good in [
        "expect: {}",
        "input: 1, start: 2026-03-01T10:00:00+01:00, expect: { status: completed, error: declined, took: 1s }",
        "mocks: { a: timeout, b: [ { fail: x }, { retry_later: 0s } ], undo c: { timeout: schedule_to_start } }, expect: {}",
        "children: { t: [ { fail: a }, { refuse: too late } ] }, events: [ { cancel: true }, { at: 1s, retry: a, input: 2 } ], expect: {}",
    ] {
        assert_eq!(misfits(&case(good)), Vec::<String>::new(), "{good}");
    }
    for bad in [
        "input: 1",
        "expect: { state: completed }",
        "expect: { status: complete }",
        "expect: { ledger: { a: undone } }",
        "expect: { attempts: { a: many } }",
        "expect: { took: 3 }",
        "expect: { undos: a }",
        "expect: {}, mocks: { a: {} }",
        "expect: {}, mocks: { a: [] }",
        "expect: {}, mocks: { a: { result: 1, unknown: x } }",
        "expect: {}, mocks: { a: { timeout: heartbeat } }",
        "expect: {}, mocks: { a: { result: 1, when_cancelled: maybe } }",
        "expect: {}, children: { t: { unknown: x } }",
        "expect: {}, events: [ { at: 1s } ]",
        "expect: {}, events: [ { cancel: true, terminate: true } ]",
    ] {
        assert!(!misfits(&case(bad)).is_empty(), "{bad}");
    }
    for bad in [
        "cases: []",
        "input: 1",
        "mock: {}\ncases: [ { name: one, expect: {} } ]",
    ] {
        assert!(!misfits(bad).is_empty(), "{bad}");
    }
}
