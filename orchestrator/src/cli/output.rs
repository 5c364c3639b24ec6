//! How things look: tables without frames, ages, statuses in colour, JSON as it is on the wire.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::OnceLock;

use chrono::{DateTime, Utc};
use comfy_table::{Cell, Color, ContentArrangement, Table};
use owo_colors::{AnsiColors, OwoColorize};
use serde::Serialize;

use crate::cli::globals::Look;

/// Why data could not be written, of the first time.
static CUT: OnceLock<String> = OnceLock::new();

/// Data goes to stdout.
pub fn print(text: &str) {
    if let Err(error) = put(&mut anstream::stdout().lock(), text) {
        let _ = CUT.set(error.to_string());
    }
}

/// Whether something was printed that did not arrive, as on a disk that is full, and why.
pub fn cut_short() -> Option<&'static str> {
    CUT.get().map(String::as_str)
}

/// Whoever closed the other end (`| head`) has seen enough.
fn put(out: &mut impl std::io::Write, text: &str) -> std::io::Result<()> {
    let newline = if text.ends_with('\n') { "" } else { "\n" };
    match write!(out, "{text}{newline}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// Anything but data.
pub fn note(text: &str) {
    let mut err = anstream::stderr().lock();
    if writeln!(err, "{text}").is_err() {
        // As above.
    }
}

/// The wire type, indented.
pub fn print_json(value: &impl Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => print(&text),
        Err(error) => note(&format!("cannot be written as JSON: {error}")),
    }
}

pub fn table(look: &Look, header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    if look.color {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table.set_header(header.iter().map(|name| {
        let cell = Cell::new(name);
        if look.color {
            cell.add_attribute(comfy_table::Attribute::Dim)
        } else {
            cell
        }
    }));
    table
}

/// Text of a table, flush left and without blanks at the ends of lines.
pub fn table_text(table: &Table, indent: usize) -> String {
    let mut out = String::new();
    let pad = " ".repeat(indent);
    for line in table.to_string().lines() {
        let _ = writeln!(out, "{pad}{}", flush(line));
    }
    out
}

/// Without the one blank that the preset puts before the first column, and those behind the last; both may stand inside of
/// a colour.
fn flush(line: &str) -> String {
    let visible = |c: &str| !c.starts_with('\u{1b}');
    let mut pieces: Vec<&str> = Vec::new();
    let mut rest = line;
    while let Some(at) = rest.find('\u{1b}') {
        let end = rest[at..].find('m').map_or(rest.len(), |length| at + length + 1);
        pieces.extend([&rest[..at], &rest[at..end]]);
        rest = &rest[end..];
    }
    pieces.push(rest);
    if let Some(first) = pieces.iter_mut().find(|piece| visible(piece) && !piece.is_empty()) {
        *first = first.strip_prefix(' ').unwrap_or(first);
    }
    for piece in pieces.iter_mut().rev().filter(|piece| visible(piece)) {
        *piece = piece.trim_end();
        if !piece.is_empty() {
            break;
        }
    }
    pieces.concat()
}

pub fn status_cell(look: &Look, status: &str) -> Cell {
    let cell = Cell::new(status);
    if !look.color {
        return cell;
    }
    match status_color(status) {
        Some(AnsiColors::Green) => cell.fg(Color::Green),
        Some(AnsiColors::Red) => cell.fg(Color::Red),
        Some(AnsiColors::Yellow) => cell.fg(Color::Yellow),
        Some(AnsiColors::Cyan) => cell.fg(Color::Cyan),
        _ => cell,
    }
}

pub fn status_text(look: &Look, status: &str) -> String {
    match status_color(status) {
        Some(color) if look.color => status.color(color).to_string(),
        _ => status.to_owned(),
    }
}

/// Done is green, being undone or waiting for somebody yellow, what went wrong red, what goes on cyan.
fn status_color(status: &str) -> Option<AnsiColors> {
    match status {
        "completed" | "undone" => Some(AnsiColors::Green),
        "compensated" | "compensating" | "undoing" | "cancelled" | "timed_out" | "paused" | "held" | "unknown"
        | "queued" | "waiting" | "put_off" | "skipped" => Some(AnsiColors::Yellow),
        "failed" | "compensation_failed" | "terminated" | "parked" => Some(AnsiColors::Red),
        "running" | "dispatched" | "started" => Some(AnsiColors::Cyan),
        _ => None,
    }
}

pub fn bold(look: &Look, text: &str) -> String {
    if look.color {
        text.bold().to_string()
    } else {
        text.to_owned()
    }
}

pub fn dim(look: &Look, text: &str) -> String {
    if look.color {
        text.dimmed().to_string()
    } else {
        text.to_owned()
    }
}

/// The distance of two moments in at most two units: `340ms`, `4.2s`, `3m 5s`, `2h 10m`, `3d 4h`.
pub fn span(ms: i64) -> String {
    let ms = ms.max(0);
    let (s, m, h) = (ms / 1_000, ms / 60_000, ms / 3_600_000);
    match () {
        () if ms < 1_000 => format!("{ms}ms"),
        () if s < 10 && ms % 1_000 >= 100 => format!("{s}.{}s", ms % 1_000 / 100),
        () if s < 60 => format!("{s}s"),
        () if m < 60 => two(m, "m", s % 60, "s"),
        () if h < 24 => two(h, "h", m % 60, "m"),
        () => two(h / 24, "d", h % 24, "h"),
    }
}

fn two(big: i64, big_unit: &str, small: i64, small_unit: &str) -> String {
    if small == 0 {
        format!("{big}{big_unit}")
    } else {
        format!("{big}{big_unit} {small}{small_unit}")
    }
}

/// How long ago, in one unit: precise enough for a list.
pub fn age(look: &Look, at: DateTime<Utc>) -> String {
    let s = (look.now - at).num_seconds().max(0);
    match s {
        0..60 => format!("{s}s"),
        60..3_600 => format!("{}m", s / 60),
        3_600..86_400 => format!("{}h", s / 3_600),
        _ => format!("{}d", s / 86_400),
    }
}

/// `in 4s`, `now` (a deadline that has passed is due, whatever the clock of this machine says).
pub fn until(look: &Look, at: DateTime<Utc>) -> String {
    let ms = (at - look.now).num_milliseconds();
    if ms <= 0 {
        "now".to_owned()
    } else {
        format!("in {}", span(ms))
    }
}

/// `, begins in 4s`; nothing once the moment has passed.
pub fn begins(look: &Look, at: DateTime<Utc>) -> String {
    match at > look.now {
        true => format!(", begins {}", until(look, at)),
        false => String::new(),
    }
}

/// A time of day in UTC, to the millisecond; where the day matters it is in the heading.
pub fn clock(at: DateTime<Utc>) -> String {
    at.format("%H:%M:%S%.3f").to_string()
}

/// To the second, in the form that every command takes a time in.
pub fn moment(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

/// One line of JSON, cut at `limit` characters.
pub fn short_json(value: &serde_json::Value, limit: usize) -> String {
    cut(&value.to_string(), limit)
}

/// `1.5 MiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1_024 {
        return format!("{bytes} bytes");
    }
    let mut scaled = bytes as f64 / 1_024.0;
    let mut unit = 0;
    while scaled >= 1_024.0 && unit + 1 < UNITS.len() {
        scaled /= 1_024.0;
        unit += 1;
    }
    let text = format!("{scaled:.1}");
    format!("{} {}", text.strip_suffix(".0").unwrap_or(&text), UNITS[unit])
}

pub fn cut(text: &str, limit: usize) -> String {
    let one_line = text.replace(['\n', '\r', '\t'], " ");
    // Escape sequences of others do not reach the terminal.
    let clean: String = one_line.chars().filter(|c| !c.is_control()).collect();
    if clean.chars().count() <= limit {
        clean
    } else {
        clean.chars().take(limit.saturating_sub(1)).chain(['…']).collect()
    }
}

/// `payment: timeout: no answer within 30 s`
pub fn failure_text(failure: &knarr_schemas::body::FailureBody) -> String {
    let step = failure
        .step
        .as_deref()
        .map(|step| format!("{step}: "))
        .unwrap_or_default();
    let message = if failure.message.is_empty() {
        String::new()
    } else {
        format!(": {}", failure.message)
    };
    cut(&format!("{step}{}{message}", failure.error_type), 500)
}

pub fn plural(count: u64, one: &str) -> String {
    if count == 1 {
        format!("1 {one}")
    } else {
        format!("{count} {one}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_at_most_two_units() {
        let cases = [
            (0, "0ms"),
            (999, "999ms"),
            (1_000, "1s"),
            (4_260, "4.2s"),
            (59_999, "59s"),
            (185_000, "3m 5s"),
            (7_200_000, "2h"),
            (273_600_000, "3d 4h"),
        ];
        for (ms, text) in cases {
            assert_eq!(span(ms), text);
        }
    }

    #[test]
    fn moments_are_told_as_they_are_taken() {
        let at = DateTime::from_timestamp_micros(1_795_000_000_250_000).unwrap();
        assert_eq!(moment(at), "2026-11-18T11:06:40Z");
        assert_eq!(moment(at).parse::<DateTime<Utc>>().unwrap().timestamp(), at.timestamp());
    }

    #[test]
    fn columns_stand_under_their_headings_in_colour_as_well() {
        let mut look = Look {
            color: false,
            width: None,
            now: DateTime::UNIX_EPOCH,
        };
        let text = |look: &Look| {
            let mut table = table(look, &["ID", "STATUS", "LAST"]);
            table.add_row([Cell::new("order-17"), status_cell(look, "running"), Cell::new("x")]);
            table.add_row([Cell::new("o"), status_cell(look, "new"), Cell::new("")]);
            table_text(&table, 2)
        };
        let plain = text(&look);
        look.color = true;
        let colored = text(&look);
        assert!(colored.contains('\u{1b}'), "{colored}");
        assert_eq!(anstream::adapter::strip_str(&colored).to_string(), plain);
    }

    #[test]
    fn a_full_disk_is_told_and_a_closed_pipe_is_not() {
        struct Out(std::io::ErrorKind);
        impl std::io::Write for Out {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        assert!(put(&mut Out(std::io::ErrorKind::BrokenPipe), "text").is_ok());
        assert!(put(&mut Out(std::io::ErrorKind::StorageFull), "text").is_err());
    }

    #[test]
    fn long_and_hostile_texts_are_cut_and_cleaned() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdefg", 6), "abcde…");
        assert_eq!(cut("a\nb\u{1b}[31mc", 20), "a b[31mc");
    }
}
