//! A TCP proxy in front of PostgreSQL that cuts the connection of the commits at a chosen moment, and holds back questions for
//! what is stored of runs.
//!
//! The connection of the commits is the one on which the statement of the group commit is parsed.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// When the connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The commit never reaches PostgreSQL.
    BeforeSending,
    /// It is sent, and nobody waits to see what becomes of it.
    AtOnce,
    /// It is committed, and its reply is lost.
    BeforeReply,
}

#[derive(Debug)]
struct Shared {
    armed: Mutex<Option<Cut>>,
    cuts: watch::Sender<u32>,
    loads_take: Mutex<Duration>,
}

#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    port: u16,
    target: String,
    accepting: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// In front of the server a URL names.
    pub async fn start(url: &str) -> Self {
        let host = url.split('@').next_back().unwrap_or(url);
        let host = host.split(['/', '?']).next().unwrap_or(host).to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            armed: Mutex::default(),
            cuts: watch::Sender::new(0),
            loads_take: Mutex::default(),
        });
        let (accepted, target) = (Arc::clone(&shared), host.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if let Ok(server) = TcpStream::connect(&target).await {
                    let _ = client.set_nodelay(true);
                    let _ = server.set_nodelay(true);
                    tokio::spawn(carry(client, server, Arc::clone(&accepted)));
                }
            }
        });
        Self {
            shared,
            port,
            target: host,
            accepting,
        }
    }

    /// The URL, leading through this proxy.
    pub fn url(&self, url: &str) -> String {
        url.replace(&self.target, &format!("127.0.0.1:{}", self.port))
    }

    /// Cuts the connection at the next commit.
    pub fn arm(&self, cut: Cut) {
        *self.shared.armed.lock().unwrap() = Some(cut);
    }

    /// From now on, a question for the events of runs is held back for so long.
    pub fn slow_loads(&self, take: Duration) {
        *self.shared.loads_take.lock().unwrap() = take;
    }

    pub fn cuts(&self) -> u32 {
        *self.shared.cuts.borrow()
    }

    /// Until so many connections have been cut.
    pub async fn cut(&self, count: u32) {
        let mut cuts = self.shared.cuts.subscribe();
        let waiting = cuts.wait_for(|cuts| *cuts >= count);
        let limit = Duration::from_secs(20);
        tokio::time::timeout(limit, waiting)
            .await
            .expect("nothing was committed")
            .unwrap();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(client: TcpStream, server: TcpStream, shared: Arc<Shared>) {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // What is cut: replies are held back from the moment of a cut.
    let (muted, mute) = watch::channel(false);
    tokio::select! {
        () = replies(from_server, to_client, mute) => {}
        () = requests(from_client, to_server, shared, muted) => {}
    }
}

async fn replies(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mute: watch::Receiver<bool>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        if read == 0 || *mute.borrow() {
            // The first bytes that come while it is muted are the reply of the commit: it has happened.
            return;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

async fn requests(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, shared: Arc<Shared>, muted: watch::Sender<bool>) {
    let mut messages = Messages::default();
    let mut commits = false;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        if read == 0 {
            return;
        }
        let bytes = &buffer[..read];
        let seen = messages.feed(bytes);
        commits |= seen.parses_commit;
        if seen.binds_load {
            let take = *shared.loads_take.lock().unwrap();
            tokio::time::sleep(take).await;
        }
        if commits && seen.binds {
            let armed = shared.armed.lock().unwrap().take();
            if let Some(cut) = armed {
                // Told before the replica can know: whoever waits may look at what is stored then, and not before.
                match cut {
                    Cut::BeforeSending => {}
                    Cut::AtOnce | Cut::BeforeReply => {
                        let _ = muted.send(cut == Cut::BeforeReply);
                        if to.write_all(bytes).await.is_err() {
                            return;
                        }
                        // A long batch does not fit one read; its Sync ends it.
                        let mut synced = seen.syncs;
                        while !synced {
                            let read = from.read(&mut buffer).await.unwrap_or(0);
                            if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
                                return;
                            }
                            synced = messages.feed(&buffer[..read]).syncs;
                        }
                    }
                }
                shared.cuts.send_modify(|cuts| *cuts += 1);
                if cut == Cut::BeforeReply {
                    // The reply ends `carry`.
                    std::future::pending::<()>().await;
                }
                return;
            }
        }
        if to.write_all(bytes).await.is_err() {
            return;
        }
    }
}

/// The text before the first NUL.
fn name(bytes: &[u8]) -> Vec<u8> {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
}

/// What the frontend says, message by message: a byte of type, four of length.
#[derive(Debug, Default)]
struct Messages {
    started: bool,
    header: Vec<u8>,
    left: usize,
    kind: u8,
    body: Vec<u8>,
    /// Names of the statement by which runs are loaded.
    loads: HashSet<Vec<u8>>,
}

#[derive(Debug, Default)]
struct Seen {
    parses_commit: bool,
    binds: bool,
    binds_load: bool,
    syncs: bool,
}

impl Messages {
    fn feed(&mut self, mut bytes: &[u8]) -> Seen {
        let mut seen = Seen::default();
        while !bytes.is_empty() {
            if self.left > 0 {
                let take = self.left.min(bytes.len());
                if matches!(self.kind, b'P' | b'B') && self.body.len() < 8_192 {
                    self.body.extend_from_slice(&bytes[..take]);
                }
                self.left -= take;
                bytes = &bytes[take..];
                if self.left == 0 && self.kind == b'P' {
                    let text = String::from_utf8_lossy(&self.body);
                    seen.parses_commit |= text.contains("update sessions") && text.contains("insert into events");
                    if text.contains("from events_after(") {
                        self.loads.insert(name(&self.body));
                    }
                }
                if self.left == 0 && self.kind == b'B' {
                    // A portal's name comes first.
                    let statement = self
                        .body
                        .iter()
                        .position(|byte| *byte == 0)
                        .map(|end| &self.body[end + 1..]);
                    seen.binds_load |= statement.is_some_and(|statement| self.loads.contains(&name(statement)));
                }
                continue;
            }
            let wanted = if self.started { 5 } else { 4 };
            self.header.push(bytes[0]);
            bytes = &bytes[1..];
            if self.header.len() < wanted {
                continue;
            }
            let length = &self.header[wanted - 4..];
            let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]);
            self.kind = if self.started { self.header[0] } else { 0 };
            self.left = (length as usize).saturating_sub(4);
            self.header.clear();
            self.body.clear();
            seen.binds |= self.kind == b'B';
            seen.syncs |= self.kind == b'S';
            // A request for TLS (a body of four bytes) is answered with a refusal, and the start-up message follows.
            self.started |= length > 8;
        }
        seen
    }
}
