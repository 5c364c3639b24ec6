//! Findings about a definition, as people read them: file, line, caret, code, remedy.

use std::fmt::Write as _;

use knarr_schemas::api::{FindingBody, FindingSeverity};
use owo_colors::{AnsiColors, OwoColorize};

use crate::api::source::floor;
use crate::cli::globals::Look;
use crate::cli::output;

pub fn render(look: &Look, file: &str, text: &str, findings: &[FindingBody]) -> String {
    let mut out = String::new();
    for finding in findings {
        if !out.is_empty() {
            out.push('\n');
        }
        render_one(&mut out, look, file, text, finding);
    }
    out
}

/// `2 errors, 1 warning`; empty without findings.
pub fn count(findings: &[FindingBody]) -> String {
    let of = |severity| findings.iter().filter(|finding| finding.severity == severity).count() as u64;
    [
        (of(FindingSeverity::Error), "error"),
        (of(FindingSeverity::Warning), "warning"),
        (of(FindingSeverity::Notice), "notice"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, name)| output::plural(count, name))
    .collect::<Vec<_>>()
    .join(", ")
}

fn render_one(out: &mut String, look: &Look, file: &str, text: &str, finding: &FindingBody) {
    let (name, color) = match finding.severity {
        FindingSeverity::Error => ("error", AnsiColors::Red),
        FindingSeverity::Warning => ("warning", AnsiColors::Yellow),
        FindingSeverity::Notice => ("notice", AnsiColors::Cyan),
    };
    let paint = |text: &str| {
        if look.color {
            text.color(color).bold().to_string()
        } else {
            text.to_owned()
        }
    };
    let head = paint(&format!("{name}[{}]", finding.code));
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{head}: {}", output::bold(look, &finding.message));
    let mut gutter = String::new();
    match &finding.at {
        None => {
            let _ = writeln!(out, "--> {file}");
        }
        Some(at) => {
            let start = floor(text, at.offset as usize);
            let end = floor(text, start + at.length as usize);
            let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
            let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
            let source = text[line_start..line_end].trim_end_matches('\r');
            let width = text[start..end.min(line_end)].trim_end().chars().count().max(1);
            // A tab has to stay one under a tab.
            let pad: String = text[line_start..start]
                .chars()
                .map(|c| if c == '\t' { '\t' } else { ' ' })
                .collect();
            gutter = " ".repeat(at.line.to_string().len());
            let bar = output::dim(look, "|");
            let _ = writeln!(
                out,
                "{gutter}{} {file}:{}:{}",
                output::dim(look, "-->"),
                at.line,
                at.column
            );
            let _ = writeln!(out, "{gutter} {bar}");
            let _ = writeln!(out, "{} {bar} {source}", output::dim(look, &at.line.to_string()));
            let _ = writeln!(out, "{gutter} {bar} {pad}{}", paint(&"^".repeat(width)));
        }
    }
    if let Some(remedy) = &finding.remedy {
        let _ = writeln!(out, "{gutter} {} {remedy}", output::dim(look, "= help:"));
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use knarr_schemas::api::Place;

    use super::*;

    #[test]
    fn a_finding_shows_its_place() {
        let look = Look {
            color: false,
            width: None,
            now: DateTime::UNIX_EPOCH,
        };
        let text = "workflow: order\nsteps:\n  - pay:\n\tactivty: pay\n";
        let findings = [
            FindingBody {
                code: "KN0104".into(),
                severity: FindingSeverity::Error,
                message: "`activty` is not a key of a step".into(),
                remedy: Some("did you mean `activity`?".into()),
                at: Some(Place {
                    line: 4,
                    column: 2,
                    offset: 34,
                    length: 7,
                }),
            },
            FindingBody {
                code: "KN0999".into(),
                severity: FindingSeverity::Notice,
                message: "a newer orchestrator says something about the whole".into(),
                remedy: None,
                at: None,
            },
        ];
        insta::assert_snapshot!("findings", render(&look, "order.yaml", text, &findings));
        assert_eq!(count(&findings), "1 error, 1 notice");
        // Text and places of different versions do not fit: nothing breaks.
        assert!(render(&look, "order.yaml", "ü", &findings).contains("order.yaml:4:2"));
    }
}
