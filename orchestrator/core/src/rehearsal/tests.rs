use std::fmt::Write as _;

use super::{CaseReport, play};
use crate::definition::{read, test_file};

const DEFINITION: &str = r#"
workflow: order
version: 1
input_schema: { type: object, required: [id] }
defaults: { queue: q, start_to_close: 10s, retry: { maximum_attempts: 3, initial_interval: 1s } }
steps:
  - pay: { activity: pay, input: "${ input.id }", compensate: { activity: refund, input: "${ steps.pay.id | default(none) }" } }
  - ship: { activity: ship, compensate: { activity: unship } }
  - tell: { emit: { subject: shop.done, body: "${ input.id }" } }
output: "${ steps.pay.id }"
"#;

fn reports(cases: &str) -> Vec<CaseReport> {
    let plan = read(DEFINITION, &|_| Err("no files".to_owned())).unwrap().plan;
    let text = format!(
        "input: {{ id: o-1 }}\nmocks: {{ pay: {{ result: {{ id: p-1 }} }}, ship: {{ result: null }} }}\ncases:\n{cases}"
    );
    let file = match test_file::read(&text, &plan) {
        Ok(file) => file,
        Err(findings) => panic!("{}", crate::definition::diagnostic::render("test", &text, &findings)),
    };
    file.cases.iter().map(|case| play(&plan, case)).collect()
}

fn report(case: &str) -> CaseReport {
    reports(case).pop().unwrap()
}

fn text(report: &CaseReport) -> String {
    let mut out = String::new();
    for it in &report.happened {
        let _ = writeln!(out, "{:>7} {}", it.at_ms, it.what);
    }
    for deviation in &report.deviations {
        let _ = writeln!(out, "{} {}", deviation.code, deviation.what);
        if let (Some(expected), Some(actual)) = (&deviation.expected, &deviation.actual) {
            let _ = writeln!(out, "  expected {expected:?}\n  actual   {actual:?}");
        }
    }
    out
}

#[test]
fn a_case_that_goes_wrong_says_everything_that_is() {
    let report = report(
        r#"
  - name: wrong
    mocks: { ship: { fail: { type: no_truck, retryable: false } } }
    expect:
      status: completed
      output: p-2
      error: { step: pay, type: declined, message: truck }
      steps: [pay]
      undos: [ship]
      skipped: [tell]
      parked: [pay]
      attempts: { pay: 2 }
      inputs: { pay: o-2 }
      ledger: { pay: ready, ship: ready }
      emitted: [ { subject: shop.done, body: o-2 } ]
      took: 1s
"#,
    );
    assert!(!report.passed);
    insta::assert_snapshot!("wrong", text(&report));
}

#[test]
fn what_nobody_mocks_is_a_problem_and_an_undo_goes_well() {
    let plan = read(DEFINITION, &|_| Err("no files".to_owned())).unwrap().plan;
    let file = test_file::read(
        "cases: [ { name: none, input: { id: 1 }, expect: {} }, { name: bad, input: 1, expect: {} } ]",
        &plan,
    );
    let file = file.unwrap();
    let none = play(&plan, &file.cases[0]);
    assert_eq!(none.deviations[0].code, "KN0183");
    assert_eq!(play(&plan, &file.cases[1]).deviations[0].code, "KN0185");
}

#[test]
fn timeouts_retries_and_late_answers_take_virtual_time() {
    let report = report(
        r#"
  - name: slow
    mocks: { ship: [timeout, { unknown: crashed }, { result: null, after: 9s }] }
    expect: { status: completed, attempts: { ship: 3 }, emitted: [shop.done], took: { at_least: 21s, at_most: 23s } }
"#,
    );
    assert!(report.passed, "{}", text(&report));
    insta::assert_snapshot!("slow", text(&report));
}

#[test]
fn operators_act_and_what_they_may_not_is_a_problem() {
    let reports = reports(
        r#"
  - name: resolved
    mocks: { ship: { fail: { type: x, retryable: false } }, refund: [ { fail: { type: y, retryable: false } }, { result: null } ] }
    events: [ { at: 1h, retry: pay, input: 7 } ]
    expect: { status: compensated, undos: [pay], ledger: { pay: done, ship: dormant }, took: 1h }
  - name: nothing to retry
    mocks: { ship: { result: null, after: 5s } }
    events: [ { at: 1s, retry: pay } ]
    expect: { status: completed }
"#,
    );
    assert!(reports[0].passed, "{}", text(&reports[0]));
    assert_eq!(reports[1].deviations.len(), 1, "{}", text(&reports[1]));
}

#[test]
fn who_stops_when_asked_is_not_undone() {
    let reports = reports(
        r#"
  - name: stops
    mocks: { ship: { result: null, after: 9s, when_cancelled: stops } }
    events: [ { at: 1s, cancel: true } ]
    expect: { status: cancelled, undos: [pay], took: 1s }
  - name: goes on
    mocks: { ship: { result: null, after: 9s } }
    events: [ { at: 1s, cancel: true } ]
    expect: { status: cancelled, undos: [ship, pay], took: 9s }
  - name: terminated
    mocks: { ship: { result: null, after: 9s } }
    events: [ { at: 1s, terminate: enough } ]
    expect: { status: terminated, undos: [] }
"#,
    );
    for report in reports {
        assert!(report.passed, "{}: {}", report.name, text(&report));
    }
}

#[test]
fn signals_are_handled_and_queries_answered_in_a_case() {
    let definition = r#"
workflow: basket
version: 1
defaults: { queue: q, start_to_close: 10s, retry: { maximum_attempts: 1 } }
steps:
  - open: { wait_for: { signal: order, timeout: 1h } }
signals:
  add:
    steps:
      - check: { activity: check, input: "${ signal }", read_only: true }
      - sum: { set: { total: "${ vars.total | default(0) + signal }" } }
queries:
  total: vars.total | default(0)
  checked: steps.open.by
"#;
    let plan = read(definition, &|_| Err("no files".to_owned())).unwrap().plan;
    let file = |expected: &str| {
        let text = format!(
            "mocks: {{ check: {{ result: null, after: 2s }} }}\ncases:\n  - name: one\n    events:\n\
             \x20     - {{ at: 1s, signal: add, body: 3 }}\n      - {{ at: 2s, signal: add, body: 4 }}\n\
             \x20     - {{ at: 4s, signal: order }}\n    expect: {expected}\n"
        );
        test_file::read(&text, &plan).map(|file| play(&plan, &file.cases[0]))
    };
    let fine = "{ status: completed, took: 5s, vars: { total: 7 }, queries: { total: 7 }, \
                inputs: { \"$signals.add[1].check\": 4 }, steps: [ \"$signals.add[0].check\", \"$signals.add[1].check\" ] }";
    let report = file(fine).unwrap();
    assert!(report.passed, "{}", text(&report));
    let wrong = text(&file("{ queries: { total: 8, checked: 1 } }").unwrap());
    assert!(wrong.contains("query total"), "{wrong}");
    assert!(wrong.contains("leads to nothing"), "{wrong}");
    let unknown = file("{ queries: { totl: 8 } }").unwrap_err();
    assert_eq!(unknown[0].message, "the definition has no query `totl`");
}

#[test]
fn updates_are_done_in_a_case_and_one_that_is_refused_is_told() {
    let definition = r#"
workflow: basket
version: 1
defaults: { queue: q, start_to_close: 10s, retry: { maximum_attempts: 1 } }
steps:
  - open: { wait_for: { signal: order, timeout: 1h } }
updates:
  add:
    validate: "'too many' if update > 3 else true"
    steps:
      - check: { activity: check, input: "${ update }", read_only: true }
      - sum: { set: { total: "${ vars.total | default(0) + update }" } }
"#;
    let plan = read(definition, &|_| Err("no files".to_owned())).unwrap().plan;
    let file = |n: u32| {
        let text = format!(
            "mocks: {{ check: {{ result: null, after: 2s }} }}\ncases:\n  - name: one\n    events:\n\
             \x20     - {{ at: 1s, update: add, body: {n} }}\n      - {{ at: 2s, update: add, body: 2 }}\n\
             \x20     - {{ at: 4s, signal: order }}\n    expect: {{ status: completed, took: 5s, vars: {{ total: 5 }} }}\n"
        );
        test_file::read(&text, &plan)
            .map(|file| play(&plan, &file.cases[0]))
            .unwrap()
    };
    let report = file(3);
    assert!(report.passed, "{}", text(&report));
    let refused = text(&file(4));
    assert!(
        refused.contains("what comes after 1s is refused: the update is refused: too many"),
        "{refused}"
    );
}
const AGAIN: &str = r#"
workflow: again
version: 1
defaults: { queue: q, start_to_close: 10s, retry: { maximum_attempts: 1 } }
retry: { initial_interval: 10s, maximum_attempts: 3, non_retryable: [refused] }
steps:
  - hold: { activity: hold, compensate: unhold }
  - book: { activity: book, input: "${ run.attempt }", compensate: unbook }
  - tell: { emit: { subject: shop.done, body: "${ run.attempt }" } }
"#;

fn again(case: &str) -> CaseReport {
    let plan = read(AGAIN, &|_| Err("no files".to_owned())).unwrap().plan;
    let file = match test_file::read(&format!("mocks: {{ hold: {{ result: null }} }}\ncases:\n{case}"), &plan) {
        Ok(file) => file,
        Err(findings) => panic!("{}", crate::definition::diagnostic::render("test", case, &findings)),
    };
    play(&plan, &file.cases[0])
}

#[test]
fn a_case_goes_on_through_the_attempts_of_its_run() {
    let report = again(
        r#"
  - name: third time lucky
    mocks: { book: [ { fail: busy, after: 1s }, { unknown: crash }, { result: 7 } ] }
    expect:
      status: completed
      run_attempts: 3
      steps: [hold, book]
      undos: []
      inputs: { book: 3 }
      attempts: { book: 1 }
      emitted: [ { subject: shop.done, body: 3 } ]
      ledger: { hold: ready, book: ready }
      took: { at_least: 28s, at_most: 34s }
"#,
    );
    assert!(report.passed, "{}", text(&report));
    let said = text(&report);
    for words in [
        "undo hold completed",
        "attempt 2 of the run begins in ",
        "the next attempt begins",
        "the run has completed",
    ] {
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn what_is_on_its_way_to_one_attempt_does_not_reach_the_next() {
    // Late for the first one, whose task has the number that the second's has.
    let report = again(
        r#"
  - name: late
    mocks: { book: [ { result: 7, after: 25s }, { result: 8, after: 9s } ] }
    expect: { status: completed, run_attempts: 2, took: { at_least: 28s, at_most: 30s } }
"#,
    );
    assert!(report.passed, "{}", text(&report));
}

#[test]
fn a_case_ends_with_the_last_attempt_there_is() {
    for (case, status) in [
        (
            "mocks: { book: { fail: busy } }\n    expect: { status: compensated, run_attempts: 3, undos: [hold] }",
            "compensated",
        ),
        (
            "mocks: { book: { fail: refused } }\n    expect: { status: compensated, run_attempts: 1 }",
            "compensated",
        ),
        // While the second one waits to begin.
        (
            "mocks: { book: { fail: busy } }\n    events: [ { at: 3s, cancel: true } ]\n    \
             expect: { status: cancelled, run_attempts: 2, steps: [] }",
            "cancelled",
        ),
    ] {
        let report = again(&format!("  - name: x\n    {case}\n"));
        assert!(report.passed, "{status}: {}", text(&report));
    }
    let wrong = again("  - name: x\n    mocks: { book: { fail: busy } }\n    expect: { run_attempts: 2 }\n");
    assert!(
        text(&wrong).contains("run_attempts\n  expected \"2\"\n  actual   \"3\""),
        "{}",
        text(&wrong)
    );
}

#[test]
fn a_later_attempt_is_played_as_the_first_is() {
    let definition = r#"
workflow: again
version: 1
defaults: { queue: q, start_to_close: 10s, retry: { maximum_attempts: 1 } }
retry: { initial_interval: 10s, maximum_attempts: 2 }
steps:
  - book: { activity: book, compensate: unbook, schedule_to_start: 1h }
"#;
    let plan = read(definition, &|_| Err("no files".to_owned())).unwrap().plan;
    // Its task is taken out of a queue where nobody has it.
    let case = r#"
cases:
  - name: nobody is there
    mocks: { book: [ { fail: busy }, { timeout: schedule_to_start } ] }
    events: [ { at: 20s, cancel: true } ]
    expect: { status: cancelled, run_attempts: 2, took: { at_most: 25s } }
"#;
    let file = match test_file::read(case, &plan) {
        Ok(file) => file,
        Err(findings) => panic!("{findings:?}"),
    };
    let report = play(&plan, &file.cases[0]);
    assert!(report.passed, "{}", text(&report));
}
