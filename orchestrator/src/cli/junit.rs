//! Reports of `knarr test` in the format that build servers read (JUnit's, as Maven's Surefire writes it).

use std::fmt::Write as _;

use knarr_core::rehearsal::{CaseReport, Deviation};

use crate::cli::test::FileReport;

pub fn report(files: &[FileReport]) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    for file in files {
        let failed = file.cases.iter().filter(|case| !case.passed).count();
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{failed}\" errors=\"0\" skipped=\"0\">",
            escape(&file.file),
            file.cases.len(),
        );
        for case in &file.cases {
            self::case(&mut out, &file.workflow, case);
        }
        out.push_str("  </testsuite>\n");
    }
    out.push_str("</testsuites>\n");
    out
}

/// The time is virtual: what a case takes is no matter of the machine.
fn case(out: &mut String, workflow: &str, case: &CaseReport) {
    let (seconds, ms) = (case.took_ms / 1_000, case.took_ms % 1_000);
    let head = format!(
        "    <testcase classname=\"{}\" name=\"{}\" time=\"{seconds}.{ms:03}\"",
        escape(workflow),
        escape(&case.name)
    );
    if case.passed {
        let _ = writeln!(out, "{head}/>");
        return;
    }
    let _ = writeln!(out, "{head}>");
    for deviation in &case.deviations {
        let text = escape(&words(deviation));
        let _ = writeln!(
            out,
            "      <failure type=\"{}\" message=\"{}\">{text}</failure>",
            deviation.code,
            escape(&deviation.what)
        );
    }
    out.push_str("    </testcase>\n");
}

fn words(deviation: &Deviation) -> String {
    match (&deviation.expected, &deviation.actual) {
        (Some(expected), Some(actual)) => format!("expected:\n{expected}\n\ngot:\n{actual}"),
        _ => deviation.what.clone(),
    }
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push('\n'),
            // XML has no way to write most of them.
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
