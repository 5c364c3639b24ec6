//! What the check of a definition lets pass never fails on the core for want of what it reads.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::dsl::*;
use crate::definition::tests::soundness::{definition, readers_told, some_steps};
use crate::definition::{self, diagnostic};
use crate::run::Event;
use crate::run::failure::error_type;
use crate::run::input::Input;

/// Drives a run to its end, or as far as the choices go.
fn drive(run: &mut Run, choices: &[bool]) {
    for choice in choices {
        if run.state.is_closed() {
            return;
        }
        let task = run.state.open_tasks().map(|view| view.open.task).next();
        if let Some(task) = task {
            let outcome = if *choice { done(json!({"x": 1})) } else { failed("t") };
            run.take(Input::TaskEnded { task, outcome });
        } else if *choice || run.state.wake_at().is_none() {
            run.signal("s", json!({"x": 1}));
        } else {
            run.wake_next();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_step_misses_what_the_check_let_it_read(
        steps in some_steps(),
        runs in prop::collection::vec((prop::collection::vec(any::<bool>(), 60), any::<[bool; 3]>(), 0..3_usize), 6),
    ) {
        let mut document = definition(steps);
        fail_only_if(&mut document);
        let checked = loop {
            let text = serde_json::to_string_pretty(&document).unwrap();
            match definition::read(&text, &|_| Err(String::new())) {
                Ok(checked) => break checked,
                Err(found) => {
                    let told = readers_told(&text, &found);
                    prop_assert!(!told.is_empty(), "{}", diagnostic::render("x", &text, &found));
                    for id in told {
                        silence(&mut document, &id);
                    }
                }
            }
        };
        for (choices, [a, b, w], items) in &runs {
            let plan = definition::from_canonical(&checked.canonical).unwrap();
            let input = json!({"a": a, "b": b, "w": w, "l": vec![1; *items]});
            let mut run = Run::started(plan, begin(input)).unwrap();
            drive(&mut run, choices);
            for event in run.events() {
                if let Event::StepFailed { step, error, .. } = event {
                    prop_assert!(
                        *error.error_type != *error_type::EXPRESSION,
                        "{step}: {}\n{}",
                        error.message,
                        serde_json::to_string_pretty(&document).unwrap()
                    );
                }
            }
        }
    }
}

/// Steps after one that always fails are never reached, which is an error.
fn fail_only_if(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if fields.contains_key("fail") {
                fields.insert("if".to_owned(), json!("input.b"));
            }
            fields.values_mut().for_each(fail_only_if);
        }
        Value::Array(items) => items.iter_mut().for_each(fail_only_if),
        _ => {}
    }
}

/// Makes a step read nothing.
fn silence(value: &mut Value, id: &str) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match (key == id, value.get("set").is_some()) {
                    (true, true) => value["set"] = json!({"out": "nothing"}),
                    _ => silence(value, id),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| silence(item, id)),
        _ => {}
    }
}

#[test]
fn a_step_is_told_from_a_branch_of_its_name() {
    let text = r#"
workflow: w
version: 1
defaults: { queue: main, start_to_close: 5s, retry: { maximum_attempts: 1 } }
steps:
  - pay:
      parallel:
        branches:
          card: { steps: [ { card: { activity: x, read_only: true } } ] }
output: "${ steps.card.id }"
"#;
    let checked = definition::read(text, &|_| Err(String::new())).unwrap();
    let mut run = Run::of(checked.plan);
    run.complete("do pay.card.card");
    assert_eq!(run.status(), crate::run::Status::Completed);
    assert!(
        format!("{:?}", run.last_events()).contains("card-1"),
        "{:?}",
        run.last_events()
    );
}
