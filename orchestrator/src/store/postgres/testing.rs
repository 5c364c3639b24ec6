//! A private PostgreSQL for tests: started once a test process, ended with it, one database a test.
//!
//! The server is found in `KNARR_POSTGRES_BIN`, `PATH` or `/usr/lib/postgresql`. It runs without fsync: what these tests
//! are about is not power failure.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use knarr_core::ids::{DefinitionHash, Namespace, RequestId, RunId, WorkflowId, WorkflowName};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Connection, Executor, Row};
use uuid::Uuid;

use super::time::At;
use super::{PostgresConfig, PostgresStore};
use crate::store::conformance::{CommitDump, Dump, PartitionDump, SessionDump};
use crate::store::{
    Append, Cursor, DeferredInput, Owed, OwedSpan, PermitId, PermitRow, RunRow, Snapshot, StoredDefinition,
    StoredTransition,
};

/// Ends the server and removes its directory when the pipe to the test process closes, however that process ends.
const KEEPER: &str = r#""$1" -D "$2/data" -c listen_addresses=127.0.0.1 -c port="$3" -c unix_socket_directories= \
    -c fsync=off -c autovacuum=off -c max_connections=200 -c max_wal_size=1GB >"$2/server.log" 2>&1 &
server=$!
read -r _
kill -INT $server
wait $server
rm -rf "$2""#;

struct Server {
    port: u16,
    /// Holds the keeper's standard input open; statics are not dropped, so it closes when the process ends.
    _keeper: Child,
}

static SERVER: LazyLock<Server> = LazyLock::new(Server::start);
static DATABASES: AtomicU32 = AtomicU32::new(0);

impl Server {
    fn start() -> Self {
        let bin = crate::dev::for_tests::postgres_bin();
        let dir = tempfile::Builder::new().prefix("knarr-test-").tempdir().unwrap().keep();
        let user = unprivileged();
        if let Some(user) = &user {
            std::os::unix::fs::chown(&dir, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
        }
        let command = |program: &Path| {
            let mut command = Command::new(program);
            if let Some(user) = &user {
                command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
            }
            command.current_dir(&dir);
            command
        };
        let made = command(&bin.join("initdb"))
            .arg("-D")
            .arg(dir.join("data"))
            .args(["-U", "postgres", "--auth", "trust", "-E", "UTF8", "--locale", "C", "-N"])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let keeper = command(Path::new("/bin/sh"))
            .args(["-c", KEEPER, "keeper"])
            .arg(bin.join("postgres"))
            .arg(&dir)
            .arg(port.to_string())
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while !answers(port) {
            let log = || std::fs::read_to_string(dir.join("server.log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "PostgreSQL did not start: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
        let server = Self { port, _keeper: keeper };
        // The test that comes first has a runtime of its own, which must not be blocked on.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                tokio::runtime::Runtime::new().unwrap().block_on(async {
                    server.execute("create database model").await;
                    let pool = sqlx::PgPool::connect(&server.url("model")).await.unwrap();
                    super::schema::MIGRATIONS.run(&pool).await.unwrap();
                    pool.close().await;
                });
            });
        });
        server
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    async fn execute(&self, sql: &str) {
        let mut connection = PgConnection::connect(&self.url("postgres")).await.unwrap();
        connection.execute(AssertSqlSafe(sql)).await.unwrap();
    }
}

/// Whether the server lets a client in: it answers the start-up message with an authentication request.
fn answers(port: u16) -> bool {
    let ask = || -> std::io::Result<u8> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        let body = b"\0\x03\0\0user\0postgres\0\0";
        stream.write_all(&u32::try_from(body.len() + 4).unwrap().to_be_bytes())?;
        stream.write_all(body)?;
        let mut kind = [0];
        stream.read_exact(&mut kind)?;
        Ok(kind[0])
    };
    ask().is_ok_and(|kind| kind == b'R')
}

/// PostgreSQL refuses to run as root.
fn unprivileged() -> Option<nix::unistd::User> {
    nix::unistd::Uid::effective().is_root().then(|| {
        ["postgres", "nobody"]
            .iter()
            .find_map(|name| nix::unistd::User::from_name(name).unwrap())
            .unwrap()
    })
}

/// A migrated, empty database of one's own; returns its URL.
pub(crate) async fn database() -> String {
    let server = tokio::task::spawn_blocking(|| &*SERVER).await.unwrap();
    let name = format!("test_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
    server.execute(&format!("create database {name} template model")).await;
    server.url(&name)
}

/// Leases that end only when a test says so.
pub(crate) fn config(url: &str) -> PostgresConfig {
    PostgresConfig {
        lease: Duration::from_secs(3_600),
        silence: Duration::ZERO,
        replica_lock_wait: Duration::from_secs(2),
        ..PostgresConfig::new(url)
    }
}

pub(crate) async fn connect(url: &str) -> PostgresStore {
    PostgresStore::connect(config(url)).await.unwrap()
}

/// A store of a binary that reads storage formats up to this one.
pub(crate) async fn reading(url: &str, format: i32) -> PostgresStore {
    let mut config = config(url);
    config.reads_format = format;
    PostgresStore::connect(config).await.unwrap()
}

pub(crate) async fn lapse(url: &str, session: Uuid) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::query("update sessions set lease_until = clock_timestamp() - interval '1 s' where id = $1")
        .bind(session)
        .execute(&mut connection)
        .await
        .unwrap();
}

/// Drops a store and waits until the server has noticed.
pub(crate) async fn kill(url: &str, store: PostgresStore) {
    let backend: Option<i32> = match store.lease.lock().await.connection.as_mut() {
        Some(connection) => Some(
            sqlx::query_scalar("select pg_backend_pid()")
                .fetch_one(connection)
                .await
                .unwrap(),
        ),
        None => None,
    };
    drop(store);
    let mut connection = PgConnection::connect(url).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while sqlx::query("select from pg_stat_activity where pid = $1")
        .bind(backend)
        .fetch_optional(&mut connection)
        .await
        .unwrap()
        .is_some()
    {
        assert!(Instant::now() < deadline, "the backend of a dropped store lives on");
        tokio::task::yield_now().await;
    }
}

pub(crate) async fn dump(url: &str, name: impl Fn(Uuid) -> usize) -> Dump {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let mut all =
        async |sql: &'static str| -> Vec<PgRow> { sqlx::query(sql).fetch_all(&mut connection).await.unwrap() };
    let text = |row: &PgRow, column: &str| row.get::<String, _>(column);
    let at = |row: &PgRow, column: &str| row.get::<At, _>(column).0;
    let dump = Dump {
        sessions: all("select * from sessions")
            .await
            .iter()
            .map(|row| SessionDump {
                session: name(row.get("id")),
                replica: text(row, "replica"),
                epoch: row.get("epoch"),
                batch_no: row.get("batch_no"),
                claimed_by: row.get::<Option<Uuid>, _>("claimed_by").map(&name),
            })
            .collect(),
        partitions: all("select * from partitions order by partition")
            .await
            .iter()
            .map(|row| PartitionDump {
                partition: row.get("partition"),
                owner: row.get::<Option<Uuid>, _>("owner").map(&name),
                cursor: Cursor {
                    sequence: row.get::<i64, _>("cursor_seq").try_into().unwrap(),
                    at: at(row, "cursor_at"),
                    stream: text(row, "cursor_stream"),
                },
            })
            .collect(),
        commits: all("select * from commits")
            .await
            .iter()
            .map(|row| {
                let (first, last): (Vec<i32>, Vec<i32>) = (row.get("first_seqs"), row.get("last_seqs"));
                CommitDump {
                    session: name(row.get("session")),
                    batch_no: row.get("batch_no"),
                    holder: name(row.get("holder")),
                    owed: Owed {
                        spans: row
                            .get::<Vec<Uuid>, _>("run_ids")
                            .into_iter()
                            .zip(first.into_iter().zip(last))
                            .map(|(run_id, (first_seq, last_seq))| OwedSpan {
                                run_id: RunId(run_id),
                                first_seq,
                                last_seq,
                            })
                            .collect(),
                        messages: row.get("messages"),
                    },
                }
            })
            .collect(),
        runs: all("select *, search_attributes::text as attributes from runs order by run_id")
            .await
            .iter()
            .map(|row| RunRow {
                run_id: RunId(row.get("run_id")),
                retention_class: row.get("retention_class"),
                namespace: Namespace::new(&text(row, "namespace")),
                workflow_id: WorkflowId::new(&text(row, "workflow_id")),
                workflow: WorkflowName::new(&text(row, "workflow")),
                version: row.get("version"),
                definition: DefinitionHash(text(row, "definition").into()),
                partition: row.get("partition"),
                status: text(row, "status"),
                started_at: at(row, "started_at"),
                closed_at: row.get::<Option<At>, _>("closed_at").map(|At(at)| at),
                wake_at: row.get::<Option<At>, _>("wake_at").map(|At(at)| at),
                request_id: row.get::<Option<&str>, _>("request_id").map(RequestId::new),
                search_attributes: row.get("attributes"),
                outcome: row.get("outcome"),
                attempt: row.get::<Option<i32>, _>("attempt").unwrap_or(1),
                begins_at: row.get::<Option<At>, _>("begins_at").map(|At(at)| at),
                retried_by: row.get::<Option<Uuid>, _>("retried_by").map(RunId),
                tenure: row.get("tenure"),
            })
            .collect(),
        events: all("select * from events order by retention_class, run_id, seq")
            .await
            .iter()
            .map(|row| Append {
                retention_class: row.get("retention_class"),
                run_id: RunId(row.get("run_id")),
                transition: StoredTransition {
                    seq: row.get("seq"),
                    at: at(row, "at"),
                    body: text(row, "body"),
                },
            })
            .collect(),
        snapshots: all("select * from snapshots order by run_id")
            .await
            .iter()
            .map(|row| Snapshot {
                run_id: RunId(row.get("run_id")),
                seq: row.get("seq"),
                body: text(row, "body"),
            })
            .collect(),
        deferred: all("select * from deferred order by partition, no")
            .await
            .iter()
            .map(|row| DeferredInput {
                partition: row.get("partition"),
                no: row.get("no"),
                run_id: RunId(row.get("run_id")),
                cursor: Cursor {
                    sequence: row.get::<i64, _>("cursor_seq").try_into().unwrap(),
                    at: at(row, "cursor_at"),
                    stream: text(row, "cursor_stream"),
                },
                subject: text(row, "subject"),
                headers: text(row, "headers"),
                body: row.get("body"),
            })
            .collect(),
        permits: all("select * from permits order by partition, namespace, limiter, no")
            .await
            .iter()
            .map(|row| PermitRow {
                id: PermitId {
                    partition: row.get("partition"),
                    namespace: Namespace::new(&text(row, "namespace")),
                    limiter: text(row, "limiter"),
                    no: row.get("no"),
                },
                body: text(row, "body"),
            })
            .collect(),
        definitions: all("select * from definitions order by namespace, workflow, version")
            .await
            .iter()
            .map(|row| StoredDefinition {
                namespace: Namespace::new(&text(row, "namespace")),
                workflow: WorkflowName::new(&text(row, "workflow")),
                version: row.get("version"),
                hash: DefinitionHash(text(row, "hash").into()),
                body: text(row, "body"),
                source: text(row, "source"),
                registered_at: at(row, "registered_at"),
            })
            .collect(),
        definitions_epoch: all("select definitions_epoch from cluster").await[0].get(0),
        namespaces: all("select name, retention_class from namespaces order by name")
            .await
            .iter()
            .map(|row| (row.get(0), row.get(1)))
            .collect(),
    };
    dump.normalised()
}
