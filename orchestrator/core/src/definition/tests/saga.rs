//! What a saga leaves behind, over the tree, and the rules around a pivot.

use super::*;

fn of(steps: &str) -> Vec<String> {
    findings(&with_steps(steps))
}

const BARE: &str = "{ a: { activity: x } }";
const BREAKS: &str = "{ b: { activity: y, read_only: true } }";

#[test]
fn what_a_later_failure_leaves_behind() {
    let later = "KN0150 what `a` did stays when a later step (`b`, say) fails | a";
    for (steps, wanted) in [
        (
            format!("  - s: {{ scope: {{ steps: [ {BARE}, {BREAKS} ] }} }}\n"),
            Some(later),
        ),
        (
            format!("  - s: {{ scope: {{ steps: [ {BARE} ] }} }}\n  - {BREAKS}\n"),
            Some(later),
        ),
        (
            format!(
                "  - s: {{ parallel: {{ branches: {{ l: {{ steps: [ {BARE} ] }}, r: {{ steps: [ {BREAKS} ] }} }} }} }}\n"
            ),
            Some("KN0150 what `a` did stays when a step beside it (`b`, say) fails | a"),
        ),
        (
            format!(
                "  - s: {{ parallel: {{ branches: {{ l: {{ steps: [ {BARE} ] }}, r: {{ steps: [ {BREAKS} ] }} }}, join: any }} }}\n"
            ),
            Some("KN0150 what `a` did stays when another branch of `s` wins | a"),
        ),
        (
            format!(
                "  - s: {{ parallel: {{ branches: {{ l: {{ steps: [ {BARE} ] }}, r: {{ steps: [ {BREAKS} ] }} }}, join: any, losers: keep }} }}\n"
            ),
            None,
        ),
        (
            format!("  - s: {{ for_each: {{ in: input.l, steps: [ {BARE} ] }} }}\n"),
            Some("KN0150 what `a` did stays when another iteration fails (at `a`, say) | a"),
        ),
        (
            format!("  - s: {{ while: {{ when: input.l, max_iterations: 2, steps: [ {BARE} ] }} }}\n"),
            Some("KN0150 what `a` did stays when another iteration fails (at `s`, say) | a"),
        ),
        // What is caught undoes nothing.
        (
            format!(
                "  - s: {{ try: {{ steps: [ {BARE}, {BREAKS} ], catch: [ {{ steps: [ {{ w: {{ wait: 1s }} }} ] }} ] }} }}\n"
            ),
            None,
        ),
        (
            format!(
                "  - s: {{ try: {{ steps: [ {BARE}, {BREAKS} ], catch: [ {{ type: t, steps: [ {{ w: {{ wait: 1s }} }} ] }} ] }} }}\n"
            ),
            Some(later),
        ),
        (
            format!(
                "  - s: {{ try: {{ steps: [ {BARE} ], catch: [ {{ steps: [ {{ b: {{ fail: {{ type: t }} }} }} ] }} ] }} }}\n"
            ),
            Some(later),
        ),
        (
            format!(
                "  - {BARE}\n  - s: {{ scope: {{ steps: [ {BREAKS} ], otherwise: {{ steps: [ {{ w: {{ wait: 1s }} }} ] }} }} }}\n"
            ),
            None,
        ),
        (
            format!("  - {BARE}\n  - b: {{ wait_for: {{ signal: s, timeout: 1h }} }}\n"),
            Some(later),
        ),
        (
            format!("  - {BARE}\n  - b: {{ workflow: {{ name: c }} }}\n"),
            Some(later),
        ),
        (
            format!("  - {BARE}\n  - b: {{ workflow: {{ name: c, detached: true }} }}\n"),
            None,
        ),
        (
            format!("  - p: {{ activity: p, pivot: true }}\n  - {BARE}\n  - {BREAKS}\n"),
            None,
        ),
    ] {
        assert_eq!(of(&steps), wanted.into_iter().collect::<Vec<_>>(), "{steps}");
    }
}

#[test]
fn what_never_compensates_in_a_tree() {
    let endless = "retry: { maximum_attempts: unlimited }";
    let never =
        |id: &str| format!("KN0151 `{id}` is retried without limit: the saga may never get to compensate | {id}");
    for (steps, wanted) in [
        (
            format!(
                "  - s: {{ parallel: {{ branches: {{ l: {{ steps: [ {{ a: {{ activity: x, read_only: true, {endless} }} }} ] }}, r: {{ steps: [ {{ b: {{ activity: y, compensate: z }} }} ] }} }} }} }}\n"
            ),
            Some(never("a")),
        ),
        (
            format!(
                "  - s: {{ scope: {{ steps: [ {{ a: {{ activity: x, read_only: true, {endless} }} }} ] }} }}\n  - b: {{ activity: y, compensate: z }}\n"
            ),
            None,
        ),
        (
            format!(
                "  - b: {{ activity: y, compensate: z }}\n  - p: {{ activity: p, pivot: true, {endless} }}\n  - a: {{ activity: x, no_undo: n, {endless} }}\n"
            ),
            None,
        ),
    ] {
        assert_eq!(of(&steps), wanted.into_iter().collect::<Vec<_>>(), "{steps}");
    }
}

#[test]
fn around_a_pivot() {
    const PIVOT: &str = "{ p: { activity: p, pivot: true } }";
    const UNDONE: &str = "{ a: { activity: x, compensate: y } }";
    for (steps, wanted) in [
        (format!("  - {UNDONE}\n  - {PIVOT}\n"), vec![]),
        (
            format!("  - {PIVOT}\n  - {UNDONE}\n"),
            vec!["KN0154 `a` comes after the pivot `p`, and then its undo never runs | a"],
        ),
        (
            format!(
                "  - s: {{ if: input.x, scope: {{ steps: [ {PIVOT} ] }} }}\n  - t: {{ scope: {{ steps: [ {UNDONE} ] }} }}\n"
            ),
            vec!["KN0154 `a` may come after the pivot `p`, and then its undo never runs | a"],
        ),
        (
            format!(
                "  - s: {{ switch: [ {{ when: input.x, steps: [ {PIVOT} ] }}, {{ else: {{ steps: [ {UNDONE} ] }} }} ] }}\n"
            ),
            vec![],
        ),
        (
            format!(
                "  - s: {{ parallel: {{ branches: {{ l: {{ steps: [ {PIVOT} ] }}, r: {{ steps: [ {UNDONE} ] }} }} }} }}\n"
            ),
            vec!["KN0154 `a` runs beside the pivot `p`, and after it its undo never runs | a"],
        ),
        // All of them at once.
        (
            format!(
                "  - s: {{ parallel: {{ branches: {{ l: {{ steps: [ {PIVOT} ] }}, r: {{ steps: [ {UNDONE}, {{ c: {{ activity: x, compensate: y }} }} ] }} }} }} }}\n"
            ),
            vec![
                "KN0154 `a` runs beside the pivot `p`, and after it its undo never runs | a",
                "KN0154 `c` runs beside the pivot `p`, and after it its undo never runs | c",
            ],
        ),
        (
            format!("  - s: {{ for_each: {{ in: input.l, steps: [ {PIVOT} ] }} }}\n"),
            vec!["KN0155 the pivot `p` stands in a loop, and may be passed more than once | p"],
        ),
        (
            format!("  - {PIVOT}\n  - q: {{ activity: q, pivot: true }}\n"),
            vec!["KN0155 the pivot `q` comes after the pivot `p` | q"],
        ),
        (
            format!(
                "  - s: {{ switch: [ {{ when: input.x, steps: [ {PIVOT} ] }}, {{ else: {{ steps: [ {{ q: {{ activity: q, pivot: true }} }} ] }} }} ] }}\n"
            ),
            vec![],
        ),
        (
            format!(
                "  - s: {{ parallel: {{ branches: {{ l: {{ steps: [ {PIVOT} ] }}, r: {{ steps: [ {{ q: {{ activity: q, pivot: true }} }} ] }} }} }} }}\n"
            ),
            vec!["KN0155 the pivot `q` runs beside the pivot `p` | q"],
        ),
        (
            format!(
                "  - s: {{ parallel: {{ branches: {{ l: {{ steps: [ {PIVOT} ] }}, r: {{ steps: [ {{ w: {{ wait: 1s }} }} ] }} }}, join: any }} }}\n"
            ),
            vec!["KN0161 the pivot `p` stands in a branch that may be cancelled as a loser | p"],
        ),
        (
            format!("  - {PIVOT}\n  - f: {{ if: input.x, fail: {{ type: t }} }}\n"),
            vec!["KN0156 `f` fails the run after the pivot `p`; it cannot go back and will be parked | f"],
        ),
        (
            format!(
                "  - {PIVOT}\n  - g: {{ try: {{ steps: [ {{ f: {{ fail: {{ type: t }} }} }} ], catch: [ {{ steps: [ {{ w: {{ wait: 1s }} }} ] }} ] }} }}\n"
            ),
            vec![],
        ),
        (
            format!(
                "  - {PIVOT}\n  - g: {{ try: {{ steps: [ {{ s: {{ scope: {{ steps: [ {{ f: {{ fail: {{ type: t }} }} }} ] }} }} }} ], catch: [ {{ steps: [ {{ w: {{ wait: 1s }} }} ] }} ] }} }}\n"
            ),
            vec!["KN0156 `f` fails the run after the pivot `p`; it cannot go back and will be parked | f"],
        ),
        (
            format!("  - {PIVOT}\ntimeout: 1h\n"),
            vec!["KN0157 the run's `timeout` can end while the pivot `p` is under way and not known to be done | p"],
        ),
        (
            format!("  - {UNDONE}\n  - w: {{ wait_for: {{ signal: s }} }}\n"),
            vec!["KN0158 `w` may wait for ever, while what `a` did is held | w"],
        ),
        (
            format!("  - {UNDONE}\n  - {PIVOT}\n  - w: {{ wait_for: {{ signal: s }} }}\n"),
            vec![],
        ),
    ] {
        assert_eq!(of(&steps), wanted, "{steps}");
    }
}
