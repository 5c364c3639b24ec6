use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::abstraction::Model;
use super::moves::Move;
use super::search::{Limits, Search, Way, begin, verify, ways};
use super::{Report, Severity, moves};
use crate::definition::plan::Plan;
use crate::definition::{from_canonical, read};

const HEAD: &str =
    "workflow: w\nversion: 1\ndefaults: { queue: q, start_to_close: 5s, retry: { maximum_attempts: 3 } }\n";

fn plan(steps: &str) -> Plan {
    let text = format!("{HEAD}{steps}");
    match read(&text, &|_| Err("no files".to_owned())) {
        Ok(checked) => checked.plan,
        Err(findings) => panic!("{}", crate::definition::diagnostic::render("test", &text, &findings)),
    }
}

fn explore(plan: &Plan) -> Report {
    verify(plan, Limits::default()).unwrap()
}

fn text(report: &Report) -> String {
    let mut out = String::new();
    for finding in &report.findings {
        let _ = writeln!(out, "{:?} {} {}", finding.severity, finding.code, finding.message);
        for step in &finding.way {
            let _ = writeln!(out, "    {step}");
        }
    }
    out
}

fn codes(report: &Report) -> Vec<&'static str> {
    let findings = report
        .findings
        .iter()
        .filter(|finding| finding.severity != Severity::Notice);
    findings.map(|finding| finding.code).collect()
}

const CHARGE: &str = "{ activity: charge, compensate: refund }";

#[test]
fn a_saga_that_undoes_everything_has_no_findings() {
    let report = explore(&plan(&format!("steps: [ {{ a: {CHARGE} }}, {{ b: {CHARGE} }} ]")));
    assert_eq!(text(&report), "");
    assert!(report.coverage.exhaustive);
    let ends: Vec<_> = report.coverage.ends.keys().map(String::as_str).collect();
    assert_eq!(ends, ["cancelled", "compensated", "completed", "failed", "parked"]);
}

#[test]
fn a_missing_undo_is_found_with_the_shortest_way() {
    let report = explore(&plan(&format!(
        "steps: [ {{ a: {{ activity: a }} }}, {{ b: {CHARGE} }} ]"
    )));
    insta::assert_snapshot!("missing_undo", text(&report));
}

/// Registration refuses it; a definition that was stored by a version that did not is explored all the same.
#[test]
fn an_undo_that_reads_its_own_output_is_found_where_the_outcome_is_unknown() {
    let canonical = r#"{"workflow":"w","version":1,"steps":[{"a":{"activity":"a","queue":"q","start_to_close":"5s",
        "compensate":{"activity":"u","input":"${ steps.a.id }","queue":"q","start_to_close":"5s"}}},
        {"b":{"activity":"b","queue":"q","start_to_close":"5s","read_only":true}}]}"#;
    let report = explore(&from_canonical(canonical).unwrap());
    insta::assert_snapshot!("own_output", text(&report));
}

#[test]
fn a_step_that_can_be_undone_after_a_pivot_is_left_behind_by_nothing_that_ends() {
    let canonical = r#"{"workflow":"w","version":1,"steps":[{"p":{"activity":"p","queue":"q","start_to_close":"5s","pivot":true}},
        {"a":{"activity":"a","queue":"q","start_to_close":"5s","compensate":{"activity":"u","queue":"q","start_to_close":"5s"}}}]}"#;
    let report = explore(&from_canonical(canonical).unwrap());
    // It waits for an operator: past the pivot nothing is undone.
    insta::assert_snapshot!("after_pivot", text(&report));
}

#[test]
fn a_loop_without_an_end_is_found() {
    let poll = |when: &str| {
        let look = "{ look: { activity: look, read_only: true } }, { note: { set: { ready: \"${ steps.look }\" } } }";
        plan(&format!(
            "steps: [ {{ a: {CHARGE} }}, {{ poll: {{ while: {{ when: \"{when}\", max_iterations: 1000, steps: [ {look} ] }} }} }} ]"
        ))
    };
    for endless in ["true", "1 < 2"] {
        let report = explore(&poll(endless));
        assert_eq!(codes(&report), ["KN0179"], "{endless}: {}", text(&report));
    }
    let report = explore(&poll("not (vars.ready | default(false))"));
    assert_eq!(text(&report), "");
}

#[test]
fn a_step_that_reads_what_may_be_missing_is_found() {
    let canonical = r#"{"workflow":"w","version":1,"steps":[
        {"a":{"if":"input.x","activity":"a","queue":"q","start_to_close":"5s","read_only":true}},
        {"b":{"activity":"b","input":"${ steps.a.id }","queue":"q","start_to_close":"5s","read_only":true}}]}"#;
    let report = explore(&from_canonical(canonical).unwrap());
    let [finding] = report.findings.as_slice() else {
        panic!("{}", text(&report))
    };
    assert_eq!((finding.code, finding.severity), ("KN0176", Severity::Warning));
    assert_eq!(finding.step.as_deref(), Some("b"));
    assert_eq!(finding.way, ["`input.x` is false"]);
}

/// What registration says of the faults that are found here in definitions that it let pass.
#[test]
fn planted_faults_are_told_before_anything_is_explored() {
    for (steps, code, refused) in [
        (
            "[ { a: { activity: a, compensate: { activity: u, input: \"${ steps.a.id }\" } } } ]",
            "KN0125",
            true,
        ),
        (
            "[ { a: { activity: a } }, { b: { activity: b, compensate: u } } ]",
            "KN0150",
            false,
        ),
        (
            "[ { p: { activity: p, pivot: true } }, { a: { activity: a, compensate: u } } ]",
            "KN0154",
            true,
        ),
        (
            "[ { w: { while: { when: input.x, steps: [ { a: { activity: a, read_only: true } } ] } } } ]",
            "KN0152",
            true,
        ),
    ] {
        let text = format!("{HEAD}steps: {steps}\n");
        let (found, passed) = match read(&text, &|_| Err("no files".to_owned())) {
            Ok(checked) => (checked.findings, true),
            Err(found) => (found, false),
        };
        let codes: Vec<_> = found.iter().map(|finding| finding.code.code).collect();
        assert_eq!((codes, passed), (vec![code], !refused), "{steps}");
    }
}

#[test]
fn what_may_have_been_done_and_was_caught_is_found() {
    let steps = format!(
        "steps: [ {{ t: {{ try: {{ steps: [ {{ a: {CHARGE} }} ], catch: [ {{ steps: [ {{ b: {CHARGE} }} ] }} ] }} }} }} ]"
    );
    insta::assert_snapshot!("maybe_done", text(&explore(&plan(&steps))));
    // A scope undoes it.
    let steps = format!(
        "steps: [ {{ t: {{ scope: {{ steps: [ {{ a: {CHARGE} }} ], otherwise: {{ steps: [ {{ b: {CHARGE} }} ] }} }} }} }} ]"
    );
    assert_eq!(text(&explore(&plan(&steps))), "");
}

#[test]
fn a_signal_that_never_comes_is_found_where_something_is_held() {
    let waits = "{ w: { wait_for: { signal: go } } }";
    let report = explore(&plan(&format!("steps: [ {{ a: {CHARGE} }}, {waits} ]")));
    assert_eq!(codes(&report), ["KN0174"]);
    assert_eq!(
        text(&explore(&plan(&format!("steps: [ {waits}, {{ a: {CHARGE} }} ]")))),
        ""
    );
}

#[test]
fn what_is_decided_by_data_goes_both_ways_and_constants_do_not() {
    let steps = format!(
        r#"
steps:
  - once: {{ if: input.a, activity: a, compensate: u }}
  - again: {{ if: input.a, activity: a, compensate: u }}
  - note: {{ set: {{ online: false }} }}
  - never: {{ if: vars.online, activity: a }}
  - last: {CHARGE}
"#
    );
    let report = explore(&plan(&steps));
    // `never` would be left behind; `again` goes as `once` did, so that there are two ways past both.
    assert_eq!(text(&report), "");
    assert_eq!(report.coverage.ends["completed"], 2, "{:?}", report.coverage);
    assert_eq!(report.coverage.forced, ["input.a", "vars.online"]);
}

#[test]
fn a_loop_that_only_counts_comes_to_its_end() {
    let counting = |count: &str| {
        let text = format!(
            "steps: [ {{ first: {{ set: {{ n: 0 }} }} }}, \
             {{ again: {{ while: {{ when: vars.n < 3, max_iterations: 5, steps: [ {{ inc: {{ set: {{ n: {count} }} }} }} ] }} }} }}, \
             {{ a: {CHARGE} }} ]"
        );
        explore(&plan(&text))
    };
    let report = counting("\"${ vars.n + 1 }\"");
    assert_eq!(text(&report), "");
    assert!(report.coverage.ends.contains_key("completed"), "{:?}", report.coverage);
    // What it sets is a constant that never ends it.
    assert_eq!(codes(&counting("1")), ["KN0179"]);
}

#[test]
fn one_attempt_of_a_run_that_is_tried_again_stands_for_all() {
    let steps = format!(
        "steps: [ {{ a: {CHARGE} }}, {{ more: {{ if: run.attempt > 1, activity: m, compensate: l }} }}, {{ b: {CHARGE} }} ]"
    );
    let once = explore(&plan(&steps));
    let again = explore(&plan(&format!("retry: {{}}\n{steps}")));
    assert_eq!(text(&again), "");
    assert!(again.coverage.exhaustive);
    assert_eq!(again.coverage.ends, once.coverage.ends);
    assert_eq!(again.coverage.forced, ["run.attempt > 1"], "with more and without");
}

const COUPON: &str = "{ coupon: { if: input.code is defined, activity: coupon, read_only: true } }";

/// After a step that may be skipped; `knarr check` has nothing against it.
fn after_coupon(order: &str) -> Report {
    let text = format!("{HEAD}steps: [ {COUPON}, {{ order: {{ {order} }} }}, {{ last: {CHARGE} }} ]");
    let checked = read(&text, &|_| Err("no files".to_owned())).unwrap();
    assert_eq!(checked.findings, [], "{order}");
    explore(&checked.plan)
}

/// As [`after_coupon`], of what `knarr check` need not accept.
fn codes_after_coupon(order: &str) -> Vec<&'static str> {
    let text = format!("{HEAD}steps: [ {COUPON}, {{ order: {{ {order} }} }}, {{ last: {CHARGE} }} ]");
    codes(&explore(&crate::definition::code::unchecked(&text)))
}

#[test]
fn a_condition_that_asks_for_a_step_is_answered_by_the_state() {
    for condition in [
        "steps.coupon is defined",
        "not steps.coupon is not defined",
        "steps.coupon is defined and steps.coupon.valid",
        "input.x is defined and (steps.coupon is defined and input.x > 1)",
        "steps.coupon.discount is defined",
        "(steps.coupon | default(none)) is not none",
    ] {
        let order = format!("if: \"{condition}\", activity: o, input: \"${{ steps.coupon.discount }}\", compensate: u");
        assert_eq!(text(&after_coupon(&order)), "", "{condition}");
    }
    for condition in [
        "steps.coupon is not defined",
        "steps.coupon is defined or input.x",
        "(steps.coupon is defined) if input.x is defined else true",
        "input.x is defined",
        "not (steps.coupon is defined and input.x)",
    ] {
        let order = format!("if: \"{condition}\", activity: o, input: \"${{ steps.coupon.discount }}\", compensate: u");
        assert_eq!(codes_after_coupon(&order), ["KN0176"], "{condition}");
    }
}

#[test]
fn an_undo_is_asked_for_under_the_condition_of_its_step() {
    let order = |condition: &str| {
        format!("if: {condition}, activity: o, compensate: {{ activity: u, input: \"${{ steps.coupon.id }}\" }}")
    };
    for condition in ["steps.coupon is defined", "input.code is defined"] {
        assert_eq!(text(&after_coupon(&order(condition))), "", "{condition}");
    }
    assert_eq!(codes_after_coupon(&order("steps.coupon is not defined")), ["KN0170"]);
}

#[test]
fn conditions_of_one_text_go_the_same_way_where_nothing_that_they_read_can_change() {
    let order = "if: input.code is defined, activity: o, input: \"${ steps.coupon.discount }\", compensate: u";
    let report = after_coupon(order);
    assert_eq!(text(&report), "");
    assert_eq!(report.coverage.forced, ["input.code is defined"]);
    // Both skipped, both done.
    assert_eq!(report.coverage.ends["completed"], 2, "{:?}", report.coverage);
    // What is set in between may turn it.
    let turning = r#"{"workflow":"w","version":1,"steps":[
        {"first":{"set":{"x":"${ input.x }"}}},
        {"a":{"if":"vars.x","activity":"a","queue":"q","start_to_close":"5s","read_only":true}},
        {"second":{"set":{"x":"${ input.y }"}}},
        {"b":{"if":"vars.x","activity":"b","input":"${ steps.a.id }","queue":"q","start_to_close":"5s","read_only":true}}]}"#;
    assert_eq!(codes(&explore(&from_canonical(turning).unwrap())), ["KN0176"]);
    // So may a step that runs in between.
    let turning = r#"{"workflow":"w","version":1,"steps":[
        {"a":{"if":"steps.c is defined or input.x","activity":"a","queue":"q","start_to_close":"5s","read_only":true}},
        {"c":{"activity":"c","queue":"q","start_to_close":"5s","read_only":true}},
        {"b":{"if":"steps.c is defined or input.x","activity":"b","input":"${ steps.a.id }","queue":"q","start_to_close":"5s","read_only":true}}]}"#;
    assert_eq!(codes(&explore(&from_canonical(turning).unwrap())), ["KN0176"]);
    // Lists of one text are of one length.
    let loops = r#"
steps:
  - a: { for_each: { in: input.lines, as: line, steps: [ { x: { activity: a, compensate: u } } ] } }
  - b: { for_each: { in: input.lines, as: line, steps: [ { y: { activity: a, compensate: u } } ] } }
"#;
    let report = explore(&plan(loops));
    assert_eq!(text(&report), "");
    assert_eq!(report.coverage.ends["completed"], 3, "{:?}", report.coverage);
}

#[test]
fn a_guard_within_an_expression_counts_where_it_is_asked_first() {
    for input in [
        "steps.coupon.discount if steps.coupon is defined else 0",
        "0 if steps.coupon is not defined else steps.coupon.discount",
        "steps.coupon is defined and steps.coupon.discount > 1",
        "steps.coupon.discount if (steps.coupon | default(none)) is not none else 0",
        "steps.coupon.discount if steps.coupon.discount is defined else 0",
    ] {
        let order = format!("activity: o, input: \"${{ {input} }}\", compensate: u");
        assert_eq!(text(&after_coupon(&order)), "", "{input}");
    }
    for input in [
        "steps.coupon.discount if steps.coupon is not defined else 0",
        "steps.coupon.discount if input.x is defined else 0",
        "[steps.coupon is defined, steps.coupon.discount]",
        "steps.coupon is defined or steps.coupon.discount > 1",
    ] {
        let order = format!("activity: o, input: \"${{ {input} }}\", compensate: u");
        assert_eq!(codes_after_coupon(&order), ["KN0176"], "{input}");
    }
}

#[test]
fn loops_are_bounded_and_the_lengths_of_lists_chosen() {
    let steps = r#"
steps:
  - lines: { for_each: { in: input.lines, as: line, steps: [ { a: { activity: a, input: "${ line }", compensate: u } } ] } }
  - poll: { while: { when: "vars.x | default(true)", max_iterations: 100, steps: [ { b: { activity: b, compensate: u } }, { s: { set: { x: "${ steps.b }" } } } ] } }
"#;
    let report = explore(&plan(steps));
    assert_eq!(text(&report), "");
    assert!(report.coverage.exhaustive);
    assert_eq!(report.coverage.bound.list_items, 2);
}

#[test]
fn more_states_than_may_be_looked_at_are_explored_by_few_faults() {
    let steps: Vec<_> = (0..10).map(|n| format!("{{ s{n}: {CHARGE} }}")).collect();
    let plan = plan(&format!("steps: [ {} ]", steps.join(", ")));
    let limits = Limits {
        states: 600,
        faults: None,
    };
    let report = verify(&plan, limits).unwrap();
    assert!(report.coverage.exhaustive);
    assert_eq!(report.coverage.bound.faults, Some(1), "{:?}", report.coverage);
    let limits = Limits {
        states: 5,
        faults: None,
    };
    let report = verify(&plan, limits).unwrap();
    assert!(!report.coverage.exhaustive);
}

/// Every kind of step, with everything that its outcomes can lead to.
const EVERYTHING: &str = r#"
compensation: { on_exhausted: halt }
steps:
  - guard:
      try:
        steps: [ { risky: { activity: risky, no_undo: nothing to undo } } ]
        catch: [ { type: late, steps: [ { remember: { set: { late: true } } } ] } ]
        finally: { steps: [ { free: { activity: free, read_only: true } } ] }
  - any:
      parallel:
        branches:
          x: { steps: [ { ax: { activity: a, compensate: u } }, { pause: { wait: 1h } } ] }
          y: { steps: [ { ay: { activity: a, compensate: u } } ] }
        join: any
  - choose: { switch: [ { when: input.a, steps: [ { ship: { activity: a, compensate: u } } ] }, { else: { steps: [ { bad: { fail: { type: no } } } ] } } ] }
  - hold: { scope: { steps: [ { h: { activity: a, compensate: u } } ], otherwise: { steps: [ { o: { activity: a, compensate: u } } ] } } }
  - child: { workflow: { name: other } }
  - ok: { wait_for: { signal: ok, timeout: 1h }, on_timeout: { steps: [ { ask: { activity: a, compensate: u } } ] } }
  - tell: { emit: { subject: a.b } }
  - pay: { activity: pay, pivot: true }
  - book: { activity: book }
  - done: { complete: "${ steps.pay }" }
"#;

#[test]
fn every_kind_of_step_is_explored() {
    let report = explore(&plan(EVERYTHING));
    insta::assert_snapshot!("everything", format!("{}{:#?}", text(&report), report.coverage));
}

/// What there is to find, and ways to walk at random.
const FAULTY: &str = r#"
steps:
  - first: { activity: a }
  - lines: { for_each: { in: input.lines, steps: [ { each: { try: { steps: [ { put: { activity: a, compensate: u } } ], catch: [ { steps: [ { aside: { activity: a } } ] } ] } } } ] } }
  - p:
      parallel:
        branches:
          x: { steps: [ { ax: { activity: a, compensate: u } }, { bx: { activity: a } } ] }
          y: { steps: [ { ay: { activity: a, compensate: u } } ] }
  - go: { wait_for: { signal: go } }
  - last: { activity: a, compensate: u }
"#;

/// Blocks whose parts are undone while the run goes on.
const BLOCKS: &str = r#"
steps:
  - any:
      parallel:
        branches:
          x: { steps: [ { ax: { activity: a, compensate: u } }, { pause: { wait: 1h } } ] }
          y: { steps: [ { ay: { activity: a, compensate: u } } ] }
        join: any
  - hold:
      scope:
        steps: [ { t: { try: { steps: [ { h: { activity: a, compensate: u } } ], finally: { steps: [ { f: { activity: a, read_only: true } } ] } } } } ]
        otherwise: { steps: [ { child: { workflow: { name: other } } } ] }
  - pay: { activity: pay, pivot: true }
  - book: { activity: book }
"#;

/// Conditions on what is there, on what cannot change, and on what can.
const CONDITIONS: &str = r#"
steps:
  - first: { if: input.code is defined, activity: a, compensate: u }
  - second: { if: steps.first is defined and steps.first.ok, activity: a }
  - note: { set: { seen: "${ steps.second.id if steps.second is defined else 0 }" } }
  - third: { switch: [ { when: input.code is defined, steps: [ { y: { activity: a, compensate: u } } ] }, { when: vars.seen, steps: [ { n: { activity: a } } ] } ] }
  - rest: { while: { when: vars.seen > 3 or steps.second is not defined, max_iterations: 2, steps: [ { r: { activity: a, compensate: u } } ] } }
  - last: { if: steps.second is defined, activity: a, compensate: { activity: u, input: "${ steps.second.id }" } }
"#;

struct Walker {
    seed: u64,
}

impl Walker {
    fn pick(&mut self, count: usize) -> usize {
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.seed >> 33).unwrap() % count
    }

    /// One run to its end, by these moves.
    fn walk(&mut self, plan: &Plan, model: &mut Model, reduced: bool, mut see: impl FnMut(&Way, &[Move])) {
        let mut first = ways(model, &[], begin);
        let mut way = first.swap_remove(self.pick(first.len()));
        for _ in 0..100 {
            let moves = moves::all(plan, &way.state, reduced);
            see(&way, &moves);
            if moves.is_empty() {
                break;
            }
            let fixed: Vec<_> = way
                .decided
                .iter()
                .copied()
                .filter(|it| model.choices.get(it.0).stable)
                .collect();
            let it = &moves[self.pick(moves.len())];
            let mut found = ways(model, &fixed, |plan| {
                let mut state = way.state.clone();
                let transition = it.apply(plan, &mut state)?;
                Ok(transition.map(|transition| (state, transition)))
            });
            if !found.is_empty() {
                way = found.swap_remove(self.pick(found.len()));
            }
        }
    }
}

/// Two states that are taken for one must have the same future: whatever a run does, the search has seen it.
#[test]
fn no_way_leads_to_a_state_that_the_search_has_not_seen() {
    for steps in [BLOCKS, FAULTY, CONDITIONS] {
        let plan = plan(steps);
        let mut model = Model::of(&plan).unwrap();
        let limits = Limits {
            states: 100_000,
            faults: None,
        };
        let search = Search::run(&plan, &mut model, limits);
        let known: BTreeSet<u128> = search.prints().collect();
        let mut walker = Walker { seed: 7 };
        let mut ended = BTreeSet::new();
        for _ in 0..300 {
            walker.walk(&plan, &mut model, true, |way, moves| {
                assert!(known.contains(&way.state.fingerprint()), "{:?}", way.state);
                if moves.is_empty() {
                    ended.insert(way.state.status());
                }
            });
        }
        assert!(ended.len() >= 4, "{ended:?}");
    }
}

/// What is left out of the search hides nothing: a walk by every move finds what the search found, and nothing else.
#[test]
fn what_is_left_out_hides_no_finding() {
    for steps in [BLOCKS, FAULTY, CONDITIONS] {
        let plan = plan(steps);
        let mut model = Model::of(&plan).unwrap();
        let limits = Limits {
            states: 100_000,
            faults: None,
        };
        let search = Search::run(&plan, &mut model, limits);
        let found: BTreeSet<_> = search.seen().cloned().collect();
        let mut walker = Walker { seed: 11 };
        let mut walked = BTreeSet::new();
        for _ in 0..300 {
            walker.walk(&plan, &mut model, false, |way, moves| {
                walked.extend(super::ends::of_state(&plan, &way.state, moves));
            });
        }
        let missed: Vec<_> = walked.difference(&found).collect();
        assert!(missed.is_empty(), "{missed:#?}");
        assert!(!walked.is_empty());
    }
}

#[test]
fn a_signal_that_is_handled_comes_at_any_moment() {
    let handled = |steps: &str| {
        explore(&plan(&format!(
            "steps: [ {{ a: {CHARGE} }}, {{ b: {CHARGE} }} ]\nsignals: {{ go: {{ steps: [ {steps} ] }} }}"
        )))
    };
    let report = handled("{ c: { activity: c, compensate: undo-c } }");
    assert_eq!(text(&report), "");
    let ends: Vec<_> = report.coverage.ends.keys().map(String::as_str).collect();
    assert_eq!(ends, ["cancelled", "compensated", "completed", "failed", "parked"]);
    let report = handled("{ c: { activity: c } }");
    assert!(codes(&report).contains(&"KN0171"), "{}", text(&report));
    assert!(text(&report).contains("the signal `go` comes"), "{}", text(&report));
}

#[test]
fn a_handler_beside_a_pivot_ends_somewhere() {
    let report = explore(&plan(
        "steps: [ { a: { activity: a, compensate: u } }, { p: { activity: p, pivot: true, compensate: v } } ]\n\
         signals: { go: { steps: [ { c: { activity: c, read_only: true } } ] } }",
    ));
    assert_eq!(codes(&report), [""; 0], "{}", text(&report));
}

#[test]
fn an_update_that_is_done_comes_at_any_moment() {
    let report = explore(&plan(&format!(
        "steps: [ {{ a: {CHARGE} }} ]\n\
         updates: {{ go: {{ validate: update.n > 1, steps: [ {{ c: {{ activity: c }} }} ], output: \"${{ steps.c.id }}\" }} }}"
    )));
    assert!(codes(&report).contains(&"KN0171"), "{}", text(&report));
    assert!(text(&report).contains("the update `go` comes"), "{}", text(&report));
}
