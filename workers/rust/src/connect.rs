//! Connecting to NATS with settings that bring a worker back quickly after the server was away.

use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event};

/// NATS could not be reached.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect to NATS at {url}: {source}")]
pub struct ConnectError {
    /// As it was given, without credentials.
    pub url: String,
    pub source: async_nats::ConnectError,
}

/// Connects with [`connect_options`]. Several servers of a cluster are separated by commas; user and password or a token
/// may stand in the URL.
///
/// # Errors
/// When no server can be reached now; later losses of the connection are survived without end.
pub async fn connect(url: &str) -> Result<Client, ConnectError> {
    let servers: Vec<String> = url.split(',').map(|one| one.trim().to_owned()).collect();
    connect_options().connect(servers).await.map_err(|source| ConnectError {
        url: without_credentials(url),
        source,
    })
}

/// Settings for a worker's connection, to be completed with credentials or TLS: it reconnects for ever, at most 250 ms
/// apart (the library's default is 4 s), and notices a silent server within seconds.
pub fn connect_options() -> ConnectOptions {
    ConnectOptions::new()
        .name("knarr-worker")
        .connection_timeout(Duration::from_secs(3))
        .ping_interval(Duration::from_secs(10))
        .request_timeout(Some(Duration::from_secs(5)))
        .reconnect_delay_callback(|attempt| {
            let doubled = 10_u64 << attempt.min(5);
            Duration::from_millis(doubled.min(250))
        })
        .event_callback(|event| async move {
            match event {
                Event::Connected => tracing::info!("connected to NATS"),
                Event::Draining | Event::Closed => tracing::debug!("NATS connection: {event}"),
                // A missing permission shows up here and nowhere else.
                event => tracing::warn!("NATS connection: {event}"),
            }
        })
}

fn without_credentials(url: &str) -> String {
    url.split(',')
        .map(|one| match (one.find("://"), one.rfind('@')) {
            (Some(scheme), Some(at)) if scheme < at => format!("{}{}", &one[..scheme + 3], &one[at + 1..]),
            (None, Some(at)) => one[at + 1..].to_owned(),
            _ => one.to_owned(),
        })
        .collect::<Vec<_>>()
        .join(",")
}

#[cfg(test)]
mod tests {
    #[test]
    fn credentials_do_not_reach_messages() {
        for (url, shown) in [
            ("nats://127.0.0.1:4222", "nats://127.0.0.1:4222"),
            ("nats://me:secret@host:4222,token@other", "nats://host:4222,other"),
        ] {
            assert_eq!(super::without_credentials(url), shown);
        }
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_an_error_that_names_it() {
        let error = super::connect("nats://127.0.0.1:1").await.unwrap_err();
        assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
    }
}
