//! Ctrl-C and its relatives: the first one asks to stop in order, the second one does not wait for it.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::cli::error::Exit;
use crate::cli::output;

/// As shells report a process that ended by SIGINT.
const INTERRUPTED: i32 = Exit::Interrupted as i32;

/// Cancelled by SIGINT, SIGTERM or SIGHUP from the return of this on. A second signal ends the process at once; private
/// servers are stopped all the same.
pub fn token() -> CancellationToken {
    let token = CancellationToken::new();
    let cancel = token.clone();
    let first = Signals::new();
    tokio::spawn(async move {
        first.any().await;
        cancel.cancel();
        Signals::new().any().await;
        std::process::exit(INTERRUPTED);
    });
    token
}

/// Those that are listened to from when this is made.
struct Signals([Option<Signal>; 3]);

impl Signals {
    fn new() -> Self {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        Self(kinds.map(|kind| match signal(kind) {
            Ok(signal) => Some(signal),
            Err(error) => {
                output::note(&format!("warning: a signal cannot be waited for: {error}"));
                None
            }
        }))
    }

    async fn any(self) {
        let [interrupt, terminate, hangup] = self.0.map(|signal| async move {
            match signal {
                Some(mut signal) => {
                    signal.recv().await;
                }
                None => std::future::pending().await,
            }
        });
        tokio::select! {
            () = interrupt => {}
            () = terminate => {}
            () = hangup => {}
        }
    }
}
