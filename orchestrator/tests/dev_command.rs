//! `knarr dev` as a person runs it: started, disturbed, killed, started again.
#![expect(clippy::unwrap_used, reason = "what a test rests on may fail it")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(120);

fn dev(data_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_knarr"));
    command
        .args([
            "dev",
            "-o",
            "json",
            "--nats-port",
            "0",
            "--http-listen",
            "127.0.0.1:0",
            "--data-dir",
        ])
        .arg(data_dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .env_remove("KNARR_NATS_URL");
    command
}

/// Ended when the test is, however that is.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts it and waits until it says where everything is.
fn start(data_dir: &Path) -> (Running, Value) {
    let mut running = Running(dev(data_dir).spawn().unwrap());
    let child = &mut running.0;
    let mut text = String::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    loop {
        assert_ne!(lines.read_line(&mut text).unwrap(), 0, "it ended: {:?}", child.wait());
        if let Ok(addresses) = serde_json::from_str(&text) {
            return (running, addresses);
        }
    }
}

fn signal(pid: u32, signal: &str) {
    assert!(
        Command::new("kill")
            .args(["-s", signal, &pid.to_string()])
            .status()
            .unwrap()
            .success()
    );
}

fn pid_files(data_dir: &Path) -> [PathBuf; 2] {
    [
        data_dir.join("nats/nats.pid"),
        data_dir.join("postgres/data/postmaster.pid"),
    ]
}

fn pids(data_dir: &Path) -> [u32; 2] {
    pid_files(data_dir).map(|path| {
        fs::read_to_string(path)
            .unwrap()
            .lines()
            .next()
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    })
}

fn is_gone(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

fn await_condition(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn get(http_url: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(http_url.trim_start_matches("http://")).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: knarr\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn servers_die_with_it_and_come_back_as_they_were() {
    let dir = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o755))
        .tempdir()
        .unwrap();
    let data_dir = dir.path().join("data");
    let (mut first, addresses) = start(&data_dir);
    let http = addresses["http_url"].as_str().unwrap();
    assert!(
        get(http, "/health/ready").starts_with("HTTP/1.1 200"),
        "{}",
        get(http, "/health/ready")
    );
    assert!(
        get(http, "/metrics").contains("knarr_partitions_owned"),
        "{}",
        get(http, "/metrics")
    );
    let recorded: Value = serde_json::from_slice(&fs::read(data_dir.join("dev.json")).unwrap()).unwrap();
    assert_eq!(recorded["nats_url"], addresses["nats_url"]);

    // A second one on the same data has to say so.
    let refused = dev(&data_dir).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(3), "{said}");
    assert!(
        said.contains("KN0361") && said.contains(&first.0.id().to_string()),
        "{said}"
    );

    // Killed without a chance to tidy up.
    let before = pids(&data_dir);
    first.0.kill().unwrap();
    first.0.wait().unwrap();
    await_condition("the servers outlive their parent", || before.into_iter().all(is_gone));

    let (mut second, again) = start(&data_dir);
    assert_eq!(
        (&again["nats_url"], &again["database_url"]),
        (&addresses["nats_url"], &addresses["database_url"])
    );

    // A server that dies is started again under its feet.
    let [nats, _] = pids(&data_dir);
    signal(nats, "KILL");
    await_condition("nats-server is not started again", || {
        fs::read_to_string(&pid_files(&data_dir)[0])
            .is_ok_and(|text| text.trim().parse().is_ok_and(|pid: u32| pid != nats && !is_gone(pid)))
    });

    let before = pids(&data_dir);
    signal(second.0.id(), "INT");
    assert!(second.0.wait().unwrap().success());
    assert!(before.into_iter().all(is_gone), "servers are left over after Ctrl-C");
    assert!(!data_dir.join("dev.json").exists());
}

#[test]
fn a_server_that_cannot_be_used_is_named_with_a_code() {
    let dir = tempfile::tempdir().unwrap();
    let old = dir.path().join("nats-server");
    fs::write(&old, "#!/bin/sh\necho 'nats-server: v2.9.10'\n").unwrap();
    fs::set_permissions(&old, fs::Permissions::from_mode(0o755)).unwrap();
    let output = dev(&dir.path().join("data"))
        .arg("--nats-server")
        .arg(&old)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    for part in ["KN0364", "nats-server 2.9", "2.12 or newer is needed", "\"remedy\""] {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
}

#[test]
fn a_server_without_a_database_or_with_a_wrong_file_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("knarr.toml");
    fs::write(&file, "database_ulr = 'postgres://x'\n").unwrap();
    let server = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_knarr"))
            .arg("server")
            .args(arguments)
            .env_remove("KNARR_DATABASE_URL")
            .env_remove("KNARR_CONFIG")
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (status, said) = server(&[]);
    assert!(status == Some(2) && said.contains("KN0323"), "{said}");
    let (status, said) = server(&["--config", file.to_str().unwrap()]);
    assert!(
        status == Some(2) && said.contains("KN0322") && said.contains("database_ulr"),
        "{said}"
    );
    let (status, said) = server(&[
        "--database-url",
        "postgres://nobody@127.0.0.1:1/none",
        "--http-listen",
        "127.0.0.1:0",
    ]);
    assert!(status == Some(3) && said.contains("KN0333"), "{said}");
}
