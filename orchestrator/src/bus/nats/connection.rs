//! The connection: how it is made, kept and watched.
//!
//! **Invariant:** no reconnect waits longer than [`MAX_RECONNECT_DELAY`], and whoever watches [`Link`] learns of each.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use async_nats::{AuthError, ConnectOptions, Event};
use tokio::sync::watch;

use super::creds_file;
use super::jetstream::{ApiError, JetStream};
use super::stream_settings::StreamSettings;
use crate::address::without_secrets;
use crate::bus::BusError;

const MAX_RECONNECT_DELAY: Duration = Duration::from_millis(250);
/// For requests to the JetStream API.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Messages a subscription holds before the client drops: far above what any pull asks for, and what may wait to be
/// acknowledged. The direct inlet takes what arrives at once, so that this is the burst that may come before its turn.
const SUBSCRIPTION_CAPACITY: usize = 8_192;
/// Of `$JS.API.INFO`: the first that refuses configuration it does not know (nats-server 2.12).
const MIN_API_LEVEL: u64 = 2;

/// How Knarr shows who it is.
#[derive(Clone, Default)]
pub enum Credentials {
    /// Nothing, or what the URL contains.
    #[default]
    None,
    /// A `.creds` file, read for every connection.
    File(PathBuf),
    UserPassword {
        user: String,
        password: String,
    },
    Token(String),
}

// Secrets stay out of logs.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::File(_) => "File(…)",
            Self::UserPassword { .. } => "UserPassword(…)",
            Self::Token(_) => "Token(…)",
        })
    }
}

#[derive(Clone)]
pub struct NatsConfig {
    /// One URL or several, separated by commas.
    pub url: String,
    pub credentials: Credentials,
    /// Shown by the server's monitoring.
    pub name: String,
    pub streams: StreamSettings,
    /// Publications on their way to a stream at any moment, over all callers.
    pub max_in_flight: u32,
    /// When a publication counts as not acknowledged.
    pub ack_timeout: Duration,
    /// How long a partition must be silent before it reports how far it has read.
    pub idle_after: Duration,
}

/// Without the secrets in addresses.
impl std::fmt::Debug for NatsConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NatsConfig")
            .field("url", &without_secrets(&self.url))
            .field("credentials", &self.credentials)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Default for NatsConfig {
    fn default() -> Self {
        Self {
            url: "nats://127.0.0.1:4222".to_owned(),
            credentials: Credentials::None,
            name: "knarr".to_owned(),
            streams: StreamSettings::default(),
            max_in_flight: 4096,
            ack_timeout: Duration::from_secs(2),
            idle_after: Duration::from_secs(10),
        }
    }
}

/// The state of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Link {
    pub(super) up: bool,
    /// Counts connections: what was under way in an earlier one is lost.
    pub(super) epoch: u64,
    /// When it last came up.
    pub(super) since: Option<Instant>,
}

pub(super) async fn connect(config: &NatsConfig) -> Result<(async_nats::Client, watch::Receiver<Link>), BusError> {
    let (sender, mut link) = watch::channel(Link::default());
    // Answers to one replica are not to reach another.
    let instance: [u8; 8] = ring::rand::generate(&ring::rand::SystemRandom::new())
        .map_err(|_| BusError::Unavailable("the system gives no random numbers".to_owned()))?
        .expose();
    let instance = u64::from_be_bytes(instance);
    let options = match &config.credentials {
        Credentials::None => ConnectOptions::new(),
        Credentials::Token(token) => ConnectOptions::with_token(token.clone()),
        Credentials::UserPassword { user, password } => {
            ConnectOptions::with_user_and_password(user.clone(), password.clone())
        }
        Credentials::File(path) => {
            creds_file::answer(path, b"").map_err(|problem| {
                BusError::Misconfigured(format!(
                    "KN0302: the NATS credentials {} {problem}. Name a readable .creds file as `nsc generate creds` \
                     writes it.",
                    path.display()
                ))
            })?;
            let path = path.clone();
            ConnectOptions::with_auth_callback(move |nonce| {
                let auth = creds_file::answer(&path, &nonce).map_err(AuthError::new);
                std::future::ready(auth)
            })
        }
    };
    let options = options
        .name(&config.name)
        .custom_inbox_prefix(format!("_INBOX.knarr.{instance:016x}"))
        .request_timeout(Some(REQUEST_TIMEOUT))
        .connection_timeout(REQUEST_TIMEOUT)
        .ping_interval(Duration::from_secs(10))
        .subscription_capacity(SUBSCRIPTION_CAPACITY)
        .read_buffer_capacity(u16::MAX)
        .reconnect_delay_callback(|attempts| match attempts {
            0 | 1 => Duration::ZERO,
            _ => MAX_RECONNECT_DELAY.min(Duration::from_millis(25 * attempts as u64)),
        })
        .event_callback(move |event| {
            observe(&sender, &event);
            std::future::ready(())
        });
    let servers: Vec<&str> = config
        .url
        .split(',')
        .map(str::trim)
        .filter(|url| !url.is_empty())
        .collect();
    let client = options.connect(servers).await.map_err(|error| match error.kind() {
        async_nats::ConnectErrorKind::Authentication | async_nats::ConnectErrorKind::AuthorizationViolation => {
            BusError::Misconfigured(format!(
                "KN0302: NATS at {} refuses the credentials: {error}. Check user, token or .creds file.",
                without_secrets(&config.url)
            ))
        }
        async_nats::ConnectErrorKind::ServerParse => BusError::Misconfigured(format!(
            "KN0303: `{}` is not a NATS address: {error}. Write nats://host:port, several separated by commas.",
            without_secrets(&config.url)
        )),
        _ => BusError::Unavailable(format!(
            "KN0301: no NATS server answers at {}: {error}. Start nats-server with JetStream (`nats-server -js`) or \
             correct the address.",
            without_secrets(&config.url)
        )),
    })?;
    // The event of the first connection is not a reconnect: let it pass before anybody watches.
    let _ = tokio::time::timeout(REQUEST_TIMEOUT, link.wait_for(|link| link.epoch > 0)).await;
    Ok((client, link))
}

fn observe(link: &watch::Sender<Link>, event: &Event) {
    match event {
        Event::Connected => link.send_modify(|link| {
            link.up = true;
            link.epoch += 1;
            link.since = Some(Instant::now());
        }),
        Event::Disconnected => {
            link.send_modify(|link| link.up = false);
            tracing::warn!("the connection to NATS is lost");
        }
        Event::Closed => {
            link.send_modify(|link| link.up = false);
        }
        Event::SlowConsumer(subscription) => {
            // Only the direct inlet is fed without being asked; its senders repeat after a second.
            metrics::counter!("knarr_bus_dropped_messages_total").increment(1);
            tracing::debug!(subscription, "a subscription's buffer is full, a message was dropped");
        }
        Event::LameDuckMode => tracing::info!("the NATS server is about to shut down"),
        Event::Draining => {}
        Event::ServerError(error) => tracing::warn!(%error, "NATS reports an error"),
        Event::ClientError(error) => tracing::warn!(%error, "the NATS client reports an error"),
    }
}

/// Refuses a server that would ignore what it is asked for.
pub(super) async fn check_server(js: &JetStream) -> Result<(), BusError> {
    let version = js.client().server_info().version;
    let level = match js.account().await {
        Ok(account) => account.api.level,
        Err(ApiError::NoResponders) => {
            return Err(BusError::Misconfigured(format!(
                "KN0304: the NATS server (version {version}) has JetStream switched off. Start it with `-js` or add a \
                 `jetstream {{}}` block to its configuration."
            )));
        }
        Err(
            ApiError::Refused {
                code: 503, description, ..
            }
            | ApiError::Refused {
                err_code: 10_039,
                description,
                ..
            },
        ) => {
            return Err(BusError::Misconfigured(format!(
                "KN0304: JetStream is not enabled for this NATS account: {description}. Enable it for the account."
            )));
        }
        Err(error) => return Err(error.into()),
    };
    if level < MIN_API_LEVEL {
        return Err(BusError::Misconfigured(format!(
            "KN0305: nats-server {version} is too old (JetStream API level {level}); it would silently ignore settings. \
             Run 2.12 or later; 2.15 is recommended."
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let config = NatsConfig {
            url: "nats://u:secret@a:4222".to_owned(),
            credentials: Credentials::Token("secret".to_owned()),
            ..NatsConfig::default()
        };
        let shown = format!("{config:?}");
        assert!(shown.contains("nats://a:4222") && !shown.contains("secret"), "{shown}");
    }
}
