//! A TCP proxy that can be shut: nothing passes, and nobody is told. What lies in it is lost when it opens again.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    shut: bool,
    /// Connections of an earlier life are over.
    life: u32,
}

#[derive(Debug)]
pub struct Valve {
    state: Arc<watch::Sender<State>>,
    port: u16,
    accepting: tokio::task::JoinHandle<()>,
}

impl Valve {
    /// In front of the NATS server a URL names.
    pub async fn start(url: &str) -> Self {
        let target = url.trim_start_matches("nats://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(watch::Sender::new(State { shut: false, life: 0 }));
        let accepted = Arc::clone(&state);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if let Ok(server) = TcpStream::connect(&target).await {
                    tokio::spawn(carry(client, server, accepted.subscribe()));
                }
            }
        });
        Self { state, port, accepting }
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub fn shut(&self) {
        self.state.send_modify(|state| state.shut = true);
    }

    /// Ends the connections there are, and lets new ones through.
    pub fn open(&self) {
        self.state.send_modify(|state| {
            state.shut = false;
            state.life += 1;
        });
    }
}

impl Drop for Valve {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(client: TcpStream, server: TcpStream, mut state: watch::Receiver<State>) {
    let life = state.borrow().life;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let (up, down) = (state.clone(), state.clone());
    tokio::select! {
        _ = pass(&mut from_client, &mut to_server, up, life) => {}
        _ = pass(&mut from_server, &mut to_client, down, life) => {}
        _ = state.wait_for(|state| state.life != life) => {}
    }
}

async fn pass(
    from: &mut tokio::net::tcp::OwnedReadHalf,
    to: &mut tokio::net::tcp::OwnedWriteHalf,
    mut state: watch::Receiver<State>,
    life: u32,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        // A valve that is gone is shut for good, and one that has opened lets only what comes later through.
        let opened = state.wait_for(|state| !state.shut || state.life != life).await;
        let same = opened.is_ok_and(|state| state.life == life);
        if read == 0 || !same {
            return Ok(());
        }
        to.write_all(&buffer[..read]).await?;
    }
}
