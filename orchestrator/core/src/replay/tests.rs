use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{BadHistory, Definition, History, read, replay};
use crate::definition::plan::Plan;
use crate::definition::test_file;
use crate::ids::RunId;
use crate::rehearsal;
use crate::run::input::{Horizon, Input, Start};
use crate::run::{self, Event};
use crate::time::Timestamp;

const DEFINITION: &str = r#"
workflow: order
version: 1
defaults: { queue: q, start_to_close: 10s, retry: { maximum_attempts: 3 } }
steps:
  - pay: { activity: pay, compensate: refund }
  - ship: { activity: ship, compensate: unship }
"#;

fn plan(text: &str) -> Plan {
    crate::definition::read(text, &|_| Err("no files".to_owned()))
        .unwrap()
        .plan
}

fn history(plan: &Plan, case: &str) -> History {
    let file = test_file::read(&format!("cases: [ {{ name: one, expect: {{}}, {case} }} ]"), plan).unwrap();
    History {
        transitions: rehearsal::history(plan, &file.cases[0]),
        status: None,
    }
}

const UNDONE: &str = "mocks: { pay: [timeout, { result: 1 }], ship: { fail: { type: no, retryable: false } } }";

#[test]
fn what_today_decided_today_decides_again() {
    let plan = plan(DEFINITION);
    for case in [
        UNDONE,
        "mocks: { pay: { result: 1 }, ship: [ { fail: { type: a, retry_after: 7s } }, { retry_later: 3s }, { unknown: x }, { result: 2 } ] }",
        "mocks: { pay: { result: 1, after: 5s, when_cancelled: stops }, ship: timeout }, events: [ { at: 1s, cancel: why } ]",
        "mocks: { pay: { result: 1, after: 5s } }, events: [ { at: 1s, terminate: true } ]",
        "mocks: { pay: { result: 1 }, ship: { fail: { type: a, retryable: false } }, refund: { fail: { type: b, retryable: false } } }, events: [ { at: 1h, retry: pay, input: 3 }, { at: 2h, mark_done: pay } ]",
    ] {
        let history = history(&plan, case);
        let report = replay(&history, Some(&plan)).unwrap();
        assert!(report.is_good(), "{case}: {report:#?}");
        assert_eq!((report.same, report.folded_only), (report.transitions, 0), "{case}");
        assert_eq!(report.definition, Definition::Same);
    }
}

/// A run that waits for its place, and has a priority, is decided again as it was; tests and proofs of a definition have it begin.
#[test]
fn a_run_with_a_place_is_decided_again_and_its_definition_is_tested_and_verified_like_any() {
    let text = DEFINITION.replace(
        "version: 1\n",
        "version: 1\nconcurrency: { key: run.workflow_id, limit: 1, on_conflict: reject }\npriority: 2\n",
    );
    let plan = plan(&text);
    for case in [
        UNDONE,
        "mocks: { pay: { result: 1, after: 5s } }, events: [ { at: 1s, terminate: true } ]",
    ] {
        let history = history(&plan, case);
        assert!(history.transitions[0].body().contains("place"));
        let report = replay(&history, Some(&plan)).unwrap();
        assert!(report.is_good(), "{case}: {report:#?}");
        assert_eq!((report.same, report.folded_only), (report.transitions, 0), "{case}");
    }
    let verified = |plan: &Plan| crate::verify::verify(plan, crate::verify::Limits::default()).unwrap();
    let (with, without) = (verified(&plan), verified(&self::plan(DEFINITION)));
    assert_eq!(format!("{with:?}"), format!("{without:?}"));
}

#[test]
fn another_definition_decides_otherwise_and_the_first_difference_is_shown() {
    let before = plan(DEFINITION);
    let after = plan(&DEFINITION.replace("maximum_attempts: 3", "maximum_attempts: 1"));
    let report = replay(&history(&before, UNDONE), Some(&after)).unwrap();
    assert_eq!(report.definition, Definition::Other);
    assert!(!report.is_good());
    insta::assert_snapshot!("difference", serde_json::to_string_pretty(&report).unwrap());
    // Without a definition the events are folded, and that is all.
    let report = replay(&history(&before, UNDONE), None).unwrap();
    assert!(report.is_good());
    assert_eq!((report.same, report.definition), (0, Definition::NotGiven));
}

fn page(history: &History, status: &str) -> Value {
    let transitions = history.transitions.iter().map(|it| {
        json!({"seq": it.seq, "at": it.at.to_utc().to_rfc3339(), "events": serde_json::to_value(&it.events).unwrap()})
    });
    json!({"run": {"status": status}, "transitions": transitions.collect::<Vec<_>>()})
}

#[test]
fn a_history_is_read_as_it_is_printed() {
    let plan = plan(DEFINITION);
    let history = history(&plan, UNDONE);
    let read_back = read(&page(&history, "compensated").to_string()).unwrap();
    assert_eq!(read_back.transitions, history.transitions);
    assert!(replay(&read_back, Some(&plan)).unwrap().is_good());
    let told_wrong = read(&page(&history, "completed").to_string()).unwrap();
    let report = replay(&told_wrong, None).unwrap();
    assert_eq!(report.problems.len(), 1, "{report:?}");
    // A page of it may be older than the summary.
    let mut part = page(&history, "completed");
    part["next"] = json!(3);
    assert_eq!(read(&part.to_string()).unwrap().status, None);
}

#[test]
fn what_is_no_history_is_refused() {
    let problem = |value: &Value| match read(&value.to_string()) {
        Ok(history) => replay(&history, None).unwrap_err(),
        Err(error) => error,
    };
    let plan = plan(DEFINITION);
    let whole = page(&history(&plan, UNDONE), "compensated");
    assert_eq!(problem(&json!([])), BadHistory::Empty);
    assert!(matches!(problem(&json!(1)), BadHistory::Shape(_)));
    assert!(matches!(problem(&json!({"transitions": 1})), BadHistory::Shape(_)));
    assert!(matches!(read("{"), Err(BadHistory::Json(_))));
    let mut gap = whole.clone();
    gap["transitions"].as_array_mut().unwrap().remove(1);
    assert_eq!(problem(&gap), BadHistory::Gap { after: 1, found: 3 });
    let mut headless = whole.clone();
    headless["transitions"].as_array_mut().unwrap().remove(0);
    assert_eq!(problem(&headless), BadHistory::NoBirth);
    let mut back = whole.clone();
    back["transitions"][2]["at"] = json!("2020-01-01T00:00:00Z");
    assert_eq!(problem(&back), BadHistory::TimeGoesBack { seq: 3 });
    let mut unknown = whole.clone();
    unknown["transitions"][1]["events"][0] = json!({"task_teleported": {}});
    assert!(matches!(problem(&unknown), BadHistory::Event { seq: 2, event: 0, .. }));
    let mut left_out = whole;
    left_out["transitions"][1]["omitted_bytes"] = json!(900_000);
    assert_eq!(problem(&left_out), BadHistory::LeftOut { seq: 2 });
}

/// A wake-up may find a queue delivered as far as between two tasks, and the log read as far as between two timeouts.
#[test]
fn horizons_that_lie_between_two_deadlines_are_told_from_what_was_decided() {
    let plan = plan(
        r#"
workflow: w
version: 1
defaults: { queue: q, start_to_close: 10s, retry: { maximum_attempts: 3 } }
steps:
  - p:
      parallel:
        branches:
          a: { steps: [ { one: { activity: one, compensate: u } } ] }
          b: { steps: [ { pause: { wait: 3s } }, { two: { activity: two, compensate: u } } ] }
"#,
    );
    let at = |seconds: i64| Timestamp(1_767_225_600_000_000 + seconds * 1_000_000);
    let start = Start {
        run_id: RunId(uuid::Uuid::from_u128(1)),
        namespace: "default".into(),
        workflow_id: "w-1".into(),
        input: Arc::default(),
        request_id: None,
        search_attributes: BTreeMap::new(),
        answer: None,
        traceparent: None,
        parent: None,
        priority: None,
        queued: false,
        begins_at: None,
        continues: None,
    };
    let (mut state, birth) = run::start(&plan, start, at(0)).unwrap();
    let mut transitions = vec![birth];
    // (now, the log was read to, the queue had delivered to)
    for (now, read_to, delivered_to) in [(3, 3, 0), (20, 20, 1), (37, 29, 37), (60, 40, 60)] {
        let wake = Input::Wake(Horizon {
            log_read_to: at(read_to),
            delivered_to: [("q".into(), at(delivered_to))].into(),
            listening_since: Timestamp::default(),
            heard: Default::default(),
        });
        transitions.push(run::apply(&plan, &mut state, wake, at(now)).unwrap().unwrap());
    }
    let events: Vec<_> = transitions[2].events.iter().chain(&transitions[4].events).collect();
    let count = |wanted: fn(&Event) -> bool| events.iter().filter(|event| wanted(event)).count();
    assert_eq!(
        count(|event| matches!(event, Event::TaskDelivered { .. })),
        1,
        "{events:?}"
    );
    assert_eq!(
        count(|event| matches!(event, Event::DeadlineDeferred { .. })),
        1,
        "{events:?}"
    );
    assert_eq!(
        count(|event| matches!(event, Event::TaskTimedOut { .. })),
        1,
        "{events:?}"
    );
    let history = History {
        transitions,
        status: None,
    };
    let report = replay(&history, Some(&plan)).unwrap();
    assert!(report.is_good(), "{report:#?}");
    assert_eq!((report.same, report.folded_only), (report.transitions, 0));
}

#[test]
fn an_event_of_a_newer_version_is_named_and_not_all_that_there_are() {
    let text = r#"[{"seq": 1, "at": "2026-01-01T00:00:00Z", "events": [{"run_teleported": {}}]}]"#;
    let refused = super::read(text).unwrap_err().to_string();
    assert_eq!(
        refused,
        "event 0 of transition 1 cannot be read: unknown variant `run_teleported`"
    );
}

#[test]
fn a_history_that_goes_on_is_a_part() {
    for (text, part) in [
        (r#"{"run": {}, "transitions": [{"seq": 1}], "next": 1}"#, true),
        (r#"{"run": {}, "transitions": [{"seq": 1}], "next": null}"#, false),
        (r#"{"run": {}, "transitions": [{"seq": 1}]}"#, false),
        (r#"[{"seq": 1}]"#, false),
        ("nothing", false),
    ] {
        assert_eq!(super::is_part(text), part, "{text}");
    }
}
