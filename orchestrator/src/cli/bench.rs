//! `knarr bench`: measures, and checks what it measured. And `knarr bench-worker`, the process it starts for that.

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::bench::{self, BenchOptions, Events, Load, Scenario, Sleepers, WorkerOptions};
use crate::cli::duration;
use crate::cli::error::{CliError, Exit};
use crate::cli::globals::Globals;
use crate::cli::namespace::Switch;
use crate::cli::{interrupt, output};
use crate::dev::Progress;

/// In flight where nothing else is said: enough for the machine to be busy.
const IN_FLIGHT: u32 = 256;
const SHORTEST: Duration = Duration::from_millis(100);
const SLEEPERS: u32 = 10_000;
const SLEEP: Duration = Duration::from_secs(5);
const MESSAGES: u32 = 10_000;
/// Each is counted, and its runs are.
const MOST_MESSAGES: u32 = 10_000_000;

#[derive(Debug, Args)]
#[command(after_help = "\
Without a server named, private ones are started in a temporary directory, with fsync on, and removed at the end. With \
--nats-url and --database-url orchestrators are started on those servers; with --nats-url alone one has to be there. KNARR_NATS_URL \
and KNARR_DATABASE_URL are not looked at.

Exit status: 0 measured, and every saga ended as it had to; 1 sagas were lost, ended wrongly, or steps ran too often, not \
at all or out of order; 2 wrong usage; 3 there was no measurement.

Sleepers are runs that only wait. --sleepers says how many, --sleep for how long; with --pending so many others are there that sleep for years, and with --together all of them are due at the same instant. Exit status 1: one was early, or did not wake.

Triggers start a run for each message of a stream that is made for it. --messages are stored before the definition is registered, whose \
trigger then reads them all; or --rate publishes so many a second for as long as --warmup and --duration say, and tells how long after \
its message was due a run began. Exit status 1: a message has started no run, or more than one.

Examples:
  knarr bench order
  knarr bench order_failing --in-flight 64 --duration 1m
  knarr bench order --rate 500 -o json
  knarr bench order --idle
  knarr bench sleepers --sleepers 10000 --sleep 5s --pending 1000000
  knarr bench triggers --messages 100000
  knarr bench triggers --rate 200 -o json")]
pub struct BenchArgs {
    /// What to run
    #[arg(value_enum)]
    pub scenario: Measured,

    /// Sleepers that are started and waited for [default: 10000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub sleepers: Option<u32>,

    /// For how long they sleep [default: 5s]
    #[arg(long, value_name = "DURATION", value_parser = duration::std)]
    pub sleep: Option<Duration>,

    /// Others that are pending meanwhile, for years
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=100_000_000))]
    pub pending: Option<u32>,

    /// All sleepers are due at the same instant
    #[arg(long)]
    pub together: bool,

    /// Messages that are stored, and then read by a trigger [default: 10000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_MESSAGES)), conflicts_with = "rate")]
    pub messages: Option<u32>,

    /// Closed loop: so many sagas at once [default: 256]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000), conflicts_with_all = ["rate", "idle"])]
    pub in_flight: Option<u32>,

    /// Open loop: so many starts (or messages) a second; latency counts from when one was due
    #[arg(long, value_name = "PER SECOND", value_parser = parse_rate, conflicts_with = "idle")]
    pub rate: Option<f64>,

    /// One saga at a time: the latency of a system with nothing else to do
    #[arg(long)]
    pub idle: bool,

    /// How long to measure
    #[arg(long, value_name = "DURATION", value_parser = duration::std, default_value = "20s")]
    pub duration: Duration,

    /// How long to run before that
    #[arg(long, value_name = "DURATION", value_parser = duration::std, default_value = "3s")]
    pub warmup: Duration,

    /// Longest silence, once no more sagas are started, before those in flight are lost
    #[arg(long, value_name = "DURATION", value_parser = duration::std, default_value = "30s")]
    pub drain: Duration,

    /// Use this PostgreSQL [default: a private one]
    #[arg(long, value_name = "URL")]
    pub database_url: Option<String>,

    /// Switch the events of the namespace, whose runs then publish each change of their status or none; it is left so
    #[arg(long, value_enum, value_name = "ON|OFF")]
    pub events: Option<Switch>,

    /// Orchestrators to start
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=16), default_value_t = 1)]
    pub replicas: u16,

    /// Handlers at once in the worker
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000), default_value_t = 512)]
    pub concurrency: u32,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Measured {
    /// Four activities in sequence, all of which succeed
    Order,
    /// The third activity fails for good: two undos
    OrderFailing,
    /// Runs that wait: how late their timers fire
    Sleepers,
    /// Messages of a stream, each of which starts a run
    Triggers,
}

/// What is measured of a scenario that is no saga.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Apart {
    Sleepers(Sleepers),
    Triggers(Events),
}

impl BenchArgs {
    /// `None` where sagas are measured.
    fn apart(&self) -> Result<Option<Apart>, CliError> {
        let of_sleepers = self.sleepers.is_some() || self.sleep.is_some() || self.pending.is_some() || self.together;
        let of_sagas = self.in_flight.is_some() || self.idle;
        if of_sleepers && self.scenario != Measured::Sleepers {
            return Err(CliError::usage(
                "--sleepers, --sleep, --pending and --together are for `knarr bench sleepers`",
            ));
        }
        if self.messages.is_some() && self.scenario != Measured::Triggers {
            return Err(CliError::usage("--messages is for `knarr bench triggers`"));
        }
        match self.scenario {
            Measured::Sleepers if of_sagas || self.rate.is_some() => Err(CliError::usage(
                "--in-flight, --rate and --idle are for sagas; sleepers are started as fast as they can be",
            )),
            Measured::Sleepers => {
                let sleep = self.sleep.unwrap_or(SLEEP);
                if sleep < SHORTEST {
                    return Err(CliError::usage(format!(
                        "--sleep is at least {} ms",
                        SHORTEST.as_millis()
                    )));
                }
                Ok(Some(Apart::Sleepers(Sleepers {
                    count: u64::from(self.sleepers.unwrap_or(SLEEPERS)),
                    sleep,
                    pending: u64::from(self.pending.unwrap_or(0)),
                    together: self.together,
                })))
            }
            Measured::Triggers if of_sagas => Err(CliError::usage(
                "--in-flight and --idle are for sagas; how many runs a trigger starts at once is its own matter",
            )),
            Measured::Triggers => self.messages_of_trigger().map(|events| Some(Apart::Triggers(events))),
            Measured::Order | Measured::OrderFailing => Ok(None),
        }
    }

    fn messages_of_trigger(&self) -> Result<Events, CliError> {
        let Some(rate) = self.rate else {
            return Ok(Events::Stored(u64::from(self.messages.unwrap_or(MESSAGES))));
        };
        let seconds = (self.warmup + self.duration).as_secs_f64();
        if rate * seconds > f64::from(MOST_MESSAGES) {
            return Err(CliError::usage(format!(
                "--rate comes to more than {MOST_MESSAGES} messages in {seconds} s; say a shorter --duration"
            )));
        }
        Ok(Events::Rate(rate))
    }

    fn options(&self, globals: &Globals) -> Result<BenchOptions, CliError> {
        if self.duration < SHORTEST {
            return Err(CliError::usage(format!(
                "--duration is at least {} ms",
                SHORTEST.as_millis()
            )));
        }
        if globals.nats_creds.is_some() {
            return Err(CliError::usage(
                "the benchmark's client cannot use a file of credentials (--nats-creds, KNARR_NATS_CREDS); give user and \
                 password, or a token, in --nats-url",
            ));
        }
        let load = match (self.rate, self.in_flight) {
            (Some(rate), _) => Load::Rate(rate),
            (None, _) if self.idle => Load::InFlight(1),
            (None, in_flight) => Load::InFlight(in_flight.unwrap_or(IN_FLIGHT)),
        };
        Ok(BenchOptions {
            scenario: match self.scenario {
                Measured::OrderFailing => Scenario::OrderFailing,
                // Whoever sleeps needs no worker, nor who is triggered; the one that is there has nothing to do.
                Measured::Order | Measured::Sleepers | Measured::Triggers => Scenario::Order,
            },
            load,
            duration: self.duration,
            warmup: self.warmup,
            drain: self.drain,
            // Not the one of a `knarr dev` that happens to run here: that would measure something else unasked.
            nats_url: globals.named_nats_url(),
            database_url: self.database_url.clone(),
            namespace: globals.namespace.clone(),
            events: self.events.map(|switch| switch == Switch::On),
            concurrency: usize::try_from(self.concurrency).unwrap_or(usize::MAX),
            replicas: self.replicas,
        })
    }
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.01..=1_000_000.0).contains(&rate) => Ok(rate),
        _ => Err(format!(
            "`{text}` is not a number of starts a second between 0.01 and 1000000"
        )),
    }
}

pub async fn run(args: BenchArgs, globals: &Globals) -> Result<(), CliError> {
    let options = args.options(globals)?;
    let apart = args.apart()?;
    let progress = Progress::for_stderr();
    let shutdown = interrupt::token();
    match apart {
        None => {
            let measured = bench::run(&options, &shutdown, &progress).await;
            progress.finish();
            let report = measured?;
            end(globals, &report, report.render(&globals.look()), report.is_good())
        }
        Some(Apart::Sleepers(sleepers)) => {
            let measured = bench::sleep(&options, sleepers, &shutdown, &progress).await;
            progress.finish();
            let report = measured?;
            end(globals, &report, report.render(&globals.look()), report.is_good())
        }
        Some(Apart::Triggers(events)) => {
            let measured = bench::trigger(&options, events, &shutdown, &progress).await;
            progress.finish();
            let report = measured?;
            end(globals, &report, report.render(&globals.look()), report.is_good())
        }
    }
}

fn end(globals: &Globals, report: &impl Serialize, text: String, good: bool) -> Result<(), CliError> {
    if globals.json() {
        output::print_json(report);
    } else {
        output::print(&text);
    }
    match good {
        true => Ok(()),
        false => Err(CliError::silent(Exit::No)),
    }
}

/// Started by `knarr bench`, and not for people.
#[derive(Debug, Args)]
pub struct BenchWorkerArgs {
    #[arg(value_enum)]
    pub scenario: Scenario,
    /// Names the measurement.
    pub nonce: String,
    #[arg(long, default_value_t = 512)]
    pub concurrency: usize,
}

pub async fn work(args: BenchWorkerArgs, globals: &Globals) -> Result<(), CliError> {
    let options = WorkerOptions {
        nats_url: globals.nats_url(),
        namespace: globals.namespace.clone(),
        scenario: args.scenario,
        nonce: args.nonce,
        concurrency: args.concurrency,
    };
    Ok(bench::work(options, interrupt::token()).await?)
}

#[cfg(test)]
mod tests {
    use crate::cli::{Cli, Command};

    use super::*;

    fn options(line: &str) -> Result<BenchOptions, String> {
        let arguments = ["knarr", "bench"].into_iter().chain(line.split_whitespace());
        let cli = Cli::read(arguments).map_err(|error| error.to_string())?;
        match cli.command {
            Command::Bench(bench) => bench.options(&cli.globals).map_err(|error| error.to_string()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn lines_are_understood() {
        let table = [
            ("order", Load::InFlight(256)),
            ("order --in-flight 8", Load::InFlight(8)),
            ("order_failing --rate 12.5", Load::Rate(12.5)),
            ("order --idle", Load::InFlight(1)),
        ];
        for (line, load) in table {
            assert_eq!(options(line).unwrap().load, load, "{line}");
        }
        let options = options("order_failing --duration 1m30s --warmup 0s --nats-url nats://h:1 --replicas 2").unwrap();
        assert_eq!(
            (options.scenario, options.duration),
            (Scenario::OrderFailing, Duration::from_secs(90))
        );
        assert_eq!((options.warmup, options.replicas), (Duration::ZERO, 2));
        assert_eq!(options.nats_url.as_deref(), Some("nats://h:1"));
    }

    fn apart(line: &str) -> Result<Option<Apart>, String> {
        let cli = Cli::read(["knarr", "bench"].into_iter().chain(line.split_whitespace()));
        match cli.map_err(|error| error.to_string())?.command {
            Command::Bench(bench) => bench.apart().map_err(|error| error.to_string()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn triggers_have_messages_or_a_rate() {
        let triggers = |line: &str| match apart(line).unwrap() {
            Some(Apart::Triggers(events)) => events,
            other => panic!("{other:?}"),
        };
        assert_eq!(triggers("triggers"), Events::Stored(10_000));
        assert_eq!(triggers("triggers --messages 7"), Events::Stored(7));
        assert_eq!(triggers("triggers --rate 2.5 --duration 4s"), Events::Rate(2.5));
        assert_eq!(
            triggers("triggers --rate 1000000 --duration 7s --warmup 3s"),
            Events::Rate(1_000_000.0)
        );
        for line in [
            "triggers --messages 0",
            "triggers --messages 10000001",
            "triggers --messages 7 --rate 5",
            "triggers --rate 1000000 --duration 7s --warmup 3001ms",
            "triggers --idle",
            "triggers --in-flight 5",
            "triggers --sleep 5s",
            "order --messages 7",
            "sleepers --messages 7",
        ] {
            assert!(apart(line).is_err(), "{line}");
        }
    }

    #[test]
    fn sleepers_have_options_of_their_own() {
        let of = |count, sleep, pending, together| {
            Some(Apart::Sleepers(Sleepers {
                count,
                sleep,
                pending,
                together,
            }))
        };
        assert_eq!(apart("sleepers").unwrap(), of(10_000, SLEEP, 0, false));
        let line = "sleepers --sleepers 7 --sleep 100ms --pending 1000000 --together";
        assert_eq!(apart(line).unwrap(), of(7, SHORTEST, 1_000_000, true));
        assert_eq!(apart("order").unwrap(), None);
        for line in [
            "order --sleep 5s",
            "order --together",
            "sleepers --rate 5",
            "sleepers --sleep 99ms",
        ] {
            assert!(apart(line).is_err(), "{line}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "",
            "nothing",
            "order --in-flight 0",
            "order --rate 0",
            "order --rate NaN",
            "order --rate x",
            "order --rate 5 --in-flight 5",
            "order --idle --rate 5",
            "order --duration 10",
            "order --duration 50ms",
            "order --replicas 0",
            "order --nats-creds x.creds",
        ] {
            assert!(options(line).is_err(), "{line}");
        }
    }
}
