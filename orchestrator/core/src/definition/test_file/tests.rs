use super::read::{definition_of, read};
use crate::definition::diagnostic;
use crate::definition::plan::Plan;

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
