//! The shapes a picture is made of, as SVG text.

use std::fmt::Write as _;

use super::text::escape;

#[derive(Default)]
pub(super) struct Canvas {
    out: String,
}

#[derive(Clone, Copy)]
pub(super) struct Rect {
    pub(super) x: i32,
    pub(super) y: i32,
    pub(super) width: i32,
    pub(super) height: i32,
}

/// The class of a line and that of its tip.
pub(super) type Stroke = (&'static str, &'static str);
pub(super) const EDGE: Stroke = ("edge", "tip");
pub(super) const BACK: Stroke = ("back", "backtip");
pub(super) const FAILS: Stroke = ("fails", "failstip");

/// Of an arrow's tip.
const TIP: i32 = 6;

impl Canvas {
    // Writing to a string cannot fail.
    fn line(&mut self, text: &str) {
        let _ = writeln!(self.out, "{text}");
    }

    pub(super) fn rect(&mut self, class: &str, rect: Rect, radius: i32) {
        let Rect { x, y, width, height } = rect;
        self.line(&format!(
            r#"<rect class="{class}" x="{x}" y="{y}" width="{width}" height="{height}" rx="{radius}"/>"#
        ));
    }

    /// Centred on x; y is the middle of the line.
    pub(super) fn text(&mut self, class: &str, (x, y): (i32, i32), text: &str) {
        self.line(&format!(
            r#"<text class="{class}" x="{x}" y="{}" text-anchor="middle">{}</text>"#,
            y + 4,
            escape(text)
        ));
    }

    pub(super) fn stroke(&mut self, class: &str, points: &[(i32, i32)]) {
        let mut path = String::new();
        for (at, (x, y)) in points.iter().enumerate() {
            let _ = write!(path, "{}{x} {y}", if at == 0 { "M" } else { " L" });
        }
        self.line(&format!(r#"<path class="{class}" d="{path}"/>"#));
    }

    /// Straight down, or straight up.
    pub(super) fn arrow(&mut self, (line, tip): Stroke, from: (i32, i32), to: (i32, i32)) {
        let up = if to.1 < from.1 { -1 } else { 1 };
        let (x, y) = to;
        self.stroke(line, &[from, (x, y - up * TIP)]);
        let base = y - up * (TIP + 2);
        self.line(&format!(
            r#"<path class="{tip}" d="M{x} {y} L{} {base} L{} {base} Z"/>"#,
            x - 4,
            x + 4
        ));
    }

    /// What a pointer shows over the shapes until [`Self::close`].
    pub(super) fn open(&mut self, title: &str) {
        self.line(&format!("<g><title>{}</title>", escape(title)));
    }

    pub(super) fn close(&mut self) {
        self.line("</g>");
    }

    pub(super) fn finish(self) -> String {
        self.out
    }
}
