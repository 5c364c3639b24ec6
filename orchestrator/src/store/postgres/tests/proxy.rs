//! What stands between a store and its server, and fails as networks do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const PASS: u8 = 0;
/// The client's next bytes never arrive.
pub(super) const CUT_BEFORE: u8 = 1;
/// They arrive, and the server's answer does not.
pub(super) const CUT_AFTER: u8 = 2;
/// They arrive, and the connection is gone at once, whatever the server is doing.
pub(super) const CUT_DURING: u8 = 3;

/// Stands between a store and its server, and cuts the connection that speaks next.
pub(super) struct Proxy {
    pub(super) url: String,
    mode: Arc<AtomicU8>,
    accepted: Arc<AtomicU64>,
    /// Connections up to this number lead nowhere.
    gone: watch::Sender<u64>,
}

impl Proxy {
    pub(super) async fn start(url: &str) -> Self {
        let (before, database) = url.rsplit_once('/').unwrap();
        let (credentials, server) = before.rsplit_once('@').unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{credentials}@{}/{database}", listener.local_addr().unwrap());
        let mode = Arc::new(AtomicU8::new(PASS));
        let (shared, server) = (Arc::clone(&mode), server.to_owned());
        let gone = watch::Sender::new(0);
        let cuts = gone.clone();
        let accepted = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&accepted);
        tokio::spawn(async move {
            let mut number = 0;
            while let Ok((client, _)) = listener.accept().await {
                let upstream = TcpStream::connect(&server).await.unwrap();
                number += 1;
                let (mode, mut gone) = (Arc::clone(&shared), cuts.subscribe());
                counted.store(number, Ordering::SeqCst);
                tokio::spawn(async move {
                    let (mut client, mut upstream) = (client, upstream);
                    let vanished = async { gone.wait_for(|last| *last >= number).await.is_ok() };
                    let vanished = tokio::select! {
                        () = relay(&mut client, &mut upstream, mode) => false,
                        vanished = vanished => vanished,
                    };
                    if vanished {
                        std::future::pending::<()>().await;
                    }
                });
            }
        });
        Self {
            url,
            mode,
            accepted,
            gone,
        }
    }

    /// What runs over the connections there are is neither passed on nor refused from here on, as if the host behind them
    /// had vanished and another had taken its address.
    pub(super) fn vanish(&self) {
        self.gone.send_replace(self.accepted.load(Ordering::SeqCst));
    }

    pub(super) fn next(&self, mode: u8) {
        self.mode.store(mode, Ordering::SeqCst);
    }
}

async fn relay(client: &mut TcpStream, server: &mut TcpStream, mode: Arc<AtomicU8>) {
    let (mut up, mut down) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut cut_answer = false;
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let Ok(read @ 1..) = read else { return };
                match mode.swap(PASS, Ordering::SeqCst) {
                    CUT_BEFORE => return,
                    CUT_AFTER => cut_answer = true,
                    CUT_DURING => {
                        server.write_all(&up[..read]).await.ok();
                        return;
                    }
                    _ => {}
                }
                if server.write_all(&up[..read]).await.is_err() { return }
            }
            read = server.read(&mut down) => {
                let Ok(read @ 1..) = read else { return };
                if cut_answer || client.write_all(&down[..read]).await.is_err() { return }
            }
        }
    }
}
