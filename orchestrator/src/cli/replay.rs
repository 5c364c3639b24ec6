//! `knarr replay`: a recorded history through today's core.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use knarr_core::lines::{Sign, diff};
use knarr_core::replay::{Definition, Difference, Report, is_part, read, replay};
use owo_colors::OwoColorize;

use crate::cli::error::{CliError, Exit};
use crate::cli::globals::{Globals, Look};
use crate::cli::{check, code, output};

/// Takes a recorded history through this version's core
#[derive(Debug, Args)]
#[command(
    long_about = "Takes a history, as `knarr history -o json` prints it, through the core of this version: its events have to \
                  give the state that the run is said to be in. With the definition, every transition is decided again as \
                  well; the first one that would be decided otherwise today is shown.\n\nUse it before an upgrade of the orchestrator, \
                  or, with a changed definition, to see where a run would have gone another way.",
    after_help = "Examples:\n  knarr history order-17 -o json > order-17.json\n  knarr replay order-17.json\n  knarr replay order-17.json --definition order.yaml\n\n\
                  Exit status: 0 it folds, and is decided as it was, 1 it is not, 2 a file cannot be read."
)]
pub struct ReplayArgs {
    /// The history, JSON; - for stdin
    pub file: PathBuf,

    /// The definition the run began with, or another one to compare with
    #[arg(long, short = 'd', value_name = "FILE")]
    pub definition: Option<PathBuf>,
}

pub fn run(args: &ReplayArgs, globals: &Globals) -> Result<(), CliError> {
    let name = called(&args.file);
    let unreadable = |reason: String| {
        CliError::new(
            Exit::Usage,
            &code::FILE_UNREADABLE,
            format!("{name} cannot be read: {reason}"),
        )
    };
    let text = if args.file.as_os_str() == "-" {
        check::read_limited(std::io::stdin().lock(), check::MAX_HISTORY_BYTES)
    } else {
        check::open(&args.file).and_then(|file| check::read_limited(file, check::MAX_HISTORY_BYTES))
    };
    let text = text.map_err(unreadable)?;
    let definition = args.definition.as_deref().map(check::load).transpose()?;
    if let Some(local) = definition.as_ref().filter(|local| local.read.checked.is_none()) {
        check::report(local, globals);
        return Err(CliError::silent(Exit::Usage));
    }
    let checked = definition.as_ref().and_then(|local| local.read.checked.as_ref());
    let plan = checked.map(|checked| &checked.plan);
    let report = read(&text).and_then(|history| replay(&history, plan));
    let mut report = report.map_err(|bad| CliError::new(Exit::Usage, &code::BAD_HISTORY, format!("{name}: {bad}")))?;
    report.is_part = is_part(&text);
    if globals.json() {
        output::print_json(&report);
    } else {
        output::print(&render(&report, args.definition.as_deref(), &globals.look()));
    }
    if report.is_good() {
        Ok(())
    } else {
        Err(CliError::silent(Exit::No))
    }
}

fn called(path: &Path) -> String {
    if path.as_os_str() == "-" {
        "<stdin>".to_owned()
    } else {
        path.display().to_string()
    }
}

fn render(report: &Report, definition: Option<&Path>, look: &Look) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "{}  {}, {} fold to {}",
        output::bold(look, &format!("{} v{}", report.workflow, report.version)),
        output::plural(u64::from(report.transitions), "transition"),
        output::plural(u64::from(report.events), "event"),
        output::status_text(look, report.status.as_str())
    );
    if report.is_part {
        let _ = writeln!(
            out,
            "  this is only a part: the history goes on behind it (`knarr history` without --limit has all of it)"
        );
    }
    for problem in &report.problems {
        let _ = writeln!(out, "  {problem}");
    }
    match report.definition {
        Definition::NotGiven => {
            let _ = writeln!(out, "  nothing was decided again: give --definition for that");
            return out;
        }
        Definition::Same => {}
        Definition::Other => {
            let name = definition.map(called).unwrap_or_default();
            let _ = writeln!(out, "  {name} is not the definition that the run began with");
        }
    }
    let _ = write!(out, "  {} decided as recorded", report.same);
    if report.folded_only > 0 {
        let _ = write!(out, ", {} whose input the events do not tell", report.folded_only);
    }
    if report.different > 0 {
        let _ = write!(out, ", {} decided otherwise", report.different);
    }
    out.push('\n');
    if let Some(difference) = &report.first_difference {
        render_difference(&mut out, difference, look);
    }
    out
}

fn render_difference(out: &mut String, difference: &Difference, look: &Look) {
    let _ = writeln!(
        out,
        "\n  the first difference is at transition {}, event {}",
        difference.seq,
        difference.event + 1
    );
    if let Some(why) = &difference.why {
        let _ = writeln!(out, "  {why}");
    }
    let pretty = |value: &Option<serde_json::Value>| {
        let text = value.as_ref().map(serde_json::to_string_pretty);
        text.and_then(Result::ok).unwrap_or_default()
    };
    for line in diff(&pretty(&difference.recorded), &pretty(&difference.decided)) {
        let text = match line.sign {
            Sign::Both => format!("  {}", line.text),
            Sign::Minus if look.color => format!("- {}", line.text).red().to_string(),
            Sign::Minus => format!("- {}", line.text),
            Sign::Plus if look.color => format!("+ {}", line.text).green().to_string(),
            Sign::Plus => format!("+ {}", line.text),
        };
        let _ = writeln!(out, "    {text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::source;

    const DEFINITION: &str = "workflow: w\nversion: 1\ndefaults: { queue: q, start_to_close: 5s, retry: { maximum_attempts: 2 } }\nsteps:\n  - a: { activity: a, compensate: ua }\n";

    fn report(definition: &str) -> Report {
        let plan = |text: &str| source::read(text, &|_| Err(String::new())).checked.unwrap().plan;
        let recorded = plan(DEFINITION);
        let file = "cases: [ { name: one, mocks: { a: { result: 1 } }, expect: {} } ]";
        let file = knarr_core::definition::test_file::read(file, &recorded).unwrap();
        let transitions = knarr_core::rehearsal::history(&recorded, &file.cases[0]);
        let history = knarr_core::replay::History {
            transitions,
            status: None,
        };
        replay(&history, (!definition.is_empty()).then(|| plan(definition)).as_ref()).unwrap()
    }

    #[test]
    fn a_part_of_a_history_is_called_one() {
        let look = Look {
            color: false,
            width: None,
            now: chrono::DateTime::UNIX_EPOCH,
        };
        let mut part = report(DEFINITION);
        assert!(!render(&part, None, &look).contains("a part"));
        part.is_part = true;
        assert!(render(&part, None, &look).contains("\n  this is only a part: the history goes on behind it"));
    }

    #[test]
    fn replays_look_like_this() {
        let look = Look {
            color: false,
            width: None,
            now: chrono::DateTime::UNIX_EPOCH,
        };
        let path = Some(Path::new("w.yaml"));
        let texts = [
            render(&report(""), None, &look),
            render(&report(DEFINITION), path, &look),
            render(
                &report(&DEFINITION.replace("activity: a,", "activity: other,")),
                path,
                &look,
            ),
        ];
        insta::assert_snapshot!("replay", texts.join("\n"));
    }
}
