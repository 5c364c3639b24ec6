//! The processes whose time is measured. Those of named servers are looked for, where they run on this machine.

use std::fs;
use std::time::Duration;

use serde::Serialize;
use sqlx::PgPool;

use crate::dev::cpu_time;

/// `None` = not on this machine, or not found.
#[derive(Debug, Clone, Default)]
pub(crate) struct Processes {
    pub(crate) orchestrator: Vec<u32>,
    pub(crate) postgres: Option<u32>,
    pub(crate) nats: Option<u32>,
    pub(crate) worker: u32,
}

/// Something for each kind of process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct PerProcess<T> {
    pub orchestrator: Option<T>,
    pub postgres: Option<T>,
    pub nats: Option<T>,
    pub worker: Option<T>,
    pub client: Option<T>,
}

impl<T: Copy> PerProcess<T> {
    pub(crate) fn zip<U: Copy, V>(self, other: PerProcess<U>, with: impl Fn(T, U) -> V) -> PerProcess<V> {
        let both = |a: Option<T>, b: Option<U>| Some(with(a?, b?));
        PerProcess {
            orchestrator: both(self.orchestrator, other.orchestrator),
            postgres: both(self.postgres, other.postgres),
            nats: both(self.nats, other.nats),
            worker: both(self.worker, other.worker),
            client: both(self.client, other.client),
        }
    }

    pub(crate) fn map<V>(self, with: impl Fn(T) -> V) -> PerProcess<V> {
        PerProcess {
            orchestrator: self.orchestrator.map(&with),
            postgres: self.postgres.map(&with),
            nats: self.nats.map(&with),
            worker: self.worker.map(&with),
            client: self.client.map(&with),
        }
    }

    pub(crate) fn named(self) -> [(&'static str, Option<T>); 5] {
        [
            ("orchestrator", self.orchestrator),
            ("postgres", self.postgres),
            ("nats", self.nats),
            ("worker", self.worker),
            ("client", self.client),
        ]
    }
}

impl Processes {
    /// User and system time so far, that of PostgreSQL's backends included.
    pub(crate) fn cpu(&self) -> PerProcess<Duration> {
        PerProcess {
            orchestrator: (!self.orchestrator.is_empty())
                .then(|| self.orchestrator.iter().map(|pid| cpu_time(*pid)).sum()),
            postgres: self.postgres.map(cpu_time),
            nats: self.nats.map(cpu_time),
            worker: Some(cpu_time(self.worker)),
            client: own_cpu(),
        }
    }
}

/// Resident memory in KiB: now, and at most.
pub(crate) fn memory(pid: u32) -> Option<(u64, u64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let of = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.parse().ok()
    };
    Some((of("VmRSS:")?, of("VmHWM:")?))
}

/// Of this process without its children, which are all the others.
fn own_cpu() -> Option<Duration> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let ticks: u64 = rest
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    // `clock_t` of /proc: 100 a second on every Linux that Rust supports.
    Some(Duration::from_millis(ticks * 10))
}

/// The parent of a connection's backend, if it runs on this machine.
pub(crate) async fn find_postgres(pool: &PgPool) -> Option<u32> {
    let sql =
        "select pg_backend_pid(), coalesce(inet_server_addr() <<= '127.0.0.0/8' or inet_server_addr() = '::1', true)";
    let (backend, local): (i32, bool) = sqlx::query_as(sql).fetch_one(pool).await.ok()?;
    let backend = local.then_some(backend)?;
    let stat = fs::read_to_string(format!("/proc/{backend}/stat")).ok()?;
    let (name, rest) = stat.rsplit_once(')')?;
    let parent = rest.split_whitespace().nth(1)?.parse().ok()?;
    name.contains("postgres").then_some(parent)
}

/// The only nats-server of this machine, if the address is of this machine.
pub(crate) fn find_nats(url: &str) -> Option<u32> {
    if !["127.0.0.1", "localhost", "[::1]"]
        .iter()
        .any(|host| url.contains(host))
    {
        return None;
    }
    let mut found = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse::<u32>().ok()?;
        let name = fs::read_to_string(entry.path().join("comm")).ok()?;
        (name.trim() == "nats-server").then_some(pid)
    });
    let first = found.next()?;
    found.next().is_none().then_some(first)
}
