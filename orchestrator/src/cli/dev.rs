//! `knarr dev`: an orchestrator with a private PostgreSQL and NATS in one process, until Ctrl-C. Started again in the same
//! directory it continues where it was.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::cli::error::CliError;
use crate::cli::globals::{DEV_DIRECTORY, Globals};
use crate::cli::stack::{Addresses, Stack};
use crate::cli::{interrupt, output};
use crate::config::{ProcessArgs, ServerConfig};
use crate::dev::{PortChoice, Progress, Search, ServerOptions};
use crate::telemetry;

/// What every NATS client tries when nothing else is said.
const NATS_PORT: u16 = 4222;

#[derive(Debug, Args)]
#[command(after_help = "\
Servers to use instead of private ones are named by flags alone: KNARR_NATS_URL and KNARR_DATABASE_URL are not looked at.")]
pub struct DevArgs {
    /// Where the private servers keep their data
    #[arg(long, env = "KNARR_DATA_DIR", default_value = ".knarr", value_name = "DIR")]
    pub data_dir: PathBuf,

    /// Forget what the data directory holds and begin with empty servers
    #[arg(long)]
    pub fresh: bool,

    /// Port of the private NATS, 0 for any [default: the last one, else 4222 if it is free]
    #[arg(long, value_name = "PORT")]
    pub nats_port: Option<u16>,

    /// Port of the private PostgreSQL, 0 for any [default: the last one, else any]
    #[arg(long, value_name = "PORT")]
    pub postgres_port: Option<u16>,

    /// Use this PostgreSQL instead of a private one (and --nats-url for NATS)
    #[arg(long, value_name = "URL", hide_env_values = true)]
    pub database_url: Option<String>,

    #[command(flatten)]
    pub programs: Programs,

    #[command(flatten)]
    pub process: ProcessArgs,
}

/// Which programs private servers are made of.
#[derive(Debug, Clone, Default, Args)]
pub struct Programs {
    /// The nats-server to run, 2.12 or newer [default: one on PATH, else installed into a cache]
    #[arg(long, env = "KNARR_NATS_SERVER", value_name = "FILE")]
    pub nats_server: Option<PathBuf>,

    /// Bin directory of the PostgreSQL to run, 15 or newer [default: the newest found, else installed into a cache]
    #[arg(long, env = "KNARR_POSTGRES_BIN", value_name = "DIR")]
    pub postgres_bin: Option<PathBuf>,
}

impl Programs {
    pub fn search(self) -> Search {
        let named = |by: &'static str, path: Option<PathBuf>| {
            path.filter(|path| !path.as_os_str().is_empty()).map(|path| (by, path))
        };
        Search {
            nats_server: named("--nats-server or KNARR_NATS_SERVER", self.nats_server),
            postgres_bin: named("--postgres-bin or KNARR_POSTGRES_BIN", self.postgres_bin),
            ..Search::default()
        }
    }
}

pub async fn run(args: DevArgs, globals: &Globals) -> Result<(), CliError> {
    let nats_creds = credentials(globals)?;
    let shutdown = interrupt::token();
    let settings = ServerConfig::private(args.process.clone(), "", None, "private")?;
    let telemetry = telemetry::init(&settings.telemetry())?;
    let port = |given, otherwise| match given {
        Some(0) => PortChoice::Any,
        Some(port) => PortChoice::Exactly(port),
        None => otherwise,
    };
    let here = args.data_dir.as_path() == Path::new(DEV_DIRECTORY);
    let options = ServerOptions {
        data_dir: Some(args.data_dir),
        nats: globals.named_nats_url(),
        postgres: args.database_url,
        fresh: args.fresh,
        nats_port: port(args.nats_port, PortChoice::Rather(NATS_PORT)),
        postgres_port: port(args.postgres_port, PortChoice::Any),
        search: args.programs.search(),
        ..ServerOptions::default()
    };
    let progress = Progress::for_stderr();
    let mut stack = tokio::select! {
        stack = Stack::start(options, nats_creds, args.process, &progress) => stack?,
        () = shutdown.cancelled() => return Ok(()),
    };
    progress.finish();
    let addresses = stack.addresses();
    if globals.json() {
        output::print_json(&addresses);
    } else {
        output::note(&banner(&addresses, &stack.data_dir().display().to_string(), here));
    }
    let kept = stack.keep(&shutdown).await;
    output::note("Stopping …");
    let stopped = stack.stop().await;
    telemetry.flush().await;
    kept.and(stopped)
}

/// Of a NATS that is there; a private one wants none.
fn credentials(globals: &Globals) -> Result<Option<PathBuf>, CliError> {
    if globals.nats_creds.is_some() && globals.nats_url.is_none() {
        return Err(CliError::usage(
            "--nats-creds (KNARR_NATS_CREDS) names credentials for a NATS that is there, and without --nats-url a private one \
             is started",
        ));
    }
    // They are those of an address that is not looked at.
    Ok(globals.nats_creds.clone().filter(|_| globals.nats_is_named))
}

/// `here`: its data is where commands in this directory look for it.
fn banner(addresses: &Addresses, data_dir: &str, here: bool) -> String {
    let Addresses {
        nats_url,
        database_url,
        http_url,
    } = addresses;
    let (where_from, again) = match here {
        true => (
            "In another terminal, in this directory:\n".to_owned(),
            "here".to_owned(),
        ),
        false => (
            format!("In another terminal:\n\n    export KNARR_NATS_URL={nats_url}    # where it is"),
            "with the same --data-dir".to_owned(),
        ),
    };
    format!(
        "
  Knarr {version} is running.

    NATS        {nats_url}
    PostgreSQL  {database_url}
    Metrics     {http_url}/metrics
    Health      {http_url}/health/ready
    Data        {data_dir}

  {where_from}
    knarr check hello.yaml                  look at a definition
    knarr definition register hello.yaml    make it known
    knarr start hello --input '{{\"name\": \"Ada\"}}'
    knarr list                              see what runs

  Ctrl-C stops everything; started again {again}, it continues where it was.
",
        version = env!("CARGO_PKG_VERSION"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_for_a_nats_that_is_there() {
        let of = |line: &str| {
            let cli = crate::cli::Cli::read(line.split(' ')).unwrap();
            credentials(&cli.globals).ok()
        };
        assert_eq!(of("knarr dev --nats-creds x.creds"), None);
        assert_eq!(of("knarr dev"), Some(None));
        assert_eq!(
            of("knarr dev --nats-creds x.creds --nats-url nats://h"),
            Some(Some("x.creds".into()))
        );
    }

    #[test]
    fn the_banner_says_where_everything_is() {
        let addresses = Addresses {
            nats_url: "nats://127.0.0.1:4222".to_owned(),
            database_url: "postgres://knarr:secret@127.0.0.1:21000/knarr".to_owned(),
            http_url: "http://127.0.0.1:8822".to_owned(),
        };
        insta::assert_snapshot!(banner(&addresses, "/home/ada/.knarr", true));
        let elsewhere = banner(&addresses, "/srv/knarr", false);
        assert!(!elsewhere.contains("in this directory"), "{elsewhere}");
        for part in [
            "  In another terminal:\n\n    export KNARR_NATS_URL=nats://127.0.0.1:4222 ",
            "\n    knarr check hello.yaml ",
            "started again with the same --data-dir, it",
        ] {
            assert!(elsewhere.contains(part), "{part} in {elsewhere}");
        }
    }
}
