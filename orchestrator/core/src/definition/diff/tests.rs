use super::{Change, diff};
use crate::definition::read;

const HEAD: &str = "workflow: w\ndefaults: { queue: q, start_to_close: 5s, retry: { maximum_attempts: 3 } }\n";

fn canonical(text: &str) -> String {
    let text = format!("{HEAD}{text}");
    match read(&text, &|_| Err("no files".to_owned())) {
        Ok(checked) => checked.canonical,
        Err(findings) => panic!("{}", crate::definition::diagnostic::render("test", &text, &findings)),
    }
}

fn words(before: &str, after: &str) -> Vec<String> {
    let diff = diff(&canonical(before), &canonical(after)).unwrap();
    diff.changes.iter().map(Change::to_string).collect()
}

#[test]
fn other_words_for_the_same_and_another_version_are_no_change() {
    let before = "version: 1\nsteps: [ { a: { activity: a, start_to_close: 5s, read_only: true } } ]";
    let after = "version: 2\nsteps:\n  - a: { read_only: true, activity: a, start_to_close: 5000ms }";
    assert_eq!(words(before, after), [""; 0]);
}

#[test]
fn everything_that_can_change() {
    let before = r#"
version: 1
timeout: 1h
steps:
  - a: { activity: a, input: { x: 1, y: 2 }, compensate: { activity: ua, input: { id: 1 } } }
  - b: { activity: b, read_only: true }
  - c: { activity: c, compensate: uc }
  - p: { parallel: { branches: { left: { steps: [ { l: { activity: l, compensate: ul } } ] }, right: { steps: [ { r: { activity: r, read_only: true } } ] } } } }
  - d: { switch: [ { when: input.a, steps: [ { e: { activity: e, read_only: true } } ] } ] }
  - t: { try: { steps: [ { f: { activity: f, read_only: true } } ], catch: [ { type: x, steps: [ { g: { wait: 1s } } ] } ] } }
  - gone: { wait: 1h }
output: 1
"#;
    let after = r#"
version: 2
timeout: 2h
compensation: { order: sequential }
steps:
  - b: { activity: b, read_only: true, retry: { maximum_attempts: 7 } }
  - a: { activity: a, input: { x: 2 }, compensate: { activity: ua2, input: { id: 1, more: true } }, start_to_close: 1m }
  - c: { activity: c, no_undo: it cannot be }
  - p: { parallel: { branches: { left: { steps: [ { r: { activity: r, read_only: true } } ] }, right: { steps: [ { l: { activity: l, compensate: ul } } ] } }, join: any } }
  - d: { switch: [ { when: input.b, steps: [ { e: { activity: e, read_only: true } } ] }, { else: { steps: [ { new: { set: { v: 1 } } } ] } } ] }
  - t: { try: { steps: [ { f: { activity: f, read_only: true } } ], catch: [ { type: [x, y], steps: [ { g: { wait: 1s } } ] } ] } }
output: 2
"#;
    let diff = diff(&canonical(before), &canonical(after)).unwrap();
    let words: Vec<_> = diff.changes.iter().map(Change::to_string).collect();
    insta::assert_snapshot!("words", words.join("\n"));
    insta::assert_snapshot!("json", serde_json::to_string_pretty(&diff).unwrap());
}

#[test]
fn a_step_that_is_taken_out_moves_nothing_else() {
    let step = |id: &str| format!("{{ {id}: {{ activity: x, read_only: true }} }}");
    let before = format!("version: 1\nsteps: [ {}, {}, {} ]", step("a"), step("b"), step("c"));
    let after = format!("version: 1\nsteps: [ {}, {}, {} ]", step("a"), step("c"), step("d"));
    assert_eq!(
        words(&before, &after),
        ["d is new: activity x", "b is gone: activity x"]
    );
}

#[test]
fn steps_in_data_are_data() {
    let with = |data: &str| {
        format!("version: 1\nsteps: [ {{ a: {{ activity: x, read_only: true, input: {data} }} }} ]\noutput: {data}")
    };
    assert_eq!(
        words(
            &with("{ steps: 1, all: [ { steps: 1 } ] }"),
            &with("{ steps: 2, all: [ { steps: 2 } ] }")
        ),
        [
            "output.steps from 1 to 2",
            r#"output.all from [{"steps":1}] to [{"steps":2}]"#,
            "a: input.steps from 1 to 2",
            r#"a: input.all from [{"steps":1}] to [{"steps":2}]"#,
        ]
    );
}

#[test]
fn what_starts_runs_and_how_many() {
    let steps = "steps: [ { a: { wait: 1s } } ]\n";
    let none = format!("version: 1\n{steps}");
    let all = format!(
        r#"
version: 2
schedule: {{ cron: ["0 3 * * *", "@weekly"], every: [2h, {{ every: 1h, phase: 5m }}], zone: Europe/Berlin, input: {{ day: 1, steps: 1 }} }}
concurrency: {{ limit: 2, key: input.customer, on_conflict: reject }}
priority: 1
triggers:
  opened: {{ stream: SHOP, subject: "shop.*.opened", id: "${{ event.data.id }}", input: {{ n: "${{ event.data.n }}" }} }}
  paid: {{ stream: SHOP, subject: "shop.*.paid", id: "${{ event.data.id }}", signal: paid }}
{steps}"#
    );
    let other = format!(
        r#"
version: 3
schedule: {{ cron: "0 4 * * *", calendars: [ {{ hour: 5 }} ], overlap: buffer_one, paused: true, input: {{ day: 2, steps: 2 }} }}
concurrency: {{ limit: 3 }}
priority: 2
triggers:
  opened: {{ stream: SHOP, subject: "shop.*.opened", filter: event.data.wanted, id: "${{ event.data.id }}", input: {{ n: 1 }} }}
  settled: {{ stream: BANK, subject: "bank.*", id: "${{ event.data.id }}", signal: paid, start: true }}
{steps}"#
    );
    let told = [(&none, &all), (&all, &other), (&other, &none)].map(|(before, after)| words(before, after).join("\n"));
    insta::assert_snapshot!("parts", told.join("\n\n"));
    let diff = diff(&canonical(&all), &canonical(&other)).unwrap();
    insta::assert_snapshot!("parts_json", serde_json::to_string_pretty(&diff.changes).unwrap());
    assert_eq!(words(&all, &all), [""; 0]);
}

#[test]
fn that_runs_are_tried_again() {
    let with = |retry: &str| format!("version: 1\n{retry}steps: [ {{ a: {{ wait: 1s }} }} ]\n");
    let (none, few, many) = (
        with(""),
        with("retry: { maximum_attempts: 3 }\n"),
        with("retry: { initial_interval: 5s, non_retryable: [broken] }\n"),
    );
    assert_eq!(
        words(&none, &few),
        ["retry is new: at most 3 attempts of a run, 1s to 1m40s apart"]
    );
    assert_eq!(
        words(&many, &none),
        ["retry is gone: any number of attempts of a run, 5s to 8m20s apart"]
    );
    assert_eq!(
        words(&few, &many),
        [
            "retry: initial_interval from 1s to 5s",
            "retry: maximum_interval from 1m40s to 8m20s",
            "retry: maximum_attempts from 3 to unlimited",
            r#"retry: non_retryable is set, to ["broken"]"#,
        ]
    );
}
