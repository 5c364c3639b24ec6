//! The two servers together: started in a data directory, found again there at the next start, and stopped in order.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::Mutex;

use super::account::Account;
use super::nats::{Nats, NatsFiles};
use super::postgres::{Postgres, PostgresFiles};
use super::process::{ServerProcess, cpu_time, process_tree};
use super::state::{DataDir, State, random_hex};
use super::watchdog::Watchdog;
use super::{DevError, Progress, Search};

/// Below the range that outgoing connections take their ports from: a client that keeps trying to reach a server that
/// is down must never be given that server's port as its own.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// `None`: a temporary one, removed at the end.
    pub data_dir: Option<PathBuf>,
    /// Use this server instead of a private one.
    pub nats: Option<String>,
    /// Use this server instead of a private one.
    pub postgres: Option<String>,
    /// Begin with empty servers: what the data directory holds is deleted.
    pub fresh: bool,
    /// `false` risks the data of PostgreSQL in a power failure.
    pub fsync: bool,
    pub nats_port: PortChoice,
    pub postgres_port: PortChoice,
    pub search: Search,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            data_dir: None,
            nats: None,
            postgres: None,
            fresh: false,
            fsync: true,
            nats_port: PortChoice::Any,
            postgres_port: PortChoice::Any,
            search: Search::default(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortChoice {
    /// The one of the last start, else any.
    Any,
    /// The one of the last start, else this one, else any.
    Rather(u16),
    /// This one or none.
    Exactly(u16),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    Nats,
    Postgres,
}

impl Server {
    pub fn name(self) -> &'static str {
        match self {
            Self::Nats => "nats-server",
            Self::Postgres => "PostgreSQL",
        }
    }
}

/// Running servers. Dropping it stops them too, in the background; [`Servers::stop`] waits.
#[derive(Debug)]
pub struct Servers {
    nats_url: String,
    postgres_url: String,
    nats: Option<Managed<Nats>>,
    postgres: Option<Managed<Postgres>>,
    watchdog: Arc<Watchdog>,
    data_dir: DataDir,
    postgres_home: PathBuf,
}

#[derive(Debug)]
struct Managed<S> {
    spec: S,
    /// `None` once it was stopped or killed on purpose.
    process: Mutex<Option<ServerProcess>>,
}

impl Servers {
    pub async fn start(options: ServerOptions, progress: &Progress) -> Result<Self, DevError> {
        let data_dir = match &options.data_dir {
            Some(path) => DataDir::open(path)?,
            None => DataDir::temporary()?,
        };
        let mut state = data_dir.load().or_else(|error| {
            if options.fresh {
                Ok(State::default())
            } else {
                Err(error)
            }
        })?;
        let watchdog = Arc::new(Watchdog::start()?);
        if data_dir.is_temporary() {
            watchdog.remove_at_end(data_dir.path());
        }
        let account = if options.postgres.is_none() {
            Account::to_drop_to()?
        } else {
            None
        };
        let nats_files = NatsFiles::new(data_dir.path());
        let postgres_home = postgres_home(&data_dir, &mut state, account.as_ref(), progress)?;
        if data_dir.is_temporary() {
            watchdog.remove_at_end(&postgres_home);
        }
        let postgres_files = PostgresFiles::new(postgres_home.clone(), data_dir.path());
        let leftover = nats_files.stop_leftover().await | postgres_files.stop_leftover().await;
        if leftover {
            progress.note("Stopped servers that an earlier process had left behind");
        }
        if options.fresh {
            remove(nats_files.home())?;
            remove(postgres_files.home())?;
            state = State {
                postgres_dir: state.postgres_dir,
                ..State::default()
            };
        }
        data_dir.save(&state)?;

        let nats = async {
            match options.nats {
                Some(_) => Ok(None),
                None => {
                    let program = options.search.nats_server(progress).await?;
                    start_nats(
                        program,
                        nats_files,
                        options.nats_port,
                        state.nats_port,
                        &watchdog,
                        progress,
                    )
                    .await
                    .map(Some)
                }
            }
        };
        let postgres = async {
            if options.postgres.is_some() {
                return Ok(None);
            }
            let bin = options
                .search
                .postgres_bin(account.as_ref(), postgres_files.major(), progress)
                .await?;
            let password = postgres_files.prepare(account.as_ref())?;
            let spec = Postgres {
                bin,
                files: postgres_files,
                account,
                port: 0,
                fsync: options.fsync,
                password,
            };
            if spec.files.major().is_none() {
                progress.step("Initialising PostgreSQL …");
            }
            spec.init(!data_dir.is_temporary() && options.fsync).await?;
            start_postgres(spec, options.postgres_port, state.postgres_port, &watchdog, progress)
                .await
                .map(Some)
        };
        let (nats, postgres) = tokio::join!(nats, postgres);
        let (nats, postgres) = match (nats, postgres) {
            (Ok(nats), Ok(postgres)) => (nats, postgres),
            (Err(error), other) => {
                if let Ok(Some(postgres)) = other {
                    postgres.stop().await;
                }
                end_watchdog(&watchdog).await;
                return Err(error);
            }
            (Ok(nats), Err(error)) => {
                if let Some(nats) = nats {
                    nats.stop().await;
                }
                end_watchdog(&watchdog).await;
                return Err(error);
            }
        };
        state.nats_port = nats.as_ref().map(|nats| nats.spec.port).or(state.nats_port);
        state.postgres_port = postgres
            .as_ref()
            .map(|postgres| postgres.spec.port)
            .or(state.postgres_port);
        data_dir.save(&state)?;
        let nats_url = nats
            .as_ref()
            .map(|nats| nats.spec.url())
            .or(options.nats)
            .unwrap_or_default();
        let postgres_url = postgres
            .as_ref()
            .map(|postgres| postgres.spec.url())
            .or(options.postgres)
            .unwrap_or_default();
        Ok(Self {
            nats_url,
            postgres_url,
            nats,
            postgres,
            watchdog,
            data_dir,
            postgres_home,
        })
    }

    pub fn nats_url(&self) -> &str {
        &self.nats_url
    }

    pub fn postgres_url(&self) -> &str {
        &self.postgres_url
    }

    pub fn data_dir(&self) -> &Path {
        self.data_dir.path()
    }

    /// What JetStream stores; `None` if the server is not a private one. Change it only while the server is down.
    pub fn nats_store_dir(&self) -> Option<PathBuf> {
        self.nats.as_ref().map(|nats| nats.spec.files.store_dir())
    }

    /// Where PostgreSQL's files are; `None` if the server is not a private one.
    pub fn postgres_home(&self) -> Option<&Path> {
        self.postgres.as_ref().map(|_| self.postgres_home.as_path())
    }

    /// The process and its descendants, itself first; empty while it is down or if it is not a private one.
    pub async fn pids(&self, server: Server) -> Vec<u32> {
        self.pid(server).await.map(process_tree).unwrap_or_default()
    }

    /// CPU time used by the server since its last start, PostgreSQL's backends included.
    pub async fn cpu(&self, server: Server) -> Duration {
        self.pid(server).await.map(cpu_time).unwrap_or_default()
    }

    async fn pid(&self, server: Server) -> Option<u32> {
        let pid = |process: &Option<ServerProcess>| process.as_ref().map(ServerProcess::pid);
        match server {
            Server::Nats => pid(&*self.nats.as_ref()?.process.lock().await),
            Server::Postgres => pid(&*self.postgres.as_ref()?.process.lock().await),
        }
    }

    /// Kills the server with all its processes, and returns when they are gone.
    pub async fn kill9(&self, server: Server) -> Result<(), DevError> {
        match server {
            Server::Nats => {
                self.nats
                    .as_ref()
                    .ok_or(DevError::NotOurs(server.name()))?
                    .kill9()
                    .await
            }
            Server::Postgres => {
                self.postgres
                    .as_ref()
                    .ok_or(DevError::NotOurs(server.name()))?
                    .kill9()
                    .await
            }
        }
        Ok(())
    }

    /// Stops the server cleanly, and leaves it down until [`Servers::restart`].
    pub async fn halt(&self, server: Server) -> Result<(), DevError> {
        match server {
            Server::Nats => self.nats.as_ref().ok_or(DevError::NotOurs(server.name()))?.stop().await,
            Server::Postgres => {
                self.postgres
                    .as_ref()
                    .ok_or(DevError::NotOurs(server.name()))?
                    .stop()
                    .await
            }
        }
        Ok(())
    }

    /// Starts the server again, on its data and its port, stopping it first if it runs. Returns when it is ready.
    pub async fn restart(&self, server: Server) -> Result<(), DevError> {
        match server {
            Server::Nats => {
                let nats = self.nats.as_ref().ok_or(DevError::NotOurs(server.name()))?;
                let mut process = nats.process.lock().await;
                if let Some(running) = process.take() {
                    running.stop().await;
                }
                *process = Some(nats.spec.launch(self.watchdog.clone()).await?);
            }
            Server::Postgres => {
                let postgres = self.postgres.as_ref().ok_or(DevError::NotOurs(server.name()))?;
                let mut process = postgres.process.lock().await;
                if let Some(running) = process.take() {
                    running.stop().await;
                }
                *process = Some(postgres.spec.launch(self.watchdog.clone()).await?);
            }
        }
        Ok(())
    }

    /// Resolves when a server has ended by itself; never for one that is down on purpose.
    pub async fn failed(&self) -> Server {
        let nats = watch_for(self.nats.as_ref().map(|nats| &nats.process));
        let postgres = watch_for(self.postgres.as_ref().map(|postgres| &postgres.process));
        tokio::select! {
            () = nats => Server::Nats,
            () = postgres => Server::Postgres,
        }
    }

    /// Stops the private servers and, if the data directory is temporary, removes it.
    pub async fn stop(&self) {
        if let Some(postgres) = &self.postgres {
            postgres.stop().await;
        }
        if let Some(nats) = &self.nats {
            nats.stop().await;
        }
        end_watchdog(&self.watchdog).await;
    }
}

/// The watchdog removes temporary directories, which may take a while.
async fn end_watchdog(watchdog: &Arc<Watchdog>) {
    let watchdog = watchdog.clone();
    let _ = tokio::task::spawn_blocking(move || watchdog.end()).await;
}

async fn watch_for(process: Option<&Mutex<Option<ServerProcess>>>) {
    let Some(process) = process else {
        return std::future::pending().await;
    };
    let exited = process.lock().await.as_ref().map(ServerProcess::exited);
    match exited {
        Some(exited) => exited.await,
        None => std::future::pending().await,
    }
}

impl<S> Managed<S> {
    fn new(spec: S, process: ServerProcess) -> Self {
        Self {
            spec,
            process: Mutex::new(Some(process)),
        }
    }

    async fn stop(&self) {
        if let Some(process) = self.process.lock().await.take() {
            process.stop().await;
        }
    }

    async fn kill9(&self) {
        if let Some(process) = self.process.lock().await.take() {
            process.kill9().await;
        }
    }
}

async fn start_nats(
    program: PathBuf,
    files: NatsFiles,
    choice: PortChoice,
    remembered: Option<u16>,
    watchdog: &Arc<Watchdog>,
    progress: &Progress,
) -> Result<Managed<Nats>, DevError> {
    progress.step("Starting nats-server …");
    let mut spec = Nats {
        program,
        files,
        port: 0,
    };
    for port in Ports::new(Server::Nats, choice, remembered) {
        spec.port = port?;
        match spec.launch(watchdog.clone()).await {
            // Somebody was faster.
            Err(DevError::Ended { .. }) if !is_free(spec.port) && !matches!(choice, PortChoice::Exactly(_)) => {}
            launched => return launched.map(|process| Managed::new(spec, process)),
        }
    }
    Err(DevError::PortTaken {
        server: Server::Nats.name(),
        port: spec.port,
    })
}

async fn start_postgres(
    mut spec: Postgres,
    choice: PortChoice,
    remembered: Option<u16>,
    watchdog: &Arc<Watchdog>,
    progress: &Progress,
) -> Result<Managed<Postgres>, DevError> {
    progress.step("Starting PostgreSQL …");
    for port in Ports::new(Server::Postgres, choice, remembered) {
        spec.port = port?;
        spec.configure().await?;
        match spec.launch(watchdog.clone()).await {
            Err(DevError::Ended { .. }) if !is_free(spec.port) && !matches!(choice, PortChoice::Exactly(_)) => {}
            launched => return launched.map(|process| Managed::new(spec, process)),
        }
    }
    Err(DevError::PortTaken {
        server: Server::Postgres.name(),
        port: spec.port,
    })
}

/// A few free ports to try, the preferred one first.
struct Ports {
    server: Server,
    choice: PortChoice,
    preferred: Vec<u16>,
    left: u8,
}

impl Ports {
    fn new(server: Server, choice: PortChoice, remembered: Option<u16>) -> Self {
        let preferred = match choice {
            PortChoice::Any => remembered.into_iter().collect(),
            // Taken from the end.
            PortChoice::Rather(port) => std::iter::once(port).chain(remembered).collect(),
            PortChoice::Exactly(port) => vec![port],
        };
        Self {
            server,
            choice,
            preferred,
            left: 5,
        }
    }
}

impl Iterator for Ports {
    type Item = Result<u16, DevError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        if let PortChoice::Exactly(port) = self.choice {
            self.left = 0;
            let server = self.server.name();
            return Some(if is_free(port) {
                Ok(port)
            } else {
                Err(DevError::PortTaken { server, port })
            });
        }
        while let Some(port) = self.preferred.pop() {
            if is_free(port) {
                return Some(Ok(port));
            }
        }
        Some(random_port())
    }
}

fn random_port() -> Result<u16, DevError> {
    let mut bytes = [0; 2];
    loop {
        SystemRandom::new().fill(&mut bytes).map_err(|_| DevError::NoRandom)?;
        let port = PORTS.start + u16::from_le_bytes(bytes) % (PORTS.end - PORTS.start);
        if is_free(port) {
            return Ok(port);
        }
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

fn remove(directory: &Path) -> Result<(), DevError> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(DevError::path(directory, error)),
        _ => Ok(()),
    }
}

/// Where PostgreSQL's files go: into the data directory, unless its user cannot get there.
fn postgres_home(
    data_dir: &DataDir,
    state: &mut State,
    account: Option<&Account>,
    progress: &Progress,
) -> Result<PathBuf, DevError> {
    let inside = data_dir.path().join("postgres");
    let Some(account) = account else { return Ok(inside) };
    if let Some(elsewhere) = &state.postgres_dir {
        return Ok(elsewhere.clone());
    }
    // What is inside already is the user's own; only the way there counts.
    let Err(closed) = account.reaches(data_dir.path()) else {
        return Ok(inside);
    };
    let name = format!("knarr-dev-{}", random_hex(8)?);
    let candidates = [
        Path::new("/var/lib/knarr").join(&name),
        std::env::temp_dir().join(&name),
    ];
    for elsewhere in &candidates {
        if account.reaches(elsewhere).is_ok() && fs::create_dir_all(elsewhere).is_ok() {
            progress.note(&format!(
                "PostgreSQL runs as user `{}`, who may not enter {}: its files are in {}",
                account.name,
                closed.display(),
                elsewhere.display()
            ));
            state.postgres_dir = Some(elsewhere.clone());
            return Ok(elsewhere.clone());
        }
    }
    Err(DevError::Unreachable {
        user: account.name.clone(),
        tried: format!(
            "{}, {}, {}",
            inside.display(),
            candidates[0].display(),
            candidates[1].display()
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_tried_in_order_of_preference() {
        let taken = TcpListener::bind(("127.0.0.1", random_port().unwrap())).unwrap();
        let taken_port = taken.local_addr().unwrap().port();
        let free = random_port().unwrap();
        let first = |choice, remembered| Ports::new(Server::Nats, choice, remembered).next().unwrap();
        assert_eq!(first(PortChoice::Any, Some(free)).unwrap(), free);
        assert_eq!(first(PortChoice::Rather(free), Some(taken_port)).unwrap(), free);
        assert!(PORTS.contains(&first(PortChoice::Any, Some(taken_port)).unwrap()));
        assert!(matches!(
            first(PortChoice::Exactly(taken_port), Some(free)),
            Err(DevError::PortTaken { .. })
        ));
        assert_eq!(Ports::new(Server::Nats, PortChoice::Any, None).count(), 5);
        assert_eq!(Ports::new(Server::Nats, PortChoice::Exactly(free), None).count(), 1);
    }
}
