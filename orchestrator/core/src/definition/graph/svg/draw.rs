//! Placing measured boxes, from the outside in.

use super::super::model::{Graph, Role, Step, StepKind};
use super::frame::{BACK, Canvas, EDGE, FAILS, Rect};
use super::measure::{BETWEEN, Column, GAP, MeasuredLane, PAD, Row, Sized, UNDO_HEIGHT};
use super::style::STYLE;
use super::text::{LINE_HEIGHT, escape, width};

const MARGIN: i32 = 24;
const CAP_HEIGHT: i32 = 30;

pub fn svg(graph: &Graph) -> String {
    let name = format!("{} v{}", graph.workflow, graph.version);
    let column = Column::of(&graph.steps);
    let (start, end, undone) = (width(&name) + 40, width("completed") + 40, width("undone") + 40);
    let left = column.axis.max(start.max(end) / 2);
    // The rail ends in a cap of its own, beside the start.
    let rail = column.rail.map(|rail| rail.max(start / 2 + BETWEEN + undone / 2));
    let right = (column.width - column.axis)
        .max(start.max(end) / 2)
        .max(rail.map_or(0, |rail| rail + undone / 2));
    let completes = !graph.steps.last().is_some_and(Step::ends);
    let caps = if completes { 2 } else { 1 };
    let height = 2 * MARGIN + column.height + caps * (CAP_HEIGHT + GAP);
    // Handlers stand beside it all, each by itself.
    let handlers = graph.handlers.iter();
    let beside: Vec<_> = handlers.map(|it| Column::of(std::slice::from_ref(it))).collect();
    let more: i32 = beside.iter().map(|column| MARGIN + column.width).sum();
    let tallest = beside.iter().map(|column| 2 * MARGIN + column.height).max();
    let (w, h) = (2 * MARGIN + left + right + more, height.max(tallest.unwrap_or(0)));
    let axis = MARGIN + left;
    let mut canvas = Canvas::default();
    let top = MARGIN + CAP_HEIGHT + GAP;
    cap(&mut canvas, (axis, MARGIN), start, &name);
    canvas.arrow(EDGE, (axis, MARGIN + CAP_HEIGHT), (axis, top));
    draw_column(&mut canvas, &column, (axis, top));
    let mut x = axis + right + MARGIN;
    for column in &beside {
        draw_column(&mut canvas, column, (x + column.axis, MARGIN));
        x += column.width + MARGIN;
    }
    if completes {
        let bottom = top + column.height;
        canvas.arrow(EDGE, (axis, bottom), (axis, bottom + GAP));
        cap(&mut canvas, (axis, bottom + GAP), end, "completed");
    }
    if let (Some(own), Some(rail)) = (column.rail, rail)
        && let Some(first) = ports(&column, top).first()
    {
        let (from, turn) = (axis + own, MARGIN + CAP_HEIGHT + GAP / 2);
        if own == rail {
            canvas.arrow(BACK, (from, first.0), (from, MARGIN + CAP_HEIGHT));
        } else {
            canvas.stroke(BACK.0, &[(from, first.0), (from, turn), (axis + rail, turn)]);
            canvas.arrow(BACK, (axis + rail, turn), (axis + rail, MARGIN + CAP_HEIGHT));
        }
        let pill = Rect {
            x: axis + rail - undone / 2,
            y: MARGIN,
            width: undone,
            height: CAP_HEIGHT,
        };
        canvas.rect("undo", pill, CAP_HEIGHT / 2);
        canvas.text("undotext", (axis + rail, MARGIN + CAP_HEIGHT / 2), "undone");
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w}\" height=\"{h}\" viewBox=\"0 0 {w} {h}\" role=\"img\">\n\
         <title>{}</title>\n<style>\n{STYLE}</style>\n\
         <rect class=\"ground\" width=\"{w}\" height=\"{h}\"/>\n{}</svg>\n",
        escape(&name),
        canvas.finish()
    )
}

fn cap(canvas: &mut Canvas, (axis, y): (i32, i32), width: i32, text: &str) {
    let rect = Rect {
        x: axis - width / 2,
        y,
        width,
        height: CAP_HEIGHT,
    };
    canvas.rect("cap", rect, CAP_HEIGHT / 2);
    canvas.text("captext", (axis, y + CAP_HEIGHT / 2), text);
}

/// Top and bottom of everything in a column that undoes, from the top.
fn ports(column: &Column<'_>, top: i32) -> Vec<(i32, i32)> {
    let mut y = top;
    let mut ports = Vec::new();
    for it in &column.boxes {
        if it.undo.is_some() {
            let middle = undo_middle(it, y);
            ports.push((middle - UNDO_HEIGHT / 2, middle + UNDO_HEIGHT / 2));
        } else if it.step.undoes() {
            ports.push((y, y + it.height));
        }
        y += it.height + GAP;
    }
    ports
}

/// An undo stands beside the head of its step.
fn undo_middle(it: &Sized<'_>, top: i32) -> i32 {
    top + it.header() / 2
}

fn draw_column(canvas: &mut Canvas, column: &Column<'_>, (axis, top): (i32, i32)) {
    // First, so that it passes behind what has no undo.
    for pair in ports(column, top).windows(2) {
        let x = axis + column.rail.unwrap_or_default();
        canvas.arrow(BACK, (x, pair[1].0), (x, pair[0].1));
    }
    let mut y = top;
    for (at, it) in column.boxes.iter().enumerate() {
        if at > 0 && !column.boxes[at - 1].step.ends() {
            canvas.arrow(EDGE, (axis, y - GAP), (axis, y));
        }
        draw_box(canvas, it, (axis, y));
        if let (Some((text, width)), Some(rail)) = (&it.undo, column.rail) {
            let middle = undo_middle(it, y);
            let rect = Rect {
                x: axis + rail - width / 2,
                y: middle - UNDO_HEIGHT / 2,
                width: *width,
                height: UNDO_HEIGHT,
            };
            canvas.stroke(BACK.0, &[(axis + it.width / 2, middle), (rect.x, middle)]);
            canvas.rect("undo", rect, UNDO_HEIGHT / 2);
            canvas.text("undotext", (axis + rail, middle), text);
        }
        y += it.height + GAP;
    }
}

fn draw_box(canvas: &mut Canvas, it: &Sized<'_>, (axis, top): (i32, i32)) {
    let rect = Rect {
        x: axis - it.width / 2,
        y: top,
        width: it.width,
        height: it.height,
    };
    canvas.open(&tooltip(it.step));
    let class = match (it.rows.is_empty(), it.step.pivot) {
        (true, false) => "box",
        (true, true) => "box pivot",
        (false, _) => "block",
    };
    canvas.rect(class, rect, 8);
    let stripe = Rect {
        x: rect.x + 4,
        y: top + 6,
        width: 4,
        height: it.header() - 12,
    };
    canvas.rect(colour(it.step.kind), stripe, 2);
    let mut y = top + PAD / 2 + LINE_HEIGHT / 2;
    for line in &it.lines {
        canvas.text(line.class, (axis, y), &line.text);
        y += LINE_HEIGHT;
    }
    canvas.close();
    let mut y = top + it.header();
    for (at, row) in it.rows.iter().enumerate() {
        draw_row(canvas, row, (axis, y));
        if let Some(below) = it.rows.get(at + 1) {
            let from = y + row.height;
            for x in centres(below, axis) {
                let stroke = if is_bad(below) { FAILS } else { EDGE };
                canvas.arrow(stroke, (x, from), (x, from + GAP));
            }
        }
        y += row.height + GAP;
    }
}

/// Of an arrow's lane; it starts under the row above, as far as that reaches.
fn centres(row: &Row<'_>, axis: i32) -> Vec<i32> {
    let mut x = axis - row.width / 2;
    row.lanes
        .iter()
        .map(|lane| {
            let centre = x + lane.width / 2;
            x += lane.width + BETWEEN;
            centre
        })
        .collect()
}

fn is_bad(row: &Row<'_>) -> bool {
    row.lanes.iter().any(|lane| lane.lane.role.row() == Role::Catch.row())
}

fn draw_row(canvas: &mut Canvas, row: &Row<'_>, (axis, top): (i32, i32)) {
    let mut x = axis - row.width / 2;
    let class = if is_bad(row) { "lane bad" } else { "lane" };
    for lane in &row.lanes {
        let rect = Rect {
            x,
            y: top,
            width: lane.width,
            height: row.height,
        };
        canvas.rect(class, rect, 6);
        draw_lane(canvas, lane, (x, top));
        x += lane.width + BETWEEN;
    }
}

fn draw_lane(canvas: &mut Canvas, lane: &MeasuredLane<'_>, (x, top): (i32, i32)) {
    let mut y = top + PAD;
    if let Some(title) = &lane.title {
        canvas.text("what", (x + lane.width / 2, y + LINE_HEIGHT / 2 - 4), title);
        y += lane.title_height();
    }
    // What is narrower than its lane stands in the middle of it.
    let left = x + (lane.width - lane.column.width) / 2;
    draw_column(canvas, &lane.column, (left + lane.column.axis, y));
}

fn colour(kind: StepKind) -> &'static str {
    match kind {
        StepKind::Activity => "k-activity",
        StepKind::Wait | StepKind::WaitFor | StepKind::Handler => "k-wait",
        StepKind::Emit => "k-out",
        StepKind::Workflow => "k-child",
        StepKind::Fail => "k-fail",
        StepKind::Complete | StepKind::ContinueAsNew => "k-end",
        StepKind::Set
        | StepKind::Parallel
        | StepKind::ForEach
        | StepKind::Switch
        | StepKind::While
        | StepKind::Try
        | StepKind::Scope => "k-control",
    }
}

/// Nothing is cut here.
fn tooltip(step: &Step) -> String {
    let mut text = format!("{}: {}", step.path, step.label);
    if let Some(condition) = &step.condition {
        text.push_str(&format!("; if {condition}"));
    }
    for note in &step.notes {
        text.push_str(&format!("; {note}"));
    }
    if let Some(undo) = &step.undo {
        text.push_str(&format!("; undone by {undo}"));
    }
    text
}
