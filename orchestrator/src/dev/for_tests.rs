//! Where unit tests find their servers: as `knarr dev` does, installed into the cache if need be. Asked once a process.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::account::Account;
use super::{Progress, Search};

pub(crate) fn nats_server() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| wait_for(async { Search::default().nats_server(&Progress::Silent).await.unwrap() }))
}

pub(crate) fn postgres_bin() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        wait_for(async {
            let account = Account::to_drop_to().unwrap();
            let search = Search::default();
            search
                .postgres_bin(account.as_ref(), None, &Progress::Silent)
                .await
                .unwrap()
        })
    })
}

/// On a thread of its own: tests that are asynchronous themselves ask too.
fn wait_for(search: impl Future<Output = PathBuf> + Send) -> PathBuf {
    std::thread::scope(|scope| {
        let search = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(search)
        });
        search.join().unwrap()
    })
}
