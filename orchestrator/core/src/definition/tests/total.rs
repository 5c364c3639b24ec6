//! Whatever is written, reading it ends with a plan that reads back the same, or with findings.

use proptest::prelude::*;

use super::*;

fn assert_total(text: &str) -> Result<(), TestCaseError> {
    match read(text, &files) {
        Ok(checked) => {
            let again = from_canonical(&checked.canonical);
            prop_assert!(again.is_ok(), "{:?}\n{}", again, checked.canonical);
            prop_assert_eq!(format!("{:?}", again.unwrap()), format!("{:?}", checked.plan));
            let _ = diagnostic::render("x", text, &checked.findings);
        }
        Err(findings) => {
            prop_assert!(!findings.is_empty());
            let rendered = diagnostic::render("x", text, &findings);
            prop_assert!(rendered.contains("KN01"));
        }
    }
    Ok(())
}

/// A value as a person might write it into an input.
fn data() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|b| json!(b)),
        any::<i64>().prop_map(|n| json!(n)),
        any::<u64>().prop_map(|n| json!(n)),
        (-1e300..1e300).prop_map(|n: f64| json!(n)),
        "\\PC{0,12}".prop_map(|s| json!(s.replace('{', "("))),
        prop::sample::select(vec![
            "${ input.a }",
            "x ${ input.b | default(1) } $${y}",
            "${ {'a': [1, input.c]} }",
            "${ run.id }",
        ])
        .prop_map(|s| json!(s)),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map("\\PC{1,6}".prop_map(|key| key.replace('{', "(")), inner, 0..4)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

fn a_step() -> impl Strategy<Value = Value> {
    (
        data(),
        prop::option::of(1_u64..10_000_000_000),
        prop::option::of(1_u32..100),
        0..4_u8,
        any::<bool>(),
        prop::option::of(prop::sample::select(vec!["input.a", "${ input.a > 1 }", "true"])),
    )
        .prop_map(|(input, timeout, attempts, undo, go_on, condition)| {
            let mut body = json!({"activity": "do-it", "input": input});
            if let Some(micros) = timeout {
                body["start_to_close"] = json!(duration::format(Span(micros)));
            }
            if let Some(attempts) = attempts {
                body["retry"] = json!({"maximum_attempts": attempts, "backoff_coefficient": 1.5});
            }
            match undo {
                0 => body["compensate"] = json!("undo-it"),
                1 => body["compensate"] = json!({"activity": "undo-it", "input": "${ input }"}),
                2 => body["no_undo"] = json!("because"),
                _ => {}
            }
            if go_on {
                body["on_failure"] = json!("continue");
            }
            if let Some(condition) = condition {
                body["if"] = json!(condition);
            }
            body
        })
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
        assert_total(&text)?;
    }

    #[test]
    fn yaml_like_text_is_read_or_refused(lines in prop::collection::vec((0_usize..6, prop::sample::select(vec![
        "workflow: w", "version: 1", "steps:", "- a:", "- b: { activity: x }", "activity: y", "compensate: z", "if: input.a",
        "input: \"${ steps.a.b }\"", "input:", "retry: { maximum_attempts: 2 }", "queue: q", "start_to_close: 5s", "set: { v: 1 }",
        "output: \"${ vars.v }\"", "defaults:", "&x", "*x", "<<: *x", "? a", "|", ">", "- - -", "{", "}", "]", "'", "\"${\"", "!!binary x",
        "\t", "---", "...", "é: ü", "input_schema: { type: object }", "no_undo: x", "id: input.x", "~",
        "parallel: { branches: { l: { steps: [ { c: { wait: 1s } } ] } } }", "for_each: { in: input.l, steps: *x }", "switch:",
        "- when: input.a", "- else: { steps: [] }", "while: { when: true, max_iterations: 2, steps: [ { d: { complete: } } ] }",
        "try:", "catch:", "finally: { steps: *x }", "scope:", "wait: 1s", "wait_for: { signal: s }", "on_timeout: continue",
        "workflow: { name: c }", "emit: { subject: s }", "fail: { type: t }", "complete:", "continue_as_new: 1", "pivot: true",
    ])), 0..16)) {
        let text: String = lines.iter().map(|(indent, line)| format!("{}{line}\n", "  ".repeat(*indent))).collect();
        assert_total(&text)?;
    }

    /// One byte of a good document changed, removed or doubled.
    #[test]
    fn a_damaged_order_is_read_or_refused(at in any::<prop::sample::Index>(), byte in any::<char>(), how in 0..3_u8) {
        let mut chars: Vec<char> = ORDER.chars().collect();
        let at = at.index(chars.len());
        match how {
            0 => chars[at] = byte,
            1 => { chars.remove(at); }
            _ => chars.insert(at, byte),
        }
        assert_total(&chars.into_iter().collect::<String>())?;
    }

    #[test]
    fn the_canonical_form_gives_the_same_plan(steps in prop::collection::vec(a_step(), 1..5), output in data(), defaults in any::<bool>()) {
        let steps: Vec<Value> = steps.into_iter().enumerate().map(|(n, mut body)| {
            body["queue"] = json!("q");
            json!({format!("s{n}"): body})
        }).collect();
        let mut document = json!({"workflow": "w", "version": 3, "steps": steps, "output": output});
        if defaults {
            document["defaults"] = json!({"start_to_close": "7s", "retry": {"initial_interval": "10ms"}});
        }
        let text = document.to_string();
        let checked = read(&text, &files);
        prop_assert!(checked.is_ok(), "{}", diagnostic::render("x", &text, &checked.unwrap_err()));
        let checked = checked.unwrap();
        let again = from_canonical(&checked.canonical).unwrap();
        prop_assert_eq!(format!("{again:?}"), format!("{:?}", checked.plan));
        prop_assert_eq!(again.hash, checked.hash.clone());
        let reread = read(&checked.canonical, &files).unwrap();
        prop_assert_eq!(reread.hash, checked.hash);
    }
}
