//! The sizes of boxes, from the inside out.
//!
//! **Invariant:** a column is as wide to the left of its axis as its widest box, and wide enough to the right for its rail;
//! a block is at least as wide as everything in it. So nothing ever overlaps.

use super::super::model::{Lane, Step};
use super::text::{LINE_HEIGHT, cut, width};

pub(super) const PAD: i32 = 12;
/// Between two boxes of a column: room for an arrow.
pub(super) const GAP: i32 = 30;
/// Between a box and its undo, and between lanes.
pub(super) const SIDE: i32 = 28;
pub(super) const BETWEEN: i32 = 12;
pub(super) const UNDO_HEIGHT: i32 = 26;
const SMALLEST: i32 = 110;
const LONGEST_LINE: usize = 46;
/// A lane with nothing in it.
const EMPTY: (i32, i32) = (70, 20);

/// A list of steps on one axis.
pub(super) struct Column<'a> {
    pub(super) boxes: Vec<Sized<'a>>,
    /// From the left edge to the axis.
    pub(super) axis: i32,
    pub(super) width: i32,
    pub(super) height: i32,
    /// From the axis to the middle of the undos; `None` where there is no rail.
    pub(super) rail: Option<i32>,
}

/// One step with everything in it.
pub(super) struct Sized<'a> {
    pub(super) step: &'a Step,
    pub(super) lines: Vec<Line>,
    /// Symmetric to the axis.
    pub(super) width: i32,
    pub(super) height: i32,
    pub(super) rows: Vec<Row<'a>>,
    pub(super) undo: Option<(String, i32)>,
}

pub(super) struct Line {
    pub(super) class: &'static str,
    pub(super) text: String,
}

pub(super) struct Row<'a> {
    pub(super) lanes: Vec<MeasuredLane<'a>>,
    pub(super) width: i32,
    pub(super) height: i32,
}

pub(super) struct MeasuredLane<'a> {
    pub(super) lane: &'a Lane,
    pub(super) title: Option<String>,
    pub(super) column: Column<'a>,
    pub(super) width: i32,
}

impl<'a> Column<'a> {
    pub(super) fn of(steps: &'a [Step]) -> Self {
        let mut boxes: Vec<Sized<'a>> = steps.iter().map(Sized::of).collect();
        if boxes.is_empty() {
            let (width, height) = EMPTY;
            return Self {
                boxes,
                axis: width / 2,
                width,
                height,
                rail: None,
            };
        }
        let rail = rail(&boxes);
        if let Some(rail) = rail {
            // A block that undoes reaches under the rail, so that the arrows find it.
            for block in boxes.iter_mut().filter(|it| it.undo.is_none() && it.step.undoes()) {
                block.width = block.width.max(2 * (rail + PAD));
            }
        }
        let half = boxes.iter().map(|it| it.width / 2 + it.width % 2).max().unwrap_or(0);
        let undos = boxes
            .iter()
            .filter_map(|it| Some(rail? + it.undo.as_ref()?.1 / 2))
            .max();
        let height: i32 = boxes.iter().map(|it| it.height).sum();
        Self {
            axis: half,
            width: half + half.max(undos.unwrap_or(0)),
            height: height + GAP * (i32::try_from(boxes.len()).unwrap_or(0) - 1),
            boxes,
            rail,
        }
    }
}

/// To the right of every box that has an undo; where only blocks undo, within the narrowest of them.
fn rail(boxes: &[Sized<'_>]) -> Option<i32> {
    let undoing: Vec<_> = boxes.iter().filter(|it| it.step.undoes()).collect();
    let with_undo: Vec<_> = undoing
        .iter()
        .filter_map(|it| Some((it.width, it.undo.as_ref()?.1)))
        .collect();
    let leaves = boxes.iter().filter(|it| it.rows.is_empty() || it.undo.is_some());
    match with_undo.iter().map(|(_, undo)| *undo).max() {
        Some(undo) => {
            let half = leaves.map(|it| it.width / 2).max().unwrap_or(0);
            Some(half + SIDE + undo / 2)
        }
        None => undoing.iter().map(|it| it.width / 2 - 2 * PAD).min(),
    }
}

impl<'a> Sized<'a> {
    fn of(step: &'a Step) -> Self {
        let lines = lines(step);
        let text = lines.iter().map(|line| width(&line.text)).max().unwrap_or(0);
        let mut rows: Vec<Row<'a>> = Vec::new();
        for row in 0..3 {
            let lanes: Vec<_> = step
                .lanes
                .iter()
                .filter(|lane| lane.role.row() == row)
                .map(MeasuredLane::of)
                .collect();
            if !lanes.is_empty() {
                rows.push(Row::of(lanes));
            }
        }
        let widest = rows.iter().map(|row| row.width).max().unwrap_or(0);
        rows.iter_mut().for_each(|row| row.stretch(widest));
        let own = (text + 2 * PAD + 6).max(SMALLEST);
        let inside = if rows.is_empty() { 0 } else { widest + 2 * PAD };
        let header = LINE_HEIGHT * i32::try_from(lines.len()).unwrap_or(0) + PAD;
        let gaps = GAP * (i32::try_from(rows.len()).unwrap_or(0) - 1).max(0);
        let height = if rows.is_empty() {
            header
        } else {
            header + rows.iter().map(|row| row.height).sum::<i32>() + gaps + PAD
        };
        Self {
            step,
            lines,
            width: even(own.max(inside)),
            height,
            rows,
            undo: step.undo.as_ref().map(|undo| {
                let text = format!("↶ {}", cut(undo, LONGEST_LINE));
                let width = even(width(&text) + 2 * PAD);
                (text, width)
            }),
        }
    }

    /// Of the part above the rows.
    pub(super) fn header(&self) -> i32 {
        LINE_HEIGHT * i32::try_from(self.lines.len()).unwrap_or(0) + PAD
    }
}

impl<'a> Row<'a> {
    fn of(lanes: Vec<MeasuredLane<'a>>) -> Self {
        let widths: i32 = lanes.iter().map(|lane| lane.width).sum();
        Self {
            width: widths + BETWEEN * (i32::try_from(lanes.len()).unwrap_or(0) - 1),
            height: lanes.iter().map(MeasuredLane::height).max().unwrap_or(0),
            lanes,
        }
    }

    /// So that the arrows to the lanes of the next row start under a lane of this one.
    fn stretch(&mut self, width: i32) {
        let count = i32::try_from(self.lanes.len()).unwrap_or(1).max(1);
        let more = (width - self.width) / count;
        self.lanes.iter_mut().for_each(|lane| lane.width += more);
        self.width += more * count;
    }
}

impl<'a> MeasuredLane<'a> {
    fn of(lane: &'a Lane) -> Self {
        let column = Column::of(&lane.steps);
        let title = (!lane.title.is_empty()).then(|| cut(&lane.title, LONGEST_LINE));
        let title_width = title.as_ref().map_or(0, |title| width(title));
        Self {
            lane,
            width: column.width.max(title_width) + 2 * PAD,
            title,
            column,
        }
    }

    pub(super) fn title_height(&self) -> i32 {
        if self.title.is_some() { LINE_HEIGHT + 4 } else { 0 }
    }

    fn height(&self) -> i32 {
        self.column.height + 2 * PAD + self.title_height()
    }
}

fn even(width: i32) -> i32 {
    width + width % 2
}

fn lines(step: &Step) -> Vec<Line> {
    let line = |class, text: String| Line {
        class,
        text: cut(&text, LONGEST_LINE),
    };
    let mut lines = vec![line("id", step.id.clone())];
    if step.label != step.id {
        lines.push(line("what", step.label.clone()));
    }
    lines.extend(
        step.condition
            .iter()
            .map(|condition| line("note", format!("if {condition}"))),
    );
    lines.extend(step.notes.iter().map(|note| line("note", note.clone())));
    lines
}
