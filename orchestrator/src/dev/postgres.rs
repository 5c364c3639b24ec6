//! A private PostgreSQL: initialised once, configured at every start, and never run as root.
//!
//! It listens on 127.0.0.1 and wants a password, generated and kept in a file that only its own user reads: the machine
//! may have other users.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{ConnectOptions, Connection};
use tokio::process::Command;

use super::DevError;
use super::account::Account;
use super::process::{ServerProcess, is_alive, read_pid, stop_leftover, tail};
use super::state::random_hex;
use super::watchdog::Watchdog;

/// Fast shutdown: sessions are cut, what was committed is written.
const SIGNAL: Signal = Signal::SIGINT;
/// Recovery after a crash takes its time.
const READY_DEADLINE: Duration = Duration::from_secs(120);
/// The longest path of a socket is 107 bytes, of which PostgreSQL's file name takes up to 17.
const SOCKET_DIR_LIMIT: usize = 88;
const NAME: &str = "knarr";

#[derive(Clone)]
pub(crate) struct Postgres {
    pub(crate) bin: PathBuf,
    pub(crate) files: PostgresFiles,
    pub(crate) account: Option<Account>,
    pub(crate) port: u16,
    pub(crate) fsync: bool,
    pub(crate) password: String,
}

/// Without the password.
impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres")
            .field("bin", &self.bin)
            .field("files", &self.files)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone)]
pub(crate) struct PostgresFiles {
    home: PathBuf,
    pub(crate) log: PathBuf,
}

impl PostgresFiles {
    pub(crate) fn new(home: PathBuf, data_dir: &Path) -> Self {
        Self {
            home,
            log: data_dir.join("postgres.log"),
        }
    }

    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    /// The major version the data is of, if there is any.
    pub(crate) fn major(&self) -> Option<u32> {
        fs::read_to_string(self.data().join("PG_VERSION"))
            .ok()?
            .trim()
            .parse()
            .ok()
    }

    pub(crate) async fn stop_leftover(&self) -> bool {
        let pid_file = self.data().join("postmaster.pid");
        let Some(pid) = read_pid(&pid_file) else { return false };
        if stop_leftover(pid, &self.data(), SIGNAL).await {
            return true;
        }
        // PostgreSQL takes any process of its user under that number for itself. A file whose process is gone stays:
        // by it PostgreSQL recognises backends that have outlived their parent.
        if is_alive(pid) {
            let _ = fs::remove_file(pid_file);
        }
        false
    }

    /// Creates the directory for `account`, and the password in it, unless they are there. Returns the password.
    pub(crate) fn prepare(&self, account: Option<&Account>) -> Result<String, DevError> {
        let failed = |error| DevError::path(&self.home, error);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.home)
            .map_err(failed)?;
        let path = self.home.join("password");
        let password = match fs::read_to_string(&path) {
            Ok(password) if !password.trim().is_empty() => password.trim().to_owned(),
            Ok(_) => self.new_password(&path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.new_password(&path)?,
            Err(error) => return Err(DevError::path(&path, error)),
        };
        let sockets = self.sockets();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&sockets)
            .map_err(failed)?;
        if let Some(account) = account {
            account.own(&self.home).map_err(failed)?;
        }
        Ok(password)
    }

    fn sockets(&self) -> PathBuf {
        self.home.join("sockets")
    }

    fn new_password(&self, path: &Path) -> Result<String, DevError> {
        let password = random_hex(16)?;
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
            .and_then(|mut file| writeln!(file, "{password}"))
            .map_err(|error| DevError::path(path, error))?;
        Ok(password)
    }
}

impl Postgres {
    pub(crate) fn url(&self) -> String {
        format!("postgres://{NAME}:{}@127.0.0.1:{}/{NAME}", self.password, self.port)
    }

    /// Makes an empty cluster, once. An interrupted attempt leaves nothing that the next one would take for one.
    pub(crate) async fn init(&self, durable: bool) -> Result<(), DevError> {
        if self.files.major().is_some() {
            return Ok(());
        }
        let new = self.files.home.join("data.new");
        let _ = fs::remove_dir_all(&new);
        let mut command = self.command("initdb");
        command
            .arg("--pgdata")
            .arg(&new)
            .arg("--pwfile")
            .arg(self.files.home.join("password"))
            .args([
                "--username",
                NAME,
                "--auth",
                "scram-sha-256",
                "--encoding",
                "UTF8",
                "--locale",
                "C",
            ]);
        if !durable {
            command.arg("--no-sync");
        }
        let output = command.output().await.map_err(|source| DevError::Spawn {
            program: self.bin.join("initdb"),
            source,
        })?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(DevError::InitDb {
                status: output.status.to_string(),
                output: text.lines().map(|line| format!("    {line}\n")).collect(),
            });
        }
        let data = self.files.data();
        OpenOptions::new()
            .append(true)
            .open(new.join("postgresql.conf"))
            .and_then(|mut file| writeln!(file, "\ninclude 'knarr.conf'"))
            .and_then(|()| fs::rename(&new, &data))
            .map_err(|error| DevError::path(&data, error))
    }

    /// Writes what this start asks for.
    pub(crate) async fn configure(&self) -> Result<(), DevError> {
        let path = self.files.data().join("knarr.conf");
        let written = |text: String| fs::write(&path, text).map_err(|error| DevError::path(&path, error));
        written(String::new())?;
        if let Some(account) = &self.account {
            account.own(&path).map_err(|error| DevError::path(&path, error))?;
        }
        let lz4 = self
            .command("postgres")
            .arg("-D")
            .arg(self.files.data())
            .args(["-C", "wal_compression", "-c", "wal_compression=lz4"])
            .output()
            .await
            .is_ok_and(|output| output.status.success());
        written(self.configuration(lz4))
    }

    pub(crate) async fn launch(&self, watchdog: Arc<Watchdog>) -> Result<ServerProcess, DevError> {
        let data = self.files.data();
        let process = ServerProcess::spawn(
            &self.bin.join("postgres"),
            &[OsStr::new("-D"), data.as_os_str()],
            &self.files.home,
            &self.files.log,
            self.account.as_ref(),
            SIGNAL,
            watchdog,
        )?;
        let deadline = tokio::time::Instant::now() + READY_DEADLINE;
        let mut connection = loop {
            let last = match tokio::time::timeout(Duration::from_secs(5), self.connect()).await {
                Ok(Ok(connection)) => break connection,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer".to_owned(),
            };
            if let Some(status) = process.exit_status() {
                return Err(DevError::Ended {
                    server: "PostgreSQL",
                    status: status.to_string(),
                    log: self.files.log.clone(),
                    tail: tail(&self.files.log),
                });
            }
            if tokio::time::Instant::now() > deadline {
                process.stop().await;
                return Err(DevError::NotReady {
                    server: "PostgreSQL",
                    seconds: READY_DEADLINE.as_secs(),
                    last,
                    log: self.files.log.clone(),
                    tail: tail(&self.files.log),
                });
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        if let Err(error) = create_database(&mut connection).await {
            process.stop().await;
            return Err(DevError::Sql(error.to_string()));
        }
        let _ = connection.close().await;
        Ok(process)
    }

    async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(self.port)
            .username(NAME)
            .password(&self.password)
            .database("postgres")
            .ssl_mode(PgSslMode::Disable)
            .connect()
            .await
    }

    /// As PostgreSQL's user, with no settings of the caller's.
    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.bin.join(name));
        command
            .current_dir(&self.files.home)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .env_remove("PGDATA")
            .env_remove("PGPORT")
            .env_remove("PGHOST")
            .env("LC_ALL", "C");
        if let Some(account) = &self.account {
            command.uid(account.uid).gid(account.gid);
        }
        command
    }

    fn configuration(&self, lz4: bool) -> String {
        let sockets = self.files.sockets();
        // A path that is too long for a socket, or that would need quoting within quotes, goes without.
        let sockets = match sockets.to_str() {
            Some(path) if path.len() <= SOCKET_DIR_LIMIT && !path.contains(['\'', ',', '"']) => path,
            _ => "",
        };
        let on = |value| if value { "on" } else { "off" };
        format!(
            "# Written at every start by knarr; what belongs here for good goes into postgresql.conf below the include.\n\
             listen_addresses = '127.0.0.1'\n\
             port = {port}\n\
             unix_socket_directories = '{sockets}'\n\
             max_connections = 100\n\
             shared_buffers = 256MB\n\
             fsync = {fsync}\n\
             synchronous_commit = on\n\
             full_page_writes = {fsync}\n\
             wal_compression = {compression}\n\
             wal_buffers = 16MB\n\
             min_wal_size = 512MB\n\
             max_wal_size = 4GB\n\
             checkpoint_timeout = 15min\n\
             jit = off\n\
             timezone = 'UTC'\n\
             log_timezone = 'UTC'\n",
            port = self.port,
            fsync = on(self.fsync),
            compression = if lz4 { "lz4" } else { "off" },
        )
    }
}

async fn create_database(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let exists: Option<(i32,)> = sqlx::query_as("select 1 from pg_database where datname = 'knarr'")
        .fetch_optional(&mut *connection)
        .await?;
    if exists.is_none() {
        sqlx::query("create database knarr").execute(&mut *connection).await?;
    }
    Ok(())
}
