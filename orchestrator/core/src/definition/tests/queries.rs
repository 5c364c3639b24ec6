//! `queries` of a definition, and expressions that are asked ad hoc.

use super::*;

const STEPS: &str = "  - pay: { activity: pay, read_only: true }
  - lines: { for_each: { in: input.lines, steps: [ { reserve: { activity: reserve, read_only: true } } ], collect: steps.reserve } }
  - race:
      parallel:
        join: any
        branches: { fast: { steps: [ { one: { activity: one, read_only: true } } ] }, slow: { steps: [ { two: { activity: two, read_only: true } } ] } }
  - note: { if: input.note, set: { noted: true } }
";

fn definition(said: &str) -> String {
    with_steps(STEPS) + "queries:\n" + said
}

#[test]
fn they_read_any_step_and_how_the_run_stands() {
    let said = "  is-paid: steps.pay is defined
  paid: ${ steps.pay.amount }
  all: { who: \"${ run.workflow_id }\", how: \"${ status }\", why: \"${ error.message | default('') }\", lines: \"${ steps.lines }\" }
  winner: steps.race.branches.fast.x
  noted: vars.noted
  inner: steps.one
";
    let checked = accept(&definition(said));
    let names: Vec<_> = checked.plan.queries.keys().map(|name| &**name).collect();
    assert_eq!(names, ["all", "inner", "is-paid", "noted", "paid", "winner"]);
    assert_eq!(
        checked.findings,
        accept(&with_steps(STEPS)).findings,
        "nothing is said of what may not be there yet"
    );
    assert!(checked.canonical.contains(r#""is-paid":"${ steps.pay is defined }""#));
    assert!(!accept(&with_steps(STEPS)).canonical.contains("queries"));
}

#[test]
fn names_that_are_wrong_are_findings() {
    for (said, finding) in [
        ("  q: steps.pya.x\n", "KN0122 there is no step `pya` | steps.pya.x"),
        ("  q: vars.notd\n", "KN0121 no step sets `vars.notd` | vars.notd"),
        ("  q: signal.x\n", "KN0121 there is no `signal` here | signal.x"),
        (
            "  q: steps.note\n",
            "KN0126 the step `note` sets variables and has no output | steps.note",
        ),
        (
            "  q: steps.reserve\n",
            "KN0133 the step `reserve` runs once for every item of `lines`; outside there is only the list | steps.reserve",
        ),
        ("  q.r: input\n", "KN0109 `q.r` cannot be the name of a query | q.r"),
        ("  q: input\n  q: input.a\n", "KN0108"),
        ("  q: steps.pay.\n", "KN0120"),
        (
            "  - input\n",
            "KN0103 `queries` must be a mapping of names to expressions, not a list",
        ),
    ] {
        let found = findings(&definition(said));
        assert!(found.iter().any(|one| one.starts_with(finding)), "{said}: {found:?}");
    }
}

#[test]
fn what_is_asked_ad_hoc_is_held_against_the_definition() {
    let canonical = accept(&with_steps(STEPS)).canonical;
    for text in [
        "steps.pay.x",
        "${ steps.pay.x }",
        "{'a': vars.noted | default(1), 'b': status}",
        " input ",
    ] {
        assert!(read_query(&canonical, text).is_ok(), "{text}");
    }
    for (text, code, help) in [
        ("steps.pya", "KN0122", "did you mean `pay`?"),
        ("nothing", "KN0121", "the names here are"),
        ("a b", "KN0120", ""),
        ("${ input } and more", "KN0120", ""),
        ("", "KN0120", ""),
    ] {
        let found = read_query(&canonical, text).unwrap_err();
        assert_eq!(found[0].code.code, code, "{text}: {found:?}");
        assert!(found[0].help.starts_with(help), "{text}: {found:?}");
    }
    let found = read_query("[]", "input").unwrap_err();
    assert!(found[0].message.contains("cannot be read"), "{found:?}");
}
