//! `knarr demo`: a private stack and two orders on it, told step by step: one that goes well, and one that has to be
//! undone. On a terminal it stays up until Ctrl-C, so that one can look around; elsewhere it ends by itself, with status 0
//! if both orders ended as they had to.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use knarr_schemas::api::{ListRuns, RegisterDefinition, RegisteredDefinition, RegistrationOutcome, RunPage, verb};
use knarr_worker::order_services::{OrderOptions, order_services};
use knarr_worker::{CancellationToken, Worker};
use serde_json::json;
use tokio_util::task::AbortOnDropHandle;

use crate::api::client::ApiClient;
use crate::api::command::{Commander, StartCommand};
use crate::cli::dev::Programs;
use crate::cli::error::{CliError, Exit};
use crate::cli::globals::{Globals, Look, running_here};
use crate::cli::stack::{Addresses, Stack};
use crate::cli::story::{self, StoryError};
use crate::cli::{code, interrupt, output};
use crate::config::{ProcessArgs, ServerConfig};
use crate::dev::{PortChoice, Progress, ServerOptions};
use crate::telemetry;

const DEFINITION: &str = include_str!("../../../workers/examples/order.yaml");
const NAMESPACE: &str = "default";
/// How long a service takes: enough to be seen.
const WORK: Duration = Duration::from_millis(150);
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// For one order.
const ORDER_LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
#[command(after_help = "The servers are always private: KNARR_NATS_URL and KNARR_DATABASE_URL are not looked at.")]
pub struct DemoArgs {
    /// Where the private servers keep their data; a further demo continues there
    #[arg(long, default_value = ".knarr/demo", value_name = "DIR")]
    pub data_dir: PathBuf,

    /// Forget what the data directory holds and begin with empty servers
    #[arg(long)]
    pub fresh: bool,

    #[command(flatten)]
    pub programs: Programs,

    #[command(flatten)]
    pub process: ProcessArgs,
}

pub async fn run(args: DemoArgs, globals: &Globals) -> Result<(), CliError> {
    let shutdown = interrupt::token();
    let settings = ServerConfig::private(args.process.clone(), "", None, "private")?;
    let telemetry = telemetry::init(&settings.telemetry())?;
    let options = ServerOptions {
        data_dir: Some(args.data_dir),
        fresh: args.fresh,
        nats_port: PortChoice::Any,
        search: args.programs.search(),
        ..ServerOptions::default()
    };
    let progress = Progress::for_stderr();
    let mut stack = tokio::select! {
        stack = Stack::start(options, None, args.process, &progress) => stack?,
        () = shutdown.cancelled() => return Ok(()),
    };
    progress.finish();
    let stay = std::io::stdout().is_terminal() && !globals.json();
    let addresses = stack.addresses();
    let told = tokio::select! {
        told = tell(&addresses, stack.data_dir(), globals, stay) => told,
        () = shutdown.cancelled() => Ok(None),
    };
    let kept = match &told {
        // The worker goes on as long as the stack does.
        Ok(Some(_worker)) if stay => stack.keep(&shutdown).await,
        _ => Ok(()),
    };
    let told = told.map(drop);
    let stopped = stack.stop().await;
    telemetry.flush().await;
    told.and(kept).and(stopped)
}

/// The services of the orders; stopped when dropped.
type RunningWorker = AbortOnDropHandle<()>;

/// What is done, and how it has to end.
struct Order {
    title: &'static str,
    introduction: &'static str,
    fails: bool,
    end: &'static str,
}

const ORDERS: [Order; 2] = [
    Order {
        title: "An order that goes well",
        introduction: "Four services, one after the other. Each answers over NATS; each step is in PostgreSQL before the next begins.",
        fails: false,
        end: "completed",
    },
    Order {
        title: "An order that must be undone",
        introduction: "The warehouse will say that it cannot deliver, after the card was charged.",
        fails: true,
        end: "compensated",
    },
];

/// Tells both orders on a stack that is up. `None` = there was nothing to keep.
async fn tell(
    addresses: &Addresses,
    data_dir: &Path,
    globals: &Globals,
    stay: bool,
) -> Result<Option<RunningWorker>, CliError> {
    let look = globals.look();
    let say = |text: &str| {
        if !globals.json() {
            output::print(text);
        }
    };
    say(&format!(
        "\n{}  a NATS, a PostgreSQL and an orchestrator of your own; the data is kept in {}.\n\n",
        output::bold(&look, "Knarr is up:"),
        data_dir.display()
    ));
    let failed = |error: String| CliError::new(Exit::Environment, &code::NATS_REFUSED, error);
    let nats = knarr_worker::connect(&addresses.nats_url)
        .await
        .map_err(|error| failed(error.to_string()))?;
    let api = ApiClient::new(nats.clone(), NAMESPACE, CALL_LIMIT);
    register(&api).await?;
    say(&told_line(
        &look,
        "workflow",
        "order v1 is registered: four steps, and how to undo three of them",
    ));
    let worker = order_services(
        Worker::builder(nats.clone()).queue("orders"),
        OrderOptions {
            work: WORK,
            ..OrderOptions::default()
        },
    );
    let worker = worker.build().map_err(|error| failed(error.to_string()))?;
    let worker = AbortOnDropHandle::new(tokio::spawn(async move {
        if let Err(error) = worker.run(CancellationToken::new()).await {
            tracing::error!(%error, "the demo's worker has ended");
        }
    }));
    say(&told_line(
        &look,
        "worker",
        "seven activities are being served: a hundred lines on the worker SDK",
    ));

    let commander = Commander::new(nats, NAMESPACE, CALL_LIMIT);
    let first = next_number(&api).await?;
    let mut ends = Vec::new();
    for (order, number) in ORDERS.iter().zip(first..) {
        let workflow_id = format!("order-{number}");
        say(&format!(
            "\n{}\n{}\n\n",
            output::bold(&look, order.title),
            output::dim(&look, order.introduction)
        ));
        start(&commander, order, &workflow_id).await?;
        let ending = story::tell(&api, &workflow_id, &look, ORDER_LIMIT, &say)
            .await
            .map_err(|error| match error {
                StoryError::Call(error) => error.into(),
                error @ StoryError::TooLong { .. } => CliError::new(Exit::No, &code::NO_ANSWER, error.to_string()),
            })?;
        if ending.status != order.end {
            let wrong = format!("{workflow_id} ended {}, and had to be {}", ending.status, order.end);
            return Err(CliError::new(Exit::No, &code::DEMO_WENT_WRONG, wrong));
        }
        ends.push(json!({ "workflow_id": workflow_id, "status": ending.status }));
    }
    if globals.json() {
        output::print_json(&json!({ "orders": ends, "addresses": addresses }));
    } else {
        let failed = format!("order-{}", first + 1);
        let is_found = running_here().as_ref() == Some(&addresses.nats_url);
        output::print(&outlook(addresses, &look, &program(), &failed, stay, is_found));
    }
    Ok(Some(worker))
}

fn told_line(look: &Look, what: &str, text: &str) -> String {
    format!("  {}  {text}", output::dim(look, &format!("{what:>8}")))
}

async fn register(api: &ApiClient) -> Result<(), CliError> {
    let request = RegisterDefinition {
        source: DEFINITION.to_owned(),
        file_name: Some("order.yaml".to_owned()),
        files: Default::default(),
    };
    let registered: RegisteredDefinition = api.call(verb::DEFINITION_REGISTER, &request).await?;
    match (registered.outcome, registered.error) {
        (RegistrationOutcome::Refused, Some(error)) => Err(CliError::refused(error)),
        (RegistrationOutcome::Refused, None) => {
            let first = registered
                .findings
                .first()
                .map(|finding| finding.message.as_str())
                .unwrap_or_default();
            Err(CliError::new(
                Exit::No,
                &code::DEMO_WENT_WRONG,
                format!("the definition was refused: {first}"),
            ))
        }
        _ => Ok(()),
    }
}

/// Orders are numbered on where an earlier demo left off.
async fn next_number(api: &ApiClient) -> Result<u64, CliError> {
    let request = ListRuns {
        workflow: Some("order".to_owned()),
        ..ListRuns::default()
    };
    let page: RunPage = api.call(verb::RUN_LIST, &request).await?;
    let numbers = page
        .runs
        .iter()
        .filter_map(|run| run.workflow_id.strip_prefix("order-")?.parse::<u64>().ok());
    Ok(numbers.max().unwrap_or(0) + 1)
}

async fn start(commander: &Commander, order: &Order, workflow_id: &str) -> Result<(), CliError> {
    let mut input = json!({
        "customer": "Ada",
        "items": [{ "sku": "compass", "quantity": 1, "price": 79.0 }, { "sku": "rope", "quantity": 2, "price": 12.5 }],
    });
    if order.fails {
        input["fail"] = json!({ "reserve-inventory": "failed" });
    }
    let command = StartCommand {
        workflow: "order".to_owned(),
        workflow_id: Some(workflow_id.to_owned()),
        input: Bytes::from(input.to_string()),
        request_id: format!("demo-{workflow_id}"),
        ..StartCommand::default()
    };
    commander.start(command).await?;
    Ok(())
}

/// How this program can be called from where the person is.
fn program() -> String {
    let on_path = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|directory| directory.join("knarr").is_file()));
    let exe = std::env::current_exe().ok();
    let here = std::env::current_dir().ok();
    match (on_path, exe, here) {
        (false, Some(exe), Some(here)) => exe.strip_prefix(here).unwrap_or(&exe).display().to_string(),
        _ => "knarr".to_owned(),
    }
}

fn outlook(addresses: &Addresses, look: &Look, program: &str, failed: &str, stay: bool, is_found: bool) -> String {
    let Addresses {
        nats_url,
        database_url,
        http_url,
    } = addresses;
    let head = if stay {
        "To look further, in another terminal:"
    } else {
        "While a demo is up (on a terminal it stays), look further:"
    };
    let rows = [
        (format!("export KNARR_NATS_URL={nats_url}"), ""),
        (format!("{program} list"), "every run"),
        (
            format!("{program} show {failed}"),
            "the state of one, and what was undone",
        ),
        (format!("{program} history {failed}"), "everything that happened to it"),
        (
            format!(
                "{program} start order --wait --input '{{\"customer\":\"you\",\"items\":[{{\"sku\":\"map\",\"quantity\":1,\"price\":5}}]}}'"
            ),
            "",
        ),
        (
            format!("psql '{database_url}' -c 'select workflow_id, status from runs'"),
            "",
        ),
        (
            format!("nats --server {nats_url} sub 'knarr.>'"),
            "every message, as it passes",
        ),
        (format!("{http_url}/metrics"), "for Prometheus"),
    ];
    let width = rows
        .iter()
        .filter(|(_, why)| !why.is_empty())
        .map(|(command, _)| command.len())
        .max()
        .unwrap_or(0);
    let mut lines = vec![String::new(), output::bold(look, head), String::new()];
    // Commands find by themselves what runs in this directory.
    for (command, why) in rows.into_iter().skip(usize::from(is_found)) {
        lines.push(match why {
            "" => format!("  {command}"),
            why => format!("  {command:<width$}   {}", output::dim(look, &format!("# {why}"))),
        });
    }
    lines.push(String::new());
    let end = if stay {
        "Ctrl-C stops everything; a further demo continues with what is there."
    } else {
        "Everything is stopped again; the data is kept, and a further demo continues with it."
    };
    lines.push(output::dim(look, end));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    #[test]
    fn the_outlook_says_how_to_look_further() {
        let addresses = Addresses {
            nats_url: "nats://127.0.0.1:20001".to_owned(),
            database_url: "postgres://knarr:secret@127.0.0.1:21000/knarr".to_owned(),
            http_url: "http://127.0.0.1:8822".to_owned(),
        };
        let look = Look {
            color: false,
            width: None,
            now: DateTime::UNIX_EPOCH,
        };
        insta::assert_snapshot!(outlook(&addresses, &look, "knarr", "order-2", true, false));
    }
}
