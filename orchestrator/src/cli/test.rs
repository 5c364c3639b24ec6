//! `knarr test`: cases with mocked activities, in virtual time.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use knarr_core::definition::test_file;
use knarr_core::lines::{Sign, diff};
use knarr_core::rehearsal::{CaseReport, Deviation, play};
use owo_colors::{AnsiColors, OwoColorize};
use serde::Serialize;

use crate::api::source;
use crate::cli::error::{CliError, Exit};
use crate::cli::globals::{Globals, Look};
use crate::cli::{check, code, findings, junit, output};

/// Runs a definition against mocked activities, in virtual time
#[derive(Debug, Args)]
#[command(
    long_about = "Runs a definition against mocked activities and checks what becomes of it. Offline and in virtual time: a \
                  case that waits for a week takes milliseconds.\n\nA test file stands beside its definition (order.yaml, \
                  order.test.yaml) and lists cases: the input, what each activity answers (a result, a failure, nothing), \
                  what happens meanwhile (signals, a cancellation), and what is expected: status, output, steps, undos, \
                  ledger, emitted events, time taken.",
    after_help = "Examples:\n  knarr test order.test.yaml\n  knarr test *.test.yaml --junit report.xml\n  knarr test order.test.yaml --case 'without stock'\n\n\
                  Exit status: 0 every case passed, 1 one did not, or a file has errors, 2 a file cannot be read, or no case is named so.",
    after_long_help = LONG_HELP
)]
pub struct TestArgs {
    /// Test files, YAML or JSON
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// Only cases whose name holds this text
    #[arg(long, value_name = "TEXT")]
    pub case: Option<String>,

    /// Writes a report in JUnit's format as well
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,

    /// Shows what happened in cases that passed, too
    #[arg(long, short = 'v')]
    pub verbose: bool,
}

const LONG_HELP: &str = "\
A test file:
  definition: order.yaml          # beside it; else the one it is named like
  input: { customer: c-1 }        # of every case that gives none;
                                  # so are mocks and children
  mocks:                          # by activity, or by step: its id, its path,
                                  # lines[0].reserve, undo payment
    create-order: { result: { order_id: o-1 }, after: 2s }
    # attempt by attempt, the last one goes on:
    process-payment: [{ fail: busy }, { result: null }]
    reserve-inventory:
      fail: { type: sold_out, message: gone, retryable: false, not_done: true }
    # of a failure also retry_after: 1s
    send-mail: timeout            # or { unknown: crashed }, { retry_later: 5s }
    # sees its input, and task.attempt:
    pack: { result: \"${ input.sku }\", when_cancelled: stops }
  children:                       # or { fail: x }, { refuse: why }
    travel: { result: null, undo: { refuse: too late } }
  cases:
    - name: without stock, the payment is given back
      start: 2026-01-31T09:00:00Z
      events:                     # at times from the start
        - { at: 10s, signal: approve, body: { by: eve } }
        - { at: 1h, cancel: why } # or terminate; for what is parked:
                                  # retry (with input), skip, mark_done
      expect:                     # what is not named may be anything
        status: compensated
        output: null
        error: { step: stock, type: sold_out, message: gone }  # a part of it
        steps: [create_order, payment, stock]   # begun, in order
        # also skipped, parked
        undos: [payment, create_order]
        attempts: { payment: 2 }
        inputs: { payment: { order_id: o-1 }, undo payment: { order_id: o-1 } }
        ledger: { create_order: done, payment: done, stock: dormant }
        vars: { seen: true }
        emitted: [{ subject: shop.done, body: null }]
        took: { at_least: 1s, at_most: 2s }     # or 1s; virtual time
        # next_input: of continue_as_new
        # rejected: part of why the input was refused

Examples:
  knarr test order.test.yaml
  knarr test *.test.yaml --junit report.xml
  knarr test order.test.yaml --case 'without stock'

Exit status: 0 every case passed, 1 one did not, or a file has errors, 2 a file cannot be read, or no case is named so.";

/// What became of one file.
#[derive(Debug, Serialize)]
pub struct FileReport {
    pub file: String,
    pub workflow: String,
    pub version: u32,
    pub cases: Vec<CaseReport>,
    #[serde(skip)]
    text: String,
}

pub fn run(args: &TestArgs, globals: &Globals) -> Result<(), CliError> {
    let mut reports = Vec::new();
    let mut broken = false;
    for path in &args.files {
        match test(path, args, globals)? {
            Some(report) => reports.push(report),
            None => broken = true,
        }
    }
    if let Some(text) = &args.case
        && !broken
        && reports.iter().all(|report| report.cases.is_empty())
    {
        return Err(CliError::usage(format!("no case has `{text}` in its name")));
    }
    if let Some(path) = &args.junit {
        std::fs::write(path, junit::report(&reports)).map_err(|error| {
            let message = format!("{} cannot be written: {error}", path.display());
            CliError::new(Exit::Usage, &code::FILE_UNREADABLE, message)
        })?;
    }
    if globals.json() {
        output::print_json(&reports);
    } else if !reports.is_empty() {
        output::print(&render(&reports, args.verbose, &globals.look()));
    }
    if broken || reports.iter().flat_map(|report| &report.cases).any(|case| !case.passed) {
        return Err(CliError::silent(Exit::No));
    }
    Ok(())
}

/// `None`: the file, or its definition, has errors, which have been said.
fn test(path: &Path, args: &TestArgs, globals: &Globals) -> Result<Option<FileReport>, CliError> {
    let name = path.display().to_string();
    let text = check::read_file(path).map_err(|reason| {
        let message = format!("{name} cannot be read: {reason}");
        CliError::new(Exit::Usage, &code::FILE_UNREADABLE, message)
    })?;
    let definition = check::load(&definition_beside(path, &text)?)?;
    let Some(checked) = &definition.read.checked else {
        check::report(&definition, globals);
        return Ok(None);
    };
    let file = match test_file::read(&text, &checked.plan) {
        Ok(file) => file,
        Err(found) => {
            let found = source::wire(&text, &found);
            let rendered = findings::render(&globals.look(), &name, &text, &found);
            output::note(&format!(
                "{}\n\n{name}: {}",
                rendered.trim_end(),
                findings::count(&found)
            ));
            return Ok(None);
        }
    };
    let wanted = |name: &str| args.case.as_ref().is_none_or(|text| name.contains(text));
    let cases = file.cases.iter().filter(|case| wanted(&case.name));
    Ok(Some(FileReport {
        file: name,
        workflow: checked.plan.workflow.to_string(),
        version: checked.plan.version,
        cases: cases.map(|case| play(&checked.plan, case)).collect(),
        text,
    }))
}

/// The one it names, else `order.yaml` for `order.test.yaml`.
fn definition_beside(path: &Path, text: &str) -> Result<PathBuf, CliError> {
    if let Some(named) = test_file::definition_of(text) {
        return Ok(path.with_file_name(named));
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let (stem, extension) = name.rsplit_once('.').unwrap_or((&name, "yaml"));
    match stem.strip_suffix(".test") {
        Some(stem) => Ok(path.with_file_name(format!("{stem}.{extension}"))),
        None => {
            let message = format!("{name} does not end in .test.{extension}, and names no `definition`");
            Err(CliError::usage(message))
        }
    }
}

fn render(reports: &[FileReport], verbose: bool, look: &Look) -> String {
    let mut out = String::new();
    let (mut passed, mut failed) = (0, 0);
    for report in reports {
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "{}  {} v{}",
            output::bold(look, &report.file),
            report.workflow,
            report.version
        );
        for case in &report.cases {
            if case.passed {
                passed += 1;
            } else {
                failed += 1;
            }
            render_case(&mut out, report, case, verbose, look);
        }
        out.push('\n');
    }
    let count = |count: u64, word: &str, color| {
        let text = format!("{count} {word}");
        if look.color && count > 0 {
            text.color(color).to_string()
        } else {
            text
        }
    };
    let passed = count(passed, "passed", AnsiColors::Green);
    let _ = writeln!(out, "{passed}, {}", count(failed, "failed", AnsiColors::Red));
    out
}

fn render_case(out: &mut String, report: &FileReport, case: &CaseReport, verbose: bool, look: &Look) {
    let (word, color) = if case.passed {
        ("ok", AnsiColors::Green)
    } else {
        ("FAILED", AnsiColors::Red)
    };
    let word = if look.color {
        word.color(color).bold().to_string()
    } else {
        word.to_owned()
    };
    let took = i64::try_from(case.took_ms).unwrap_or(i64::MAX);
    let status = case.status.map_or("not started", knarr_core::run::Status::as_str);
    let told = output::dim(look, &format!("{status} after {}", output::span(took)));
    let _ = writeln!(out, "  {word} {}  {told}", output::cut(&case.name, 200));
    for deviation in &case.deviations {
        render_deviation(out, report, deviation, look);
    }
    if verbose || !case.passed && !case.happened.is_empty() {
        let _ = writeln!(out, "      {}", output::dim(look, "what happened"));
        for it in &case.happened {
            let at = i64::try_from(it.at_ms).unwrap_or(i64::MAX);
            let _ = writeln!(out, "      {:>8}  {}", output::span(at), output::cut(&it.what, 160));
        }
    }
}

fn render_deviation(out: &mut String, report: &FileReport, deviation: &Deviation, look: &Look) {
    let place = source::place(&report.text, deviation.place.start, deviation.place.end);
    let at = output::dim(look, &format!("{}:{}:{}", report.file, place.line, place.column));
    let head = format!("error[{}]", deviation.code);
    let head = if look.color { head.red().to_string() } else { head };
    match (&deviation.expected, &deviation.actual) {
        (Some(expected), Some(actual)) if expected.contains('\n') || actual.contains('\n') => {
            let _ = writeln!(out, "      {head} {} is not as expected  {at}", deviation.what);
            for line in diff(expected, actual) {
                let text = match line.sign {
                    Sign::Both => format!("  {}", line.text),
                    Sign::Minus if look.color => format!("- {}", line.text).red().to_string(),
                    Sign::Minus => format!("- {}", line.text),
                    Sign::Plus if look.color => format!("+ {}", line.text).green().to_string(),
                    Sign::Plus => format!("+ {}", line.text),
                };
                let _ = writeln!(out, "        {text}");
            }
        }
        (Some(expected), Some(actual)) => {
            let shown = |text: &str| {
                if text.is_empty() {
                    "nothing".to_owned()
                } else {
                    output::cut(text, 300)
                }
            };
            let (expected, actual) = (shown(expected), shown(actual));
            let _ = writeln!(
                out,
                "      {head} {}: expected {expected}, got {actual}  {at}",
                deviation.what
            );
        }
        _ => {
            let _ = writeln!(out, "      {head} {}  {at}", deviation.what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look() -> Look {
        Look {
            color: false,
            width: None,
            now: chrono::DateTime::UNIX_EPOCH,
        }
    }

    pub(super) fn reports(cases: &str) -> Vec<FileReport> {
        let definition = "workflow: w\nversion: 1\ndefaults: { queue: q, start_to_close: 5s, retry: { maximum_attempts: 2 } }\nsteps:\n  \
            - a: { activity: a, compensate: ua }\n  - b: { activity: b, compensate: ub }\noutput: { of: \"${ steps.a }\" }\n";
        let plan = source::read(definition, &|_| Err(String::new())).checked.unwrap().plan;
        let text = format!("mocks: {{ a: {{ result: 1 }}, b: {{ result: 2, after: 3s }} }}\ncases:\n{cases}");
        let file = test_file::read(&text, &plan).unwrap();
        vec![FileReport {
            file: "w.test.yaml".to_owned(),
            workflow: "w".to_owned(),
            version: 1,
            cases: file.cases.iter().map(|case| play(&plan, case)).collect(),
            text,
        }]
    }

    /// As in a pipeline whose case was renamed.
    #[test]
    fn a_filter_that_fits_no_case_is_no_success() {
        let dir = tempfile::tempdir().unwrap();
        let head = "workflow: w\nversion: 1\ndefaults: { queue: q, start_to_close: 5s }\n";
        std::fs::write(
            dir.path().join("w.yaml"),
            format!("{head}steps: [ {{ a: {{ set: {{ x: 1 }} }} }} ]\n"),
        )
        .unwrap();
        let file = dir.path().join("w.test.yaml");
        std::fs::write(&file, "cases: [ { name: it works, expect: { status: completed } } ]\n").unwrap();
        let test = |case: &str| {
            use clap::Parser as _;
            let line = ["knarr", "test", file.to_str().unwrap(), "--case", case];
            let cli = crate::cli::Cli::try_parse_from(line).unwrap();
            match &cli.command {
                crate::cli::Command::Test(args) => run(args, &cli.globals),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(test("works"), Ok(()));
        assert_eq!(test("wroks").unwrap_err().exit, Exit::Usage);
    }

    const CASES: &str = r#"
  - { name: good, expect: { status: completed } }
  - name: bad <one>
    mocks: { b: { fail: { type: x, retryable: false } } }
    expect:
      status: completed
      output: { of: 1 }
      steps: [a]
      undos: []
  - { name: unmocked, mocks: { a: { fail: { type: y, retryable: false } } }, expect: { took: 1s } }
"#;

    #[test]
    fn reports_look_like_this() {
        insta::assert_snapshot!("test_report", render(&reports(CASES), false, &look()));
        insta::assert_snapshot!("test_junit", junit::report(&reports(CASES)));
    }

    #[test]
    fn the_definition_stands_beside_its_test_file() {
        let beside = |path: &str, text: &str| definition_beside(Path::new(path), text).ok();
        assert_eq!(beside("x/order.test.yaml", "cases: []"), Some("x/order.yaml".into()));
        assert_eq!(beside("x/order.test.json", "{}"), Some("x/order.json".into()));
        assert_eq!(beside("x/a.yaml", "definition: b.yaml"), Some("x/b.yaml".into()));
        assert_eq!(beside("x/a.yaml", "cases: []"), None);
    }
}
