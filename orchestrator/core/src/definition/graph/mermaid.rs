//! A graph as a Mermaid flowchart: <https://mermaid.js.org/syntax/flowchart.html>.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::edges::undo_name;
use super::model::{EdgeKind, Graph, Step, StepKind};

/// Longest line of a label, in characters.
const MAX_LINE: usize = 48;

pub fn mermaid(graph: &Graph) -> String {
    let mut renderer = Renderer {
        names: BTreeMap::from([
            ("start".to_owned(), "start".to_owned()),
            ("end".to_owned(), "done".to_owned()),
        ]),
        out: format!("%% {} v{}\nflowchart TD\n", graph.workflow, graph.version),
    };
    renderer.line(
        1,
        &format!("start([\"{} v{}\"])", escape(&graph.workflow), graph.version),
    );
    renderer.steps(&graph.steps, 1);
    renderer.steps(&graph.handlers, 1);
    if graph.edges.iter().any(|edge| edge.to == "end") {
        renderer.line(1, "done([\"completed\"])");
    }
    for edge in &graph.edges {
        let (Some(from), Some(to)) = (renderer.names.get(&edge.from), renderer.names.get(&edge.to)) else {
            continue;
        };
        let arrow = match edge.kind {
            EdgeKind::Next | EdgeKind::Again => "-->",
            EdgeKind::Failure => "-. fails .->",
            EdgeKind::Undo => "-. undo .-",
            EdgeKind::UndoNext => "-.->",
        };
        let text = match (edge.kind, edge.label.is_empty()) {
            (_, true) => format!("{from} {arrow} {to}"),
            (EdgeKind::Failure, false) => format!("{from} -. \"{}\" .-> {to}", line(&edge.label)),
            (_, false) => format!("{from} {arrow}|\"{}\"| {to}", line(&edge.label)),
        };
        renderer.line(1, &text);
    }
    renderer.classes(graph);
    renderer.out
}

struct Renderer {
    /// From the names of the graph to those of the chart, which are plain words.
    names: BTreeMap<String, String>,
    out: String,
}

impl Renderer {
    fn line(&mut self, depth: usize, text: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.out, "{}{text}", "  ".repeat(depth));
    }

    fn name(&mut self, of: &str, prefix: &str) -> String {
        let name = format!("{prefix}{}", self.names.len());
        self.names.insert(of.to_owned(), name.clone());
        name
    }

    fn steps(&mut self, steps: &[Step], depth: usize) {
        for step in steps {
            self.step(step, depth);
        }
    }

    fn step(&mut self, step: &Step, depth: usize) {
        if step.lanes.is_empty() {
            self.node(step, depth);
            return;
        }
        let group = format!("g{}", self.names.len());
        self.line(depth, &format!("subgraph {group} [\" \"]"));
        self.node(step, depth + 1);
        for lane in &step.lanes {
            self.steps(&lane.steps, depth + 1);
        }
        self.line(depth, "end");
    }

    fn node(&mut self, step: &Step, depth: usize) {
        let name = self.name(&step.path, "s");
        let mut lines = vec![format!("<b>{}</b>", line(&step.id)), line(&step.label)];
        lines.extend(
            step.condition
                .iter()
                .map(|condition| format!("<i>if {}</i>", line(condition))),
        );
        lines.extend(step.notes.iter().map(|note| format!("<i>{}</i>", line(note))));
        let text = lines.join("<br/>");
        let (open, close) = match step.kind {
            StepKind::Switch => ("{", "}"),
            StepKind::ForEach | StepKind::While | StepKind::Parallel | StepKind::Try | StepKind::Scope => ("{{", "}}"),
            StepKind::Wait | StepKind::WaitFor | StepKind::Handler => ("([", "])"),
            StepKind::Workflow => ("[[", "]]"),
            StepKind::Emit => ("[/", "/]"),
            StepKind::Fail | StepKind::Complete | StepKind::ContinueAsNew => ("([", "])"),
            StepKind::Activity | StepKind::Set => ("[", "]"),
        };
        self.line(depth, &format!("{name}{open}\"{text}\"{close}"));
        if let Some(undo) = &step.undo {
            let name = self.name(&undo_name(&step.path), "u");
            self.line(depth, &format!("{name}([\"↶ {}\"])", line(undo)));
        }
    }

    fn classes(&mut self, graph: &Graph) {
        let mut undos = Vec::new();
        let mut failures = Vec::new();
        let mut pivots = Vec::new();
        let mut each = |step: &Step| {
            undos.extend(self.names.get(&undo_name(&step.path)).cloned());
            let name = self.names.get(&step.path).cloned();
            if step.kind == StepKind::Fail {
                failures.extend(name);
            } else if step.pivot {
                pivots.extend(name);
            }
        };
        visit(&graph.steps, &mut each);
        visit(&graph.handlers, &mut each);
        for (class, style, names) in [
            ("undo", "stroke:#d97706,stroke-dasharray:4 3", undos),
            ("failure", "stroke:#dc2626", failures),
            ("pivot", "stroke-width:3px", pivots),
        ] {
            if !names.is_empty() {
                self.line(1, &format!("classDef {class} {style}"));
                self.line(1, &format!("class {} {class}", names.join(",")));
            }
        }
    }
}

fn visit(steps: &[Step], each: &mut dyn FnMut(&Step)) {
    for step in steps {
        each(step);
        for lane in &step.lanes {
            visit(&lane.steps, each);
        }
    }
}

/// One line of a label: cut, then escaped.
fn line(text: &str) -> String {
    escape(&super::svg::cut(text, MAX_LINE))
}

/// Mermaid has no escapes but entities, written with `#`.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' => out.push_str("#quot;"),
            '#' => out.push_str("#35;"),
            '<' => out.push_str("#lt;"),
            '>' => out.push_str("#gt;"),
            '&' => out.push_str("#amp;"),
            '`' => out.push_str("#96;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
