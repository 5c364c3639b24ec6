//! `knarr start`: starts a run by the log and, unless told otherwise, waits until it is committed, or closed.

use std::io::Read;
use std::time::Duration;

use crate::cli::duration;
use bytes::Bytes;
use clap::{Args, ValueEnum};
use knarr_schemas::body::{Answer, AnswerStage};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use crate::api::client::ApiClient;
use crate::api::command::{AnswerWanted, StartCommand};
use crate::cli::again::Again;
use crate::cli::code;
use crate::cli::ending::{self, Asked};
use crate::cli::error::{CliError, Exit};
use crate::cli::globals::{Globals, Look};
use crate::cli::{interrupt, output};

/// Longest wait for a run to close, unless --timeout says otherwise.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3_600);

#[derive(Debug, Args)]
#[command(after_help = "\
Exit status: 0 started (with --wait: completed), 1 refused or not completed, 2 wrong usage, 3 NATS or orchestrator missing,
124 not closed within --timeout, and 130 interrupted: then the run goes on without being waited for.

Examples:
  knarr start order --id order-17 --input '{\"items\": [1, 2]}'
  knarr start order --input @order.json --wait")]
pub struct StartArgs {
    /// Name of the definition
    pub workflow: String,

    /// Workflow id, the business key [default: from the definition's `id`, else generated]
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,

    /// Input: JSON, @file, or - for stdin [default: null]
    #[arg(long, short = 'i', value_name = "JSON|@FILE|-")]
    pub input: Option<String>,

    /// Version of the definition [default: the one that `knarr definition default` has set, else the highest]
    #[arg(long, value_name = "N")]
    pub version: Option<u32>,

    /// Makes repeating this command harmless [default: generated]
    #[arg(long, value_name = "ID")]
    pub request_id: Option<String>,

    /// Search attribute; JSON or text; may be repeated
    #[arg(long = "search-attribute", value_name = "KEY=VALUE", value_parser = parse_attribute)]
    pub search_attributes: Vec<(String, Value)>,

    /// When a closed run had this id
    #[arg(long, value_enum)]
    pub id_reuse: Option<IdReuse>,

    /// When an open run has this id
    #[arg(long, value_enum)]
    pub id_conflict: Option<IdConflict>,

    /// From 1, the most important, to 5 [default: the definition's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=5))]
    pub priority: Option<u8>,

    /// Begin that much later: 90s, 10m, 1h30m
    #[arg(long, value_name = "DURATION", value_parser = duration::as_written)]
    pub delay: Option<String>,

    /// What to wait for; `--wait` alone is `closed`
    #[arg(long, value_enum, num_args = 0..=1, default_value = "started", default_missing_value = "closed")]
    pub wait: Wait,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Wait {
    /// Until JetStream has stored the message
    Stored,
    /// Until the run is committed
    Started,
    /// Until the run has come to its end
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum IdReuse {
    AllowDuplicate,
    AllowDuplicateFailedOnly,
    RejectDuplicate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum IdConflict {
    Fail,
    UseExisting,
    TerminateExisting,
    /// It is started when that one has closed
    Queue,
}

pub async fn run(args: StartArgs, globals: &Globals) -> Result<(), CliError> {
    let input = read_input("--input", args.input.as_deref())?;
    let request_id = args.request_id.clone().unwrap_or_else(new_request_id);
    let answer = match args.wait {
        Wait::Stored => None,
        Wait::Started => Some(AnswerWanted::Started),
        Wait::Closed => Some(AnswerWanted::Closed),
    };
    let command = StartCommand {
        workflow: args.workflow.clone(),
        workflow_id: args.id.clone(),
        input,
        version: args.version,
        request_id: request_id.clone(),
        search_attributes: attributes_object(&args.search_attributes)?,
        id_reuse: value_name(args.id_reuse),
        id_conflict: value_name(args.id_conflict),
        priority: args.priority,
        delay: args.delay.clone(),
        answer,
    };
    let again = Again::start(&args, globals, &request_id);
    let connection = globals.connect().await?;
    let commander = connection.commander(globals);
    // From before the start is sent: whoever is interrupted is told that there is a run.
    let interrupted = (args.wait == Wait::Closed).then(interrupt::token);
    let mut stored = commander
        .start(command.clone())
        .await
        .map_err(|error| connection.explain(CliError::unsent(error, &again)))?;
    let answer = match args.wait {
        Wait::Stored => {
            report_stored(globals, stored.sequence, &request_id);
            return Ok(());
        }
        Wait::Started => stored.answer(Some(globals.timeout())).await,
        Wait::Closed => {
            let limit = globals.timeout.unwrap_or(CLOSE_TIMEOUT);
            let api = ApiClient::new(connection.nats.clone(), globals.namespace.clone(), globals.timeout());
            let asked = Asked {
                api,
                commander,
                command,
            };
            let answer = tokio::select! {
                answer = ending::of_run(&mut stored, limit, &asked) => answer,
                () = cancelled(interrupted) => return Err(CliError::left(&Again::look(&args, globals), &again)),
            };
            match answer {
                Ok(answer) => return finish(&answer, globals),
                Err(error) => {
                    let run = asked.standing().await;
                    let run = run
                        .as_ref()
                        .map(|run| (run, Again::looks(&run.run.workflow_id, globals)));
                    return Err(CliError::not_closed(&error, run, &again));
                }
            }
        }
    };
    let answer = answer.map_err(|error| CliError::unanswered(&error, &again))?;
    finish(&answer, globals)
}

async fn cancelled(interrupted: Option<CancellationToken>) {
    match interrupted {
        Some(token) => token.cancelled_owned().await,
        None => std::future::pending().await,
    }
}

/// Prints an answer and turns it into the status of the process.
pub fn finish(answer: &Answer, globals: &Globals) -> Result<(), CliError> {
    if answer.stage == AnswerStage::Refused {
        if globals.json() {
            output::print_json(answer);
            return Err(CliError::silent(Exit::No));
        }
        return Err(match answer.error.clone() {
            Some(body) => CliError::refused(body),
            None => CliError::new(Exit::No, &code::BAD_REPLY, "the request was refused without a reason"),
        });
    }
    if globals.json() {
        output::print_json(answer);
    } else {
        output::print(&render(answer, &globals.look()));
    }
    let completed = answer.status.as_deref() == Some("completed");
    if answer.stage == AnswerStage::Closed && !completed {
        return Err(CliError::silent(Exit::No));
    }
    Ok(())
}

pub fn render(answer: &Answer, look: &Look) -> String {
    let id = output::bold(look, &output::cut(&answer.workflow_id, 200));
    let status = answer.status.as_deref().unwrap_or("closed");
    let first = match answer.stage {
        AnswerStage::Started if matches!(status, "waiting" | "queued") => {
            format!("{id} accepted ({})", output::status_text(look, status))
        }
        AnswerStage::Started => format!("{id} started"),
        AnswerStage::Existing => format!("{id} was there already ({})", output::status_text(look, status)),
        AnswerStage::Closed => format!("{id} {}", output::status_text(look, status)),
        AnswerStage::Accepted => format!("{id} accepted"),
        AnswerStage::Completed if answer.failure.is_some() => format!("{id}: the update failed"),
        AnswerStage::Completed => format!("{id} updated"),
        AnswerStage::Refused => format!("{id} refused"),
    };
    let mut out = vec![first];
    let mut field =
        |name: &str, text: String| out.push(format!("  {}  {text}", output::dim(look, &format!("{name:<7}"))));
    if let Some(run_id) = answer.run_id {
        field("run", run_id.to_string());
    }
    if let Some(failure) = &answer.failure {
        field("failure", output::failure_text(failure));
    }
    if let Some(error) = &answer.error {
        field("output", format!("{} {}", error.message, error.remedy));
    }
    if let Some(value) = &answer.output {
        let text = serde_json::to_string_pretty(value).unwrap_or_default();
        field("output", text.replace('\n', "\n           "));
    }
    out.join("\n")
}

fn report_stored(globals: &Globals, sequence: u64, request_id: &str) {
    if globals.json() {
        output::print_json(&serde_json::json!({ "sequence": sequence, "request_id": request_id }));
    } else {
        output::print(&format!(
            "stored as message {sequence} of the log (request id {request_id})"
        ));
    }
}

pub fn new_request_id() -> String {
    let mut bytes = [0; 16];
    // Without randomness from the system the time still tells requests of one person apart.
    if ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes).is_err() {
        let nanos = chrono::Utc::now().timestamp_nanos_opt().unwrap_or_default();
        bytes[..8].copy_from_slice(&nanos.to_be_bytes());
    }
    format!("cli-{}", uuid::Builder::from_random_bytes(bytes).into_uuid())
}

fn value_name<V: ValueEnum>(value: Option<V>) -> Option<String> {
    value?.to_possible_value().map(|value| value.get_name().to_owned())
}

/// The text is sent as it is; it only has to be JSON. `flag` is what it was said with.
pub fn read_input(flag: &str, argument: Option<&str>) -> Result<Bytes, CliError> {
    let Some(argument) = argument else {
        return Ok(Bytes::new());
    };
    let unreadable = |name: &str, error: std::io::Error| {
        CliError::new(
            Exit::Usage,
            &code::FILE_UNREADABLE,
            format!("what {flag} names cannot be read from {name}: {error}"),
        )
    };
    let (name, text) = match argument {
        "-" => {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .map_err(|error| unreadable("stdin", error))?;
            (format!("{flag}, read from stdin,"), text)
        }
        argument => match argument.strip_prefix('@') {
            Some(file) => (
                format!("{flag}, read from {file},"),
                std::fs::read_to_string(file).map_err(|error| unreadable(file, error))?,
            ),
            None => (flag.to_owned(), argument.to_owned()),
        },
    };
    serde_json::from_str::<serde::de::IgnoredAny>(&text)
        .map_err(|error| CliError::usage(format!("{name} is not valid JSON: {error}")))?;
    Ok(text.into())
}

fn parse_attribute(text: &str) -> Result<(String, Value), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => {
            let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
            Ok((key.to_owned(), value))
        }
        _ => Err(format!("`{text}` is not of the form key=value")),
    }
}

fn attributes_object(attributes: &[(String, Value)]) -> Result<Option<String>, CliError> {
    if attributes.is_empty() {
        return Ok(None);
    }
    let mut object = Map::new();
    for (key, value) in attributes {
        if object.insert(key.clone(), value.clone()).is_some() {
            return Err(CliError::usage(format!("the search attribute `{key}` is given twice")));
        }
    }
    Ok(Some(Value::Object(object).to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_json_or_text() {
        let read = |text| parse_attribute(text).map(|(_, value)| value.to_string());
        assert_eq!(read("a=1"), Ok("1".to_owned()));
        assert_eq!(read("a=x y"), Ok("\"x y\"".to_owned()));
        assert_eq!(read("a=b=c"), Ok("\"b=c\"".to_owned()));
        assert!(read("a").is_err() && read("=1").is_err());
        let twice = [("a".to_owned(), Value::Null), ("a".to_owned(), Value::Null)];
        assert!(attributes_object(&twice).is_err());
    }

    #[test]
    fn input_is_checked_before_it_is_sent() {
        assert_eq!(read_input("--input", None).unwrap(), Bytes::new());
        assert_eq!(read_input("--input", Some(r#"{"a": 1}"#)).unwrap(), r#"{"a": 1}"#);
        let error = read_input("--body", Some("{a}")).unwrap_err();
        assert_eq!(error.exit, Exit::Usage);
        assert!(error.to_string().contains("--body is not valid JSON: "), "{error}");
        assert!(
            read_input("--input", Some("@/nowhere/x.json"))
                .unwrap_err()
                .to_string()
                .contains("/nowhere/x.json")
        );
    }
}
