//! Private servers, on whatever real ones this machine has or can install.
#![expect(clippy::unwrap_used, reason = "what a test rests on may fail it")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use knarr::dev::{DevError, PortChoice, Progress, Search, Server, ServerOptions, Servers};
use sqlx::{Connection, PgConnection};

async fn start(data_dir: Option<&Path>) -> Servers {
    let options = ServerOptions {
        data_dir: data_dir.map(Path::to_owned),
        ..ServerOptions::default()
    };
    Servers::start(options, &Progress::Silent).await.unwrap()
}

fn owner_of_process(pid: u32) -> u32 {
    fs::metadata(format!("/proc/{pid}")).unwrap().uid()
}

/// Orphans may wait for init to reap them: those are gone too.
fn is_gone(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

#[tokio::test]
async fn starts_in_a_temporary_directory_and_leaves_nothing() {
    let servers = start(None).await;
    let data_dir = servers.data_dir().to_owned();
    let postgres_home = servers.postgres_home().unwrap().to_owned();
    let mut connection = PgConnection::connect(servers.postgres_url()).await.unwrap();
    let (fsync, user): (String, String) = sqlx::query_as("select current_setting('fsync'), current_user::text")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!((fsync.as_str(), user.as_str()), ("on", "knarr"));
    let nats = async_nats::connect(servers.nats_url()).await.unwrap();
    async_nats::jetstream::new(nats).query_account().await.unwrap();

    let postgres = servers.pids(Server::Postgres).await;
    let nats = servers.pids(Server::Nats).await;
    assert!(postgres.len() > 1, "PostgreSQL has helpers: {postgres:?}");
    assert_eq!(nats.len(), 1);
    for pid in &postgres {
        assert_ne!(owner_of_process(*pid), 0, "PostgreSQL runs as root");
    }
    assert!(servers.nats_store_dir().unwrap().is_dir());
    servers.stop().await;
    for pid in postgres.into_iter().chain(nats) {
        assert!(is_gone(pid), "{pid} is left over");
    }
    assert!(!data_dir.exists() && !postgres_home.exists());
}

#[tokio::test]
async fn restarting_continues_with_data_and_ports_and_excludes_others() {
    let dir = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o755))
        .tempdir()
        .unwrap();
    let path = dir.path().join("data");
    let first = start(Some(&path)).await;
    let urls = (first.nats_url().to_owned(), first.postgres_url().to_owned());
    let mut connection = PgConnection::connect(first.postgres_url()).await.unwrap();
    sqlx::query("create table kept (n int)")
        .execute(&mut connection)
        .await
        .unwrap();

    let options = ServerOptions {
        data_dir: Some(path.clone()),
        ..ServerOptions::default()
    };
    let refused = Servers::start(options, &Progress::Silent).await.unwrap_err();
    assert!(
        matches!(refused, DevError::Busy { pid: Some(pid), .. } if pid == std::process::id()),
        "{refused}"
    );
    assert_eq!(refused.code().id, "KN0361");
    first.stop().await;
    drop(first);

    let second = start(Some(&path)).await;
    assert_eq!((second.nats_url().to_owned(), second.postgres_url().to_owned()), urls);
    let mut connection = PgConnection::connect(second.postgres_url()).await.unwrap();
    sqlx::query("insert into kept values (1)")
        .execute(&mut connection)
        .await
        .unwrap();

    // Killed in the middle of it, both come back on the same ports with what was committed.
    for server in [Server::Nats, Server::Postgres] {
        let before = second.pids(server).await;
        second.kill9(server).await.unwrap();
        assert!(before.iter().all(|pid| is_gone(*pid)), "{before:?}");
        assert!(second.pids(server).await.is_empty());
        second.restart(server).await.unwrap();
        assert_ne!(second.pids(server).await[0], before[0]);
    }
    let mut connection = PgConnection::connect(&urls.1).await.unwrap();
    let (kept,): (i64,) = sqlx::query_as("select count(*) from kept")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(kept, 1);
    async_nats::connect(&urls.0).await.unwrap();
    second.stop().await;
    drop(second);

    let options = ServerOptions {
        data_dir: Some(path.clone()),
        fresh: true,
        ..ServerOptions::default()
    };
    let third = Servers::start(options, &Progress::Silent).await.unwrap();
    let mut connection = PgConnection::connect(third.postgres_url()).await.unwrap();
    assert!(
        sqlx::query("select * from kept")
            .execute(&mut connection)
            .await
            .is_err(),
        "--fresh kept the data"
    );
    third.stop().await;
}

#[tokio::test]
async fn a_server_that_dies_by_itself_is_noticed() {
    let servers = start(None).await;
    let pid = servers.pids(Server::Nats).await[0];
    let killed = std::process::Command::new("kill")
        .args(["-9", &pid.to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
    assert_eq!(servers.failed().await, Server::Nats);
    servers.restart(Server::Nats).await.unwrap();
    servers.stop().await;
}

#[tokio::test]
async fn servers_given_by_address_are_left_alone() {
    let options = ServerOptions {
        nats: Some("nats://127.0.0.1:1".to_owned()),
        postgres: Some("postgres://nobody@127.0.0.1:1/none".to_owned()),
        ..ServerOptions::default()
    };
    let servers = Servers::start(options, &Progress::Silent).await.unwrap();
    assert_eq!(servers.nats_url(), "nats://127.0.0.1:1");
    assert!(matches!(servers.kill9(Server::Nats).await, Err(DevError::NotOurs(_))));
    assert!(servers.pids(Server::Postgres).await.is_empty());
    servers.stop().await;
}

#[tokio::test]
async fn a_port_asked_for_that_is_taken_is_an_error() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let options = ServerOptions {
        nats_port: PortChoice::Exactly(port),
        postgres: Some("postgres://nobody@127.0.0.1:1/none".to_owned()),
        ..ServerOptions::default()
    };
    let error = Servers::start(options, &Progress::Silent).await.unwrap_err();
    assert_eq!(error.code().id, "KN0370", "{error}");
}

/// A home that is closed to others, as root's is.
#[tokio::test]
async fn a_data_directory_that_postgres_may_not_enter_keeps_its_files_elsewhere() {
    let closed = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir()
        .unwrap();
    if fs::metadata(closed.path()).unwrap().uid() != 0 {
        return; // Nothing is in the way of a process that keeps its user.
    }
    let path = closed.path().join("data");
    let first = start(Some(&path)).await;
    let home = first.postgres_home().unwrap().to_owned();
    assert!(!home.starts_with(&path), "{}", home.display());
    first.stop().await;
    drop(first);
    let second = start(Some(&path)).await;
    assert_eq!(second.postgres_home().unwrap(), home);
    second.stop().await;
    fs::remove_dir_all(home).unwrap();
}

/// As on a machine that has neither server: both are installed by two at once, into a cache that PostgreSQL may reach.
#[tokio::test]
async fn servers_are_installed_where_there_are_none() {
    let cache = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o755))
        .tempdir()
        .unwrap();
    let options = || ServerOptions {
        search: Search {
            nats_server: None,
            postgres_bin: None,
            path: "/nowhere".into(),
            postgres_roots: Vec::new(),
            cache: cache.path().to_owned(),
        },
        ..ServerOptions::default()
    };
    let silent = Progress::Silent;
    let (first, second) = tokio::join!(Servers::start(options(), &silent), Servers::start(options(), &silent));
    let (first, second) = (first.unwrap(), second.unwrap());
    let mut connection = PgConnection::connect(second.postgres_url()).await.unwrap();
    let (version,): (String,) = sqlx::query_as("show server_version")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert!(version.starts_with("18."), "{version}");
    first.stop().await;
    second.stop().await;
}
