//! From a definition's text to its plan, and to its findings as they go over the wire: the same offline (`knarr check`)
//! and at registration.

use knarr_core::definition::diagnostic::{Diagnostic, Severity};
use knarr_core::definition::{self, Checked};
use knarr_schemas::api::{FindingBody, FindingSeverity, Place};

/// What reading a text gave.
#[derive(Debug)]
pub struct Read {
    /// `None` when there are errors.
    pub checked: Option<Checked>,
    /// In the order of the text.
    pub findings: Vec<FindingBody>,
}

/// `files` gives the content of a file that the text names, or a reason why not.
pub fn read(text: &str, files: &dyn Fn(&str) -> Result<String, String>) -> Read {
    match definition::read(text, files) {
        Ok(checked) => Read {
            findings: wire(text, &checked.findings),
            checked: Some(checked),
        },
        Err(findings) => Read {
            findings: wire(text, &findings),
            checked: None,
        },
    }
}

/// Findings in a text, as they go over the wire.
pub fn wire(text: &str, findings: &[Diagnostic]) -> Vec<FindingBody> {
    findings.iter().map(|finding| finding_body(text, finding)).collect()
}

fn finding_body(text: &str, finding: &Diagnostic) -> FindingBody {
    FindingBody {
        code: finding.code.code.to_owned(),
        severity: match finding.severity {
            Severity::Error => FindingSeverity::Error,
            Severity::Warning => FindingSeverity::Warning,
            Severity::Notice => FindingSeverity::Notice,
        },
        message: finding.message.clone(),
        remedy: (!finding.help.is_empty()).then(|| finding.help.clone()),
        at: Some(place(text, finding.span.start, finding.span.end)),
    }
}

/// From bytes to line and column.
pub fn place(text: &str, start: usize, end: usize) -> Place {
    let start = floor(text, start);
    let end = floor(text, end).max(start);
    let before = &text[..start];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Place {
        line: count(before.matches('\n').count() + 1),
        column: count(before[line_start..].chars().count() + 1),
        offset: count(start),
        length: count(end - start),
    }
}

pub(crate) fn floor(text: &str, mut at: usize) -> usize {
    at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_characters_and_never_split_one() {
        let text = "a: 1\nü: ö\n";
        assert_eq!(
            place(text, 9, 11),
            Place {
                line: 2,
                column: 4,
                offset: 9,
                length: 2
            }
        );
        assert_eq!(place(text, 10, 500).offset, 9);
        assert_eq!(place("", 3, 9).line, 1);
    }
}
