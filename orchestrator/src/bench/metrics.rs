//! What orchestrators count, read from `/metrics`.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::telemetry::metric;

const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct EngineCounts {
    pub(crate) commits: f64,
    pub(crate) transitions: f64,
}

/// The sum over all replicas; `None` if one of them cannot be asked, or has not counted yet.
pub(crate) async fn engine_counts(replicas: &[SocketAddr]) -> Option<EngineCounts> {
    let mut sum = EngineCounts::default();
    for replica in replicas {
        let text = tokio::time::timeout(PATIENCE, get(*replica)).await.ok()?.ok()?;
        sum.commits += total(&text, &format!("{}_count", metric::COMMIT_SECONDS))?;
        sum.transitions += total(&text, metric::TRANSITIONS)?;
    }
    (!replicas.is_empty()).then_some(sum)
}

async fn get(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream
        .write_all(format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())
        .await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

/// The sum of a metric over all its labels.
fn total(text: &str, name: &str) -> Option<f64> {
    let mut sum = None;
    for line in text.lines() {
        let Some(rest) = line.strip_prefix(name) else { continue };
        if !rest.starts_with(['{', ' ']) {
            continue;
        }
        let value: f64 = rest.rsplit(' ').next()?.parse().ok()?;
        sum = Some(sum.unwrap_or(0.0) + value);
    }
    sum
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_metric_is_summed_over_its_labels_alone() {
        let text = "# TYPE a counter\na{x=\"1\"} 2\na{x=\"2 3\"} 3\n\nab 100\nb 7.5\r\n";
        assert_eq!(super::total(text, "a"), Some(5.0));
        assert_eq!(super::total(text, "b"), Some(7.5));
        assert_eq!(super::total(text, "c"), None);
    }
}
