//! Findings: what is wrong (or noteworthy), where, and what to do; and their plain rendering.

use std::fmt::{self, Write as _};
use std::ops::Range;

use super::code::Code;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The definition cannot be registered.
    Error,
    /// It can, and will probably not do what is wanted.
    Warning,
    /// Something was assumed.
    Notice,
}

impl Severity {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Notice => "notice",
        }
    }
}

/// One finding in one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub code: Code,
    pub severity: Severity,
    /// The particulars, in one lower-case fragment.
    pub message: String,
    pub help: String,
    /// In bytes of the document.
    pub span: Range<usize>,
}

impl Diagnostic {
    pub fn error(code: Code, span: Range<usize>, message: impl Into<String>) -> Self {
        Self {
            code,
            severity: Severity::Error,
            message: message.into(),
            help: code.remedy.to_owned(),
            span,
        }
    }

    #[must_use]
    pub fn severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }

    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = help.into();
        self
    }

    /// The help names the nearest right name, if there is one.
    #[must_use]
    pub fn suggest(self, nearest: Option<&str>) -> Self {
        match nearest {
            Some(name) => self.help(format!("did you mean `{name}`?")),
            None => self,
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Diagnostic {}

impl miette::Diagnostic for Diagnostic {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.code.code))
    }

    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
            Severity::Notice => miette::Severity::Advice,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(&self.help))
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = miette::LabeledSpan> + '_>> {
        let label = miette::LabeledSpan::underline(self.span.clone());
        Some(Box::new(std::iter::once(label)))
    }
}

/// All findings of one document as plain text: file, line, caret, code, help; no colour.
pub fn render(name: &str, text: &str, findings: &[Diagnostic]) -> String {
    let mut out = String::new();
    for finding in findings {
        if !out.is_empty() {
            out.push('\n');
        }
        render_one(&mut out, name, text, finding);
    }
    out
}

fn render_one(out: &mut String, name: &str, text: &str, finding: &Diagnostic) {
    let start = floor(text, finding.span.start);
    let end = floor(text, finding.span.end).max(start);
    let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
    let line_number = text[..start].matches('\n').count() + 1;
    let source = text[line_start..line_end].trim_end_matches('\r');
    let column = text[line_start..start].chars().count();
    let width = text[start..end.min(line_end).max(start)]
        .trim_end()
        .chars()
        .count()
        .max(1);
    let gutter = " ".repeat(line_number.to_string().len());
    // A tab has to stay one under a tab.
    let pad: String = text[line_start..start]
        .chars()
        .map(|c| if c == '\t' { '\t' } else { ' ' })
        .collect();
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        "{severity}[{code}]: {message}\n\
         {gutter}--> {name}:{line_number}:{column}\n\
         {gutter} |\n\
         {line_number} | {source}\n\
         {gutter} | {pad}{carets}\n\
         {gutter} = help: {help}\n",
        severity = finding.severity.as_str(),
        code = finding.code.code,
        message = finding.message,
        column = column + 1,
        carets = "^".repeat(width),
        help = finding.help,
    );
}

fn floor(text: &str, mut at: usize) -> usize {
    at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}
