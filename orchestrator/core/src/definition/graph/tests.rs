use super::{EdgeKind, Graph, mermaid, svg};
use crate::definition::read;

fn graph(text: &str) -> Graph {
    match read(text, &|_| Err("no files".to_owned())) {
        Ok(checked) => Graph::of(&checked.plan),
        Err(findings) => panic!("{}", crate::definition::diagnostic::render("test", text, &findings)),
    }
}

const EVERY_KIND: &str = r#"
workflow: everything
version: 1
defaults: { queue: q, start_to_close: 5s, retry: { maximum_attempts: 3 } }
steps:
  - split:
      parallel:
        branches:
          card: { steps: [ { charge: { activity: charge, compensate: refund } }, { tell: { activity: tell, read_only: true } } ] }
          bank: { steps: [ { debit: { activity: debit, compensate: credit } } ] }
        join: any
  - lines:
      if: input.lines is defined
      for_each:
        in: input.lines
        as: line
        max_concurrency: 10
        steps: [ { reserve: { activity: reserve, input: "${ line }", compensate: release } } ]
  - choose:
      switch:
        - { when: input.a < 3, steps: [ { ship: { activity: ship, compensate: unship } } ] }
        - else: { steps: [ { drop: { set: { picked: false } } } ] }
  - poll:
      while:
        when: not (vars.ready | default(false))
        max_iterations: 20
        steps:
          - pause: { wait: 10s }
          - look: { activity: look, read_only: true }
          - note: { set: { ready: "${ steps.look.ready }" } }
  - guard:
      try:
        steps: [ { risky: { activity: risky, compensate: unrisk } } ]
        catch:
          - { type: [card_declined, no_money], steps: [ { notify: { emit: { subject: "pay.${ error.type }" } } } ] }
          - steps: [ { give_up: { fail: { type: gave_up } } } ]
        finally: { steps: [ { free: { activity: free, read_only: true } } ] }
  - reserve_all:
      scope:
        steps: [ { hold: { activity: hold, compensate: unhold } } ]
        otherwise: { steps: [ { ask: { workflow: { name: ask, version: 2 } } } ] }
  - approval:
      wait_for: { signal: approve, match: "signal.order == input.order", timeout: 24h }
      on_timeout: { steps: [ { escalate: { workflow: { name: escalate, detached: true } } } ] }
  - maybe: { wait_for: { signal: go_on, timeout: 1h }, on_timeout: continue }
  - pay: { activity: pay, pivot: true }
  - stop: { if: input.stop, complete: "${ input.order }" }
  - again: { continue_as_new: { round: 2 } }
"#;

#[test]
fn every_kind_as_a_graph() {
    let graph = graph(EVERY_KIND);
    insta::assert_snapshot!("graph", serde_json::to_string_pretty(&graph).unwrap());
}

#[test]
fn every_kind_in_mermaid() {
    insta::assert_snapshot!("mermaid", mermaid(&graph(EVERY_KIND)));
}

#[test]
fn every_kind_as_a_picture() {
    let picture = svg(&graph(EVERY_KIND));
    insta::assert_snapshot!("svg", picture);
}

#[test]
fn undos_go_backwards_and_around_what_has_none() {
    let text = r#"
workflow: w
version: 1
defaults: { queue: q, start_to_close: 5s, retry: { maximum_attempts: 3 } }
steps:
  - a: { activity: a, compensate: ua }
  - b: { activity: b, read_only: true }
  - p: { parallel: { branches: { x: { steps: [ { c: { activity: c, compensate: uc } } ] }, y: { steps: [ { d: { activity: d, compensate: ud } } ] } } } }
  - e: { activity: e, compensate: ue }
"#;
    let edges = graph(text).edges;
    let backwards: Vec<String> = edges
        .iter()
        .filter(|edge| edge.kind == EdgeKind::UndoNext)
        .map(|edge| format!("{} > {}", edge.from, edge.to))
        .collect();
    assert_eq!(
        backwards,
        [
            "undo e > undo p.x.c",
            "undo e > undo p.y.d",
            "undo p.x.c > undo a",
            "undo p.y.d > undo a"
        ]
    );
}

#[test]
fn no_text_of_a_definition_breaks_out_of_its_label() {
    let text = r#"
workflow: w
version: 1
defaults: { queue: q, start_to_close: 5s }
steps:
  - a: { if: "input.x == '\"</text><script>' and input.y == \"]`#\"", activity: a, no_undo: "\"]\n end <b>&" }
"#;
    let graph = graph(text);
    let chart = mermaid(&graph);
    let node = chart.lines().find(|line| line.contains("<b>a</b>")).unwrap();
    assert_eq!(node.matches('"').count(), 2, "{node}");
    assert!(!chart.contains("<script"), "{chart}");
    let picture = svg(&graph);
    assert!(!picture.contains("<script"), "{picture}");
    assert!(!picture.contains("<b>"), "{picture}");
}
