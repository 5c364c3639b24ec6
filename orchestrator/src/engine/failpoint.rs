//! Crash points for tests: in builds with debug assertions, `KNARR_FAILPOINT=<stage>:<n>` kills this process with SIGKILL
//! when it passes that stage for the n-th time. Release builds contain nothing of it.

/// The places between two stages of the loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Taken,
    Applied,
    Committed,
    Published,
    Acknowledged,
}

#[cfg(debug_assertions)]
pub(super) fn pass(stage: Stage) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static ARMED: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static PASSED: AtomicU64 = AtomicU64::new(0);
    let armed = ARMED.get_or_init(|| {
        let text = std::env::var("KNARR_FAILPOINT").ok()?;
        let (stage, count) = text.split_once(':')?;
        Some((stage.to_owned(), count.parse().ok()?))
    });
    let Some((name, count)) = armed else { return };
    let this = match stage {
        Stage::Taken => "taken",
        Stage::Applied => "applied",
        Stage::Committed => "committed",
        Stage::Published => "published",
        Stage::Acknowledged => "acknowledged",
    };
    if name == this && PASSED.fetch_add(1, Ordering::SeqCst) + 1 == *count {
        // Nothing may run after this point, as in a crash; the signal cannot be caught.
        if nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL).is_err() {
            std::process::abort();
        }
    }
}

#[cfg(not(debug_assertions))]
pub(super) fn pass(_stage: Stage) {}
