//! The command line that sends a message again without doubling it: with the request id of the first time.
//!
//! Printed whenever it is not known what became of a message. The id may have been generated, and without an id of the run
//! nothing else would keep a second command from starting a second one.

use std::fmt;

use clap::ValueEnum;

use crate::api::command::OperatorCommand;
use crate::cli::cancel::OperationArgs;
use crate::cli::error::Looks;
use crate::cli::globals::Globals;
use crate::cli::limit::RaiseArgs;
use crate::cli::signal::SignalArgs;
use crate::cli::start::StartArgs;
use crate::cli::update::UpdateArgs;

/// Flags of schedules that take no value.
const SWITCHES: [&str; 2] = ["--pause-on-failure", "--paused"];

/// Ready to be pasted into a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Again {
    words: Vec<String>,
    request_id: String,
}

impl Again {
    pub fn start(args: &StartArgs, globals: &Globals, request_id: &str) -> Self {
        let mut again = Self::new("start", &args.workflow, globals, request_id);
        again.flag("--id", args.id.as_deref());
        again.flag("--input", args.input.as_deref());
        again.flag("--version", args.version.map(|version| version.to_string()).as_deref());
        for (key, value) in &args.search_attributes {
            again.flag("--search-attribute", Some(&format!("{key}={value}")));
        }
        again.flag("--id-reuse", name_of(args.id_reuse.as_ref()).as_deref());
        again.flag("--id-conflict", name_of(args.id_conflict.as_ref()).as_deref());
        again.flag("--priority", args.priority.map(|n| n.to_string()).as_deref());
        again.flag("--delay", args.delay.as_deref());
        again.flag("--wait", name_of(Some(&args.wait)).as_deref());
        again
    }

    /// The command that shows the run of a start; those of its workflow, where the orchestrator has named it.
    pub fn look(args: &StartArgs, globals: &Globals) -> String {
        if let Some(id) = &args.id {
            return Self::looks(id, globals).show;
        }
        let mut look = Self::of(globals, "");
        look.words.push("list".to_owned());
        look.flag("--workflow", Some(&args.workflow));
        look.to_string()
    }

    /// The commands that show the run of a workflow id, and what is parked of it.
    pub fn looks(id: &str, globals: &Globals) -> Looks {
        let of = |command: &[&str]| {
            let mut look = Self::of(globals, "");
            let dashes = id.starts_with('-').then_some("--");
            let words = command.iter().copied().chain(dashes).chain([id]);
            look.words.extend(words.map(str::to_owned));
            look.to_string()
        };
        Looks {
            show: of(&["show"]),
            parked: of(&["parked", "list"]),
        }
    }

    pub fn operation(verb: &str, args: &OperationArgs, globals: &Globals, request_id: &str) -> Self {
        let mut again = Self::new(verb, &args.id, globals, request_id);
        again.flag("--reason", args.reason.as_deref());
        again.flag("--by", args.by.as_deref());
        if verb == "terminate" {
            // It has been confirmed.
            again.words.push("--yes".to_owned());
        }
        again
    }

    /// An operation on one run, whether it has its workflow id or is queued for it.
    #[must_use]
    pub fn of_run(mut self, run: Option<uuid::Uuid>) -> Self {
        self.flag("--run", run.map(|run| run.to_string()).as_deref());
        self
    }

    /// A decision about one parked thing of an open run; `--yes`, because it has been confirmed.
    pub fn parked(action: &str, run: &str, step: &str, command: &OperatorCommand, globals: &Globals) -> Self {
        let mut again = Self::new("parked", action, globals, &command.request_id);
        again.flag("--reason", command.reason.as_deref());
        again.flag("--by", command.by.as_deref());
        let body = String::from_utf8_lossy(&command.body);
        let given = (!body.is_empty()).then_some(&*body);
        again.flag(if action == "edit" { "--input" } else { "--result" }, given);
        again.words.extend(["--yes", "--", run, step].map(str::to_owned));
        again
    }

    pub fn raise_limits(args: &RaiseArgs, globals: &Globals, request_id: &str) -> Self {
        let mut again = Self::operation("limit raise", &args.operation, globals, request_id);
        again.flag("--events", args.events.map(|n| n.to_string()).as_deref());
        again.flag("--history", args.history.map(|size| size.to_string()).as_deref());
        again.flag("--pending", args.pending.map(|n| n.to_string()).as_deref());
        again
    }

    pub fn signal(args: &SignalArgs, globals: &Globals, request_id: &str) -> Self {
        let mut again = Self::operation("signal", &args.operation, globals, request_id);
        again.flag("--body", args.body.as_deref());
        again.flag("--start", args.start.as_deref());
        again.flag("--start-input", args.start_input.as_deref());
        again.words.push(args.name.clone());
        again
    }

    pub fn update(args: &UpdateArgs, globals: &Globals, request_id: &str) -> Self {
        let mut again = Self::operation("update", &args.operation, globals, request_id).of_run(args.run);
        again.flag("--input", args.input.as_deref());
        again.flag("--wait", name_of(Some(&args.wait)).as_deref());
        again.words.push(args.name.clone());
        again
    }

    /// `rest` has what else was said, flag by flag.
    pub fn schedule(
        what: &str,
        name: &str,
        rest: &[(&'static str, Option<String>)],
        globals: &Globals,
        request_id: &str,
    ) -> Self {
        let mut again = Self::new("schedule", what, globals, request_id);
        for (flag, value) in rest {
            match value {
                Some(_) if SWITCHES.contains(flag) => again.words.push((*flag).to_owned()),
                value => again.flag(flag, value.as_deref()),
            }
        }
        if what == "delete" {
            again.words.push("--yes".to_owned());
        }
        again.words.push(name.to_owned());
        again
    }

    /// As [`Self::schedule`].
    pub fn trigger(
        what: &str,
        name: &str,
        rest: &[(&'static str, Option<String>)],
        globals: &Globals,
        request_id: &str,
    ) -> Self {
        let mut again = Self::new("trigger", what, globals, request_id);
        for (flag, value) in rest {
            again.flag(flag, value.as_deref());
        }
        again.words.push(name.to_owned());
        again
    }

    fn new(command: &str, what: &str, globals: &Globals, request_id: &str) -> Self {
        let mut again = Self::of(globals, request_id);
        again.words.extend(command.split(' ').map(str::to_owned));
        again.words.push(what.to_owned());
        again.flag("--request-id", Some(request_id));
        again
    }

    fn of(globals: &Globals, request_id: &str) -> Self {
        let mut again = Self {
            words: vec!["knarr".to_owned()],
            request_id: request_id.to_owned(),
        };
        // An address with a password in it is not shown; it is where the first one came from.
        let address = globals.nats_url.as_deref().filter(|url| !url.contains('@'));
        again.flag("--nats-url", address);
        if globals.namespace != "default" {
            again.flag("--namespace", Some(&globals.namespace));
        }
        again
    }

    fn flag(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            // In one word, so that a value that begins with a dash is not taken for a flag.
            self.words.push(format!("{name}={value}"));
        }
    }

    pub fn request_id(&self) -> &str {
        &self.request_id
    }
}

fn name_of<V: ValueEnum>(value: Option<&V>) -> Option<String> {
    Some(value?.to_possible_value()?.get_name().to_owned())
}

impl fmt::Display for Again {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, word) in self.words.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            f.write_str(&quoted(word))?;
        }
        Ok(())
    }
}

/// As a POSIX shell reads it back.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:@,+%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn of(line: &[&str]) -> Again {
        let cli = Cli::try_parse_from(line).unwrap();
        match cli.command {
            Command::Start(args) => Again::start(&args, &cli.globals, "cli-1"),
            Command::Cancel(args) => Again::operation("cancel", &args.operation, &cli.globals, "cli-1"),
            Command::Terminate(args) => Again::operation("terminate", &args.operation, &cli.globals, "cli-1"),
            Command::Update(args) => Again::update(&args, &cli.globals, "cli-1"),
            other => panic!("{other:?}"),
        }
    }

    /// What a shell makes of it.
    fn read_back(again: &Again) -> Vec<String> {
        let script = format!("printf '%s\\0' {again}");
        let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_terminator('\0').map(str::to_owned).collect()
    }

    #[test]
    fn the_command_means_the_same_and_has_the_request_id() {
        let line = [
            "knarr",
            "-n",
            "shop",
            "start",
            "order",
            "--id=-o 'brien' $HOME",
            "--input",
            r#"{"name": "O'Brien\n"}"#,
            "--version",
            "3",
            "--search-attribute",
            "city=Bergen",
            "--id-conflict",
            "use_existing",
            "--wait",
        ];
        let again = of(&line);
        let words = read_back(&again);
        assert!(words.contains(&"--request-id=cli-1".to_owned()), "{again}");
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        assert_eq!(of(&words), again);
        let Command::Start(args) = Cli::try_parse_from(words).unwrap().command else {
            panic!("{again}")
        };
        assert_eq!(args.id.as_deref(), Some("-o 'brien' $HOME"));
        assert_eq!(args.input.as_deref(), Some(r#"{"name": "O'Brien\n"}"#));
    }

    #[test]
    fn an_update_is_repeated_under_its_id() {
        let again = of(&[
            "knarr", "update", "o-1", "address", "--by=ann", "--input", "[1]", "--wait", "accepted",
        ]);
        let words = read_back(&again);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        assert!(words.contains(&"--request-id=cli-1"), "{again}");
        assert_eq!(of(&words), again);
    }

    #[test]
    fn what_has_been_confirmed_is_not_asked_again() {
        let again = of(&["knarr", "terminate", "o-1", "--by", "ann"]);
        let words = read_back(&again);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let Command::Terminate(args) = Cli::try_parse_from(words).unwrap().command else {
            panic!("{again}")
        };
        assert!(args.yes && args.operation.id == "o-1", "{again}");
        let cli = Cli::try_parse_from(["knarr", "list"]).unwrap();
        let again = Again::schedule("delete", "nightly", &[], &cli.globals, "cli-1").to_string();
        assert!(again.ends_with(" --yes nightly"), "{again}");
        let again = of(&["knarr", "cancel", "o-1", "--by", "ann"]).to_string();
        assert!(!again.contains("--yes"), "{again}");
    }

    #[test]
    fn what_was_started_is_looked_at_where_it_was_started() {
        let look = |line: &[&str]| {
            let cli = Cli::try_parse_from([&["knarr"], line].concat()).unwrap();
            match &cli.command {
                Command::Start(args) => Again::look(args, &cli.globals),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(
            look(&["-n", "shop", "start", "order", "--id", "o 1"]),
            "knarr --namespace=shop show 'o 1'"
        );
        assert_eq!(look(&["start", "order", "--id=-1"]), "knarr show -- -1");
        assert_eq!(look(&["start", "order"]), "knarr list --workflow=order");
    }

    #[test]
    fn passwords_are_not_shown() {
        let again = of(&["knarr", "--nats-url", "nats://me:secret@h", "cancel", "o-1"]);
        assert!(!again.to_string().contains("secret"), "{again}");
    }
}
