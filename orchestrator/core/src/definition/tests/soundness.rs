//! What the check lets pass is there in every run: random trees of steps that read each other are run by a small model of
//! the language, with every failure and every choice drawn, and no read may miss that had no finding.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// A list of steps without ids, and reads without the id of what they read.
pub(crate) fn some_steps() -> impl Strategy<Value = Value> {
    let condition = prop::option::of(prop::sample::select(vec!["input.a", "input.b"]));
    let leaf =
        (0..6_u8, any::<prop::sample::Index>(), 0..3_u8, condition).prop_map(|(kind, target, name, condition)| {
            let mut body = match kind {
                0 => json!({"activity": "x", "read_only": true}),
                1 => json!({"activity": "x", "read_only": true, "on_failure": "continue"}),
                2 => json!({"set": {format!("v{name}"): "1"}}),
                3 => json!({"set": {"out": format!("${{ vars.v{name} }}")}}),
                4 => json!({"set": {"out": {"target": target.index(1000)}}}),
                _ => json!({"fail": {"type": "t"}}),
            };
            if let Some(condition) = condition {
                body["if"] = json!(condition);
            }
            body
        });
    let body = leaf.prop_recursive(4, 24, 4, |inner| {
        let steps = prop::collection::vec(inner, 1..4).prop_map(Value::Array);
        let condition = prop::option::of(Just("input.a"));
        ([steps.clone(), steps.clone(), steps], 0..11_u8, condition).prop_map(|([a, b, c], kind, condition)| {
            let branches = json!({"l": {"steps": a}, "r": {"steps": b}});
            let mut body = match kind {
                0 => json!({"parallel": {"branches": branches}}),
                1 => json!({"parallel": {"branches": branches, "join": "any"}}),
                2 => json!({"for_each": {"in": "input.l", "steps": a}}),
                3 => json!({"switch": [{"when": "input.a", "steps": a}, {"else": {"steps": b}}]}),
                4 => json!({"switch": [{"when": "input.a", "steps": a}, {"when": "input.b", "steps": b}]}),
                5 => json!({"while": {"when": "input.w", "max_iterations": 3, "steps": a}}),
                6 => json!({"try": {"steps": a, "catch": [{"type": "t", "steps": b}], "finally": {"steps": c}}}),
                7 => json!({"try": {"steps": a, "catch": [{"type": "u", "steps": b}, {"steps": c}]}}),
                8 => json!({"scope": {"steps": a, "otherwise": {"steps": b}}}),
                9 => json!({"scope": {"steps": a}}),
                _ => json!({"wait_for": {"signal": "s", "timeout": "1h"}, "on_timeout": {"steps": a}}),
            };
            if let Some(condition) = condition {
                body["if"] = json!(condition);
            }
            body
        })
    });
    prop::collection::vec(body, 1..5).prop_map(Value::Array)
}

fn count(value: &Value) -> usize {
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| match (key.as_str(), value) {
                ("steps", Value::Array(steps)) => steps.len() + steps.iter().map(count).sum::<usize>(),
                _ => count(value),
            })
            .sum(),
        Value::Array(items) => items.iter().map(count).sum(),
        _ => 0,
    }
}

/// Gives every step an id, every loop's item a name, and every read a step.
fn named(value: Value, steps: usize, next: &mut usize) -> Value {
    match value {
        Value::Object(fields) => {
            if let Some(target) = fields.get("target") {
                let target = target.as_u64().unwrap() as usize % steps;
                return json!(format!("${{ steps.s{} }}", target + 1));
            }
            let fields = fields.into_iter().map(|(key, value)| {
                let value = match (key.as_str(), value) {
                    ("steps", Value::Array(list)) => list
                        .into_iter()
                        .map(|step| {
                            *next += 1;
                            let id = format!("s{next}");
                            json!({ id: named(step, steps, next) })
                        })
                        .collect(),
                    ("for_each", mut value) => {
                        *next += 1;
                        value["as"] = json!(format!("i{next}"));
                        *next -= 1;
                        named(value, steps, next)
                    }
                    (_, value) => named(value, steps, next),
                };
                (key, value)
            });
            fields.collect()
        }
        Value::Array(items) => items.into_iter().map(|item| named(item, steps, next)).collect(),
        other => other,
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Passed,
    Failed,
}

/// What can be seen at one moment of a run.
#[derive(Clone, Default)]
struct Seen {
    steps: BTreeSet<String>,
    vars: BTreeSet<String>,
}

struct Run<'t> {
    choices: std::slice::Iter<'t, bool>,
    input: BTreeMap<&'static str, bool>,
    /// By the id of the step that reads.
    missed: BTreeSet<String>,
}

impl Run<'_> {
    fn choose(&mut self) -> bool {
        self.choices.next().copied().unwrap_or(true)
    }

    fn steps(&mut self, list: &Value, seen: &mut Seen) -> End {
        for step in list.as_array().unwrap() {
            let (id, body) = step.as_object().unwrap().iter().next().unwrap();
            if body.get("if").is_some_and(|condition| !self.is_true(condition)) {
                continue;
            }
            if self.step(id, body, seen) == End::Failed {
                return End::Failed;
            }
        }
        End::Passed
    }

    fn is_true(&self, condition: &Value) -> bool {
        self.input[condition.as_str().unwrap()]
    }

    fn step(&mut self, id: &str, body: &Value, seen: &mut Seen) -> End {
        let fields = body.as_object().unwrap();
        let kind = fields
            .keys()
            .find(|key| !matches!(key.as_str(), "if" | "on_failure" | "read_only" | "on_timeout"))
            .unwrap();
        let of = &body[kind.as_str()];
        match kind.as_str() {
            "activity" => {
                if self.choose() {
                    seen.steps.insert(id.to_owned());
                } else if body.get("on_failure").is_none() {
                    return End::Failed;
                }
                End::Passed
            }
            "set" => self.set(id, of, seen),
            "fail" => End::Failed,
            "parallel" => self.parallel(id, of, seen),
            "for_each" => self.for_each(id, of, seen),
            "switch" => self.switch(of, seen),
            "while" => self.repeat(of, seen),
            "try" => self.guard(of, seen),
            "scope" => self.scope(of, seen),
            "wait_for" => {
                if self.choose() {
                    seen.steps.insert(id.to_owned());
                    return End::Passed;
                }
                let list = &body["on_timeout"]["steps"];
                let end = self.steps(list, seen);
                let last = list.as_array().unwrap().last().unwrap().as_object().unwrap();
                if last.keys().next().is_some_and(|last| seen.steps.contains(last)) {
                    seen.steps.insert(id.to_owned());
                }
                end
            }
            other => panic!("{other}"),
        }
    }

    fn set(&mut self, id: &str, of: &Value, seen: &mut Seen) -> End {
        for (name, value) in of.as_object().unwrap() {
            let text = value.as_str().unwrap();
            let there = if let Some(step) = text.strip_prefix("${ steps.") {
                seen.steps.contains(step.trim_end_matches(" }"))
            } else if let Some(var) = text.strip_prefix("${ vars.") {
                seen.vars.contains(var.trim_end_matches(" }"))
            } else {
                true
            };
            if !there {
                self.missed.insert(id.to_owned());
                return End::Failed;
            }
            seen.vars.insert(name.clone());
        }
        End::Passed
    }

    fn parallel(&mut self, id: &str, of: &Value, seen: &mut Seen) -> End {
        let any = of.get("join").is_some();
        let before = seen.clone();
        let mut passed = 0;
        let mut failed = 0;
        for branch in of["branches"].as_object().unwrap().values() {
            let mut list = branch["steps"].clone();
            // A branch that is not needed is cancelled somewhere.
            if any && passed > 0 && self.choose() {
                list.as_array_mut().unwrap().pop();
            }
            let mut inside = before.clone();
            match self.steps(&list, &mut inside) {
                End::Passed => passed += 1,
                End::Failed => failed += 1,
            }
            seen.steps.extend(inside.steps);
            seen.vars.extend(inside.vars);
        }
        seen.steps.insert(id.to_owned());
        if failed > 0 && !any || passed == 0 {
            End::Failed
        } else {
            End::Passed
        }
    }

    fn for_each(&mut self, id: &str, of: &Value, seen: &mut Seen) -> End {
        while self.choose() {
            let mut inside = seen.clone();
            if self.steps(&of["steps"], &mut inside) == End::Failed {
                seen.vars.extend(inside.vars);
                return End::Failed;
            }
            seen.vars.extend(inside.vars);
            if !self.choose() {
                break;
            }
        }
        seen.steps.insert(id.to_owned());
        End::Passed
    }

    fn switch(&mut self, of: &Value, seen: &mut Seen) -> End {
        for case in of.as_array().unwrap() {
            if let Some(body) = case.get("else") {
                return self.steps(&body["steps"], seen);
            }
            if self.is_true(&case["when"]) {
                return self.steps(&case["steps"], seen);
            }
        }
        End::Passed
    }

    fn repeat(&mut self, of: &Value, seen: &mut Seen) -> End {
        for _ in 0..2 {
            if self.choose() {
                return End::Passed;
            }
            // Whether an iteration sees the one before is left open.
            if self.choose() {
                forget(&of["steps"], seen);
            }
            if self.steps(&of["steps"], seen) == End::Failed {
                return End::Failed;
            }
        }
        End::Passed
    }

    fn guard(&mut self, of: &Value, seen: &mut Seen) -> End {
        let mut end = self.steps(&of["steps"], seen);
        if end == End::Failed {
            for catch in of["catch"].as_array().unwrap() {
                if catch.get("type").is_none() || self.choose() {
                    end = self.steps(&catch["steps"], seen);
                    break;
                }
            }
        }
        if let Some(finally) = of.get("finally")
            && self.steps(&finally["steps"], seen) == End::Failed
        {
            end = End::Failed;
        }
        end
    }

    fn scope(&mut self, of: &Value, seen: &mut Seen) -> End {
        let end = self.steps(&of["steps"], seen);
        match of.get("otherwise").filter(|_| end == End::Failed) {
            Some(otherwise) => {
                forget(&of["steps"], seen);
                self.steps(&otherwise["steps"], seen)
            }
            None => end,
        }
    }
}

/// A definition of the steps, which read each other.
pub(crate) fn definition(steps: Value) -> Value {
    let document = json!({
        "workflow": "w", "version": 1, "steps": steps,
        "defaults": {"queue": "q", "start_to_close": "1s", "retry": {"maximum_attempts": 2}},
    });
    let steps = count(&document);
    named(document, steps, &mut 0)
}

/// The steps that are told not to read what they read.
pub(crate) fn readers_told(text: &str, found: &[diagnostic::Diagnostic]) -> BTreeSet<String> {
    let codes = [
        code::UNKNOWN_NAME,
        code::UNKNOWN_STEP,
        code::LATER_STEP,
        code::SKIPPED_STEP,
        code::NO_OUTPUT,
        code::BESIDE,
        code::IN_LOOP,
    ];
    let told = found.iter().filter(|finding| codes.contains(&finding.code));
    told.map(|finding| reader(text, finding.span.start)).collect()
}

/// The id of the step whose `set` a place stands in.
fn reader(text: &str, place: usize) -> String {
    let lines: Vec<&str> = text[..place].lines().collect();
    let set = lines.iter().rposition(|line| line.trim() == "\"set\": {").unwrap();
    let is_id =
        |line: &&&str| line.trim().starts_with("\"s") && line.trim()[2..].starts_with(|c: char| c.is_ascii_digit());
    let line = lines[..set].iter().rev().find(is_id).unwrap();
    line.trim().trim_matches(|c| "\": {".contains(c)).to_owned()
}

/// The outputs of a body that was undone, or runs again.
fn forget(list: &Value, seen: &mut Seen) {
    let text = list.to_string();
    seen.steps.retain(|id| !text.contains(&format!("\"{id}\":")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_has_no_finding_is_there(
        steps in some_steps(),
        runs in prop::collection::vec((prop::collection::vec(any::<bool>(), 40), any::<[bool; 3]>()), 12),
    ) {
        let document = definition(steps);
        // Spread over lines, so that a finding's place tells the step that reads.
        let text = serde_json::to_string_pretty(&document).unwrap();
        let found = match read(&text, &files) {
            Ok(checked) => checked.findings,
            Err(findings) => findings,
        };
        let told = readers_told(&text, &found);
        for (choices, [a, b, w]) in &runs {
            let mut run = Run {
                choices: choices.iter(),
                input: BTreeMap::from([("input.a", *a), ("input.b", *b), ("input.w", *w)]),
                missed: BTreeSet::new(),
            };
            let _ = run.steps(&document["steps"], &mut Seen::default());
            let untold: Vec<_> = run.missed.difference(&told).collect();
            prop_assert!(untold.is_empty(), "{untold:?} read what is not there\n{text}\n{}", diagnostic::render("x", &text, &found));
        }
    }
}
