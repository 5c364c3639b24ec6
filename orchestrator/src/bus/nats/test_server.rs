//! A private nats-server for a test: its own port and folder, ended with the test, even when the test is killed.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

pub(crate) struct TestServer {
    folder: TempDir,
    port: u16,
    arguments: Vec<&'static str>,
    /// A shell that ends the server when its standard input closes.
    guard: Option<(Child, Pid)>,
}

impl TestServer {
    pub(crate) fn start() -> Self {
        Self::start_with(&["-js"])
    }

    pub(crate) fn start_with(arguments: &[&'static str]) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Self {
            folder: TempDir::new().unwrap(),
            port,
            arguments: arguments.to_vec(),
            guard: None,
        };
        server.run();
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Publishes with these bytes for headers, as no client would; returns when the server has taken it.
    pub(crate) fn publish_raw(&self, subject: &str, headers: &[u8], body: &[u8]) {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let all = headers.len() + body.len();
        let head = format!(
            "CONNECT {{\"headers\":true,\"verbose\":false}}\r\nHPUB {subject} {} {all}\r\n",
            headers.len()
        );
        let bytes = [head.as_bytes(), headers, body, b"\r\nPING\r\n"].concat();
        socket.write_all(&bytes).unwrap();
        let lines = BufReader::new(socket).lines();
        assert!(lines.map_while(Result::ok).any(|line| line == "PONG"));
    }

    fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    pub(crate) fn run(&mut self) {
        assert!(self.guard.is_none());
        let mut guard = Command::new("sh")
            .arg("-c")
            .arg("\"$@\" >/dev/null 2>&1 </dev/null & echo $!; cat >/dev/null; kill -9 $! 2>/dev/null")
            .arg("sh")
            .arg(crate::dev::for_tests::nats_server())
            .args(["-a", "127.0.0.1", "-p", &self.port.to_string()])
            .args(&self.arguments)
            .arg("-sd")
            .arg(self.store())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(guard.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let pid = Pid::from_raw(line.trim().parse().unwrap());
        self.guard = Some((guard, pid));
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < deadline, "nats-server does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// As a crash of the process: nothing is written any more.
    pub(crate) fn kill(&mut self) {
        self.end(Signal::SIGKILL);
    }

    /// An orderly shutdown.
    pub(crate) fn stop(&mut self) {
        self.end(Signal::SIGTERM);
    }

    fn end(&mut self, signal: Signal) {
        let Some((mut guard, pid)) = self.guard.take() else {
            return;
        };
        let _ = kill(pid, signal);
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", self.port)).is_ok() || is_running(pid) {
            assert!(Instant::now() < deadline, "the server does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(guard.stdin.take());
        let _ = guard.wait();
    }

    /// Copies the files as they are; the server must not be running.
    pub(crate) fn copy_files(&self) -> TempDir {
        assert!(self.guard.is_none());
        let copy = TempDir::new().unwrap();
        copy_tree(&self.store(), &copy.path().join("store"));
        copy
    }

    /// Puts a copy in the place of the files there are now.
    pub(crate) fn restore_files(&self, copy: &TempDir) {
        assert!(self.guard.is_none());
        std::fs::remove_dir_all(self.store()).unwrap();
        copy_tree(&copy.path().join("store"), &self.store());
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.end(Signal::SIGKILL);
    }
}

/// A zombie of the shell's counts as ended.
fn is_running(pid: Pid) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
