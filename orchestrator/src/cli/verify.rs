//! `knarr verify`: explores everything that may happen to a run.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use knarr_core::verify::{Coverage, Finding, Limits, Report, Severity, verify};
use knarr_schemas::api::FindingBody;
use owo_colors::{AnsiColors, OwoColorize};
use serde::Serialize;

use crate::cli::error::{CliError, Exit};
use crate::cli::globals::{Globals, Look};
use crate::cli::{check, code, findings, output};

/// Explores everything that may happen to a run, and shows what is left undone
#[derive(Debug, Args)]
#[command(
    long_about = "Explores, offline, everything that may happen to a run of a definition: every step completes, fails or stays \
                  unknown, every undo works or keeps failing, what runs side by side ends in any order, timers and timeouts \
                  come or do not, and the run is cancelled at any moment. What leaves something undone, parked or stuck is \
                  shown with the shortest way that leads to it.\n\nData is not known here: a condition on it is taken both ways, a list has 0, 1 and 2 \
                  items, a loop at most 2 iterations. So a way may be shown that your data never takes; none is \
                  left out that differs by more than data.",
    after_help = "Examples:\n  knarr verify order.yaml\n  knarr verify order.yaml --strict\n  knarr verify big.yaml --states 200000\n  knarr verify big.yaml --faults 2\n\n\
                  Exit status: 0 nothing was found, 1 something was, or the definition has errors, 2 it cannot be read. Where only a part \
                  could be explored, finding nothing proves nothing: --strict exits with 1 then."
)]
pub struct VerifyArgs {
    /// The definition, YAML or JSON; - for stdin
    pub file: PathBuf,

    /// Look at this many states at most; a definition with more is explored by ways with few faults
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000), value_name = "N")]
    pub states: u64,

    /// Only ways with at most this many failures, unknown outcomes, timeouts and cancellations [default: as many as there is room for]
    #[arg(long, value_name = "N")]
    pub faults: Option<u32>,

    /// Warnings count as well, and so does that only a part was explored
    #[arg(long)]
    pub strict: bool,
}

#[derive(Debug, Serialize)]
struct Verified {
    file: String,
    ok: bool,
    /// Everything within the bound was explored; nothing was where it would be refused.
    complete: bool,
    /// Why it would be refused at registration; then nothing is explored.
    refused: Vec<FindingBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    report: Option<Report>,
}

pub fn run(args: &VerifyArgs, globals: &Globals) -> Result<(), CliError> {
    let local = check::load(&args.file)?;
    let Some(checked) = &local.read.checked else {
        if globals.json() {
            output::print_json(&Verified {
                file: local.name.clone(),
                ok: false,
                complete: false,
                refused: local.read.findings.clone(),
                report: None,
            });
        } else {
            check::report(&local, globals);
            output::note("it would be refused at registration; nothing was explored");
        }
        return Err(CliError::silent(Exit::No));
    };
    let limits = Limits {
        states: args.states,
        faults: args.faults,
    };
    let report = verify(&checked.plan, limits).map_err(|error| {
        let message = format!("{}: {error}", local.name);
        CliError::new(Exit::No, &code::NOT_EXPLORED, message)
    })?;
    let least = if args.strict {
        Severity::Warning
    } else {
        Severity::Error
    };
    let complete = report.coverage.exhaustive;
    let ok = report.findings.iter().all(|finding| finding.severity > least) && (complete || !args.strict);
    if globals.json() {
        output::print_json(&Verified {
            file: local.name.clone(),
            ok,
            complete,
            refused: Vec::new(),
            report: Some(report),
        });
    } else {
        let warned = findings::count(&local.read.findings);
        if !warned.is_empty() {
            output::note(&format!("knarr check says more about it: {warned}"));
        }
        output::print(&render(&report, &globals.look()));
    }
    if ok { Ok(()) } else { Err(CliError::silent(Exit::No)) }
}

fn render(report: &Report, look: &Look) -> String {
    let mut out = String::new();
    for finding in &report.findings {
        render_finding(&mut out, finding, look);
    }
    let of = |severity| {
        let findings = report.findings.iter();
        findings.filter(|finding| finding.severity == severity).count() as u64
    };
    let coverage = &report.coverage;
    let verdict = match (of(Severity::Error), of(Severity::Warning)) {
        (0, 0) if !coverage.exhaustive => format!(
            "nothing found so far: only a part was explored ({}; raise --states)",
            output::plural(coverage.states, "state")
        ),
        (0, 0) => "nothing is left undone, and nothing stands still".to_owned(),
        (errors, 0) => output::plural(errors, "error"),
        (0, warnings) => output::plural(warnings, "warning"),
        (errors, warnings) => format!(
            "{}, {}",
            output::plural(errors, "error"),
            output::plural(warnings, "warning")
        ),
    };
    let name = output::bold(look, &format!("{} v{}", report.workflow, report.version));
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{name}: {verdict}");
    render_coverage(&mut out, coverage);
    out
}

fn render_finding(out: &mut String, finding: &Finding, look: &Look) {
    let (name, color) = match finding.severity {
        Severity::Error => ("error", AnsiColors::Red),
        Severity::Warning => ("warning", AnsiColors::Yellow),
        Severity::Notice => ("notice", AnsiColors::Cyan),
    };
    let head = format!("{name}[{}]", finding.code);
    let head = if look.color {
        head.color(color).bold().to_string()
    } else {
        head
    };
    let _ = writeln!(
        out,
        "{head}: {}",
        output::bold(look, &output::cut(&finding.message, 300))
    );
    // How something comes about that the definition itself announces is no news.
    if finding.severity != Severity::Notice {
        for (at, step) in finding.way.iter().enumerate() {
            let _ = writeln!(out, "  {:>3}  {}", at + 1, output::cut(step, 200));
        }
        let _ = writeln!(out, "  {} {}", output::dim(look, "= help:"), finding.remedy);
    }
    out.push('\n');
}

fn render_coverage(out: &mut String, coverage: &Coverage) {
    let _ = writeln!(
        out,
        "  explored   {}, {} transitions, {} ways from the start to an end",
        output::plural(coverage.states, "state"),
        coverage.transitions,
        ways(coverage.paths)
    );
    let ends = coverage.ends.iter().map(|(status, count)| match status.as_str() {
        "parked" => format!("{count} wait for an operator, because what is to be undone or retried keeps failing"),
        "running" => format!("{count} wait for a signal"),
        status => format!("{count} {status}"),
    });
    let _ = writeln!(out, "  ends       {}", ends.collect::<Vec<_>>().join(", "));
    let bound = &coverage.bound;
    let faults = bound
        .faults
        .map(|faults| format!(", at most {} on a way", output::plural(u64::from(faults), "fault")));
    let whole = if coverage.exhaustive {
        "everything within"
    } else {
        "a part of what is within (more with --states)"
    };
    let _ = writeln!(
        out,
        "  bound      {whole}: lists of up to {}, loops of up to {} iterations, up to {} undos that keep failing{}",
        bound.list_items,
        bound.while_iterations,
        bound.parked_undos,
        faults.unwrap_or_default()
    );
    if !coverage.forced.is_empty() {
        let forced: Vec<_> = coverage
            .forced
            .iter()
            .map(|text| format!("`{}`", output::cut(text, 80)))
            .collect();
        let _ = writeln!(out, "  both ways  {}", forced.join(", "));
    }
}

/// Whole as long as people read it.
fn ways(count: f64) -> String {
    if count < 1e6 {
        format!("{count:.0}")
    } else {
        format!("{count:.1e}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::source;

    fn report(steps: &str) -> String {
        report_within(steps, Limits::default())
    }

    fn report_within(steps: &str, limits: Limits) -> String {
        let text = format!(
            "workflow: w\nversion: 1\ndefaults: {{ queue: q, start_to_close: 5s, retry: {{ maximum_attempts: 2 }} }}\nsteps:\n{steps}"
        );
        let checked = source::read(&text, &|_| Err(String::new())).checked.unwrap();
        let report = verify(&checked.plan, limits).unwrap();
        let look = Look {
            color: false,
            width: None,
            now: chrono::DateTime::UNIX_EPOCH,
        };
        render(&report, &look)
    }

    #[test]
    fn what_was_found_looks_like_this() {
        let good = "  - a: { if: input.x, activity: a, compensate: u }\n  - b: { activity: b, no_undo: it is gone }\n";
        insta::assert_snapshot!("verify_good", report(good));
        let bad = "  - a: { activity: a }\n  - t: { try: { steps: [ { b: { activity: b, compensate: u } } ], catch: [ { steps: [ { c: { wait_for: { signal: s } } } ] } ] } }\n";
        insta::assert_snapshot!("verify_bad", report(bad));
    }

    #[test]
    fn where_only_a_part_was_explored_nothing_is_claimed() {
        let limits = Limits {
            states: 10,
            faults: None,
        };
        let steps: String = (0..9)
            .map(|n| format!("  - s{n}: {{ activity: a, compensate: u }}\n"))
            .collect();
        let report = report_within(&steps, limits);
        assert!(
            report.contains("w v1: nothing found so far: only a part was explored ("),
            "{report}"
        );
        assert!(!report.contains("nothing is left undone"), "{report}");
    }

    #[tokio::test]
    async fn strict_wants_everything_explored() {
        let file = std::env::temp_dir().join(format!("knarr-verify-{}.yaml", std::process::id()));
        let steps: String = (0..9)
            .map(|n| format!("  - s{n}: {{ activity: a, compensate: u }}\n"))
            .collect();
        let text = format!(
            "workflow: w\nversion: 1\ndefaults: {{ queue: q, start_to_close: 5s, retry: {{ maximum_attempts: 2 }} }}\nsteps:\n{steps}"
        );
        std::fs::write(&file, text).unwrap();
        let globals = crate::cli::Cli::read(["knarr", "list"]).unwrap().globals;
        let args = |strict, states| VerifyArgs {
            file: file.clone(),
            states,
            faults: None,
            strict,
        };
        let of = |strict, states| run(&args(strict, states), &globals).map_err(|error| error.exit);
        let found = [of(false, 10), of(true, 10), of(true, 100_000)];
        std::fs::remove_file(&file).unwrap();
        assert_eq!(found, [Ok(()), Err(Exit::No), Ok(())]);
    }

    #[test]
    fn many_ways_are_told_by_their_order() {
        assert_eq!(ways(12.0), "12");
        assert_eq!(ways(12_345_678.0), "1.2e7");
    }
}
