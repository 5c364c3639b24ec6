//! Ctrl-C and its relatives: the first one asks to stop in order, the second one does not wait for it.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::cli::output;

/// As shells report a process that ended by SIGINT.
const INTERRUPTED: i32 = 130;

/// Cancelled by SIGINT, SIGTERM or SIGHUP. A second signal ends the process at once; private servers are stopped all the same.
pub fn token() -> CancellationToken {
    let token = CancellationToken::new();
    let cancel = token.clone();
    tokio::spawn(async move {
        any_signal().await;
        cancel.cancel();
        any_signal().await;
        std::process::exit(INTERRUPTED);
    });
    token
}

async fn any_signal() {
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let [interrupt, terminate, hangup] = kinds.map(|kind| async move {
        match signal(kind) {
            Ok(mut signals) => {
                signals.recv().await;
            }
            Err(error) => {
                output::note(&format!("warning: a signal cannot be waited for: {error}"));
                std::future::pending::<()>().await;
            }
        }
    });
    tokio::select! {
        () = interrupt => {}
        () = terminate => {}
        () = hangup => {}
    }
}
