//! The same asked of many runs: so many at a time, no faster than wanted, each with a request id of its own, and a word about
//! each that was not taken. Interrupted, it waits for those that were sent, and tells of all of them what became of them.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use futures_util::stream::{self, StreamExt as _};
use indicatif::{ProgressBar, ProgressStyle};
use knarr_schemas::body::{AnswerStage, ErrorBody};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::command::{Commander, OperatorCommand};
use crate::cli::cancel;
use crate::cli::code;
use crate::cli::error::{CliError, Exit};
use crate::cli::globals::{Connection, Globals};
use crate::cli::{interrupt, operator_code, output, start};
use crate::config::host_name;

/// Commands that wait for their answers at a time.
const AT_ONCE: usize = 64;
/// Timers are late by no more.
const LATE: Duration = Duration::from_millis(5);
/// Refusals that are told one by one.
const TOLD: usize = 20;

/// Who, why and how.
#[derive(Debug, Clone, Args)]
pub struct BulkArgs {
    /// Why, for the record
    #[arg(long, short = 'r', value_name = "TEXT")]
    pub reason: Option<String>,

    /// Who, for the record [default: user@host]
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,

    /// Only says what would be done
    #[arg(long)]
    pub dry_run: bool,

    /// At most so many a second
    #[arg(long, value_name = "N", value_parser = rate)]
    pub rate: Option<f64>,

    /// Do not ask
    #[arg(long, short = 'y')]
    pub yes: bool,

    /// Makes repeating this command harmless [default: generated]
    #[arg(long, value_name = "ID")]
    pub request_id: Option<String>,
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate >= 0.01 => Ok(rate),
        _ => Err(format!("`{text}` is not a number of at least 0.01")),
    }
}

impl BulkArgs {
    pub fn by(&self) -> String {
        self.by.clone().unwrap_or_else(whoami)
    }

    /// Asks on a terminal, and refuses where nobody can be asked.
    pub fn confirm(&self, question: &str) -> Result<(), CliError> {
        if self.yes {
            return Ok(());
        }
        cancel::confirm(&format!("{question} [y/N] "))
    }

    pub fn request_id(&self) -> String {
        self.request_id.clone().unwrap_or_else(start::new_request_id)
    }
}

/// `user@host`
pub fn whoami() -> String {
    let user = ["USER", "LOGNAME", "USERNAME"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()));
    format!("{}@{}", user.as_deref().unwrap_or("unknown"), host_name())
}

/// Of one of many, so that repeating all of them with the first one's id repeats each under its own.
pub fn request_id_of(first: &str, what: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in what {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let hash: String = hash
        .finalize()
        .iter()
        .take(12)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{first}/{hash}")
}

/// One that was asked.
#[derive(Debug, Serialize)]
pub struct Asked<T> {
    #[serde(rename = "of")]
    pub what: T,
    pub accepted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorBody>,
}

/// All that were asked, in the order of their answers.
#[derive(Debug, Serialize)]
pub struct Report<T> {
    pub action: &'static str,
    pub by: String,
    pub request_id: String,
    pub accepted: usize,
    pub asked: Vec<Asked<T>>,
}

/// Sends every command and waits for its answer.
pub async fn ask<T: Send>(
    commands: Vec<(T, OperatorCommand)>,
    rate: Option<f64>,
    connection: &Connection,
    globals: &Globals,
) -> Vec<Asked<T>> {
    let bar = bar(commands.len());
    let commander = connection.commander(globals);
    let limit = globals.timeout();
    let stop = match commands.len() {
        // Nothing is left to stop before.
        0 | 1 => CancellationToken::new(),
        _ => interrupt::token(),
    };
    let pace = Pace::new(rate, stop);
    let sent = commands.into_iter().map(|(what, command)| {
        let (commander, bar, pace) = (commander.clone(), bar.clone(), pace.clone());
        async move {
            let error = if pace.turn().await {
                one(&commander, command, limit).await.err().map(|error| {
                    let error = connection.explain(error);
                    error.body.unwrap_or_else(|| code::BAD_REPLY.plain())
                })
            } else {
                Some(operator_code::INTERRUPTED.plain())
            };
            bar.inc(1);
            Asked {
                what,
                accepted: error.is_none(),
                error,
            }
        }
    });
    let asked = stream::iter(sent).buffer_unordered(AT_ONCE).collect().await;
    bar.finish_and_clear();
    asked
}

/// Lets one after the other begin.
#[derive(Debug, Clone)]
struct Pace {
    /// Between two of them.
    pause: Option<Duration>,
    /// When the next one may.
    next: Arc<Mutex<Instant>>,
    stop: CancellationToken,
}

impl Pace {
    fn new(rate: Option<f64>, stop: CancellationToken) -> Self {
        Self {
            pause: rate.map(|rate| Duration::from_secs_f64(1.0 / rate)),
            next: Arc::new(Mutex::new(Instant::now())),
            stop,
        }
    }

    /// Waits for one's turn; `false` = nothing more is to begin.
    async fn turn(&self) -> bool {
        if let Some(pause) = self.pause {
            // Held while it waits: who comes first goes first.
            let mut next = self.next.lock().await;
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = tokio::time::sleep_until(*next) => {}
            }
            // What answers that were waited for have held up is not made up for; what a timer is late by is.
            let earliest = Instant::now().checked_sub(LATE).unwrap_or(*next);
            *next = (*next).max(earliest) + pause;
        }
        !self.stop.is_cancelled()
    }
}

async fn one(commander: &Commander, command: OperatorCommand, limit: Duration) -> Result<(), CliError> {
    let mut stored = commander.operate(command).await?;
    let unanswered = |error: &crate::api::command::AnswerError| {
        CliError::new(
            Exit::Environment,
            &code::NO_ANSWER,
            format!("the message is stored, but: {error}"),
        )
    };
    let answer = stored.answer(Some(limit)).await.map_err(|error| unanswered(&error))?;
    match (answer.stage, answer.error) {
        (AnswerStage::Refused, Some(body)) => Err(CliError::refused(body)),
        (AnswerStage::Refused, None) => Err(CliError::new(
            Exit::No,
            &code::BAD_REPLY,
            "the request was refused without a reason",
        )),
        _ => Ok(()),
    }
}

fn bar(length: usize) -> ProgressBar {
    if length < 2 || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(length as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:30.cyan} {pos} of {len}, {eta} left") {
        bar.set_style(style);
    }
    bar
}

impl<T: Serialize> Report<T> {
    pub fn new(action: &'static str, args: &BulkArgs, request_id: &str, asked: Vec<Asked<T>>) -> Self {
        Self {
            action,
            by: args.by(),
            request_id: request_id.to_owned(),
            accepted: asked.iter().filter(|asked| asked.accepted).count(),
            asked,
        }
    }

    /// Prints it, and makes the status of the process of it. `done` says what was done, as in `skipped`.
    pub fn finish(&self, done: &str, name: impl Fn(&T) -> String, globals: &Globals) -> Result<(), CliError> {
        let refused: Vec<_> = self.asked.iter().filter(|asked| !asked.accepted).collect();
        if globals.json() {
            output::print_json(self);
        } else {
            output::print(&format!("{done} {} of {}", self.accepted, self.asked.len()));
            for asked in refused.iter().take(TOLD) {
                if let Some(error) = &asked.error {
                    output::note(&format!("  {}: {}: {}", name(&asked.what), error.code, error.message));
                }
            }
            if refused.len() > TOLD {
                output::note(&format!("  … and {} more", refused.len() - TOLD));
            }
        }
        if refused.is_empty() {
            return Ok(());
        }
        let errors = refused.iter().filter_map(|asked| asked.error.clone());
        let environment = errors.clone().any(|body| {
            let in_doubt = [
                code::NO_ANSWER.id,
                code::NOT_ACKNOWLEDGED.id,
                code::LOG_FULL.id,
                code::NO_LOG.id,
            ];
            in_doubt.contains(&body.code.as_str()) || CliError::refused(body).exit == Exit::Environment
        });
        let exit = if environment { Exit::Environment } else { Exit::No };
        if globals.json() {
            // The report has said it.
            return Err(CliError::silent(exit));
        }
        let message = format!(
            "{} of {} were not taken (request id {})",
            refused.len(),
            self.asked.len(),
            self.request_id
        );
        Err(CliError::new(exit, &operator_code::PARTLY_DONE, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_many_has_its_own_request_id_and_always_the_same() {
        let one = request_id_of("r", &["a", "b"]);
        assert_eq!(one, request_id_of("r", &["a", "b"]));
        assert!(one.starts_with("r/") && one.len() == 26, "{one}");
        for other in [["ab", ""], ["a", "c"], ["", "ab"]] {
            assert_ne!(one, request_id_of("r", &other));
        }
    }

    #[test]
    fn rates_are_numbers_above_nothing() {
        assert_eq!(rate("0.5"), Ok(0.5));
        for bad in ["0", "-1", "NaN", "inf", "x", ""] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_holds_also_after_answers_have_held_everything_up() {
        let stop = CancellationToken::new();
        let pace = Pace::new(Some(10.0), stop.clone());
        for _ in 0..2 {
            let began = Instant::now();
            for _ in 0..5 {
                assert!(pace.turn().await);
            }
            let took = began.elapsed().as_millis();
            assert!((390..410).contains(&took), "{took}");
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        assert!(pace.turn().await);
        stop.cancel();
        let began = Instant::now();
        assert!(!pace.turn().await && !pace.turn().await);
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test]
    async fn once_interrupted_nothing_begins() {
        let stop = CancellationToken::new();
        let pace = Pace::new(None, stop.clone());
        assert!(pace.turn().await && pace.turn().await);
        stop.cancel();
        assert!(!pace.turn().await);
    }

    #[test]
    fn who_is_a_user_on_a_host() {
        let who = whoami();
        let (user, host) = who.split_once('@').unwrap();
        assert!(!user.is_empty() && !host.is_empty(), "{who}");
    }
}
