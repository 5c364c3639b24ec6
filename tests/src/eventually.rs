//! Waiting for a condition, with a deadline.

use std::future::Future;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(15);

/// Asks until there is an answer, and returns it with the time it took.
///
/// # Panics
/// When the deadline passes: with `what` was waited for.
pub async fn eventually<T, F, Fut>(what: &str, limit: Duration, mut ask: F) -> (T, Duration)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let began = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return (answer, began.elapsed());
        }
        assert!(began.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(POLL).await;
    }
}
